package index

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// input is what a segment is built of; the head is frozen.
func (h *head) input() segment.Input {
	t := headTerms{head: h, digest: make([]uint32, len(h.postings))}
	return segment.Input{
		Base:      h.base,
		Documents: h.docs,
		Numbers:   h.numbers,
		Terms:     t.all(),
		Digests: func(arrival uint32, b []uint32) []uint32 {
			for _, posting := range elementsOf(h.digests, h.digestEnds, arrival) {
				b = append(b, t.digest[posting])
			}
			return b
		},
		Rest: func(arrival uint32) []byte { return elementsOf(h.rests, h.restEnds, arrival) },
	}
}

// elementsOf is the elements of one document.
func elementsOf[T any](all []T, ends []uint32, document uint32) []T {
	from := uint32(0)
	if document > 0 {
		from = ends[document-1]
	}
	return all[from:ends[document]]
}

// headTerms yields the terms of a head in order.
type headTerms struct {
	*head
	// digest is, by posting, the number of a digest among all of them times four, and its direction.
	digest   []uint32
	postings segment.Postings
	term     []byte
	wide     []uint32
}

func (t *headTerms) all() iter.Seq2[[]byte, *segment.Postings] {
	return func(yield func([]byte, *segment.Postings) bool) {
		t.wide = make([]uint32, 1024)
		groups := make([]*termGroup, 0, len(t.groups))
		var digestGroups [segment.Directions]*termGroup
		var digests [segment.Directions][]headTerm
		for _, g := range t.groups { // any order: they are sorted below
			if direction := strings.Index(digestNames, g.name); direction >= 0 {
				digestGroups[direction], digests[direction] = g, g.sorted()
			} else {
				groups = append(groups, g)
			}
		}
		if !t.yieldDigests(digestGroups, digests, yield) {
			return
		}
		slices.SortFunc(groups, func(a, b *termGroup) int { return cmp.Compare(a.name, b.name) })
		for _, g := range groups {
			for _, v := range g.sorted() {
				t.term = append(append(t.term[:0], g.name...), g.value(&v)...)
				t.postings[0] = t.read(t.postings[0][:0], v.posting)
				if !yield(t.term, &t.postings) {
					return
				}
			}
			t.postings[0] = t.postings[0][:0]
		}
	}
}

// digestNames are the groups of digests by direction; a segment has them as one.
const digestNames = groupInput + groupOutput + groupSubject

// yieldDigests merges the digests of all directions.
func (t *headTerms) yieldDigests(groups [segment.Directions]*termGroup, rest [segment.Directions][]headTerm, yield func([]byte, *segment.Postings) bool) bool {
	// The value that each direction is at, nil at its end.
	var at [segment.Directions][]byte
	next := func(direction int) {
		at[direction] = nil
		if len(rest[direction]) > 0 {
			at[direction] = groups[direction].value(&rest[direction][0])
		}
	}
	for direction := range at {
		next(direction)
	}
	for n := uint32(0); ; n++ {
		var value []byte
		for _, v := range at {
			if v != nil && (value == nil || bytes.Compare(v, value) < 0) {
				value = v
			}
		}
		if value == nil {
			break
		}
		for direction := range at {
			t.postings[direction] = t.postings[direction][:0]
			if at[direction] != nil && bytes.Equal(at[direction], value) {
				posting := rest[direction][0].posting
				t.postings[direction] = t.read(t.postings[direction], posting)
				t.digest[posting] = n<<2 | uint32(direction)
				rest[direction] = rest[direction][1:]
				next(direction)
			}
		}
		t.term = append(append(t.term[:0], segment.DigestGroup), value...)
		if !yield(t.term, &t.postings) {
			return false
		}
	}
	for direction := range t.postings {
		t.postings[direction] = t.postings[direction][:0]
	}
	return true
}

// read appends the documents of a posting.
func (t *headTerms) read(b []uint32, posting uint32) []uint32 {
	p := t.head.postings[posting]
	switch count, ref := p>>32, uint32(p); {
	case count == 1:
		return append(b, ref)
	case count <= listMax:
		for _, n := range t.lists.of(ref, int(count)) {
			b = append(b, uint32(n))
		}
		return b
	default:
		for it := t.bitmaps[ref].ManyIterator(); ; {
			n := it.NextMany(t.wide)
			if n == 0 {
				return b
			}
			b = append(b, t.wide[:n]...)
		}
	}
}
