package segment

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// corpus is documents and their terms before they are a segment.
type corpus struct {
	docs  []Document
	terms map[string][]uint16
}

func genCorpus(rt *rapid.T) corpus {
	c := corpus{terms: map[string][]uint16{}}
	for n := range rapid.IntRange(1, 3000).Draw(rt, "documents") {
		d := Document{Time: int64(n*7919%501 - n), ID: fmt.Sprint(n * 31 % 1009), Tenant: fmt.Sprint(n), Cost: int64(n % 97), HasCost: n%3 > 0}
		c.docs = append(c.docs, d)
		add := func(term string) { c.terms[term] = append(c.terms[term], uint16(n)) }
		add("i" + d.ID)
		add("all")
		add(fmt.Sprint("seventh ", n%7))
		add(fmt.Sprint("fortieth ", n/40))
		if n*2654435761%1000 < 700 {
			add("most")
		}
	}
	return c
}

func (c corpus) sorted() []string {
	var terms []string
	for t := range c.terms {
		terms = append(terms, t)
	}
	slices.Sort(terms)
	return terms
}

func (c corpus) input() Input {
	var terms iter.Seq2[[]byte, []uint16] = func(yield func([]byte, []uint16) bool) {
		for _, t := range c.sorted() {
			if !yield([]byte(t), c.terms[t]) {
				return
			}
		}
	}
	return Input{Base: 1000, Documents: c.docs, Terms: terms, TermCount: len(c.terms)}
}

func build(t interface{ Fatal(...any) }, c corpus) map[string][]byte {
	parts, err := Build(c.input())
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string][]byte{}
	for _, p := range parts {
		stored[string(p.Name)] = p.Value
	}
	return stored
}

var errMissing = errors.New("no such part")

func reader(stored map[string][]byte) Reader {
	return func(name []byte) ([]byte, error) {
		if b, ok := stored[string(name)]; ok {
			return b, nil
		}
		return nil, errMissing
	}
}

// A segment answers as the documents it was built of.
func TestSegmentHoldsWhatItWasBuiltOf(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt)
		s, err := Open(reader(build(rt, c)), NewCache(64<<10))
		if err != nil {
			rt.Fatal(err)
		}
		order := slices.Clone(c.docs)
		slices.SortFunc(order, func(a, b Document) int { return Compare(&a, &b) })
		for local, d := range order {
			if got := c.docs[s.Arrival(uint32(local))]; got != d || s.Time(uint32(local)) != d.Time {
				rt.Fatalf("local %d is %v, want %v", local, got, d)
			}
		}
		for _, term := range c.sorted() {
			p, err := s.Lookup(term)
			if err != nil || p.Len() != len(c.terms[term]) {
				rt.Fatalf("%s: %d documents, %v; want %d", term, p.Len(), err, len(c.terms[term]))
			}
			bm, err := p.Bitmap()
			if err != nil {
				rt.Fatal(err)
			}
			var got []uint16
			for _, local := range bm.ToArray() {
				got = append(got, uint16(s.Arrival(local)))
			}
			slices.Sort(got)
			if !slices.Equal(got, c.terms[term]) {
				rt.Fatalf("%s: %v, want %v", term, got, c.terms[term])
			}
		}
		for _, absent := range []string{"", "a", "all ", "zzz", "seventh 7"} {
			if p, err := s.Lookup(absent); p.Len() != 0 || err != nil {
				rt.Fatalf("%q: %d documents, %v", absent, p.Len(), err)
			}
		}
		for _, prefix := range []string{"", "i", "i1", "seventh", "fortieth 1", "most", "x"} {
			var got []string
			if err := s.Prefix(prefix, func(term string, _ Posting) bool { got = append(got, term); return true }); err != nil {
				rt.Fatal(err)
			}
			want := slices.DeleteFunc(c.sorted(), func(t string) bool { return !strings.HasPrefix(t, prefix) })
			if !slices.Equal(got, want) {
				rt.Fatalf("prefix %q: %v, want %v", prefix, got, want)
			}
		}
		from, to := rapid.Int64Range(-3000, 600).Draw(rt, "from"), rapid.Int64Range(-3000, 600).Draw(rt, "to")
		lo, hi := s.Interval(from, to)
		for local, d := range order {
			if inside := d.Time >= from && d.Time < to; inside != (local >= int(lo) && local < int(hi)) {
				rt.Fatalf("[%d, %d) is [%d, %d): time %d of %d", from, to, lo, hi, d.Time, local)
			}
		}
		if lo, hi := s.Interval(math.MinInt64, math.MaxInt64); lo != 0 || int(hi) != s.Len() {
			rt.Fatalf("all time is [%d, %d)", lo, hi)
		}
		costs := map[uint32]int64{}
		if err := s.Costs(func(local uint32, micros int64) { costs[local] = micros }); err != nil {
			rt.Fatal(err)
		}
		for local, d := range order {
			if got, ok := costs[uint32(local)]; ok != d.HasCost || ok && got != d.Cost {
				rt.Fatalf("cost of %d is %d %v, want %v", local, got, ok, d)
			}
		}
	})
}

