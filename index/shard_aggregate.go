package index

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/index/query"
)

// matched is the matches of one source.
type matched struct {
	source    source
	documents *roaring.Bitmap
	// cached names them in the source's cache; it is empty when they are not all that
	// the source has for the query.
	cached string
}

// aggregate counts the facets and the histogram over all parts.
func (s *shardSearch) aggregate(ctx context.Context, a *shardAnswer) error {
	for _, field := range s.query.facets {
		t := newFacetTally()
		for i := range s.parts {
			if err := ctx.Err(); err != nil {
				return err
			}
			f, err := s.parts[i].facet(query.Field(field))
			if err != nil {
				return err
			}
			t.add(&f, facetDistinctMax, facetDistinctBytesMax)
		}
		a.facets = append(a.facets, t.top(facetSentMax, facetSentBytesMax))
	}
	if s.query.histogram == 0 {
		return nil
	}
	return s.histogram(ctx, a)
}

func (s *shardSearch) histogram(ctx context.Context, a *shardAnswer) error {
	a.interval = s.query.histogram
	if a.interval == HistogramAuto {
		newest, oldest := int64(0), int64(openEnd)
		for _, p := range s.parts {
			n, o, err := p.source.span(p.documents)
			if err != nil {
				return err
			}
			newest, oldest = max(newest, n), min(oldest, o)
		}
		a.interval = stepFor(min(oldest, newest), newest, HistogramIntervalMin)
	}
	counts := map[int64]int{}
	for _, p := range s.parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := p.source.countTimes(a.interval, p.documents, func(start int64, n uint64) { counts[start] += int(n) })
		if err != nil {
			return err
		}
		if len(counts) > HistogramBucketsMax {
			a.refusal = strings.TrimPrefix(errBuckets(a.interval).Error(), ErrCondition.Error()+": ")
			return nil
		}
	}
	a.buckets = sortedBuckets(counts)
	return nil
}

// facet counts the values of a field; the most frequent come first.
func (p *matched) facet(field query.Field) (f facetCounts, err error) {
	cache := p.source.aggregates()
	key := ""
	if cache != nil && p.cached != "" {
		key = string(field) + "\x00" + p.cached
		if f, ok := cache.get(key); ok {
			return f, nil
		}
	}
	listed := uint64(0)
	add := func(value string, n uint64) {
		f.values = append(f.values, valueCount{value, n})
		listed += n
	}
	if field == query.Reason {
		err = p.source.countReasons(p.documents, add)
	} else {
		err = p.source.countTexts(field, p.documents, add)
	}
	if err != nil {
		return f, err
	}
	f.missing = p.documents.GetCardinality() - listed
	slices.SortFunc(f.values, byCount)
	if key != "" {
		cache.put(key, f)
	}
	return f, nil
}

// aggregateCache keeps facets of one segment, which never change. Its zero value is empty.
type aggregateCache struct {
	mu    sync.Mutex
	bytes int
	known map[string]facetCounts
}

// aggregateCacheBytes bounds what is kept of a segment, and of one facet a quarter of it.
const aggregateCacheBytes = 256 << 10

func (c *aggregateCache) get(key string) (facetCounts, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.known[key]
	return f, ok
}

func (c *aggregateCache) put(key string, f facetCounts) {
	size := len(key) + 100
	for _, v := range f.values {
		size += len(v.value) + 24
	}
	if size > aggregateCacheBytes/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || c.bytes+size > aggregateCacheBytes {
		c.known, c.bytes = map[string]facetCounts{}, 0
	}
	c.known[key] = f
	c.bytes += size
}

// reasonOf is the reason in what a segment has of a document beside its columns.
func reasonOf(rest []byte) (string, error) {
	if len(rest) == 0 {
		return "", nil
	}
	d, err := DecodeDocument(rest[1:])
	if err != nil {
		return "", fmt.Errorf("%w: rest of the document", segment.ErrCorrupt)
	}
	return d.Reason, nil
}

// countReasons counts whole reasons.
func countReasons(documents *roaring.Bitmap, rest func(local uint32) ([]byte, error), add func(string, uint64)) error {
	counts := map[string]uint64{}
	for it := documents.Iterator(); it.HasNext(); {
		b, err := rest(it.Next())
		if err != nil {
			return err
		}
		reason, err := reasonOf(b)
		if err != nil {
			return err
		}
		if reason != "" {
			counts[reason]++
		}
	}
	for reason, n := range counts { // any order: who adds them up sorts them
		add(reason, n)
	}
	return nil
}

// isHashed tells whether the indexed form of a value is not the value.
func isHashed(value string) bool { return strings.IndexByte(value, 0xFF) >= 0 }

