package ingest

import (
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/index"
)

// Reasons why a record is refused, beside those of package index. They are part of the API
// and keep their spelling and meaning.
const (
	// ReasonRecordMalformed: the record is not JSON.
	ReasonRecordMalformed = "record_malformed"
	// ReasonRecordTooLarge: the record is larger than MaxRecordBytes.
	ReasonRecordTooLarge = "record_too_large"
	// ReasonFormatUnknown: no format fits the record's fields.
	ReasonFormatUnknown = "format_unknown"
	// ReasonFieldUnknown: a receipt has a field that documents do not have.
	ReasonFieldUnknown = "field_unknown"
	// ReasonFieldMalformed: a field has the wrong JSON type or cannot be read.
	ReasonFieldMalformed = "field_malformed"
	// ReasonTimeMalformed: a time is not in the expected layout.
	ReasonTimeMalformed = "time_malformed"
	// ReasonEnvelopeMalformed: an envelope or bundle holds no readable statement.
	ReasonEnvelopeMalformed = "envelope_malformed"
	// ReasonStatementMalformed: a statement lacks the shape of an in-toto statement.
	ReasonStatementMalformed = "statement_malformed"
	// ReasonCloudEventMalformed: a CloudEvent lacks a required attribute, or has one of the wrong type.
	ReasonCloudEventMalformed = "cloudevent_malformed"
)

func refusal(reason, field, format string, args ...any) *index.DocumentError {
	return &index.DocumentError{Reason: reason, Field: field, Message: fmt.Sprintf(format, args...)}
}

// asRefusal returns the *index.DocumentError that every error of package index is.
func asRefusal(err error) *index.DocumentError {
	var refused *index.DocumentError
	if errors.As(err, &refused) {
		return refused
	}
	return refusal(ReasonRecordMalformed, "", "%v", err)
}

// shorten cuts a value shown in a message, so that hostile input cannot flood a log.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
