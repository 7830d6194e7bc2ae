package index

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a document.
const (
	// MaxDocumentBytes bounds the encoded document.
	MaxDocumentBytes = 256 << 10
	// MaxIDBytes bounds ID.
	MaxIDBytes = 256
	// MaxTextBytes bounds the other text fields and the names of digests.
	MaxTextBytes = 1024
	// MaxReasonBytes bounds Reason.
	MaxReasonBytes = 4096
	// MaxTenantBytes bounds Tenant.
	MaxTenantBytes = 63
	// MaxDigests bounds Digests.
	MaxDigests = 4096
	// MaxAttributes bounds Attributes.
	MaxAttributes = 256
	// MaxAttributeNameBytes bounds an attribute's name.
	MaxAttributeNameBytes = 128
	// MaxAttributeValueBytes bounds an attribute's value.
	MaxAttributeValueBytes = 8 << 10
)

// maxTime is the last nanosecond of 2261, the last whole year an int64 can hold.
var maxTime = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano() - 1

// Normalize checks d and brings it into the canonical form that is stored and compared:
// digests in lower-case hex without repeats, attributes sorted by name, and an empty ID
// replaced by the content's hash (64 hex characters, see ContentHash). Digests keep the
// producer's order. A digest with an empty Algorithm has its whole spelling in Value.
//
// The error is a *DocumentError; d may then be partly in canonical form. A normalised
// document stays as it is when normalised again.
func Normalize(d *Document) error {
	if err := checkEnvelope(d); err != nil {
		return err
	}
	if err := normalizeDigests(d); err != nil {
		return err
	}
	if err := normalizeAttributes(d); err != nil {
		return err
	}
	if d.ID == "" {
		hash := ContentHash(d)
		d.ID = hex.EncodeToString(hash[:])
	}
	return checkSize(d)
}

