package index

import (
	"container/heap"
	"context"

	"github.com/RoaringBitmap/roaring/v2"
)

// lookupTerms are, for each digest of a lookup, the terms of all its readings and directions.
type lookupTerms [][]term

func newLookupTerms(lookup [][]string) lookupTerms {
	all := make(lookupTerms, len(lookup))
	for i, readings := range lookup {
		for _, value := range readings {
			for _, g := range digestGroups {
				all[i] = append(all[i], newTerm(g, value))
			}
		}
	}
	return all
}

// sourceFound is what one source has of one digest.
type sourceFound struct {
	digest int
	count  uint64
	locals []uint32 // the newest, in order
}

// lookupIn visits the digests that documents of the plan have, and these documents.
func lookupIn(e *evaluator, p *plan, terms lookupTerms, visit func(digest int, bm *roaring.Bitmap) error) error {
	var matches *roaring.Bitmap // of the plan, once a digest is there
	for n, any := range terms {
		bm, err := e.anyOf(any)
		if err != nil {
			return err
		}
		if bm.IsEmpty() {
			continue
		}
		if p.op != planAll {
			if matches == nil {
				if matches, err = e.eval(p); err != nil {
					return err
				}
			}
			bm = roaring.And(bm, matches)
		}
		if bm.IsEmpty() {
			continue
		}
		if err := visit(n, bm); err != nil {
			return err
		}
	}
	return nil
}

// anyOf is the documents that have any of the terms.
func (e *evaluator) anyOf(terms []term) (*roaring.Bitmap, error) {
	var all []*roaring.Bitmap
	for _, t := range terms {
		found, err := e.leaves.lookup(t)
		if err != nil {
			return nil, err
		}
		if found.Len() == 0 {
			continue
		}
		bm, err := found.Bitmap()
		if err != nil {
			return nil, err
		}
		all = append(all, bm)
	}
	return union(all), nil
}

func (s headSource) lookup(p *plan, prefixes map[*plan][]string, terms lookupTerms, w window) (all []sourceFound, r hitReader, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	docs := s.docs
	e := evaluator{leaves: headLeaves{s.head}, prefixes: prefixes}
	err = lookupIn(&e, p, terms, func(n int, bm *roaring.Bitmap) error {
		bm = s.inWindow(bm, &w)
		if count := bm.GetCardinality(); count > 0 {
			all = append(all, sourceFound{digest: n, count: count, locals: topOf(docs, s.newestBy, bm, w)})
		}
		return nil
	})
	return all, &headReader{docs: docs, rows: s.rows}, err
}

func (s segmentSource) lookup(p *plan, prefixes map[*plan][]string, terms lookupTerms, w window) (all []sourceFound, r hitReader, err error) {
	lo, hi := w.within(s.Base(), s.width)
	e := evaluator{leaves: segmentLeaves{s.Segment}, prefixes: prefixes}
	err = lookupIn(&e, p, terms, func(n int, bm *roaring.Bitmap) error {
		if lo > 0 || hi < s.width {
			var err error
			if bm, err = s.Arrived(uint32(lo), uint32(hi), bm); err != nil {
				return err
			}
		}
		if count := bm.GetCardinality(); count > 0 {
			locals := make([]uint32, min(uint64(w.limit), count))
			all = append(all, sourceFound{digest: n, count: count, locals: locals[:bm.ManyIterator().NextMany(locals)]})
		}
		return nil
	})
	return all, &segmentReader{sealed: s.sealed, rows: rowReader{Reader: s.NewReader()}}, s.note(err)
}

// lookup answers for all digests of the query.
func (s *shardSearch) lookup(ctx context.Context) (shardAnswer, error) {
	if bad, err := s.expand(ctx); err != nil || bad != nil {
		return shardAnswer{mistake: bad}, err
	}
	answer := shardAnswer{bound: s.window.bound, lookup: make([]lookupFound, len(s.query.lookup))}
	terms := newLookupTerms(s.query.lookup)
	runs := make([][]*run, len(terms)) // by digest
	w := s.window
	w.limit = s.query.perDigest
	for i, src := range s.sources {
		if err := ctx.Err(); err != nil {
			return answer, err
		}
		if src.base() >= w.bound {
			continue
		}
		found, reader, err := src.lookup(s.plan, s.prefixes[i], terms, w)
		if err != nil {
			return answer, err
		}
		for _, f := range found {
			answer.lookup[f.digest].count += f.count
			runs[f.digest] = append(runs[f.digest], &run{next: eachOf(f.locals), hitReader: reader})
		}
	}
	size := 0
	for n := range runs {
		if err := s.newest(&answer.lookup[n], runs[n], &size); err != nil {
			return answer, err
		}
	}
	return answer, nil
}

// newest reads the newest documents of the runs, as long as size is within its bound.
func (s *shardSearch) newest(found *lookupFound, runs []*run, size *int) error {
	s.merged = mergeHeap{}
	for _, r := range runs {
		h := &hit{run: r}
		if ok, err := h.step(OrderNewest); err != nil {
			return err
		} else if ok {
			heap.Push(&s.merged, h)
		}
	}
	for len(found.rows) < s.query.perDigest && len(s.merged.hits) > 0 && s.merged.err == nil {
		h := s.merged.hits[0]
		row, err := h.run.row(h.local)
		if err != nil {
			return err
		}
		if *size+len(row) > answerBytesMax {
			return nil
		}
		*size += len(row)
		found.rows = append(found.rows, row)
		if err := s.advance(h); err != nil {
			return err
		}
	}
	return s.merged.err
}

// eachOf goes through documents.
func eachOf(locals []uint32) func() (uint32, bool) {
	i := -1
	return func() (uint32, bool) {
		if i++; i >= len(locals) {
			return 0, false
		}
		return locals[i], true
	}
}