// wholeValue reads a field of an encoded document.
func wholeValue(field query.Field, row []byte) (string, error) {
	d, err := DecodeDocument(row)
	if err != nil {
		return "", err
	}
	for i, v := range textFields(&d) {
		if segment.TextGroups[i] == fieldGroups[field][0] {
			return *v, nil
		}
	}
	return "", nil
}

func (s headSource) aggregates() *aggregateCache { return nil }

func (s headSource) countTexts(field query.Field, documents *roaring.Bitmap, add func(string, uint64)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.byCode[fieldGroups[field][0]]
	if g == nil {
		return nil
	}
	for i := range g.list {
		t := &g.list[i]
		n, first := s.countIn(s.postings[t.posting], documents)
		if n == 0 {
			continue
		}
		value := string(g.value(t))
		if isHashed(value) {
			var err error
			if value, err = wholeValue(field, s.rows.row(first)); err != nil {
				return err
			}
		}
		add(value, n)
	}
	return nil
}

// countIn counts the documents of a posting that are among others, and finds one of them.
func (h *head) countIn(p uint64, documents *roaring.Bitmap) (n uint64, found uint32) {
	count := func(local uint32) {
		if documents.Contains(local) {
			n, found = n+1, local
		}
	}
	switch length, ref := p>>32, uint32(p); {
	case length == 1:
		count(ref)
	case length <= listMax:
		for _, local := range h.lists.of(ref, int(length)) {
			count(uint32(local))
		}
	default:
		if n = documents.AndCardinality(h.bitmaps[ref]); n > 0 {
			found = roaring.And(documents, h.bitmaps[ref]).Minimum()
		}
	}
	return n, found
}

func (s headSource) countReasons(documents *roaring.Bitmap, add func(string, uint64)) error {
	s.mu.RLock()
	rests, ends := s.rests, s.restEnds
	s.mu.RUnlock()
	return countReasons(documents, func(local uint32) ([]byte, error) { return elementsOf(rests, ends, local), nil }, add)
}

func (s headSource) span(documents *roaring.Bitmap) (newest, oldest int64, err error) {
	s.mu.RLock()
	docs := s.docs
	s.mu.RUnlock()
	newest, oldest = 0, openEnd
	for it := documents.Iterator(); it.HasNext(); {
		t := docs[it.Next()].Time
		newest, oldest = max(newest, t), min(oldest, t)
	}
	return newest, oldest, nil
}

func (s headSource) countTimes(interval int64, documents *roaring.Bitmap, add func(int64, uint64)) error {
	s.mu.RLock()
	docs := s.docs
	s.mu.RUnlock()
	for it := documents.Iterator(); it.HasNext(); {
		t := docs[it.Next()].Time
		add(t-t%interval, 1)
	}
	return nil
}

func (s segmentSource) aggregates() *aggregateCache { return &s.facets }

func (s segmentSource) countTexts(field query.Field, documents *roaring.Bitmap, add func(string, uint64)) error {
	group := fieldGroups[field]
	var hashed []valueCount
	err := s.CountTexts(group[0], documents, func(value string, n uint64) {
		if isHashed(value) {
			hashed = append(hashed, valueCount{value, n})
			return
		}
		add(value, n)
	})
	if err != nil {
		return s.note(err)
	}
	rows := rowReader{Reader: s.NewReader()}
	for _, v := range hashed {
		p, err := s.Lookup(group + v.value)
		if err != nil {
			return s.note(err)
		}
		bm, err := p.Bitmap()
		if err != nil {
			return s.note(err)
		}
		row, err := rows.read(roaring.And(bm, documents).Minimum())
		if err != nil {
			return s.note(err)
		}
		value, err := wholeValue(field, row)
		if err != nil {
			return err
		}
		add(value, v.count)
	}
	return nil
}

func (s segmentSource) countReasons(documents *roaring.Bitmap, add func(string, uint64)) error {
	return s.note(countReasons(documents, s.NewReader().Rest, add))
}

func (s segmentSource) span(documents *roaring.Bitmap) (newest, oldest int64, err error) {
	if documents.IsEmpty() {
		return 0, openEnd, nil
	}
	r := s.NewReader()
	if newest, _, err = r.Place(documents.Minimum()); err == nil {
		oldest, _, err = r.Place(documents.Maximum())
	}
	return newest, oldest, s.note(err)
}

func (s segmentSource) countTimes(interval int64, documents *roaring.Bitmap, add func(int64, uint64)) error {
	return s.note(s.CountTimes(interval, documents, add))
}
