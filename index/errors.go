package index

// Reasons why a document is refused. They are part of the API: clients compare them, so a
// reason never changes its spelling or its meaning.
const (
	// ReasonKindUnknown: the kind is not receipt, event or decision.
	ReasonKindUnknown = "kind_unknown"
	// ReasonTenantMalformed: the tenant is missing or not [a-z0-9._-]{1,63}.
	ReasonTenantMalformed = "tenant_malformed"
	// ReasonTextMalformed: a text is not valid UTF-8 or contains a NUL byte.
	ReasonTextMalformed = "text_malformed"
	// ReasonFieldTooLong: a text is longer than its field allows.
	ReasonFieldTooLong = "field_too_long"
	// ReasonDocumentTooLarge: the whole document is larger than MaxDocumentBytes.
	ReasonDocumentTooLarge = "document_too_large"
	// ReasonTimeOutOfRange: the time is before 1970 or after 2261.
	ReasonTimeOutOfRange = "time_out_of_range"
	// ReasonDigestMalformed: a digest cannot be read, or has the wrong length.
	ReasonDigestMalformed = "digest_malformed"
	// ReasonDigestsTooMany: there are more than MaxDigests digests.
	ReasonDigestsTooMany = "digests_too_many"
	// ReasonDirectionUnknown: a digest's direction is not input, output or subject.
	ReasonDirectionUnknown = "direction_unknown"
	// ReasonAttributeMalformed: an attribute has no name.
	ReasonAttributeMalformed = "attribute_malformed"
	// ReasonAttributeDuplicate: two attributes have the same name.
	ReasonAttributeDuplicate = "attribute_duplicate"
	// ReasonAttributesTooMany: there are more than MaxAttributes attributes.
	ReasonAttributesTooMany = "attributes_too_many"
	// ReasonCostMalformed: the cost has no currency, or the currency is not three
	// upper-case letters.
	ReasonCostMalformed = "cost_malformed"
	// ReasonDocumentCorrupt: stored bytes are not a document in a known version.
	ReasonDocumentCorrupt = "document_corrupt"
)

// DocumentError says why a document cannot be taken.
type DocumentError struct {
	// Reason is one of the Reason constants.
	Reason string
	// Field is where it is wrong, such as "digests[2].direction"; empty when it concerns
	// the whole document.
	Field string
	// Message says what is wrong and how to mend it.
	Message string
}

// Error names the field and what is wrong with it.
func (e *DocumentError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}
