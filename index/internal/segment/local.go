package segment

import (
	"cmp"
	"slices"
)

// Span is a part of a segment's bytes, from From on and before To.
type Span struct{ From, To int64 }

// Rereader is a reader that may give other bytes the next time, since it has them from elsewhere.
type Rereader interface {
	// Reread forgets n bytes that were wrong. It is false when reading them again is no use.
	Reread(at int64, n int) bool
}

// Needed are the parts that Open reads, and Lookup of all terms of some groups with their documents, in order. Who has
// these alone at hand can open the segment and look up these terms.
func (s *Segment) Needed(groups string) ([]Span, error) {
	end := int64(headerBytes)
	spans := []Span{{0, end}}
	add := func(kind byte, n uint32) {
		e := s.file.blocks[kind][n]
		spans = append(spans, Span{e.offset, e.offset + int64(e.length)})
	}
	for _, blocks := range s.file.blocks { // any order: it is a maximum
		for _, e := range blocks {
			end = max(end, e.offset+int64(e.length))
		}
	}
	spans = append(spans, Span{end, s.file.size})
	for _, kind := range []byte{blockFilter, blockIndex, blockZones, blockSlots} {
		for n := range s.file.blocks[kind] {
			add(kind, uint32(n))
		}
	}
	for n, first := range s.first {
		if slices.Contains([]byte(groups), first[0]) {
			add(blockTerms, uint32(n))
		}
	}
	// Texts that stand apart are found by their documents.
	if slices.ContainsFunc(s.apart, func(a *apart) bool { return slices.Contains([]byte(groups), a.name) }) {
		for _, kind := range []byte{blockValues, blockOrdinals} {
			for n := range s.file.blocks[kind] {
				add(kind, uint32(n))
			}
		}
	}
	far := map[uint32]bool{}
	for _, g := range []byte(groups) {
		err := s.Prefix(string(rune(g)), func(_ string, p Posting) bool {
			if p.kind == postingFar && !far[p.block] {
				far[p.block] = true
				add(blockPostings, p.block)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	return spans, nil
}

// ScrubWithin is Scrub of those blocks that are wholly within the spans, which are in order.
func (s *Segment) ScrubWithin(spans []Span, step func(bytes int) error) error {
	return s.scrub(func(e *blockEntry) bool {
		return slices.ContainsFunc(spans, func(p Span) bool { return p.From <= e.offset && e.offset+int64(e.length) <= p.To })
	}, step)
}

// scrub reads blocks and compares their checksums.
func (s *Segment) scrub(which func(*blockEntry) bool, step func(bytes int) error) error {
	again, err := openFile(s.file.r, s.file.size) // header, directory and footer
	if err == nil && again.meta != s.file.meta {
		err = damaged("it is another one than was opened")
	}
	if err != nil {
		return err
	}
	for _, kind := range []byte(blockKinds) {
		for n, e := range s.file.blocks[kind] {
			if !which(e) {
				continue
			}
			b, err := s.file.read(kind, uint32(n))
			if err == nil {
				err = step(len(b))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
