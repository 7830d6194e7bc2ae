package index

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
)

// termGroup maps the values of one field to their postings. Its memory holds no pointers but
// those to a few large pieces, so that the collector has nothing to do with it.
type termGroup struct {
	name string
	// list has the terms as they came: to go through them all, it is read in sequence.
	list   []headTerm
	values [][]byte // pieces of valuePiece bytes
	used   int      // of the last piece
	// slots is a hash table with linear probing of at most half its length: the upper half of a
	// slot is the value's hash, the lower its number in list plus one; zero is free.
	slots []uint64
}

// headTerm is a value, with eight of its bytes as an integer, which most comparisons need
// only.
type headTerm struct {
	bytes   uint64
	posting uint32
	piece   uint32
	offset  uint16
	length  uint16
}

const (
	// valuePiece is the size of a piece of values, which have 2*valueBytesMax bytes at most.
	valuePiece = 32 << 10
	// slotsMin is how many slots a group begins with: many attributes have few values.
	slotsMin = 16
)

// headSeed makes the order of the slots differ between processes, so that nobody can send
// values that all want the same one. Nothing that is stored depends on it.
var headSeed = maphash.MakeSeed()

func (g *termGroup) value(t *headTerm) []byte {
	return g.values[t.piece][t.offset:][:t.length:t.length]
}

// find returns the posting of a value.
func (g *termGroup) find(value []byte) (posting uint32, ok bool) {
	n, _ := g.probe(value, maphash.Bytes(headSeed, value))
	if n == 0 {
		return 0, false
	}
	return g.list[n-1].posting, true
}

// probe returns the number of the value in list plus one, or zero and its free slot.
func (g *termGroup) probe(value []byte, hash uint64) (n uint32, slot uint64) {
	if len(g.slots) == 0 {
		return 0, 0
	}
	mask := uint64(len(g.slots) - 1)
	for slot = hash >> 32 & mask; ; slot = (slot + 1) & mask {
		s := g.slots[slot]
		if s == 0 {
			return 0, slot
		}
		if s>>32 == hash>>32 && bytes.Equal(g.value(&g.list[uint32(s)-1]), value) {
			return uint32(s), slot
		}
	}
}

// mayHave is false when no value has this hash.
func (g *termGroup) mayHave(hash uint64) bool {
	mask := uint64(len(g.slots) - 1)
	return len(g.slots) > 0 && g.slots[hash>>32&mask] != 0
}

// insert adds a value that probe did not find.
func (g *termGroup) insert(value []byte, hash, slot uint64, posting uint32) {
	if 2*len(g.list) >= len(g.slots) {
		g.grow()
		slot = g.free(hash)
	}
	last := len(g.values) - 1
	if last < 0 || g.used+len(value) > valuePiece {
		g.values = append(g.values, nil)
		last++
		g.used = 0
	}
	// The first piece grows with what is in it: a group may have one short value.
	if last == 0 {
		g.values[0] = append(g.values[0], value...)
	} else {
		if g.used == 0 {
			g.values[last] = make([]byte, 0, valuePiece)
		}
		g.values[last] = append(g.values[last], value...)
	}
	g.list = append(g.list, headTerm{
		bytes: eightBytes(value), posting: posting,
		piece: uint32(last), offset: uint16(g.used), length: uint16(len(value)),
	})
	g.used += len(value)
	g.slots[slot] = hash>>32<<32 | uint64(len(g.list))
}

func (g *termGroup) free(hash uint64) uint64 {
	mask := uint64(len(g.slots) - 1)
	slot := hash >> 32 & mask
	for g.slots[slot] != 0 {
		slot = (slot + 1) & mask
	}
	return slot
}

func (g *termGroup) grow() {
	old := g.slots
	g.slots = make([]uint64, max(slotsMin, 4*len(old)))
	for _, s := range old {
		if s != 0 {
			g.slots[g.free(s)] = s
		}
	}
}

// eightBytes are the first bytes of a value, zeros behind its end.
func eightBytes(value []byte) uint64 {
	if len(value) >= 8 {
		return binary.BigEndian.Uint64(value)
	}
	var b [8]byte
	copy(b[:], value)
	return binary.BigEndian.Uint64(b[:])
}

