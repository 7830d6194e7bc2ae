package segment

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// What is left of segments is to the byte the segment of the documents that are left, under their numbers,
// and so it is when some of that is left out later.
func TestMergeIsBuildOfWhatIsKept(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt, 2, 400)
		salt := rapid.IntRange(0, 1000).Draw(rt, "salt")
		every := rapid.IntRange(2, 5).Draw(rt, "keep one of")
		kept := func(n uint32) bool { return n == 1 || (int(n)*2654435761+salt)>>7%every == 0 }
		cut := rapid.IntRange(1, len(c.docs)-1).Draw(rt, "cut")
		first, second := c.part(rt, 0, cut), c.part(rt, cut, len(c.docs))
		parts := []*Segment{open(rt, build(rt, first)), open(rt, build(rt, second))}
		keep := func(part int, local uint32) bool {
			_, arrival, err := parts[part].NewReader().Place(local)
			if err != nil {
				rt.Fatal(err)
			}
			return kept(arrival + uint32(parts[part].Base()-c.base))
		}
		var got bytes.Buffer
		if err := Merge(&got, c.version, c.base, parts, keep, nil); err != nil {
			rt.Fatal(err)
		}
		want, numbers := corpus{base: c.base}, []uint32(nil)
		for n := range c.docs {
			if kept(uint32(n)) {
				want.docs, numbers = append(want.docs, c.docs[n]), append(numbers, uint32(n))
			}
		}
		in := want.input()
		in.Numbers = numbers
		var built bytes.Buffer
		if err := Build(&built, c.version, in); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), built.Bytes()) {
			rt.Fatal("the bytes differ")
		}
		s := open(rt, got.Bytes())
		checkTerms(rt, s, want, want.order())
		for local, place := range want.order() {
			if _, arrival, err := s.NewReader().Place(uint32(local)); err != nil || arrival != numbers[place] {
				rt.Fatalf("document %d has number %d, %v; want %d", local, arrival, err, numbers[place])
			}
		}
		var again bytes.Buffer
		if err := Merge(&again, c.version, c.base, []*Segment{s}, nil, nil); err != nil || !bytes.Equal(again.Bytes(), got.Bytes()) {
			rt.Fatalf("rewritten whole: %v", err)
		}
	})
}

func TestRewriteRefusesNothing(t *testing.T) {
	s := open(t, build(t, example(20)))
	if err := Merge(&bytes.Buffer{}, Version, s.Base(), []*Segment{s}, func(int, uint32) bool { return false }, nil); err == nil {
		t.Error("a segment without documents was written")
	}
	if err := Merge(&bytes.Buffer{}, Version, s.Base()+1, []*Segment{s}, nil, nil); err == nil {
		t.Error("a part before the beginning was taken")
	}
}

// part is some of a corpus, as a segment of any version.
func (c corpus) part(rt *rapid.T, from, to int) corpus {
	return corpus{
		base: c.base + uint64(from), docs: c.docs[from:to],
		version: rapid.SampledFrom([]byte{VersionTables, Version}).Draw(rt, "version of a part"),
	}
}

// cut splits a corpus into segments.
func cut(rt *rapid.T, c corpus) (parts []corpus) {
	for from := 0; from < len(c.docs); {
		n := rapid.IntRange(1, len(c.docs)-from).Draw(rt, "part")
		parts = append(parts, c.part(rt, from, from+n))
		from += n
	}
	return parts
}

// What is merged is to the byte what is built of all documents at once.
func TestMergeIsBuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt, 1, rapid.SampledFrom([]int{20, 150, 300, 2100}).Draw(rt, "most"))
		var parts []*Segment
		for _, part := range cut(rt, c) {
			parts = append(parts, open(rt, build(rt, part)))
		}
		var merged bytes.Buffer
		if err := Merge(&merged, c.version, c.base, parts, nil, nil); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(merged.Bytes(), build(rt, c)) {
			check(rt, open(rt, merged.Bytes()), c)
			rt.Fatalf("%d parts: other bytes", len(parts))
		}
	})
}

func TestMergeRefusesOverlapsAndStops(t *testing.T) {
	c := example(500)
	a := open(t, build(t, c))
	if err := Merge(&bytes.Buffer{}, Version, c.base, []*Segment{a, a}, nil, nil); err == nil {
		t.Error("a segment followed itself")
	}
	stop := errors.New("stop")
	if err := Merge(&bytes.Buffer{}, Version, c.base, []*Segment{a}, nil, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a merge that should stop: %v", err)
	}
}
