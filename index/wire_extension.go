package index

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/index/query"
)

// extension is what queries have learned since the first version. A node that knows none
// refuses a query with one; one without is as it always was.
type extension struct {
	// lookup, when not nil, asks for digests instead: for each the values of terms that it can
	// mean. perDigest is how many of the newest documents of each are wanted.
	lookup    [][]string
	perDigest int
	// facets are the fields whose values are counted. histogram is the length of buckets of
	// time in nanoseconds, HistogramAuto to have it chosen, 0 for none.
	facets    []string
	histogram int64
	// order is in which order documents are wanted.
	order Order
	// explain asks what the search does.
	explain bool
}

const (
	extensionLookup = 1 << iota
	extensionFacets
	extensionHistogram
	extensionOrder
	extensionExplain

	extensionsKnown = extensionExplain<<1 - 1
)

// aggregates tells whether all matches are needed, and not only the first.
func (e *extension) aggregates() bool { return len(e.facets) > 0 || e.histogram != 0 }

// extended tells whether there is anything in it.
func (e *extension) extended() bool { return e.bits() != 0 }

func (e *extension) bits() (bits uint64) {
	if e.lookup != nil {
		bits |= extensionLookup
	}
	if len(e.facets) > 0 {
		bits |= extensionFacets
	}
	if e.histogram != 0 {
		bits |= extensionHistogram
	}
	if e.order != OrderNewest {
		bits |= extensionOrder
	}
	if e.explain {
		bits |= extensionExplain
	}
	return bits
}

func (q *shardQuery) appendExtension(b []byte) []byte {
	e := &q.extension
	b = binary.AppendUvarint(b, e.bits())
	if e.lookup != nil {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(e.perDigest)), uint64(len(e.lookup)))
		for _, readings := range e.lookup {
			b = appendStrings(b, readings)
		}
	}
	if len(e.facets) > 0 {
		b = appendStrings(b, e.facets)
	}
	if e.histogram != 0 {
		b = binary.AppendVarint(b, e.histogram)
	}
	if e.order != OrderNewest {
		b = append(b, byte(e.order))
		if e.order == OrderCost && q.after != nil {
			b = binary.AppendVarint(b, q.after.cost)
		}
	}
	return b
}

func (r *wireReader) extension(q *shardQuery) {
	e := &q.extension
	bits := r.uvarint()
	if bits&^extensionsKnown != 0 || bits == 0 {
		r.bad = true
	}
	if bits&extensionLookup != 0 {
		e.perDigest = r.count(LookupDocumentsMax)
		n := r.count(LookupDigestsMax)
		for e.lookup = make([][]string, 0, min(n, len(r.b))); n > 0 && !r.bad; n-- {
			e.lookup = append(e.lookup, r.strings(len(digestAlgorithms)))
		}
	}
	e.explain = bits&extensionExplain != 0
	if bits&extensionFacets != 0 {
		e.facets = r.strings(len(FacetFields))
		for _, f := range e.facets {
			r.bad = r.bad || !slices.Contains(FacetFields, query.Field(f))
		}
		r.bad = r.bad || len(e.facets) == 0
	}
	if bits&extensionHistogram != 0 {
		e.histogram = r.varint()
		r.bad = r.bad || e.histogram != HistogramAuto && e.histogram < HistogramIntervalMin
	}
	if bits&extensionOrder != 0 {
		e.order = Order(r.byte())
		r.bad = r.bad || e.order == OrderNewest || int(e.order) >= len(OrderNames)
		if e.order == OrderCost && q.after != nil {
			q.after.cost = r.varint()
		}
	}
}

// aggregated is what an answer tells beside documents.
type aggregated struct {
	facets   []facetCounts // in the order of the query's
	interval int64
	buckets  []Bucket
}

func (a *aggregated) any() bool { return len(a.facets) > 0 || a.interval != 0 }

func (a *aggregated) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(a.facets)))
	for i := range a.facets {
		f := &a.facets[i]
		b = binary.AppendUvarint(binary.AppendUvarint(b, f.missing), f.other)
		b = binary.AppendUvarint(b, uint64(len(f.values)))
		for _, v := range f.values {
			b = binary.AppendUvarint(appendString(b, v.value), v.count)
		}
	}
	b = binary.AppendVarint(b, a.interval)
	b = binary.AppendUvarint(b, uint64(len(a.buckets)))
	for _, k := range a.buckets {
		b = binary.AppendUvarint(binary.AppendVarint(b, k.Start), uint64(k.Count))
	}
	return b
}

func (r *wireReader) aggregated() (a aggregated) {
	for n := r.count(len(FacetFields)); n > 0 && !r.bad; n-- {
		f := facetCounts{missing: r.uvarint(), other: r.uvarint()}
		for values := r.count(facetSentMax); values > 0 && !r.bad; values-- {
			f.values = append(f.values, valueCount{string(r.bytes()), r.uvarint()})
		}
		a.facets = append(a.facets, f)
	}
	a.interval = r.varint()
	for n := r.count(HistogramBucketsMax); n > 0 && !r.bad; n-- {
		a.buckets = append(a.buckets, Bucket{r.varint(), r.count(math.MaxInt32)})
	}
	r.bad = r.bad || a.interval < 0
	return a
}

// named is the text and conditions of a query, so that no other has the same.
func (q *shardQuery) named() string {
	b := appendString(nil, q.text)
	for _, s := range []string{q.tenant, q.pack, q.digest} {
		b = appendString(b, s)
	}
	return string(binary.AppendVarint(binary.AppendVarint(b, q.from), q.to))
}

// lookupFound is what a shard has of one digest: the count of its documents, and the newest.
type lookupFound struct {
	count uint64
	rows  [][]byte
}

func (a *shardAnswer) encodeLookup() []byte {
	size := 64
	for i := range a.lookup {
		size += 2 * binary.MaxVarintLen32
		for _, row := range a.lookup[i].rows {
			size += binary.MaxVarintLen32 + len(row)
		}
	}
	b := append(make([]byte, 0, size), wireVersion, answerLookup)
	b = binary.AppendUvarint(binary.AppendUvarint(b, a.bound), uint64(len(a.lookup)))
	for i := range a.lookup {
		b = binary.AppendUvarint(b, a.lookup[i].count)
		b = binary.AppendUvarint(b, uint64(len(a.lookup[i].rows)))
		for _, row := range a.lookup[i].rows {
			b = append(binary.AppendUvarint(b, uint64(len(row))), row...)
		}
	}
	return b
}

func (r *wireReader) lookup(a *shardAnswer) {
	a.bound = r.uvarint()
	n := r.count(LookupDigestsMax)
	for a.lookup = make([]lookupFound, 0, min(n, len(r.b))); n > 0 && !r.bad; n-- {
		found := lookupFound{count: r.uvarint()}
		for rows := r.count(LookupDocumentsMax); rows > 0 && !r.bad; rows-- {
			found.rows = append(found.rows, r.bytes())
		}
		a.lookup = append(a.lookup, found)
	}
}

// count reads a number that is at most most.
func (r *wireReader) count(most int) int {
	n := r.uvarint()
	if n > uint64(most) {
		r.bad = true
		return 0
	}
	return int(n)
}

func appendStrings(b []byte, all []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, s := range all {
		b = appendString(b, s)
	}
	return b
}

// strings reads at most most texts.
func (r *wireReader) strings(most int) (all []string) {
	for n := r.count(most); n > 0 && !r.bad; n-- {
		all = append(all, string(r.bytes()))
	}
	return all
}
