package segment

import (
	"math/bits"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Posting is the documents of one term, not yet decoded. Its zero value has none.
type Posting struct {
	segment *Segment
	card    uint32
	kind    uint8
	first   uint32 // postingOne, postingWindow
	window  uint64 // postingWindow
	list    []byte // postingList
	// postingFar
	block, offset, length uint32
}

// Len is how many documents there are; it costs nothing.
func (p Posting) Len() int { return int(p.card) }

// posting reads the reference to the documents of the i-th term in one direction.
func (s *Segment) posting(c *chunk, i, direction int) (Posting, error) {
	mask := c.mask(i)
	if mask>>direction&1 == 0 {
		return Posting{}, nil
	}
	at := c.rank(i) + bits.OnesCount64(mask&(1<<direction-1))
	ref := unpack(c.refs, c.width, at)
	p := Posting{segment: s, kind: uint8(ref & (1<<postingKindBits - 1))}
	ref >>= postingKindBits
	if p.kind == postingOne {
		p.card, p.first = 1, uint32(ref)
		if ref >= uint64(s.file.meta.docs) {
			return Posting{}, damaged("posting of one document")
		}
		return p, nil
	}
	if ref > uint64(len(c.side)) {
		return Posting{}, damaged("posting beyond its chunk")
	}
	r := cursor{b: c.side[ref:]}
	switch p.kind {
	case postingWindow:
		p.first = uint32(r.count(s.Len() - 1))
		p.window = r.uint64()
		p.card = uint32(bits.OnesCount64(p.window))
		if p.first+uint32(bits.Len64(p.window)) > s.file.meta.docs {
			r.bad = true
		}
	case postingList:
		p.card = uint32(r.count(listMax))
		p.list = r.b
	default:
		p.card = uint32(r.count(s.Len()))
		p.block, p.offset, p.length = uint32(r.count(1<<31)), uint32(r.count(1<<31)), uint32(r.count(1<<31))
	}
	if r.bad || p.card == 0 {
		return Posting{}, damaged("posting in its chunk")
	}
	return p, nil
}

// Bitmap decodes the local numbers. The caller must not change it.
func (p Posting) Bitmap() (*roaring.Bitmap, error) {
	if p.card > 0 && p.kind == postingFar {
		return p.far()
	}
	var buf [listMax]uint32
	locals, err := p.appendTo(buf[:0])
	if err != nil {
		return nil, err
	}
	return roaring.BitmapOf(locals...), nil
}

// newest is the first of the local numbers.
func (p Posting) newest() (uint32, error) {
	switch p.kind {
	case postingOne, postingWindow:
		return p.first, nil
	case postingList:
		r := cursor{b: p.list}
		n := r.uvarint()
		if r.bad || n >= uint64(p.segment.file.meta.docs) {
			return 0, damaged("list of documents")
		}
		return uint32(n), nil
	}
	bm, err := p.far()
	if err != nil {
		return 0, err
	}
	return bm.Minimum(), nil
}

// appendTo appends the local numbers, ascending.
func (p Posting) appendTo(locals []uint32) ([]uint32, error) {
	switch {
	case p.card == 0:
		return locals, nil
	case p.kind == postingOne:
		return append(locals, p.first), nil
	case p.kind == postingWindow:
		for w := p.window; w != 0; w &= w - 1 {
			locals = append(locals, p.first+uint32(bits.TrailingZeros64(w)))
		}
		return locals, nil
	case p.kind == postingList:
		r, n := cursor{b: p.list}, uint64(0)
		for range p.card {
			if n += r.uvarint(); r.bad || n >= uint64(p.segment.file.meta.docs) {
				return nil, damaged("list of documents")
			}
			locals = append(locals, uint32(n))
		}
		return locals, nil
	}
	bm, err := p.far()
	if err != nil {
		return nil, err
	}
	at := len(locals)
	locals = slices.Grow(locals, int(p.card))[:at+int(p.card)]
	bm.ManyIterator().NextMany(locals[at:])
	return locals, nil
}

// far reads a bitmap, which aliases its block.
func (p Posting) far() (*roaring.Bitmap, error) {
	b, err := p.segment.rawBlock(blockPostings, p.block)
	if err != nil {
		return nil, err
	}
	if uint64(p.offset)+uint64(p.length) > uint64(len(b)) {
		return nil, damaged("posting beyond its block")
	}
	bm := roaring.New()
	if _, err := bm.FromBuffer(b[p.offset : p.offset+p.length]); err != nil {
		return nil, damaged("posting: %v", err)
	}
	if bm.GetCardinality() != uint64(p.card) || bm.Maximum() >= p.segment.file.meta.docs {
		return nil, damaged("posting of %d documents", p.card)
	}
	return bm, nil
}

// farBytes is when a block of long postings is closed.
const farBytes = 32 << 10

// farWriter gathers long postings in blocks.
type farWriter struct {
	f     *fileWriter
	block []byte
	dense []uint64
}

// add stores a posting of more than listMax documents below docs.
func (w *farWriter) add(locals []uint32, docs int) (block, offset, length uint32) {
	var bm *roaring.Bitmap
	if len(locals) < docs/256 {
		bm = roaring.BitmapOf(locals...)
	} else {
		w.dense = slices.Grow(w.dense[:0], (docs+63)/64)[:(docs+63)/64]
		clear(w.dense)
		for _, n := range locals {
			w.dense[n/64] |= 1 << (n % 64)
		}
		bm = roaring.FromDense(w.dense, true)
	}
	b, err := bm.ToBytes()
	if err != nil {
		panic("segment: roaring refused to encode: " + err.Error()) // it writes to memory
	}
	if len(w.block) > 0 && len(w.block)+len(b) > farBytes {
		w.close()
	}
	block, offset = w.f.blocks[blockPostings], uint32(len(w.block))
	w.block = append(w.block, b...)
	return block, offset, uint32(len(b))
}

func (w *farWriter) close() {
	if len(w.block) > 0 {
		w.f.block(blockPostings, w.block)
		w.block = w.block[:0]
	}
}

// sortLocals puts numbers that are in order for the most part in order.
func sortLocals(locals []uint32) {
	if !slices.IsSorted(locals) {
		slices.Sort(locals)
	}
}
