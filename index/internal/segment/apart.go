package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"slices"
	"sort"
)

// A text that is random, such as a digest or an id, costs a read of its own for every document that is written
// again when it stands among all others of the segment, in their order. So, from version 3 on, it stands
// apart from the table of terms: in a block with the random texts that appear first in the same few
// documents. Who reads a document finds nearly all that it needs there.
//
// Of such a term the table keeps its postings and a mark, some of its first bits. The rest is found by its first
// document, whose columns name the texts that stand apart. A group's texts that stand apart have all one shape:
// hex of one length between what all have before and behind it. They are numbered by their first document, then in
// their order, and before those of the table.

const (
	// valueDocuments is how many documents a block of random texts has: it is about one piece of what a segment
	// is stored in.
	valueDocuments = 512
	// apartBytesMin is how short hex may be that stands apart.
	apartBytesMin = 4
	// markBits is how many bits of a mark there are at least: of those of a chunk about one in sixteen is that of two terms.
	markBits = 13
	// indexApart is set in the index of terms for a chunk whose terms stand apart.
	indexApart = 1
)

// shape is what the texts of a group have in common that stand apart.
type shape struct {
	before, after string
	bytes         int // of hex, as it is stored
}

// append appends the text that has the hex.
func (s *shape) append(b, stored []byte) []byte {
	return append(hex.AppendEncode(append(b, s.before...), stored), s.after...)
}

// appendStored appends the hex of a text as it is stored; ok is false if the text is of another shape.
func (s *shape) appendStored(b, text []byte) (stored []byte, ok bool) {
	if len(text) != len(s.before)+2*s.bytes+len(s.after) || string(text[:len(s.before)]) != s.before || string(text[len(text)-len(s.after):]) != s.after {
		return b, false
	}
	digits := text[len(s.before) : len(text)-len(s.after)]
	if !allHex(digits) {
		return b, false
	}
	b, err := hex.AppendDecode(b, digits)
	return b, err == nil
}

// leading is the first eight bytes as a number, in their order.
func leading(stored []byte) uint64 {
	if len(stored) >= 8 {
		return binary.BigEndian.Uint64(stored)
	}
	var b [8]byte
	copy(b[:], stored)
	return binary.BigEndian.Uint64(b[:])
}

// apart is what a segment has of a group whose texts stand apart.
type apart struct {
	name byte
	shape
	// first is the number of the first text of each block, and of all at the end.
	first []uint32
}

func (a *apart) count() uint32 { return a.first[len(a.first)-1] }

// blockOf finds the block of a text; near is where it is likely to be.
func (a *apart) blockOf(n, near uint32) uint32 {
	if near+1 < uint32(len(a.first)) && a.first[near] <= n && n < a.first[near+1] {
		return near
	}
	return uint32(sort.Search(len(a.first), func(i int) bool { return a.first[i] > n })) - 1
}

// openSlots reads which groups have texts that stand apart, and where.
func (s *Segment) openSlots(b []byte) error {
	r := cursor{b: b}
	blocks := (s.Len() + valueDocuments - 1) / valueDocuments
	for len(r.b) > 0 && !r.bad {
		a := &apart{name: r.byte(), shape: shape{before: string(r.bytes()), after: string(r.bytes()), bytes: r.count(1 << 10)}}
		n := uint32(0)
		for range blocks {
			a.first = append(a.first, n)
			n += uint32(r.count(1 << 24))
		}
		a.first = append(a.first, n)
		if r.bad || a.bytes < apartBytesMin || len(s.apart) > 0 && a.name <= s.apart[len(s.apart)-1].name {
			return damaged("random texts")
		}
		s.apart = append(s.apart, a)
		s.groups[a.name].apart = a
	}
	if r.bad || len(s.file.blocks[blockValues]) != blocks && len(s.apart) > 0 {
		return damaged("random texts")
	}
	return nil
}

// values reads a block of random texts.
func (s *Segment) values(n uint32) ([]byte, error) { return s.rawBlock(blockValues, n) }

// valueIn finds a text in its block.
func (s *Segment) valueIn(block []byte, a *apart, n, number uint32) ([]byte, error) {
	at := 0
	for _, o := range s.apart {
		if o == a {
			break
		}
		at += int(o.first[n+1]-o.first[n]) * o.bytes
	}
	at += int(number-a.first[n]) * a.bytes
	if at+a.bytes > len(block) {
		return nil, damaged("block %d of random texts", n)
	}
	return block[at : at+a.bytes], nil
}

// apartMark tells terms of a chunk apart that are stored elsewhere.
type apartMark struct {
	base  uint64
	shift uint
	marks ints
}

func (c *cursor) apartMark(n int) *apartMark {
	m := &apartMark{base: c.uint64(), shift: uint(c.byte())}
	m.marks = c.ints(n)
	c.bad = c.bad || m.shift > 63
	return m
}

// of is the mark of a text; it is below, or above, those of the chunk's when ok is false.
func (m *apartMark) of(lead uint64) (mark uint64, above bool) {
	if lead < m.base {
		return 0, false
	}
	return (lead - m.base) >> m.shift, true
}

// columns is where the columns of documents and their random texts are read.
type columns interface {
	ordinals(n uint32) (*ordinals, error)
	values(n uint32) ([]byte, error)
}

