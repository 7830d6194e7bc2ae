package index

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Documents that retention has disposed of leave gaps in the numbers of a head. A document without an id
// stands in such a place when documents are handed on by number.

// skip passes over a number.
func (h *head) skip() {
	if h.numbers == nil {
		h.numbers = make([]uint32, len(h.docs), len(h.docs)+1)
		for i := range h.numbers {
			h.numbers[i] = uint32(i)
		}
	}
	h.span++
}

// counted numbers the document that was added last.
func (h *head) counted() {
	if h.numbers != nil {
		h.numbers = append(h.numbers, h.span)
	}
	h.span++
}

// gaps is how many numbers no document has.
func (h *head) gaps() uint32 { return h.span - uint32(len(h.docs)) }

// number is the arrival number of a document, from the head's base on.
func (h *head) number(local uint32) uint32 {
	if h.numbers == nil {
		return local
	}
	return h.numbers[local]
}

// below is how many documents have an arrival number below n.
func (h *head) below(n uint64) uint32 {
	if h.numbers == nil {
		return uint32(min(n, uint64(len(h.docs))))
	}
	at, _ := slices.BinarySearchFunc(h.numbers, n, func(have uint32, n uint64) int {
		if uint64(have) < n {
			return -1
		}
		return 1
	})
	return uint32(at)
}

// inWindow is the documents of the window among those of bm, in a bitmap of its own; the lock is held.
func (h *head) inWindow(bm *roaring.Bitmap, w *window) *roaring.Bitmap {
	first, end := w.within(h.base, uint64(h.span))
	lo, hi := h.below(first), h.below(end)
	if lo > 0 || int(hi) < len(h.docs) {
		return roaring.And(bm, interval(lo, hi))
	}
	return bm.Clone() // it may be a posting, which grows
}
