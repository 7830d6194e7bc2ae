package index

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// Order is in which order a search answers. All orders are total.
type Order uint8

const (
	// OrderNewest is by time, the newest first, then by id, then by tenant.
	OrderNewest Order = iota
	// OrderOldest is OrderNewest backwards.
	OrderOldest
	// OrderCost is by amount, the dearest first, whatever the currency, then as OrderNewest.
	// Documents without a cost come last.
	OrderCost
)

// OrderNames are the names of orders, by Order.
var OrderNames = []string{"newest", "oldest", "cost"}

// noCost is the key of a document without a cost; see costMin.
const noCost = math.MinInt64

// key is what documents are in order by, descending. Documents with equal keys are told apart
// by compare.
func (o Order) key(d *segment.Document) int64 {
	switch o {
	case OrderOldest:
		return ^d.Time
	case OrderCost:
		if !d.HasCost {
			return noCost
		}
		return d.Cost
	}
	return d.Time
}

// compare is negative when a comes before b.
func (o Order) compare(a, b *segment.Document) int {
	switch o {
	case OrderOldest:
		return segment.Compare(b, a)
	case OrderCost:
		if c := cmp.Compare(o.key(b), o.key(a)); c != 0 {
			return c
		}
	}
	return segment.Compare(a, b)
}

// bounds are the greatest and least keys that documents of a source can have.
func (o Order) bounds(src source) (most, least int64) {
	newest, oldest := src.times()
	switch o {
	case OrderOldest:
		return ^oldest, ^newest
	case OrderCost:
		return src.dearest(), noCost
	}
	return newest, oldest
}

// dearest of a head is not known.
func (s headSource) dearest() int64 { return math.MaxInt64 }

func (s segmentSource) dearest() int64 {
	if most, any := s.MostCost(); any {
		return most
	}
	return noCost
}

// ordered goes through documents of a segment in an order, behind the window's position.
func (s segmentSource) ordered(documents *roaring.Bitmap, w window) (next func() (uint32, bool), err error) {
	if documents.IsEmpty() {
		return eachOf(nil), nil
	}
	if w.order == OrderCost {
		locals, err := s.dearestOf(documents, w)
		return eachOf(locals), err
	}
	if w.order == OrderOldest {
		if w.after != nil {
			// What comes before the position among local numbers is behind it in this order.
			end, err := s.firstFrom(w.after, 0)
			if err != nil {
				return nil, err
			}
			documents = roaring.And(documents, interval(0, end))
		}
		return pull(documents.ReverseIterator()), nil
	}
	it := documents.Iterator()
	if w.after != nil {
		first, err := s.firstFrom(w.after, 1)
		if err != nil {
			return nil, err
		}
		it.AdvanceIfNeeded(first)
	}
	return pull(it), nil
}

func pull(it roaring.IntIterable) func() (uint32, bool) {
	return func() (uint32, bool) {
		if !it.HasNext() {
			return 0, false
		}
		return it.Next(), true
	}
}

// dearestOf are the first documents of a segment by cost. Blocks are read in the order of
// their greatest cost, and no more of them than can have one of these documents.
func (s segmentSource) dearestOf(documents *roaring.Bitmap, w window) ([]uint32, error) {
	c := costPick{limit: w.limit}
	from, most := uint32(0), int64(math.MaxInt64)
	if w.after != nil {
		var err error
		if from, err = s.firstFrom(w.after, 1); err != nil {
			return nil, err
		}
		most = w.after.cost
	}
	take := func(local uint32, cost int64) {
		if cost < most || cost == most && local >= from {
			c.add(costed{cost, local})
		}
	}
	if most > noCost {
		if err := s.CostsDescending(documents, most, c.canImprove, take); err != nil {
			return nil, err
		}
	}
	if !c.full() {
		err := s.Uncosted(documents, func(local uint32) bool {
			take(local, noCost)
			return !c.full()
		})
		if err != nil {
			return nil, err
		}
	}
	return c.locals(), nil
}

// costed is a document of a segment and its cost.
type costed struct {
	cost  int64
	local uint32
}

func (a costed) compare(b costed) int {
	return cmp.Or(cmp.Compare(b.cost, a.cost), cmp.Compare(a.local, b.local))
}

// costPick keeps the first documents in the order of cost, the last of them on top.
type costPick struct {
	limit int
	best  []costed
}

func (c *costPick) full() bool { return len(c.best) >= c.limit }

// canImprove tells whether documents from local on, with at most this cost, can be among the best.
func (c *costPick) canImprove(cost int64, local uint32) bool {
	return !c.full() || costed{cost, local}.compare(c.best[0]) < 0
}

func (c *costPick) add(d costed) {
	switch {
	case !c.full():
		heap.Push(c, d)
	case c.limit > 0 && d.compare(c.best[0]) < 0:
		c.best[0] = d
		heap.Fix(c, 0)
	}
}

func (c *costPick) locals() []uint32 {
	slices.SortFunc(c.best, costed.compare)
	out := make([]uint32, len(c.best))
	for i, d := range c.best {
		out[i] = d.local
	}
	return out
}

func (c *costPick) Len() int           { return len(c.best) }
func (c *costPick) Less(i, j int) bool { return c.best[i].compare(c.best[j]) > 0 }
func (c *costPick) Swap(i, j int)      { c.best[i], c.best[j] = c.best[j], c.best[i] }
func (c *costPick) Push(x any)         { c.best = append(c.best, x.(costed)) }
func (c *costPick) Pop() any {
	last := len(c.best) - 1
	d := c.best[last]
	c.best = c.best[:last]
	return d
}
