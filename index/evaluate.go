package index

import (
	"cmp"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// posting is the documents of one term. Its length costs nothing, so that a plan can start
// with the shortest.
type posting interface {
	Len() int
	Bitmap() (*roaring.Bitmap, error)
}

// leaves is what a head or a segment knows; documents are its local numbers. A bitmap that
// comes from it must not be changed. within, when not nil, restricts the answer.
type leaves interface {
	size() int
	// disjoint tells, without a read, that no document has a time in [from, to).
	disjoint(from, to int64) bool
	lookup(t term) (posting, error)
	timeRange(from, to int64, within *roaring.Bitmap) (*roaring.Bitmap, error)
	costRange(least, most int64, within *roaring.Bitmap) (*roaring.Bitmap, error)
}

// evaluator computes a plan over one head or segment. Bitmaps are never changed in place:
// they may belong to the index.
type evaluator struct {
	leaves
	// prefixes are the values that each planPrefix has here.
	prefixes map[*plan][]string
}

func interval(lo, hi uint32) *roaring.Bitmap {
	bm := roaring.New()
	bm.AddRange(uint64(lo), uint64(hi))
	return bm
}

func (e *evaluator) all() *roaring.Bitmap { return interval(0, uint32(e.size())) }

// eval returns the documents that match p.
func (e *evaluator) eval(p *plan) (*roaring.Bitmap, error) {
	switch p.op {
	case planAll:
		return e.all(), nil
	case planTerm:
		found, err := e.lookup(p.term)
		if err != nil {
			return nil, err
		}
		return found.Bitmap()
	case planPrefix:
		return e.prefix(p)
	case planTime, planCost:
		return e.ranged(p, nil)
	case planAnd:
		return e.and(p.kids)
	case planOr, planLinks:
		return e.or(p.kids)
	case planNot:
		bm, err := e.eval(p.kids[0])
		if err != nil {
			return nil, err
		}
		return roaring.AndNot(e.all(), bm), nil
	}
	return roaring.New(), nil
}

func (e *evaluator) ranged(p *plan, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	if p.op == planTime {
		return e.timeRange(p.min, p.max, within)
	}
	return e.costRange(p.min, p.max, within)
}

// and intersects: links first, which few documents have, then terms, the rarest one leading,
// then groups, then ranges over what is left, then what is excluded. It stops as soon as
// nothing is left; a missing term reads nothing else.
func (e *evaluator) and(kids []*plan) (*roaring.Bitmap, error) {
	var terms []posting
	var links, groups, ranges, not []*plan
	if slices.ContainsFunc(kids, func(k *plan) bool { return k.op == planTime && e.disjoint(k.min, k.max) }) {
		return roaring.New(), nil
	}
	for _, k := range kids {
		switch k.op {
		case planTerm:
			found, err := e.lookup(k.term)
			if err != nil {
				return nil, err
			}
			if found.Len() == 0 {
				return roaring.New(), nil
			}
			terms = append(terms, found)
		case planTime, planCost:
			ranges = append(ranges, k)
		case planNot:
			not = append(not, k.kids[0])
		case planLinks:
			links = append(links, k)
		default:
			groups = append(groups, k)
		}
	}
	slices.SortFunc(terms, func(a, b posting) int { return cmp.Compare(a.Len(), b.Len()) })
	c := conjunction{}
	for _, k := range links {
		if c.join(e.eval(k)); c.done() {
			return c.result()
		}
	}
	for _, t := range terms {
		if c.join(t.Bitmap()); c.done() {
			return c.result()
		}
	}
	for _, k := range groups {
		if c.join(e.eval(k)); c.done() {
			return c.result()
		}
	}
	for _, k := range ranges {
		if c.replace(e.ranged(k, c.bm)); c.done() {
			return c.result()
		}
	}
	if c.bm == nil {
		c.bm = e.all()
	}
	for _, k := range not {
		bm, err := e.eval(k)
		if err != nil {
			return nil, err
		}
		c.bm = roaring.AndNot(c.bm, bm)
	}
	return c.result()
}

// conjunction is the intersection so far; bm is nil before the first operand.
type conjunction struct {
	bm  *roaring.Bitmap
	err error
}

func (c *conjunction) join(bm *roaring.Bitmap, err error) {
	if c.err = err; err == nil && c.bm != nil {
		bm = roaring.And(c.bm, bm)
	}
	c.bm = bm
}

func (c *conjunction) replace(bm *roaring.Bitmap, err error) { c.bm, c.err = bm, err }

func (c *conjunction) done() bool { return c.err != nil || c.bm.IsEmpty() }

func (c *conjunction) result() (*roaring.Bitmap, error) { return c.bm, c.err }

func (e *evaluator) or(kids []*plan) (*roaring.Bitmap, error) {
	var all []*roaring.Bitmap
	for _, k := range kids {
		bm, err := e.eval(k)
		if err != nil {
			return nil, err
		}
		if !bm.IsEmpty() {
			all = append(all, bm)
		}
	}
	return union(all), nil
}

func (e *evaluator) prefix(p *plan) (*roaring.Bitmap, error) {
	var all []*roaring.Bitmap
	for _, v := range e.prefixes[p] {
		found, err := e.lookup(newTerm(p.term.group, v))
		if err != nil {
			return nil, err
		}
		bm, err := found.Bitmap()
		if err != nil {
			return nil, err
		}
		all = append(all, bm)
	}
	return union(all), nil
}

func union(all []*roaring.Bitmap) *roaring.Bitmap {
	switch len(all) {
	case 0:
		return roaring.New()
	case 1:
		return all[0]
	}
	return roaring.FastOr(all...)
}

// headLeaves reads a head, whose lock the caller holds.
type headLeaves struct{ h *head }

func (l headLeaves) size() int { return len(l.h.docs) }

func (l headLeaves) disjoint(from, to int64) bool {
	return l.h.newest < from || l.h.oldest >= to && to != openEnd
}

func (l headLeaves) lookup(t term) (posting, error) {
	g := l.h.groups[t.group]
	if g == nil {
		return headPosting{}, nil
	}
	n, ok := g.find([]byte(t.value))
	if !ok {
		return headPosting{}, nil
	}
	return headPosting{l.h, l.h.postings[n]}, nil
}

func (l headLeaves) timeRange(from, to int64, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	inside := func(t int64) bool { return t >= from && (t < to || to == openEnd) }
	if inside(l.h.oldest) && inside(l.h.newest) {
		if within == nil {
			return interval(0, uint32(len(l.h.docs))), nil
		}
		return within, nil
	}
	if l.disjoint(from, to) {
		return roaring.New(), nil
	}
	if within != nil {
		return l.filter(within, func(d *segment.Document) bool { return inside(d.Time) }), nil
	}
	last := to
	if to != openEnd {
		last--
	}
	kept := newNumberSet(len(l.h.times))
	for i := range kept.words {
		for k, t := range l.h.times[64*i : min(64*i+64, len(l.h.times))] {
			if t >= from && t <= last {
				kept.words[i] |= 1 << k
			}
		}
	}
	return kept.bitmap(), nil
}

func (l headLeaves) costRange(least, most int64, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	return l.filter(within, func(d *segment.Document) bool { return d.HasCost && d.Cost >= least && d.Cost <= most }), nil
}

// filter keeps the documents that pass.
func (l headLeaves) filter(within *roaring.Bitmap, pass func(*segment.Document) bool) *roaring.Bitmap {
	kept := newNumberSet(len(l.h.docs))
	if within == nil {
		for i := range l.h.docs {
			if pass(&l.h.docs[i]) {
				kept.add(uint32(i))
			}
		}
		return kept.bitmap()
	}
	for it := within.Iterator(); it.HasNext(); {
		if n := it.Next(); pass(&l.h.docs[n]) {
			kept.add(n)
		}
	}
	return kept.bitmap()
}

// segmentLeaves reads a segment.
type segmentLeaves struct{ s *segment.Segment }

func (l segmentLeaves) size() int { return l.s.Len() }

func (l segmentLeaves) disjoint(from, to int64) bool {
	return l.s.Newest() < from || l.s.Oldest() >= to && to != openEnd
}

func (l segmentLeaves) lookup(t term) (posting, error) { return l.s.Lookup(t.key) }

func (l segmentLeaves) timeRange(from, to int64, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	lo, hi, err := l.s.Interval(from, to)
	switch {
	case err != nil:
		return nil, err
	case within == nil:
		return interval(lo, hi), nil
	case lo == 0 && int(hi) == l.s.Len():
		return within, nil
	}
	return roaring.And(within, interval(lo, hi)), nil
}

func (l segmentLeaves) costRange(least, most int64, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	return l.s.CostRange(least, most, within)
}

// numberSet collects local numbers as bits, which is faster than adding to a bitmap.
type numberSet struct{ words []uint64 }

func newNumberSet(size int) numberSet { return numberSet{make([]uint64, (size+63)/64)} }

func (s numberSet) add(n uint32) { s.words[n/64] |= 1 << (n % 64) }

func (s numberSet) bitmap() *roaring.Bitmap { return roaring.FromDense(s.words, false) }
