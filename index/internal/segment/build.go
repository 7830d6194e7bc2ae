package segment

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Document is what a segment needs to know of a document beside its terms.
type Document struct {
	Time       int64
	ID, Tenant string
	// Cost is in micro-units, when HasCost.
	Cost    int64
	HasCost bool
}

// Compare orders documents as they are read: newest first, then by id, then by tenant.
func Compare(a, b *Document) int {
	if c := cmp.Compare(b.Time, a.Time); c != 0 {
		return c
	}
	if c := cmp.Compare(a.ID, b.ID); c != 0 {
		return c
	}
	return cmp.Compare(a.Tenant, b.Tenant)
}

// Input is what Build makes a segment of.
type Input struct {
	// Base is the number of the first document; the others follow without a gap.
	Base uint64
	// Documents are by arrival number, 1 to DocumentsMax of them.
	Documents []Document
	// Terms yields every term once, in ascending order, with the arrival numbers of its
	// documents, ascending. Both are valid until the next one.
	Terms iter.Seq2[[]byte, []uint16]
	// TermCount is about how many terms there are; it sizes the filter.
	TermCount int
}

// Sizes of the layout.
const (
	blockBytes    = 8 << 10 // a block is closed when it reaches this
	restartEvery  = 16      // terms that share a prefix with their predecessor only
	shortPosting  = 32      // documents a posting may list as varints
	inlinePosting = 1 << 10 // bytes a roaring posting may have within a block
)

// Build lays out a segment. The parts are complete and in a fixed order, meta last.
func Build(in Input) ([]Part, error) {
	if len(in.Documents) == 0 || len(in.Documents) > DocumentsMax {
		return nil, fmt.Errorf("segment: cannot hold %d documents", len(in.Documents))
	}
	b := &builder{filter: newFilter(in.TermCount), local: make([]uint16, len(in.Documents))}
	m := meta{base: in.Base, docs: uint32(len(in.Documents))}
	m.withCost = b.columns(in.Documents)
	for term, arrivals := range in.Terms {
		if err := b.term(term, arrivals); err != nil {
			return nil, err
		}
	}
	b.closeBlock()
	b.add(partFilter, 0, b.filter.encode())
	b.add(partIndex, 0, b.index)
	m.digest = digestOf(b.parts)
	b.add(partMeta, 0, m.encode())
	return b.parts, nil
}

type builder struct {
	parts  []Part
	local  []uint16 // arrival number -> local number
	filter filter
	index  []byte

	block    []byte
	restarts []uint16
	inBlock  int
	last     []byte
	blocks   uint32
	postings uint32
	numbers  []uint16
	bits     [DocumentsMax / 64]uint64
}

func (b *builder) add(kind byte, n uint32, value []byte) {
	b.parts = append(b.parts, Part{Name: partName(kind, n), Value: value})
}

// columns numbers the documents and writes what is stored by local number.
func (b *builder) columns(docs []Document) (withCost uint32) {
	order := make([]uint16, len(docs))
	for i := range order {
		order[i] = uint16(i)
	}
	slices.SortFunc(order, func(x, y uint16) int { return Compare(&docs[x], &docs[y]) })
	times := make([]byte, 0, 8*len(docs))
	arrivals := make([]byte, 0, 2*len(docs))
	var costs []byte
	hasCost := roaring.New()
	for local, arrival := range order {
		d := &docs[arrival]
		b.local[arrival] = uint16(local)
		times = binary.LittleEndian.AppendUint64(times, uint64(d.Time))
		arrivals = binary.LittleEndian.AppendUint16(arrivals, arrival)
		if d.HasCost {
			hasCost.Add(uint32(local))
			costs = binary.LittleEndian.AppendUint64(costs, uint64(d.Cost))
		}
	}
	b.add(partTime, 0, times)
	b.add(partArrival, 0, arrivals)
	if hasCost.IsEmpty() {
		return 0
	}
	b.add(partHasCost, 0, roaringBytes(hasCost))
	b.add(partCosts, 0, costs)
	return uint32(hasCost.GetCardinality())
}

// term appends one term to the current block.
func (b *builder) term(term []byte, arrivals []uint16) error {
	if len(arrivals) == 0 || b.blocks+uint32(len(b.block)) > 0 && slices.Compare(term, b.last) <= 0 {
		return fmt.Errorf("segment: term %q is empty or out of order", term)
	}
	b.filter.add(term)
	if len(b.block) == 0 {
		b.index = append(binary.AppendUvarint(b.index, uint64(len(term))), term...)
	}
	shared := 0
	if b.inBlock%restartEvery == 0 {
		b.restarts = append(b.restarts, uint16(len(b.block)))
	} else {
		shared = sharedPrefix(b.last, term)
	}
	b.block = binary.AppendUvarint(b.block, uint64(shared))
	b.block = binary.AppendUvarint(b.block, uint64(len(term)-shared))
	b.block = append(b.block, term[shared:]...)
	b.block = binary.AppendUvarint(b.block, uint64(len(arrivals)))
	b.posting(arrivals)
	b.last = append(b.last[:0], term...)
	b.inBlock++
	if len(b.block) >= blockBytes {
		b.closeBlock()
	}
	return nil
}

// posting appends the documents of a term, renumbered, in the form its length asks for.
func (b *builder) posting(arrivals []uint16) {
	if len(arrivals) > shortPosting {
		enc := roaringBytes(b.bitmap(arrivals))
		if len(enc) <= inlinePosting {
			b.block = binary.AppendUvarint(b.block, uint64(len(enc))<<1)
			b.block = append(b.block, enc...)
			return
		}
		b.block = binary.AppendUvarint(b.block, uint64(b.postings)<<1|1)
		b.add(partPostings, b.postings, enc)
		b.postings++
		return
	}
	b.numbers = b.numbers[:0]
	for _, a := range arrivals {
		b.numbers = append(b.numbers, b.local[a])
	}
	slices.Sort(b.numbers)
	last := uint16(0)
	for _, n := range b.numbers {
		b.block = binary.AppendUvarint(b.block, uint64(n-last))
		last = n
	}
}

func (b *builder) bitmap(arrivals []uint16) *roaring.Bitmap {
	clear(b.bits[:])
	for _, a := range arrivals {
		n := b.local[a]
		b.bits[n/64] |= 1 << (n % 64)
	}
	return roaring.FromDense(b.bits[:], true)
}

// closeBlock ends the block with the offsets of its restarts and their number.
func (b *builder) closeBlock() {
	if len(b.block) == 0 {
		return
	}
	for _, r := range b.restarts {
		b.block = binary.LittleEndian.AppendUint16(b.block, r)
	}
	b.block = binary.LittleEndian.AppendUint16(b.block, uint16(len(b.restarts)))
	b.add(partBlock, b.blocks, slices.Clone(b.block))
	b.blocks++
	b.block, b.restarts, b.inBlock = b.block[:0], b.restarts[:0], 0
}

func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// roaringBytes encodes a bitmap; writing to memory cannot fail.
func roaringBytes(bm *roaring.Bitmap) []byte {
	b, err := bm.ToBytes()
	if err != nil {
		panic("segment: roaring refused to encode: " + err.Error())
	}
	return b
}
