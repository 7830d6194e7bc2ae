package index

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/index/query"
)

// Bounds of what a search tells beside its documents.
const (
	// FacetValuesMax is how many values of one facet are told at most.
	FacetValuesMax = 1000
	// HistogramBucketsMax is how many buckets of a histogram with a given interval may have
	// documents; an interval that is chosen gives at most HistogramBucketsChosen.
	HistogramBucketsMax    = 10_000
	HistogramBucketsChosen = 60
	// HistogramIntervalMin is the shortest interval.
	HistogramIntervalMin = int64(time.Millisecond)
	// HistogramAuto has the interval chosen.
	HistogramAuto = -1

	// What a shard keeps of the distinct values of one facet, and what of it travels.
	facetDistinctMax      = 100_000
	facetDistinctBytesMax = 8 << 20
	facetSentMax          = 10_000
	facetSentBytesMax     = 512 << 10
)

// FacetFields are the fields that can be counted. All have one value at most in a document; of
// reasons the whole text counts.
var FacetFields = []query.Field{
	query.Kind, query.Pack, query.Rule, query.Decision, query.Tenant, query.Region, query.Runner, query.Task, query.Reason,
}

// Facet is how often the values of a field are among the matches.
type Facet struct {
	Field query.Field
	// Values are the most frequent ones, by count, then by value.
	Values []FacetValue
	// Other is how many matches have values beside these, and Missing how many have none.
	Other, Missing int
	// Exact is false when a shard had more different values than it keeps, or did not answer:
	// counts are lower bounds then, and a value may be absent.
	Exact bool
}

// FacetValue is one value of a facet.
type FacetValue struct {
	Value string
	Count int
}

// Histogram is how many matches there are by time. Buckets without any are left out.
type Histogram struct {
	// Interval is the length of a bucket in nanoseconds; buckets begin at its multiples since
	// 1970 UTC.
	Interval int64
	Buckets  []Bucket // oldest first
}

// Bucket is the matches with times in [Start, Start+Interval).
type Bucket struct {
	Start int64
	Count int
}

// histogramSteps are the intervals that are chosen from. Each is a multiple of the one before,
// so that the buckets of one shard can be joined to those of another.
var histogramSteps = []int64{
	int64(time.Millisecond), int64(10 * time.Millisecond), int64(100 * time.Millisecond),
	int64(time.Second), int64(5 * time.Second), int64(10 * time.Second), int64(30 * time.Second),
	int64(time.Minute), int64(5 * time.Minute), int64(10 * time.Minute), int64(30 * time.Minute),
	int64(time.Hour), int64(3 * time.Hour), int64(6 * time.Hour), int64(12 * time.Hour),
	day, 7 * day, 28 * day, 364 * day, 3640 * day,
}

const day = int64(24 * time.Hour)

// stepFor is the shortest step, of least or more, with which a span has few buckets.
func stepFor(oldest, newest, least int64) int64 {
	for _, step := range histogramSteps {
		if step >= least && newest/step-oldest/step < HistogramBucketsChosen {
			return step
		}
	}
	return histogramSteps[len(histogramSteps)-1]
}

// checkAggregates validates what a search wants beside its documents.
func checkAggregates(r *SearchRequest) error {
	for i, f := range r.Facets {
		if !slices.Contains(FacetFields, f) {
			return fmt.Errorf("%w: %s cannot be counted; the fields that can are %s", ErrCondition, quote(string(f)), fieldList(FacetFields))
		}
		if slices.Contains(r.Facets[:i], f) {
			return fmt.Errorf("%w: the facet %s is there twice", ErrCondition, f)
		}
	}
	if len(r.Facets) > 0 && (r.FacetValues < 1 || r.FacetValues > FacetValuesMax) {
		return fmt.Errorf("%w: %d values of a facet are not between 1 and %d", ErrCondition, r.FacetValues, FacetValuesMax)
	}
	if r.Histogram != 0 && r.Histogram != HistogramAuto && r.Histogram < HistogramIntervalMin {
		return fmt.Errorf("%w: the interval of a histogram is at least a millisecond", ErrCondition)
	}
	return nil
}

func fieldList(fields []query.Field) string {
	text := ""
	for i, f := range fields {
		switch {
		case i == 0:
		case i == len(fields)-1:
			text += " and "
		default:
			text += ", "
		}
		text += string(f)
	}
	return text
}

