package index

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

// The first documents of a head are what sorting all of them gives, though it does not look at all: with
// late ones, of the same time, from the future, after a position, in every order.
func TestTopOfAHead(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	h := newHead(0)
	for i := range 4*headStride + 17 {
		at := int64(1000 + i/3)
		switch rng.IntN(40) {
		case 0:
			at -= rng.Int64N(1000)
		case 1:
			at += rng.Int64N(3)
		}
		d := normal(t, Document{ID: string(rune('a'+rng.IntN(26))) + string(rune('a'+i%26)), Time: at})
		h.add([]Document{d}, [][]byte{AppendDocument(nil, &d)})
	}
	for range 300 {
		bm := roaring.New()
		for n := range h.docs {
			if share := 1 + rng.IntN(5); n%share == 0 {
				bm.Add(uint32(n))
			}
		}
		w := window{limit: 1 + rng.IntN(60), order: Order(rng.IntN(len(OrderNames)))}
		if rng.IntN(2) == 0 {
			d := h.docs[rng.IntN(len(h.docs))]
			w.after = &position{time: d.Time, id: d.ID, tenant: d.Tenant, cost: noCost}
		}
		var want []uint32
		for _, n := range bm.ToArray() {
			if w.after == nil || w.order.compare(&h.docs[n], w.after.document()) > 0 {
				want = append(want, n)
			}
		}
		compare := func(a, b uint32) int { return w.order.compare(&h.docs[a], &h.docs[b]) }
		slices.SortFunc(want, compare)
		want = want[:min(w.limit, len(want))]
		got := topOf(h.docs, h.newestBy, bm, w)
		if !slices.EqualFunc(got, want, func(a, b uint32) bool { return compare(a, b) == 0 }) {
			t.Fatalf("%s, limit %d, after %+v: %v, want %v", OrderNames[w.order], w.limit, w.after, got, want)
		}
	}
}
