package segment

import (
	"encoding/binary"
	"math"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"
)

// blockDocuments is how many documents a block of columns has.
const blockDocuments = 2048

// zone bounds the numbers of a block's documents.
type zone struct {
	newest, oldest            int64
	firstArrival, lastArrival uint32
	leastCost, mostCost       int64 // least > most without a cost
}

// numbers is a block of numbers as it is read.
type numbers struct {
	newest   int64
	age      ints // newest - time
	arrival  ints
	stamped  ints
	cost     ints // zigzag + 1, 0 is none
	duration ints
	size     int
}

func (b *numbers) bytes() int { return b.size + 800 }

// ordinals is a block of ordinals as it is read.
type ordinals struct {
	texts      [len(TextGroups)]ints // 0 is none
	hasRest    ints
	digests    lists
	directions ints
	attributes lists
	size       int
}

func (b *ordinals) bytes() int { return b.size + 2600 }

// lists is a column with several values for each document.
type lists struct {
	ends   ints // where the values of a document end
	values ints
}

// of is the range of a document's values.
func (l *lists) of(i int) (from, to int) {
	if i > 0 {
		from = int(l.ends.at(i - 1))
	}
	return from, int(l.ends.at(i))
}

// listValuesMax is how many values of a column a document has at most.
const listValuesMax = 1 << 13

func (c *cursor) lists(n int) lists {
	l := lists{ends: c.ints(n)}
	last := uint64(0)
	if c.checked && !c.bad {
		last = l.ends.at(n - 1)
	}
	for i := 0; i < n && !c.bad && !c.checked; i++ {
		end := l.ends.at(i)
		c.bad = end < last || end-last > listValuesMax
		last = end
	}
	if last > 0 && !c.bad {
		l.values = c.ints(int(last))
	}
	return l
}

// inBlock is how many documents block n has.
func (s *Segment) inBlock(n uint32) int {
	return min(blockDocuments, s.Len()-int(n)*blockDocuments)
}

func (s *Segment) numbers(n uint32) (*numbers, error) {
	return opened(s, blockNumbers, n, func(b []byte, checked bool) (*numbers, error) { return s.openNumbers(n, b, checked) })
}

func (s *Segment) openNumbers(n uint32, b []byte, checked bool) (*numbers, error) {
	r, count := cursor{b: b, checked: checked}, s.inBlock(n)
	out := &numbers{newest: s.zones[n].newest, size: len(b)}
	for _, col := range []*ints{&out.age, &out.arrival, &out.stamped, &out.cost, &out.duration} {
		*col = r.ints(count)
	}
	if r.bad || len(r.b) > 0 {
		return nil, damaged("block %d of numbers", n)
	}
	return out, nil
}

func (s *Segment) ordinals(n uint32) (*ordinals, error) {
	return opened(s, blockOrdinals, n, func(b []byte, checked bool) (*ordinals, error) { return s.openOrdinals(n, b, checked) })
}

func (s *Segment) openOrdinals(n uint32, b []byte, checked bool) (*ordinals, error) {
	r, count := cursor{b: b, checked: checked}, s.inBlock(n)
	out := &ordinals{size: len(b)}
	for i := range out.texts {
		out.texts[i] = r.ints(count)
	}
	out.hasRest = r.ints(count)
	if out.digests = r.lists(count); !r.bad {
		if _, total := out.digests.of(count - 1); total > 0 {
			out.directions = r.ints(total)
		}
	}
	out.attributes = r.lists(count)
	if r.bad || len(r.b) > 0 {
		return nil, damaged("block %d of ordinals", n)
	}
	return out, nil
}

// appendZones encodes the bounds and the index of the rest.
func appendZones(b []byte, zones []zone, rest []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(zones)))
	for _, z := range zones {
		for _, v := range []int64{z.newest, z.oldest, z.leastCost, z.mostCost} {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, z.firstArrival), z.lastArrival)
	}
	for _, local := range rest {
		b = binary.LittleEndian.AppendUint32(b, local)
	}
	return b
}

