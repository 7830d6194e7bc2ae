package index

import (
	"container/heap"
	"errors"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/index/query"
)

// position is a document's place in the order of answers.
type position struct {
	time       int64
	id, tenant string
	cost       int64 // with OrderCost; noCost without one
}

// positionOf is where a document stands in an order.
func positionOf(d *Document, o Order) *position {
	p := &position{time: d.Time, id: d.ID, tenant: d.Tenant}
	if o == OrderCost {
		p.cost = o.key(sortKey(d))
	}
	return p
}

func (p *position) document() *segment.Document {
	return &segment.Document{Time: p.time, ID: p.id, Tenant: p.tenant, Cost: p.cost, HasCost: p.cost != noCost}
}

// source is a head or a segment as a search sees it.
type source interface {
	base() uint64
	// times bounds the times of the documents.
	times() (newest, oldest int64)
	// dearest is what no document's cost is above; noCost when none has one.
	dearest() int64
	// expand visits the values of a group that begin with the term's value and stand in a
	// document of the tenant; of any, when it is empty. What others have must neither show nor
	// count.
	expand(t term, tenant string, visit func(value string) bool) error
	// search evaluates p over the documents of the window and returns them all, and those after
	// the position in order; at most limit of them need to be there. What it returns stays as it is.
	search(p *plan, prefixes map[*plan][]string, w window) (documents *roaring.Bitmap, r *run, err error)
	// lookup is what the source has of each digest, among the documents of p and the window.
	lookup(p *plan, prefixes map[*plan][]string, terms lookupTerms, w window) (all []sourceFound, r hitReader, err error)
	// countTexts and countReasons count, by value, those of the documents that have one.
	countTexts(field query.Field, documents *roaring.Bitmap, add func(value string, n uint64)) error
	countReasons(documents *roaring.Bitmap, add func(value string, n uint64)) error
	// span is the newest and oldest time of the documents; newest is less when there are none.
	span(documents *roaring.Bitmap) (newest, oldest int64, err error)
	// countTimes counts the documents by the multiple of interval that their times follow.
	countTimes(interval int64, documents *roaring.Bitmap, add func(start int64, n uint64)) error
	// aggregates keeps facets; nil of a source that changes.
	aggregates() *aggregateCache
}

// window is which part of the matches is wanted.
type window struct {
	bound uint64    // documents with this number or above do not exist for the search
	since uint64    // nor do those below this number
	after *position // nil is from the beginning
	limit int
	order Order
}

// within is the part of a source's documents that the window has, by their order of arrival.
func (w *window) within(base, span uint64) (lo, hi uint64) {
	end := base + span
	return min(max(w.since, base), end) - base, min(max(w.bound, base), end) - base
}

// run is the matches of one source in the order of answers.
type run struct {
	next func() (local uint32, ok bool)
	hitReader
}

// hitReader reads the documents of one source.
type hitReader interface {
	// place reads a document's time and cost.
	place(local uint32) (segment.Document, error)
	// identify reads what tells documents of one instant apart.
	identify(local uint32) (id, tenant string, err error)
	// row reads a document as it was stored; it must not be changed.
	row(local uint32) ([]byte, error)
}

// headSource is a head.
type headSource struct{ *head }

func (s headSource) base() uint64 { return s.head.base }

func (s headSource) times() (newest, oldest int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.newest, s.oldest
}

func (s headSource) expand(t term, tenant string, visit func(value string) bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := headLeaves{s.head}
	own, err := ownedBy(l, tenant)
	g := s.groups[t.group]
	if err != nil || g == nil {
		return err
	}
	g.prefixed(t.value, func(v string) bool {
		p, lookupErr := l.lookup(newTerm(t.group, v))
		ok, hasErr := own.has(p)
		err = errors.Join(lookupErr, hasErr)
		return err == nil && (!ok || visit(v))
	})
	return err
}

// owned tells which terms stand in a document of one tenant.
type owned struct {
	any       bool
	documents *roaring.Bitmap
}

func ownedBy(l leaves, tenant string) (owned, error) {
	if tenant == "" {
		return owned{any: true}, nil
	}
	p, err := l.lookup(newTerm(groupTenant, tenant))
	if err != nil {
		return owned{}, err
	}
	documents, err := p.Bitmap()
	return owned{documents: documents}, err
}

func (o owned) has(p posting) (bool, error) {
	if o.any || o.documents.IsEmpty() {
		return o.any, nil
	}
	bm, err := p.Bitmap()
	if err != nil {
		return false, err
	}
	return o.documents.Intersects(bm), nil
}

func (s headSource) search(p *plan, prefixes map[*plan][]string, w window) (*roaring.Bitmap, *run, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := evaluator{leaves: headLeaves{s.head}, prefixes: prefixes}
	bm, err := e.eval(p)
	if err != nil {
		return nil, nil, err
	}
	docs := s.docs
	bm = s.inWindow(bm, &w)
	return bm, &run{next: eachOf(topOf(docs, s.newestBy, bm, w)), hitReader: &headReader{docs: docs, rows: s.rows}}, nil
}

// headReader reads those of a head as it was at some time.
type headReader struct {
	docs []segment.Document
	rows rowArena
}

func (h *headReader) place(local uint32) (segment.Document, error) { return h.docs[local], nil }

func (h *headReader) identify(local uint32) (id, tenant string, err error) {
	return h.docs[local].ID, h.docs[local].Tenant, nil
}

func (h *headReader) row(local uint32) ([]byte, error) { return h.rows.row(local), nil }

