package segment

import (
	"encoding/binary"
	"math/bits"
)

// filter is a blocked Bloom filter (Putze, Sanders, Singler 2007): all bits of a term lie in
// one cache line of 512 bits. At 10 bits a term about 1 % of absent terms pass.
type filter struct {
	words []uint64 // 8 a block
}

const (
	filterBitsPerTerm = 10
	filterProbes      = 6
	blockWords        = 8
)

func newFilter(terms int) filter {
	blocks := max(1, (terms*filterBitsPerTerm+511)/512)
	return filter{words: make([]uint64, blocks*blockWords)}
}

func openFilter(b []byte) (filter, error) {
	if len(b) == 0 || len(b)%(8*blockWords) != 0 {
		return filter{}, damaged("filter has %d bytes", len(b))
	}
	f := filter{words: make([]uint64, len(b)/8)}
	for i := range f.words {
		f.words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return f, nil
}

func (f filter) encode() []byte {
	b := make([]byte, 0, 8*len(f.words))
	for _, w := range f.words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// block returns the term's block and the bits that choose within it.
func (f filter) block(hash uint64) ([]uint64, uint64) {
	n, _ := bits.Mul64(hash, uint64(len(f.words)/blockWords)) // the high half decides the block
	return f.words[n*blockWords : (n+1)*blockWords], hash * 0x9E3779B97F4A7C15
}

func (f filter) add(hash uint64) {
	block, h := f.block(hash)
	for range filterProbes {
		block[h>>61] |= 1 << (h >> 55 & 63)
		h = h<<9 | h>>55
	}
}

func (f filter) mayContain(hash uint64) bool {
	block, h := f.block(hash)
	for range filterProbes {
		if block[h>>61]&(1<<(h>>55&63)) == 0 {
			return false
		}
		h = h<<9 | h>>55
	}
	return true
}
