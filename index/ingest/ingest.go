// Package ingest turns foreign bytes into documents of the index: the JSON form of our own
// documents, in-toto statements (bare, in DSSE envelopes, in sigstore bundles, in the lists
// that npm and GitHub answer with), CloudEvents, and any JSON with a mapping file.
//
// It reads a stream of records. A record is one JSON value; records follow each other with
// or without line breaks between them, so JSON lines, pretty-printed JSON and a single array
// are all streams. A record can hold several documents. What cannot be read is handed on as
// an Item with its position and reason, and reading goes on with the next record.
//
// The package verifies no signatures: the index records what was claimed.
package ingest

import (
	"fmt"
	"io"

	"github.com/maestro-conductor/maestro/index"
)

// Formats of records.
const (
	// FormatAuto recognises receipts, CloudEvents and everything of FormatInToto by their fields.
	FormatAuto = "auto"
	// FormatReceipt is the JSON form of mc.provenance.v1.Document.
	FormatReceipt = "receipt"
	// FormatInToto is an in-toto statement, bare or in an envelope.
	FormatInToto = "intoto"
	// FormatCloudEvents is a CloudEvent in the JSON format, or an array of them.
	FormatCloudEvents = "cloudevents"
	// FormatJSON is any JSON, read with a Mapping.
	FormatJSON = "json"
)

// MaxRecordBytes bounds one record.
const MaxRecordBytes = 16 << 20

// Options say how to read.
type Options struct {
	// Format is one of the Format constants; empty means FormatAuto.
	Format string
	// Tenant owns the documents that name no tenant.
	Tenant string
	// Mapping is needed for FormatJSON and refused for the others.
	Mapping *Mapping
}

// Item is one document that was read, or one that could not be.
type Item struct {
	// Document is normalised (see index.Normalize) when Err is nil. Its ID may be known
	// even when Err is not nil.
	Document index.Document
	// Line is where the record begins, counted from 1.
	Line int
	// Entry is where in the record the document is, such as "Records[17]"; empty when it is
	// the whole record.
	Entry string
	// Err is why the document is refused.
	Err *index.DocumentError
}

// Position says where the item was, for messages: "line 3" or "line 1, Records[17]".
func (i Item) Position() string {
	if i.Entry == "" {
		return fmt.Sprintf("line %d", i.Line)
	}
	return fmt.Sprintf("line %d, %s", i.Line, i.Entry)
}

// Read reads every record of r and hands each document, good or refused, to emit in order.
// An empty stream has no documents. The error is one of r, of emit (which ends the reading),
// or of opts (then nothing was read); what is wrong with the content is in the items.
func Read(r io.Reader, opts Options, emit func(Item) error) error {
	convert, err := converter(opts)
	if err != nil {
		return err
	}
	records := newFramer(r, MaxRecordBytes)
	for {
		record, err := records.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ingest: read: %w", err)
		}
		out := &output{line: record.line, tenant: opts.Tenant, emit: emit}
		if record.fault != nil {
			out.refuse("", "", record.fault)
		} else if v, fault := parseJSON(record.content); fault != nil {
			out.refuse("", "", fault)
		} else {
			convert(out, "", v)
		}
		if out.err != nil {
			return out.err
		}
	}
}

// convertFunc reads the documents of one JSON value, found at entry of its record.
type convertFunc func(out *output, entry string, v *value)

func converter(opts Options) (convertFunc, error) {
	if opts.Format != FormatJSON && opts.Mapping != nil {
		return nil, fmt.Errorf("ingest: a mapping applies to format %q only, not to %q", FormatJSON, opts.Format)
	}
	switch opts.Format {
	case "", FormatAuto:
		return each(convertAuto), nil
	case FormatReceipt:
		return each(convertReceipt), nil
	case FormatInToto:
		return each(convertInToto), nil
	case FormatCloudEvents:
		return each(convertCloudEvent), nil
	case FormatJSON:
		if opts.Mapping == nil {
			return nil, fmt.Errorf("ingest: format %q needs a mapping file that says which field is what", FormatJSON)
		}
		return opts.Mapping.convert, nil
	}
	return nil, fmt.Errorf("ingest: unknown format %q; use %s, %s, %s, %s or %s", opts.Format, FormatAuto, FormatReceipt, FormatInToto, FormatCloudEvents, FormatJSON)
}

// each applies convert to a value, or to the elements of an array.
func each(convert convertFunc) convertFunc {
	return func(out *output, entry string, v *value) {
		if v.kind != kindArray {
			convert(out, entry, v)
			return
		}
		for i := range v.list {
			convert(out, fmt.Sprintf("%s[%d]", entry, i), &v.list[i])
		}
	}
}

// convertAuto decides by the fields that only one format has.
func convertAuto(out *output, entry string, v *value) {
	switch {
	case looksInToto(v):
		convertInToto(out, entry, v)
	case looksCloudEvent(v):
		convertCloudEvent(out, entry, v)
	case v.get("kind") != nil:
		convertReceipt(out, entry, v)
	default:
		out.refuse(entry, "", refusal(ReasonFormatUnknown, "",
			"this is neither a receipt nor an in-toto statement nor a CloudEvent; name the format with --format, or map JSON with --format json --map FILE"))
	}
}

// output completes, normalises and hands on the documents of one record. After an error of
// emit it does nothing more.
type output struct {
	line   int
	tenant string
	emit   func(Item) error
	err    error
}

func (o *output) document(entry string, d index.Document) {
	if d.Tenant == "" {
		d.Tenant = o.tenant
	}
	item := Item{Document: d, Line: o.line, Entry: entry}
	if err := index.Normalize(&item.Document); err != nil {
		item.Document = index.Document{ID: d.ID}
		item.Err = asRefusal(err)
	}
	o.hand(item)
}

func (o *output) refuse(entry, id string, fault *index.DocumentError) {
	o.hand(Item{Document: index.Document{ID: id}, Line: o.line, Entry: entry, Err: fault})
}

func (o *output) hand(item Item) {
	if o.err == nil {
		o.err = o.emit(item)
	}
}
