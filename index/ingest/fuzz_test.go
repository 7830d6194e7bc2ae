package ingest

import (
	"bytes"
	"testing"

	"github.com/maestro-conductor/maestro/index"
)

// readHostile checks what holds for every input: each item is either a normalised document
// or a refusal with a reason and message, and lines never go back.
func readHostile(t *testing.T, content []byte, opts Options) {
	line := 1
	err := Read(bytes.NewReader(content), opts, func(item Item) error {
		if item.Line < line {
			t.Fatalf("line %d comes after line %d", item.Line, line)
		}
		line = item.Line
		if item.Err != nil {
			if item.Err.Reason == "" || item.Err.Message == "" {
				t.Fatalf("a refusal without reason or message: %+v", item.Err)
			}
			return nil
		}
		before := index.AppendDocument(nil, &item.Document)
		if err := index.Normalize(&item.Document); err != nil {
			t.Fatalf("%+v is not normalised: %v", item.Document, err)
		}
		if !bytes.Equal(before, index.AppendDocument(nil, &item.Document)) {
			t.Fatalf("%+v changes when normalised again", item.Document)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addScenarios(f *testing.F, names ...string) {
	for _, name := range names {
		f.Add([]byte(readScenario(f, "testdata/"+name+".txt").part("input")))
	}
}

func FuzzReadReceipt(f *testing.F) {
	addScenarios(f, "receipt", "receipt-refused", "framing")
	f.Fuzz(func(t *testing.T, content []byte) {
		readHostile(t, content, Options{Format: FormatReceipt, Tenant: "acme"})
	})
}

func FuzzReadInToto(f *testing.F) {
	addScenarios(f, "intoto-envelopes", "intoto-predicates", "intoto-refused")
	f.Fuzz(func(t *testing.T, content []byte) {
		readHostile(t, content, Options{Format: FormatInToto, Tenant: "acme"})
	})
}

// The payload of an envelope is a second place where foreign bytes come in.
func FuzzReadStatement(f *testing.F) {
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha1":"2b66fd261ee5c6cfc8de7fa466bab600bcfe4f69"}}],"predicate":{"materials":[],"metadata":{"buildFinishedOn":"2026-01-02T03:05:06.789Z"}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		v, fault := parseJSON(content)
		if fault != nil {
			return
		}
		out := &output{line: 1, tenant: "acme", emit: func(item Item) error {
			if (item.Err == nil) == (item.Document.Tenant == "") {
				t.Fatalf("neither document nor refusal: %+v", item)
			}
			return nil
		}}
		convertStatement(out, "", v)
	})
}
