package limiter

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// knownRows is a set that holds every counter that has a row, so that the first touch of another one reads
// nothing. It may hold some that have none, which costs a look at the rows: those that the sweep has
// removed, until it has come round again, and two in a hundred by chance.
//
// It is a chain of blocked Bloom filters (Putze, Sanders, Singler 2007), each four times as large as the
// one before: all bits of a counter lie in one cache line. Nothing can be taken out; the sweep makes
// another set while it goes round.
type knownRows struct {
	filters []rowFilter
	// n is about how many were added, each once.
	n int
	// most is how many may be; then full is set, and everything is held.
	most int
	full bool
}

type rowFilter struct {
	blocks [][8]uint64
	room   int
}

const (
	knownBits   = 12 // of memory for a row
	knownProbes = 6
	// knownFirst is how many rows the first filter is made for, and knownMost how many all together: some
	// 8 MB. A group that has more looks at the rows for each counter that is not in its cache.
	knownFirst = 1 << 14
	knownMost  = 5 << 20
)

// newKnownRows makes a set for about so many rows, which grows.
func newKnownRows(rows int) *knownRows {
	k := &knownRows{most: knownMost}
	if rows > knownFirst {
		k.grow(min(rows, knownMost))
	}
	return k
}

func (k *knownRows) grow(rows int) {
	k.filters = append(k.filters, rowFilter{blocks: make([][8]uint64, rows*knownBits/512+1), room: rows})
}

// add puts a row into the set, by the hash of its key.
func (k *knownRows) add(hash uint64) {
	if !k.mayHave(hash) {
		k.addNew(hash)
	}
}

// addNew is add for a row that is not there, which need not be looked for then.
func (k *knownRows) addNew(hash uint64) {
	if k.n++; k.n > k.most {
		k.filters, k.full = nil, true
		return
	}
	if n := len(k.filters); n == 0 {
		k.grow(knownFirst)
	} else if last := &k.filters[n-1]; last.room == 0 {
		k.grow(4 * len(last.blocks) * 512 / knownBits)
	}
	k.filters[len(k.filters)-1].add(hash)
}

// mayHave is true for what was added.
func (k *knownRows) mayHave(hash uint64) bool {
	for i := len(k.filters) - 1; i >= 0; i-- {
		if k.filters[i].mayHave(hash) {
			return true
		}
	}
	return k.full
}

// view is k for goroutines other than the one that adds, as long as isView is true.
func (k *knownRows) view() *knownRows {
	return &knownRows{filters: slices.Clone(k.filters), full: k.full}
}

// isView tells whether v, which may be nil, is a view of all of k.
func (k *knownRows) isView(v *knownRows) bool {
	if v == nil || v.full != k.full || len(v.filters) != len(k.filters) {
		return false
	}
	for i := range k.filters {
		if &v.filters[i].blocks[0] != &k.filters[i].blocks[0] {
			return false
		}
	}
	return true
}

func (f *rowFilter) add(hash uint64) {
	f.room--
	block, h := f.block(hash)
	for range knownProbes {
		if word, bit := &block[h>>61], uint64(1)<<(h>>55&63); *word&bit == 0 {
			atomic.OrUint64(word, bit) // others read: see view
		}
		h = bits.RotateLeft64(h, 9)
	}
}

func (f *rowFilter) mayHave(hash uint64) bool {
	block, h := f.block(hash)
	for range knownProbes {
		if atomic.LoadUint64(&block[h>>61])&(1<<(h>>55&63)) == 0 {
			return false
		}
		h = bits.RotateLeft64(h, 9)
	}
	return true
}

// block is where a hash has its bits, and what chooses them.
func (f *rowFilter) block(hash uint64) (*[8]uint64, uint64) {
	n, _ := bits.Mul64(hash, uint64(len(f.blocks)))
	return &f.blocks[n], hash * 0x9E3779B97F4A7C15
}