// ValidTenant reports whether s can name a tenant: [a-z0-9._-]{1,63}.
func ValidTenant(s string) bool {
	if s == "" || len(s) > MaxTenantBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func checkEnvelope(d *Document) error {
	switch d.Kind {
	case KindReceipt, KindEvent, KindDecision:
	default:
		return refuse(ReasonKindUnknown, "kind", "%s is not a kind of document; use receipt, event or decision", quote(d.Kind))
	}
	if !ValidTenant(d.Tenant) {
		return refuse(ReasonTenantMalformed, "tenant", "%s cannot name a tenant; use 1 to %d of a-z, 0-9, '.', '_' and '-'", quote(d.Tenant), MaxTenantBytes)
	}
	for _, f := range []struct {
		name, text string
		most       int
	}{
		{"id", d.ID, MaxIDBytes},
		{"region", d.Region, MaxTextBytes},
		{"execution", d.Execution, MaxTextBytes},
		{"task", d.Task, MaxTextBytes},
		{"pack", d.Pack, MaxTextBytes},
		{"rule", d.Rule, MaxTextBytes},
		{"decision", d.Decision, MaxTextBytes},
		{"reason", d.Reason, MaxReasonBytes},
		{"runner", d.Runner, MaxTextBytes},
	} {
		if reason, message := textFault(f.text, f.most); reason != "" {
			return refuse(reason, f.name, "%s", message)
		}
	}
	if d.Time < 0 || d.Time > maxTime {
		return refuse(ReasonTimeOutOfRange, "time", "%d nanoseconds since 1970 is not between the years 1970 and 2261", d.Time)
	}
	return checkCost(d)
}

func checkCost(d *Document) error {
	if d.Currency == "" {
		if d.CostMicros != 0 {
			return refuse(ReasonCostMalformed, "cost.currency", "a cost needs a currency, such as USD")
		}
		return nil
	}
	ok := len(d.Currency) == 3
	for i := range len(d.Currency) {
		ok = ok && d.Currency[i] >= 'A' && d.Currency[i] <= 'Z'
	}
	if !ok {
		return refuse(ReasonCostMalformed, "cost.currency", "%s is not an ISO 4217 code of three upper-case letters, such as USD", quote(d.Currency))
	}
	return nil
}

// fewDigests are compared with each other sooner than put into a map.
const fewDigests = 8

func normalizeDigests(d *Document) error {
	if len(d.Digests) > MaxDigests {
		return refuse(ReasonDigestsTooMany, "digests", "%d digests are more than the %d a document may have", len(d.Digests), MaxDigests)
	}
	var seen map[Digest]struct{}
	if len(d.Digests) > fewDigests {
		seen = make(map[Digest]struct{}, len(d.Digests))
	}
	kept := d.Digests[:0]
	for i, digest := range d.Digests {
		if err := normalizeDigest(&digest); err != nil {
			err.Field = fmt.Sprintf("digests[%d]%s", i, err.Field)
			return err
		}
		if seen == nil && slices.Contains(kept, digest) {
			continue
		}
		if seen != nil {
			if _, repeated := seen[digest]; repeated {
				continue
			}
			seen[digest] = struct{}{}
		}
		kept = append(kept, digest)
	}
	d.Digests = kept
	return nil
}

// normalizeDigest leaves in the error's field only what follows "digests[i]".
func normalizeDigest(g *Digest) *DocumentError {
	var err error
	if g.Algorithm == "" {
		g.Algorithm, g.Value, err = ParseDigest(g.Value)
	} else {
		g.Algorithm, g.Value, err = parseDigestValue(g.Algorithm, g.Value)
	}
	if err != nil {
		return refuse(ReasonDigestMalformed, "", "%v", err)
	}
	switch g.Direction {
	case DirectionInput, DirectionOutput, DirectionSubject:
	default:
		return refuse(ReasonDirectionUnknown, ".direction", "%s is not a direction; use input, output or subject", quote(g.Direction))
	}
	if reason, message := textFault(g.Name, MaxTextBytes); reason != "" {
		return refuse(reason, ".name", "%s", message)
	}
	return nil
}

func normalizeAttributes(d *Document) error {
	if len(d.Attributes) > MaxAttributes {
		return refuse(ReasonAttributesTooMany, "attributes", "%d attributes are more than the %d a document may have", len(d.Attributes), MaxAttributes)
	}
	for _, a := range d.Attributes {
		if a.Name == "" {
			return refuse(ReasonAttributeMalformed, "attributes", "an attribute needs a name")
		}
		if reason, message := textFault(a.Name, MaxAttributeNameBytes); reason != "" {
			return refuse(reason, "attributes", "the name %s: %s", quote(a.Name), message)
		}
		if reason, message := textFault(a.Value, MaxAttributeValueBytes); reason != "" {
			return refuse(reason, "attributes["+a.Name+"]", "%s", message)
		}
	}
	slices.SortStableFunc(d.Attributes, func(a, b Attribute) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(d.Attributes); i++ {
		if d.Attributes[i].Name == d.Attributes[i-1].Name {
			return refuse(ReasonAttributeDuplicate, "attributes["+d.Attributes[i].Name+"]", "the name is there twice; give each attribute its own")
		}
	}
	return nil
}

// checkSize encodes only a document that could be over the limit: most are far below.
func checkSize(d *Document) error {
	const fixed, perText = 64, 8
	bound := fixed + len(d.ID) + len(d.Tenant) + len(d.Region) + len(d.Execution) + len(d.Task) + len(d.Pack) +
		len(d.Rule) + len(d.Decision) + len(d.Reason) + len(d.Runner) + 10*perText
	for _, g := range d.Digests {
		bound += len(g.Algorithm) + len(g.Value) + len(g.Name) + 4*perText
	}
	for _, a := range d.Attributes {
		bound += len(a.Name) + len(a.Value) + 2*perText
	}
	if bound <= MaxDocumentBytes {
		return nil
	}
	if size := len(AppendDocument(nil, d)); size > MaxDocumentBytes {
		return refuse(ReasonDocumentTooLarge, "", "the document has %d bytes, more than the %d allowed; store the content elsewhere and keep its digest", size, MaxDocumentBytes)
	}
	return nil
}

// textFault returns the reason and message of what is wrong with a text, or nothing.
func textFault(s string, most int) (reason, message string) {
	switch {
	case len(s) > most:
		return ReasonFieldTooLong, fmt.Sprintf("%d bytes are more than the %d allowed", len(s), most)
	case !utf8.ValidString(s):
		return ReasonTextMalformed, "the text is not valid UTF-8"
	case strings.IndexByte(s, 0) >= 0:
		return ReasonTextMalformed, "the text contains a NUL byte; remove it"
	}
	return "", ""
}

func refuse(reason, field, format string, args ...any) *DocumentError {
	return &DocumentError{Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}
}