// prefixed visits the values that begin with prefix until visit returns false.
func (g *termGroup) prefixed(prefix string, visit func(value string) bool) {
	begin := []byte(prefix)
	want, mask := eightBytes(begin), ^uint64(0)
	if len(prefix) < 8 {
		mask <<= 64 - 8*len(prefix)
	}
	for i := range g.list {
		t := &g.list[i]
		if t.bytes&mask != want {
			continue
		}
		if v := g.value(t); bytes.HasPrefix(v, begin) && !visit(string(v)) {
			return
		}
	}
}

// sorted lists the group's values in order.
func (g *termGroup) sorted() []headTerm {
	terms := slices.Clone(g.list)
	first := g.value(&terms[0])
	shared := len(first) // bytes that all values have in common
	for i := range terms {
		v := g.value(&terms[i])
		shared = min(shared, len(v))
		for !bytes.Equal(v[:shared], first[:shared]) {
			shared--
		}
	}
	for i := range terms {
		terms[i].bytes = eightBytes(g.value(&terms[i])[shared:])
	}
	if len(terms) > 64 {
		terms = radixSort(terms)
	}
	byValue := func(a, b headTerm) int { return bytes.Compare(g.value(&a), g.value(&b)) }
	if len(terms) <= 64 {
		slices.SortFunc(terms, byValue)
		return terms
	}
	for from := 0; from < len(terms); {
		to := from + 1
		for to < len(terms) && terms[to].bytes == terms[from].bytes {
			to++
		}
		if to-from > 1 {
			slices.SortFunc(terms[from:to], byValue)
		}
		from = to
	}
	return terms
}

// radixSort sorts by bytes, one of the eight at a time and from the last on; those that all
// terms have in common cost nothing.
func radixSort(terms []headTerm) []headTerm {
	all, none := ^uint64(0), uint64(0)
	for i := range terms {
		all, none = all&terms[i].bytes, none|terms[i].bytes
	}
	differ := all ^ none
	spare := make([]headTerm, len(terms))
	for shift := uint(0); shift < 64; shift += 8 {
		if differ>>shift&0xFF == 0 {
			continue
		}
		var next [256]uint32
		for i := range terms {
			next[byte(terms[i].bytes>>shift)]++
		}
		at := uint32(0)
		for i, n := range next {
			next[i] = at
			at += n
		}
		for i := range terms {
			k := byte(terms[i].bytes >> shift)
			spare[next[k]] = terms[i]
			next[k]++
		}
		terms, spare = spare, terms
	}
	return terms
}

// lists are the documents of the terms that are in few, each in a run of cells whose length is
// a power of two. A run that is full moves to one twice as long, and its cells are used again.
type lists struct {
	cells []uint16
	free  [16][]uint32 // runs by the logarithm of their length
}

// listMin is how long the shortest run is.
const listMin = 4

// listRoom is how many cells the run of so many documents has.
func listRoom(count int) int { return max(listMin, 1<<bits.Len(uint(count-1))) }

func (l *lists) of(ref uint32, count int) []uint16 { return l.cells[ref:][:count:count] }

// begin makes a list of two.
func (l *lists) begin(a, b uint16) (ref uint32) {
	ref = l.take(listMin)
	l.cells[ref], l.cells[ref+1] = a, b
	return ref
}

// add appends to a list of count documents and returns where it is now.
func (l *lists) add(ref uint32, count int, local uint16) uint32 {
	if room := listRoom(count); count == room {
		to := l.take(2 * room)
		copy(l.cells[to:], l.cells[ref:][:count])
		l.drop(ref, count)
		ref = to
	}
	l.cells[ref+uint32(count)] = local
	return ref
}

func (l *lists) take(room int) (ref uint32) {
	free := &l.free[bits.Len(uint(room))-1]
	if n := len(*free); n > 0 {
		ref = (*free)[n-1]
		*free = (*free)[:n-1]
		return ref
	}
	ref = uint32(len(l.cells))
	for range room {
		l.cells = append(l.cells, 0)
	}
	return ref
}

// drop lets the run of a list of count documents be used again.
func (l *lists) drop(ref uint32, count int) {
	free := &l.free[bits.Len(uint(listRoom(count)))-1]
	*free = append(*free, ref)
}
