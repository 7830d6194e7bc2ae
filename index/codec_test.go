package index

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// goldenDocuments are encoded in testdata/documents.txt, one line of hex each.
func goldenDocuments() []Document {
	stamped := receipt()
	stamped.TimeStamped = true
	odd := Document{
		Kind: "invented", ID: "0A", Tenant: "acme", CostMicros: -1,
		Digests: []Digest{{"xxh3", "00112233aabbccdd", "sideways", "n"}, {"sha256", "not hex", DirectionOutput, ""}},
	}
	return []Document{receipt(), stamped, {}, {Kind: KindEvent, Tenant: "acme", ID: helloHex}, odd}
}

// Old data stays readable: these bytes were written by the first release. Never change a
// line; a new codec version adds its own file.
func TestCodecGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/documents.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(data))
	docs := goldenDocuments()
	if len(lines) != len(docs) {
		t.Fatalf("%d lines for %d documents", len(lines), len(docs))
	}
	for i, d := range docs {
		want, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendDocument(nil, &d); !bytes.Equal(got, want) {
			t.Errorf("document %d is written as\n%x, want\n%x", i, got, want)
		}
		if got, err := DecodeDocument(want); err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("document %d is read as\n%+v, %v, want\n%+v", i, got, err, d)
		}
	}
}

// The hash decides what "the same document" means for stored data: it must never change.
func TestContentHashGolden(t *testing.T) {
	d := receipt()
	hash := ContentHash(&d)
	const want = "11f9463156fc6adcd5bc1a61b9a4f74cbe7e37719e5f60ec9da8e3ed6ab4171b"
	if got := hex.EncodeToString(hash[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestContentHashCoversEveryFieldButTheID(t *testing.T) {
	base := receipt()
	for i := range reflect.TypeFor[Document]().NumField() {
		name := reflect.TypeFor[Document]().Field(i).Name
		changed := clone(base)
		switch field := reflect.ValueOf(&changed).Elem().Field(i); field.Kind() {
		case reflect.String:
			field.SetString("other")
		case reflect.Int64:
			field.SetInt(7)
		case reflect.Uint32:
			field.SetUint(7)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Slice:
			field.Set(field.Slice(0, 1))
		default:
			t.Fatalf("%s has a kind this test does not know", name)
		}
		if same := ContentHash(&changed) == ContentHash(&base); same != (name == "ID") {
			t.Errorf("%s: same hash is %v", name, same)
		}
	}
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := documents(t)
		if len(d.Digests) == 0 {
			d.Digests = nil // absent and empty are the same
		}
		got, err := DecodeDocument(AppendDocument(nil, &d))
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("read back %+v, %v\nwritten   %+v", got, err, d)
		}
	})
}

func TestDecodeDocumentRefusesEveryCut(t *testing.T) {
	d := receipt()
	whole := AppendDocument(nil, &d)
	for n := range whole {
		_, err := DecodeDocument(whole[:n])
		var refused *DocumentError
		if !errors.As(err, &refused) || refused.Reason != ReasonDocumentCorrupt {
			t.Errorf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	if _, err := DecodeDocument(append(whole, 0)); err == nil {
		t.Error("a byte too many is taken")
	}
	if _, err := DecodeDocument(append([]byte{codecVersion + 1}, whole[1:]...)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("an unknown version: %v", err)
	}
}

// What is decoded is encoded to the same bytes: there is one encoding of a document.
func FuzzDecodeDocument(f *testing.F) {
	for _, d := range goldenDocuments() {
		f.Add(AppendDocument(nil, &d))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDocument(b)
		if err != nil {
			return
		}
		if again := AppendDocument(nil, &d); !bytes.Equal(again, b) {
			t.Fatalf("%x is read as %+v and written as %x", b, d, again)
		}
		_ = Normalize(&d)
	})
}

func BenchmarkNormalizeAndEncode(b *testing.B) {
	source := receipt()
	source.ID = ""
	var out []byte
	for b.Loop() {
		d := clone(source)
		if err := Normalize(&d); err != nil {
			b.Fatal(err)
		}
		out = AppendDocument(out[:0], &d)
	}
	b.ReportMetric(float64(len(out)), "B/doc")
}