// firstDocument is the first document of a chunk's term.
func (s *Segment) firstDocument(c *chunk, i int) (uint32, error) {
	first := s.file.meta.docs
	for mask := c.mask(i); mask != 0; mask &= mask - 1 {
		p, err := s.posting(c, i, bits.TrailingZeros64(mask))
		if err != nil {
			return 0, err
		}
		local, err := p.newest()
		if err != nil {
			return 0, err
		}
		first = min(first, local)
	}
	if first >= s.file.meta.docs {
		return 0, damaged("a term without a document")
	}
	return first, nil
}

// resolve appends a term that stands apart, and tells its number in its group.
func (s *Segment) resolve(from columns, c *chunk, i int, b []byte) ([]byte, uint32, error) {
	if c.at >= len(s.first) {
		return b, 0, damaged("chunk of terms")
	}
	name := s.first[c.at][0]
	a := s.groups[name].apart
	local, err := s.firstDocument(c, i)
	if err != nil || a == nil {
		return b, 0, damagedUnless(err, "random texts of group %c", name)
	}
	o, err := from.ordinals(local / blockDocuments)
	if err != nil {
		return b, 0, err
	}
	block := local / valueDocuments
	stored, err := from.values(block)
	if err != nil {
		return b, 0, err
	}
	mark, in := c.apart.marks.at(i), int(local%blockDocuments)
	try := func(number uint64) (bool, error) {
		if number < uint64(a.first[block]) || number >= uint64(a.first[block+1]) {
			return false, nil
		}
		v, err := s.valueIn(stored, a, block, uint32(number))
		if err != nil {
			return false, err
		}
		if got, ok := c.apart.of(leading(v)); !ok || got != mark {
			return false, nil
		}
		at := len(b)
		b = a.append(append(b, name), v)
		if term := b[at:]; string(term) < s.first[c.at] || c.at+1 < len(s.first) && string(term) >= s.first[c.at+1] {
			b = b[:at]
			return false, nil
		}
		return true, nil
	}
	column := slices.Index([]byte(TextGroups), name)
	if column >= 0 {
		if number := o.texts[column].at(in); number > 0 {
			if ok, err := try(number - 1); ok || err != nil {
				return b, uint32(number - 1), err
			}
		}
		return b, 0, damaged("document %d has not its random text", local)
	}
	list := &o.digests
	if name == AttributeGroup {
		list = &o.attributes
	}
	for at, to := list.of(in); at < to; at++ {
		number := list.values.at(at)
		if ok, err := try(number); ok || err != nil {
			return b, uint32(number), err
		}
	}
	return b, 0, damaged("document %d has not its random text", local)
}

// damagedUnless is err, or else that something is damaged.
func damagedUnless(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return damaged(format, args...)
}

// term appends the i-th term of a chunk.
func (s *Segment) term(c *chunk, i int, b []byte) ([]byte, error) {
	if c.apart == nil {
		return c.appendTerm(b, i)
	}
	b, _, err := s.resolve(s, c, i, b)
	return b, err
}

// search finds the first term of a chunk that is not below key; found tells whether it is the key.
func (s *Segment) search(c *chunk, key []byte) (i int, found bool, err error) {
	if c.apart == nil {
		return c.search(key)
	}
	lo, hi := s.markedAs(c, key)
	var term []byte
	i, found = binarySearch(hi-lo, func(i int) int {
		if err == nil {
			term, err = s.term(c, lo+i, term[:0])
		}
		return bytes.Compare(term, key)
	})
	return lo + i, found && err == nil, err
}

// markedAs are the terms of a chunk that may be as key: those before are below it, those behind above.
func (s *Segment) markedAs(c *chunk, key []byte) (lo, hi int) {
	name := s.first[c.at][0]
	a := s.groups[name].apart
	switch {
	case a == nil:
		return 0, c.n
	case len(key) == 0 || key[0] < name:
		return 0, 0
	case key[0] > name:
		return c.n, c.n
	}
	// The least and the greatest hex that begins as the key does.
	text := key[1:]
	n := min(len(text), len(a.before))
	switch d := bytes.Compare(text[:n], []byte(a.before[:n])); {
	case d < 0 || len(text) <= len(a.before):
		return 0, 0 // the chunk begins above
	case d > 0:
		return c.n, c.n
	}
	digits := text[len(a.before):]
	var least, most uint64
	shift := 64
	for _, x := range digits[:min(len(digits), 2*min(8, a.bytes))] {
		v := bytes.IndexByte([]byte("0123456789abcdef"), x)
		if v < 0 {
			break
		}
		shift -= 4
		least |= uint64(v) << shift
	}
	most = least
	if shift > 0 {
		most |= 1<<shift - 1
	}
	at := func(lead uint64, above func(mark uint64) uint64) int {
		mark, ok := c.apart.of(lead)
		if !ok {
			return 0
		}
		i, _ := binarySearch(c.n, func(i int) int {
			if c.apart.marks.at(i) < above(mark) {
				return -1
			}
			return 1
		})
		return i
	}
	return at(least, func(m uint64) uint64 { return m }), at(most, func(m uint64) uint64 { return m + 1 })
}