func (s *Segment) openZones(b []byte) error {
	r := cursor{b: b}
	for n := r.count(DocumentsMax / blockDocuments); n > 0; n-- {
		var z zone
		for _, v := range []*int64{&z.newest, &z.oldest, &z.leastCost, &z.mostCost} {
			*v = int64(r.uint64())
		}
		z.firstArrival, z.lastArrival = r.uint32(), r.uint32()
		s.zones = append(s.zones, z)
	}
	for len(r.b) > 0 && !r.bad {
		s.rest = append(s.rest, r.uint32())
	}
	if r.bad || len(s.rest) != len(s.file.blocks[blockRest]) {
		return damaged("bounds")
	}
	return nil
}

// Newest and Oldest bound the times of the documents.
func (s *Segment) Newest() int64 { return s.zones[0].newest }

// Oldest is the least time.
func (s *Segment) Oldest() int64 { return s.zones[len(s.zones)-1].oldest }

// Interval is the local numbers [lo, hi) of the documents with times in [from, to);
// math.MaxInt64 is no upper end.
func (s *Segment) Interval(from, to int64) (lo, hi uint32, err error) {
	if to != math.MaxInt64 {
		if lo, err = s.firstBelow(to); err != nil {
			return 0, 0, err
		}
	}
	hi, err = s.firstBelow(from)
	return lo, max(lo, hi), err
}

// firstBelow is the first local number with a time below t.
func (s *Segment) firstBelow(t int64) (uint32, error) {
	n := sort.Search(len(s.zones), func(i int) bool { return s.zones[i].oldest < t })
	if n == len(s.zones) {
		return s.file.meta.docs, nil
	}
	if s.zones[n].newest < t {
		return uint32(n) * blockDocuments, nil
	}
	b, err := s.numbers(uint32(n))
	if err != nil {
		return 0, err
	}
	i := sort.Search(s.inBlock(uint32(n)), func(i int) bool { return b.newest-int64(b.age.at(i)) < t })
	return uint32(n)*blockDocuments + uint32(i), nil
}

// CostRange is the documents with a cost in [least, most], among those of within unless it is nil.
func (s *Segment) CostRange(least, most int64, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	return s.sift(within, func(z *zone) verdict {
		switch {
		case z.leastCost > most || z.mostCost < least:
			return none
		}
		return some
	}, func(b *numbers, i int) bool {
		v := b.cost.at(i)
		return v > 0 && unzigzag(v-1) >= least && unzigzag(v-1) <= most
	})
}

// Arrived is the documents with an arrival number from lo on and below hi, among those of within.
func (s *Segment) Arrived(lo, hi uint32, within *roaring.Bitmap) (*roaring.Bitmap, error) {
	return s.sift(within, func(z *zone) verdict {
		switch {
		case z.firstArrival >= hi, z.lastArrival < lo:
			return none
		case z.firstArrival >= lo && z.lastArrival < hi:
			return all
		}
		return some
	}, func(b *numbers, i int) bool { n := uint32(b.arrival.at(i)); return n >= lo && n < hi })
}

// verdict is what bounds tell of a block.
type verdict uint8

const (
	none verdict = iota
	some
	all
)

// sift keeps the documents that pass; blocks whose bounds decide are not read.
func (s *Segment) sift(within *roaring.Bitmap, judge func(*zone) verdict, pass func(*numbers, int) bool) (*roaring.Bitmap, error) {
	kept := make([]uint64, (s.Len()+63)/64)
	keep := func(local uint32) { kept[local/64] |= 1 << (local % 64) }
	var it roaring.IntPeekable
	if within != nil {
		it = within.Iterator()
	}
	for n := range s.zones {
		from, to := uint32(n)*blockDocuments, uint32(n)*blockDocuments+uint32(s.inBlock(uint32(n)))
		v := judge(&s.zones[n])
		if v == none {
			continue
		}
		if it != nil {
			if it.AdvanceIfNeeded(from); !it.HasNext() {
				break
			}
			if it.PeekNext() >= to {
				continue
			}
		}
		var b *numbers
		if v == some {
			var err error
			if b, err = s.numbers(uint32(n)); err != nil {
				return nil, err
			}
		}
		if it == nil {
			if b != nil {
				s.noteExamined(int(to - from))
			}
			for local := from; local < to; local++ {
				if b == nil || pass(b, int(local-from)) {
					keep(local)
				}
			}
			continue
		}
		for it.HasNext() && it.PeekNext() < to {
			local := it.Next()
			if b != nil {
				s.noteExamined(1)
			}
			if b == nil || pass(b, int(local-from)) {
				keep(local)
			}
		}
	}
	return roaring.FromDense(kept, false), nil
}