// facetCounts is a facet of one shard, or of one of its sources.
type facetCounts struct {
	values  []valueCount
	missing uint64
	// other is how many documents have values that are not listed.
	other uint64
}

type valueCount struct {
	value string
	count uint64
}

// byCount orders the most frequent values first.
func byCount(a, b valueCount) int {
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.value, b.value))
}

// facetTally sums up facets. Beyond its bounds it has no new values; what was added first stays.
type facetTally struct {
	counts         map[string]uint64
	bytes          int
	missing, other uint64
}

func newFacetTally() *facetTally { return &facetTally{counts: map[string]uint64{}} }

func (t *facetTally) add(f *facetCounts, most, mostBytes int) {
	t.missing += f.missing
	t.other += f.other
	for _, v := range f.values {
		if _, known := t.counts[v.value]; !known {
			if len(t.counts) == most || t.bytes+len(v.value) > mostBytes {
				t.other += v.count
				continue
			}
			t.bytes += len(v.value)
		}
		t.counts[v.value] += v.count
	}
}

// top lists the most frequent values; all others are counted as other.
func (t *facetTally) top(most, mostBytes int) facetCounts {
	out := facetCounts{missing: t.missing, other: t.other, values: make([]valueCount, 0, len(t.counts))}
	for value, count := range t.counts { // any order: they are sorted below
		out.values = append(out.values, valueCount{value, count})
	}
	slices.SortFunc(out.values, byCount)
	size := 0
	for i, v := range out.values {
		if size += len(v.value); i == most || size > mostBytes {
			for _, v := range out.values[i:] {
				out.other += v.count
			}
			out.values = out.values[:i]
			break
		}
	}
	return out
}

// joinFacets joins those of the shards.
func joinFacets(r *SearchRequest, replies []reply, complete bool) []Facet {
	var out []Facet
	for n, field := range r.Facets {
		t, exact := newFacetTally(), complete
		for i := range replies {
			if a := replies[i].answer; a != nil && n < len(a.facets) {
				exact = exact && a.facets[n].other == 0
				t.add(&a.facets[n], len(replies)*facetSentMax, len(replies)*facetSentBytesMax)
			}
		}
		top := t.top(r.FacetValues, facetSentBytesMax)
		f := Facet{Field: field, Other: int(top.other), Missing: int(top.missing), Exact: exact}
		for _, v := range top.values {
			f.Values = append(f.Values, FacetValue{v.value, int(v.count)})
		}
		out = append(out, f)
	}
	return out
}

// joinHistograms joins those of the shards; the interval is the longest of theirs, or longer
// when it is chosen and they are not of the same times.
func joinHistograms(r *SearchRequest, replies []reply) (*Histogram, error) {
	if r.Histogram == 0 {
		return nil, nil
	}
	h := &Histogram{Interval: max(r.Histogram, HistogramIntervalMin)}
	oldest, newest := int64(openEnd), int64(0)
	for i := range replies {
		if a := replies[i].answer; a != nil && len(a.buckets) > 0 {
			h.Interval = max(h.Interval, a.interval)
			oldest, newest = min(oldest, a.buckets[0].Start), max(newest, a.buckets[len(a.buckets)-1].Start)
		}
	}
	if r.Histogram == HistogramAuto && oldest <= newest {
		h.Interval = stepFor(oldest, newest, h.Interval)
	}
	counts := map[int64]int{}
	for i := range replies {
		if a := replies[i].answer; a != nil {
			for _, b := range a.buckets {
				counts[b.Start-b.Start%h.Interval] += b.Count
			}
		}
	}
	h.Buckets = sortedBuckets(counts)
	if len(h.Buckets) > HistogramBucketsMax {
		return nil, errBuckets(h.Interval)
	}
	return h, nil
}

func sortedBuckets(counts map[int64]int) []Bucket {
	out := make([]Bucket, 0, len(counts))
	for _, start := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, Bucket{start, counts[start]})
	}
	return out
}

func errBuckets(interval int64) error {
	return fmt.Errorf("%w: the matches are in more than %d buckets of %s; ask for longer ones, or for fewer documents",
		ErrCondition, HistogramBucketsMax, time.Duration(interval))
}
