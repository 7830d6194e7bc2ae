package segment

import (
	"cmp"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Costs that decide how texts are counted, in tenths of a microsecond: of a posting that is
// intersected, of a block of ordinals that is read, and of a hundred documents looked at.
const (
	postingCost  = 20
	blockCost    = 200
	hundredsCost = 10
)

// CountTexts calls add for each term of a group of TextGroups that documents of within have,
// with the number of these documents, in any order. The rest of within has no term there.
func (s *Segment) CountTexts(group byte, within *roaring.Bitmap, add func(value string, n uint64)) error {
	matches := within.GetCardinality()
	if matches == 0 {
		return nil
	}
	if s.groups[group].apart != nil { // they are in the order of documents, not of terms
		return s.countByColumn(group, within, add)
	}
	if matches == uint64(s.Len()) {
		return s.Prefix(string(rune(group)), func(term string, p Posting) bool {
			add(term[1:], uint64(p.Len()))
			return true
		})
	}
	blocks := min(matches, uint64(len(s.zones)))
	if uint64(s.groups[group].count)*postingCost < blocks*blockCost+matches/100*hundredsCost {
		return s.countByPostings(group, within, add)
	}
	return s.countByColumn(group, within, add)
}

func (s *Segment) countByPostings(group byte, within *roaring.Bitmap, add func(string, uint64)) error {
	var bad error
	err := s.Prefix(string(rune(group)), func(term string, p Posting) bool {
		bm, err := p.Bitmap()
		if err != nil {
			bad = err
			return false
		}
		if n := within.AndCardinality(bm); n > 0 {
			add(term[1:], n)
		}
		return true
	})
	if bad != nil {
		return bad
	}
	return err
}

func (s *Segment) countByColumn(group byte, within *roaring.Bitmap, add func(string, uint64)) error {
	column := 0
	for TextGroups[column] != group {
		column++
	}
	r := s.NewReader()
	counts := make([]uint32, s.groups[group].terms())
	for it := within.Iterator(); it.HasNext(); {
		s.noteExamined(1)
		o, i, err := r.ordinals(it.Next())
		if err != nil {
			return err
		}
		switch ord := o.texts[column].at(i); {
		case ord > uint64(len(counts)):
			return damaged("no term %d in group %c", ord, group)
		case ord > 0:
			counts[ord-1]++
		}
	}
	for ord, n := range counts {
		if n == 0 {
			continue
		}
		value, err := r.value(within.Minimum(), group, uint64(ord))
		if err != nil {
			return err
		}
		add(value, uint64(n))
	}
	return nil
}

// CountTimes calls add for each bucket of time that documents of within are in, newest first,
// with its start, which is a multiple of interval, and their number. Times are not negative.
func (s *Segment) CountTimes(interval int64, within *roaring.Bitmap, add func(start int64, n uint64)) error {
	r, seen := s.NewReader(), uint64(0)
	it := within.Iterator()
	for it.HasNext() {
		time, _, err := r.Place(it.PeekNext())
		if err != nil {
			return err
		}
		start := time - time%interval
		end, err := s.firstBelow(start)
		if err != nil {
			return err
		}
		if end == 0 {
			return damaged("times are not in order")
		}
		upTo := within.Rank(end - 1)
		add(start, upTo-seen)
		seen = upTo
		it.AdvanceIfNeeded(end)
	}
	return nil
}

// MostCost is the greatest cost; any is false when no document has one.
func (s *Segment) MostCost() (most int64, any bool) {
	for i := range s.zones {
		if z := &s.zones[i]; z.leastCost <= z.mostCost && (!any || z.mostCost > most) {
			most, any = z.mostCost, true
		}
	}
	return most, any
}

// CostsDescending visits documents of within that have a cost of at most most: block by block,
// those first that have the greatest cost, as long as more, which gets that cost and the first
// document of the block, is true. Within a block the order is that of numbers.
func (s *Segment) CostsDescending(within *roaring.Bitmap, most int64, more func(cost int64, first uint32) bool, visit func(local uint32, cost int64)) error {
	var blocks []uint32
	for n := range s.zones {
		if z := &s.zones[n]; z.leastCost <= min(z.mostCost, most) {
			blocks = append(blocks, uint32(n))
		}
	}
	slices.SortStableFunc(blocks, func(a, b uint32) int { return cmp.Compare(s.zones[b].mostCost, s.zones[a].mostCost) })
	for _, n := range blocks {
		from := n * blockDocuments
		if !more(s.zones[n].mostCost, from) {
			return nil
		}
		it := within.Iterator()
		if it.AdvanceIfNeeded(from); !it.HasNext() || it.PeekNext() >= from+uint32(s.inBlock(n)) {
			continue
		}
		b, err := s.numbers(n)
		if err != nil {
			return err
		}
		for it.HasNext() && it.PeekNext() < from+uint32(s.inBlock(n)) {
			local := it.Next()
			s.noteExamined(1)
			if v := b.cost.at(int(local - from)); v > 0 && unzigzag(v-1) <= most {
				visit(local, unzigzag(v-1))
			}
		}
	}
	return nil
}

// Uncosted visits the documents of within that have no cost, in order, until visit returns false.
func (s *Segment) Uncosted(within *roaring.Bitmap, visit func(local uint32) bool) error {
	r := s.NewReader()
	for it := within.Iterator(); it.HasNext(); {
		local := it.Next()
		_, has, err := r.Cost(local)
		if err != nil {
			return err
		}
		if !has && !visit(local) {
			return nil
		}
	}
	return nil
}

// Cost is a document's cost; has is false when it has none.
func (r *Reader) Cost(local uint32) (cost int64, has bool, err error) {
	n, i, err := r.numbers(local)
	if err != nil {
		return 0, false, err
	}
	if v := n.cost.at(i); v > 0 {
		return unzigzag(v - 1), true, nil
	}
	return 0, false, nil
}

// Rest is what was given to Build of a document beside its columns; it may be empty.
func (r *Reader) Rest(local uint32) ([]byte, error) {
	o, i, err := r.ordinals(local)
	if err != nil || o.hasRest.at(i) == 0 {
		return nil, err
	}
	return r.s.restOf(local)
}