// The same documents make the same bytes, and other documents another digest.
func TestBuildIsDeterministic(t *testing.T) {
	c := rapid.Custom(genCorpus).Example(3)
	a, b := build(t, c), build(t, c)
	if !reflect.DeepEqual(a, b) {
		t.Fatal("two builds differ")
	}
	c.docs[0].Time++
	if other := build(t, c); string(other["m"]) == string(a["m"]) {
		t.Fatal("other documents have the same digest")
	}
}

func TestBuildRefusesWhatItCannotHold(t *testing.T) {
	none := func(func([]byte, []uint16) bool) {}
	disorder := func(yield func([]byte, []uint16) bool) {
		_ = yield([]byte("b"), []uint16{0}) && yield([]byte("a"), []uint16{0})
	}
	for name, in := range map[string]Input{
		"no documents":       {Terms: none},
		"too many documents": {Documents: make([]Document, DocumentsMax+1), Terms: none},
		"terms out of order": {Documents: make([]Document, 1), Terms: disorder},
	} {
		if _, err := Build(in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpenTellsVersionFromDamage(t *testing.T) {
	stored := build(t, rapid.Custom(genCorpus).Example(1))
	stored["m"][0] = Version + 1
	if _, err := Open(reader(stored), NewCache(1)); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	stored["m"][0] = Version
	delete(stored, "t")
	if _, err := Open(reader(stored), NewCache(1)); !errors.Is(err, errMissing) {
		t.Errorf("missing column: %v", err)
	}
	stored["t"] = []byte{1}
	if _, err := Open(reader(stored), NewCache(1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("short column: %v", err)
	}
}

// Damage is an error or a wrong answer, never a panic.
func FuzzDamagedSegment(f *testing.F) {
	f.Add(uint16(3), uint32(10), byte(1), "all")
	f.Add(uint16(5), uint32(8000), byte(0xFF), "most")
	c := rapid.Custom(genCorpus).Example(7)
	f.Fuzz(func(t *testing.T, part uint16, at uint32, flip byte, term string) {
		stored := build(t, c)
		var names []string
		for n := range stored {
			names = append(names, n)
		}
		slices.Sort(names)
		b := stored[names[int(part)%len(names)]]
		b[int(at)%len(b)] ^= flip
		s, err := Open(reader(stored), NewCache(1<<20))
		if err != nil {
			return
		}
		for _, term := range []string{term, "all", "most", "seventh 3"} {
			if p, err := s.Lookup(term); err == nil {
				_, _ = p.Bitmap()
			}
		}
		_ = s.Prefix(term, func(_ string, p Posting) bool { _, _ = p.Bitmap(); return true })
		_ = s.Costs(func(uint32, int64) {})
	})
}