// topOf returns the first w.limit documents of bm after w.after. Documents mostly arrive in
// the order of their times, so it looks at the youngest first, soon has the best, and stops where newestBy
// (see head) says that nothing before is as new.
func topOf(docs []segment.Document, newestBy []int64, bm *roaring.Bitmap, w window) []uint32 {
	t := worstFirst{docs: docs, order: w.order}
	if w.limit == 0 {
		return nil
	}
	var after *segment.Document
	if w.after != nil {
		after = w.after.document()
	}
	it := roaring.IntIterable(bm.ReverseIterator())
	if w.order == OrderOldest {
		it = bm.Iterator()
	}
	for it.HasNext() {
		n := it.Next()
		d := &docs[n]
		full := len(t.locals) == w.limit
		if block := int(n / headStride); full && w.order == OrderNewest && block < len(newestBy) && newestBy[block] < docs[t.locals[0]].Time {
			break
		}
		if full && w.order.key(d) < w.order.key(&docs[t.locals[0]]) {
			continue
		}
		if after != nil && w.order.compare(d, after) <= 0 {
			continue
		}
		if !full {
			heap.Push(&t, n)
		} else if w.order.compare(d, &docs[t.locals[0]]) < 0 {
			t.locals[0] = n
			heap.Fix(&t, 0)
		}
	}
	sort.Slice(t.locals, func(i, j int) bool { return w.order.compare(&docs[t.locals[i]], &docs[t.locals[j]]) < 0 })
	return t.locals
}

// worstFirst is a heap with the document on top that comes last in the order.
type worstFirst struct {
	docs   []segment.Document
	locals []uint32
	order  Order
}

func (t *worstFirst) Len() int { return len(t.locals) }
func (t *worstFirst) Less(i, j int) bool {
	return t.order.compare(&t.docs[t.locals[i]], &t.docs[t.locals[j]]) > 0
}
func (t *worstFirst) Swap(i, j int) { t.locals[i], t.locals[j] = t.locals[j], t.locals[i] }
func (t *worstFirst) Push(x any)    { t.locals = append(t.locals, x.(uint32)) }
func (t *worstFirst) Pop() any {
	last := len(t.locals) - 1
	x := t.locals[last]
	t.locals = t.locals[:last]
	return x
}

// segmentSource is a segment.
type segmentSource struct{ *sealed }

func (s segmentSource) base() uint64 { return s.Base() }

func (s segmentSource) times() (newest, oldest int64) { return s.Newest(), s.Oldest() }

func (s segmentSource) expand(t term, tenant string, visit func(value string) bool) error {
	own, err := ownedBy(segmentLeaves{s.Segment}, tenant)
	if err != nil || !own.any && own.documents.IsEmpty() {
		return s.note(err)
	}
	prefixErr := s.Prefix(t.key, func(found string, p segment.Posting) bool {
		var ok bool
		ok, err = own.has(p)
		return err == nil && (!ok || visit(found[len(t.group):]))
	})
	return s.note(errors.Join(prefixErr, err))
}

func (s segmentSource) search(p *plan, prefixes map[*plan][]string, w window) (*roaring.Bitmap, *run, error) {
	documents, r, err := s.evaluate(p, prefixes, w)
	return documents, r, s.note(err)
}

func (s segmentSource) evaluate(p *plan, prefixes map[*plan][]string, w window) (*roaring.Bitmap, *run, error) {
	e := evaluator{leaves: segmentLeaves{s.Segment}, prefixes: prefixes}
	bm, err := e.eval(p)
	if err != nil {
		return nil, nil, err
	}
	if lo, hi := w.within(s.Base(), s.width); (lo > 0 || hi < s.width) && !bm.IsEmpty() {
		if bm, err = s.Arrived(uint32(lo), uint32(hi), bm); err != nil {
			return nil, nil, err
		}
	}
	next, err := s.ordered(bm, w)
	return bm, &run{next: next, hitReader: &segmentReader{sealed: s.sealed, rows: rowReader{Reader: s.NewReader()}}}, err
}

// firstFrom is the first local number of a document that is not before p by time and id, or,
// with least 1, that is behind it. Documents of the same instant are in the order of their
// ids, which have to be read.
func (s segmentSource) firstFrom(p *position, least int) (uint32, error) {
	lo, hi, err := s.Interval(p.time, p.time+1)
	if err != nil {
		return 0, err
	}
	reader := s.NewReader()
	n := sort.Search(int(hi-lo), func(i int) bool {
		if err != nil {
			return true
		}
		d := segment.Document{Time: p.time}
		d.ID, d.Tenant, err = identifyIn(reader, lo+uint32(i))
		return err == nil && segment.Compare(&d, p.document()) >= least
	})
	return lo + uint32(n), err
}

// segmentReader reads those of a segment, for one search.
type segmentReader struct {
	*sealed
	rows rowReader
}

func (s *segmentReader) place(local uint32) (d segment.Document, err error) {
	if d.Time, _, err = s.rows.Place(local); err == nil {
		d.Cost, d.HasCost, err = s.rows.Cost(local)
	}
	return d, s.note(err)
}

func (s *segmentReader) row(local uint32) ([]byte, error) {
	row, err := s.rows.read(local)
	return row, s.note(err)
}

func (s *segmentReader) identify(local uint32) (id, tenant string, err error) {
	id, tenant, err = identifyIn(s.rows.Reader, local)
	return id, tenant, s.note(err)
}

// identifyIn reads what tells documents of one instant apart.
func identifyIn(r *segment.Reader, local uint32) (id, tenant string, err error) {
	if id, err = r.Text(local, 0); err == nil {
		tenant, err = r.Text(local, 1)
	}
	return id, tenant, err
}
