package index

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// oddDocuments draws documents as a peer may propose them: most of them normalised, some with
// values too long for a term, some that no Normalize made.
func oddDocuments(rt *rapid.T) Document {
	d := documents(rt)
	if rapid.Bool().Draw(rt, "normalised") && Normalize(&d) != nil || d.ID == "" {
		d.ID = rapid.StringN(1, 9, 20).Draw(rt, "another id")
	}
	long := strings.Repeat("long", rapid.IntRange(60, 70).Draw(rt, "length"))
	switch rapid.IntRange(0, 9).Draw(rt, "oddity") {
	case 0:
		d.Task, d.Kind = long, "k"+long
	case 1:
		d.Attributes = append(d.Attributes, Attribute{"zzz", long})
	case 2:
		d.Digests = append(d.Digests, Digest{"x", long, DirectionInput, ""}, Digest{"", "", "elsewhere", ""})
	case 3:
		d.Attributes = append(d.Attributes, Attribute{"b", "2"}, Attribute{"a", "1"}, Attribute{"a", ""})
	case 4:
		d.Currency, d.CostMicros = "", -1<<63
	case 5:
		d.Currency, d.CostMicros = "EUR", -1<<63
	}
	return d
}

// Documents of segments, of one head and merged, are to the byte what was stored.
func TestSealedRowsAreTheStoredOnes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := fsmtest.New(t, testMachine(8))
		for n := range 4 {
			var docs []Document
			for range rapid.IntRange(8, 20).Draw(rt, "documents") {
				docs = append(docs, oddDocuments(rt))
			}
			d.Apply(command(docs...))
			if n%2 == 1 {
				d.Machine().(*Machine).settle(t)
			}
		}
		m := d.Machine().(*Machine)
		m.settle(t)
		checked := 0
		for _, s := range m.segments {
			r := rowReader{Reader: s.NewReader()}
			for local := range uint32(s.Len()) {
				_, arrival, err := r.Place(local)
				if err != nil {
					rt.Fatal(err)
				}
				want, err := m.store.Get(documentKey(s.Base() + uint64(arrival)))
				if err != nil {
					rt.Fatal(err)
				}
				if got, err := r.read(local); err != nil || !bytes.Equal(got, want) {
					was, _ := DecodeDocument(want)
					is, _ := DecodeDocument(got)
					rt.Fatalf("document %d of the segment at %d, %v:\n got %+v\nwant %+v", local, s.Base(), err, is, was)
				}
				checked++
			}
		}
		if checked == 0 {
			rt.Fatal("nothing was sealed")
		}
	})
}
