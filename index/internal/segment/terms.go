package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/cespare/xxhash/v2"
)

// Posting is the documents of one term, not yet decoded. Its zero value has none.
type Posting struct {
	segment *Segment
	card    uint32
	data    []byte // varints or roaring; nil when the posting is a part of its own
	part    uint32
}

// Len is how many documents there are; it costs nothing.
func (p Posting) Len() int { return int(p.card) }

// Bitmap decodes the local numbers. The caller must not change it.
func (p Posting) Bitmap() (*roaring.Bitmap, error) {
	if p.card == 0 {
		return roaring.New(), nil
	}
	if p.card > shortPosting {
		data := p.data
		if data == nil {
			var err error
			if data, err = p.segment.part(partPostings, p.part); err != nil {
				return nil, err
			}
		}
		bm, err := fromBytes(data)
		if err == nil && (bm.IsEmpty() || bm.Maximum() >= p.segment.meta.docs) {
			err = fmt.Errorf("%w: posting out of range", ErrCorrupt)
		}
		return bm, err
	}
	numbers := make([]uint32, p.card)
	data, n := p.data, uint64(0)
	for i := range numbers {
		d, w := binary.Uvarint(data)
		if n += d; w <= 0 || n >= uint64(p.segment.meta.docs) {
			return nil, fmt.Errorf("%w: short posting", ErrCorrupt)
		}
		numbers[i], data = uint32(n), data[w:]
	}
	return roaring.BitmapOf(numbers...), nil
}

// TermHash prepares a term for MayContain.
func TermHash(term []byte) uint64 { return xxhash.Sum64(term) }

// MayContain is false when no document has the term; it reads nothing.
func (s *Segment) MayContain(hash uint64) bool { return s.filter.mayContain(hash) }

// Lookup finds a term's posting, which is empty when no document has the term.
func (s *Segment) Lookup(term string) (Posting, error) {
	if !s.filter.mayContain(xxhash.Sum64String(term)) {
		return Posting{}, nil
	}
	n := sort.Search(len(s.first), func(i int) bool { return s.first[i] > term }) - 1
	if n < 0 {
		return Posting{}, nil
	}
	c, err := s.block(uint32(n))
	if err != nil {
		return Posting{}, err
	}
	c.seek(term)
	for c.next() {
		if string(c.term) >= term {
			if string(c.term) == term {
				return c.posting, nil
			}
			break
		}
	}
	return Posting{}, c.err
}

// Prefix calls visit for each term that begins with prefix, in order, until visit returns
// false.
func (s *Segment) Prefix(prefix string, visit func(term string, p Posting) bool) error {
	n := max(0, sort.Search(len(s.first), func(i int) bool { return s.first[i] > prefix })-1)
	for ; n < len(s.first); n++ {
		c, err := s.block(uint32(n))
		if err != nil {
			return err
		}
		c.seek(prefix)
		for c.next() {
			if string(c.term) < prefix {
				continue
			}
			if !bytes.HasPrefix(c.term, []byte(prefix)) || !visit(string(c.term), c.posting) {
				return nil
			}
		}
		if c.err != nil {
			return c.err
		}
		if n+1 < len(s.first) && s.first[n+1] > prefix && !strings.HasPrefix(s.first[n+1], prefix) {
			return nil
		}
	}
	return nil
}

// blockCursor walks over the terms of a block.
type blockCursor struct {
	segment  *Segment
	data     []byte // the entries
	restarts []byte
	at       int
	term     []byte
	posting  Posting
	err      error
}

func (s *Segment) block(n uint32) (*blockCursor, error) {
	b, err := s.part(partBlock, n)
	if err != nil {
		return nil, err
	}
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: block of %d bytes", ErrCorrupt, len(b))
	}
	restarts := 2 * int(binary.LittleEndian.Uint16(b[len(b)-2:]))
	end := len(b) - 2 - restarts
	if end < 0 {
		return nil, fmt.Errorf("%w: block of %d bytes with %d of restarts", ErrCorrupt, len(b), restarts)
	}
	return &blockCursor{segment: s, data: b[:end], restarts: b[end : len(b)-2]}, nil
}

// seek moves to the last restart whose term is not above term.
func (c *blockCursor) seek(term string) {
	n := sort.Search(len(c.restarts)/2, func(i int) bool {
		c.at, c.term = int(binary.LittleEndian.Uint16(c.restarts[2*i:])), c.term[:0]
		return c.next() && string(c.term) > term
	})
	c.at, c.term = 0, c.term[:0]
	if n > 0 {
		c.at = int(binary.LittleEndian.Uint16(c.restarts[2*(n-1):]))
	}
}

// next reads the entry at the cursor; it returns false at the end and after an error.
func (c *blockCursor) next() bool {
	if c.err != nil || c.at >= len(c.data) {
		return false
	}
	shared, rest, card := c.uvarint(), c.uvarint(), uint64(0)
	if c.err == nil && (shared > uint64(len(c.term)) || rest > uint64(len(c.data)-c.at)) {
		c.fail()
	}
	if c.err != nil {
		return false
	}
	c.term = append(c.term[:shared], c.data[c.at:c.at+int(rest)]...)
	c.at += int(rest)
	if card = c.uvarint(); card == 0 || card > uint64(c.segment.meta.docs) {
		c.fail()
		return false
	}
	c.posting = Posting{segment: c.segment, card: uint32(card)}
	if card <= shortPosting {
		start := c.at
		for range card {
			c.uvarint()
		}
		c.posting.data = c.data[start:c.at]
		return c.err == nil
	}
	where := c.uvarint()
	if where&1 == 1 {
		c.posting.part = uint32(where >> 1)
		return c.err == nil
	}
	if where>>1 > uint64(len(c.data)-c.at) {
		c.fail()
		return false
	}
	c.posting.data = c.data[c.at : c.at+int(where>>1)]
	c.at += int(where >> 1)
	return c.err == nil
}

func (c *blockCursor) uvarint() uint64 {
	n, w := binary.Uvarint(c.data[c.at:])
	if w <= 0 {
		c.fail()
		return 0
	}
	c.at += w
	return n
}

func (c *blockCursor) fail() { c.err = fmt.Errorf("%w: block of terms", ErrCorrupt) }
