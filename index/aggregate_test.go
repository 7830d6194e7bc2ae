package index

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/query"
)

// facet counts by looking at every document.
func (o oracle) facet(field query.Field, most int) Facet {
	f, counts := Facet{Field: field, Exact: true}, map[string]int{}
	for _, d := range o {
		value := map[query.Field]string{
			query.Kind: d.Kind, query.Pack: d.Pack, query.Rule: d.Rule, query.Decision: d.Decision, query.Tenant: d.Tenant,
			query.Region: d.Region, query.Runner: d.Runner, query.Task: d.Task, query.Reason: d.Reason,
		}[field]
		if value == "" {
			f.Missing++
		} else {
			counts[value]++
		}
	}
	for value, n := range counts {
		f.Values = append(f.Values, FacetValue{value, n})
	}
	slices.SortFunc(f.Values, func(a, b FacetValue) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Value, b.Value)
	})
	for _, v := range f.Values[min(most, len(f.Values)):] {
		f.Other += v.Count
	}
	f.Values = f.Values[:min(most, len(f.Values))]
	return f
}

func (o oracle) histogram(interval int64) (out []Bucket) {
	counts := map[int64]int{}
	for _, d := range o {
		counts[d.Time/interval*interval]++
	}
	for start, n := range counts {
		out = append(out, Bucket{start, n})
	}
	slices.SortFunc(out, func(a, b Bucket) int { return int(a.Start - b.Start) })
	return out
}

// Facets and histograms count what a look at every match counts, in heads and in segments of
// every size, over several shards, the first time and again.
func TestAggregatesAgreeWithBruteForce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, rapid.IntRange(1, 3).Draw(rt, "shards"), 8)
		all := r.fill(rt, 80)
		n, tenant := genNode(rt, 2), rapid.SampledFrom([]string{"", "acme"}).Draw(rt, "of tenant")
		if rapid.Bool().Draw(rt, "everything") {
			n = &query.All{}
		}
		want := oracle(all.search(n, tenant))
		req := SearchRequest{
			Query: n.String(), Tenant: tenant, Limit: 3, FacetValues: rapid.IntRange(1, 4).Draw(rt, "values"),
			Facets:    rapid.SliceOfNDistinct(rapid.SampledFrom(FacetFields), 0, len(FacetFields), rapid.ID).Draw(rt, "facets"),
			Histogram: rapid.SampledFrom([]int64{0, HistogramAuto, HistogramIntervalMin, int64(time.Hour)}).Draw(rt, "histogram"),
		}
		if len(req.Facets) == 0 && req.Histogram == 0 {
			req.Histogram = HistogramAuto
		}
		for range 2 {
			res := r.search(req)
			if res.Total != len(want) || !res.TotalExact {
				rt.Fatalf("total %d, exact %v, want %d", res.Total, res.TotalExact, len(want))
			}
			for i, field := range req.Facets {
				if w := want.facet(field, req.FacetValues); !reflect.DeepEqual(res.Facets[i], w) {
					rt.Fatalf("%s of %s:\n got %+v\nwant %+v", field, n, res.Facets[i], w)
				}
			}
			if (res.Histogram == nil) != (req.Histogram == 0) {
				rt.Fatalf("histogram %v", res.Histogram)
			}
			if h := res.Histogram; h != nil {
				if req.Histogram > 0 && h.Interval != req.Histogram || len(h.Buckets) > HistogramBucketsChosen && req.Histogram < 0 {
					rt.Fatalf("%d buckets of %d", len(h.Buckets), h.Interval)
				}
				if w := want.histogram(h.Interval); !slices.Equal(h.Buckets, w) {
					rt.Fatalf("histogram of %s by %d:\n got %v\nwant %v", n, h.Interval, h.Buckets, w)
				}
			}
		}
	})
}

// Times that are far apart have buckets of sensible length, the same whatever the shards have.
func TestHistogramOverYears(t *testing.T) {
	r := newRegion(t, 3, 8)
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var docs oracle
	for i, after := range []time.Duration{0, time.Second, time.Hour, 25 * time.Hour, 9 * 24 * time.Hour, 40 * 24 * time.Hour, 1000 * 24 * time.Hour} {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Time: begin.Add(after).UnixNano()}))
		r.ingest(docs[i])
		for _, tenant := range []string{"", "acme"} {
			h := r.search(SearchRequest{Limit: 1, Tenant: tenant, Histogram: HistogramAuto}).Histogram
			if want := docs.histogram(h.Interval); len(h.Buckets) > HistogramBucketsChosen || !slices.Equal(h.Buckets, want) {
				t.Errorf("%d documents by %s: %v, want %v", len(docs), time.Duration(h.Interval), h.Buckets, want)
			}
		}
	}
	for i, step := range histogramSteps[1:] {
		if step%histogramSteps[i] != 0 {
			t.Errorf("%d is no multiple of %d: buckets cannot be joined", step, histogramSteps[i])
		}
	}
}

// More different values than a shard keeps are said to be a bound, and add up all the same.
func TestFacetBeyondItsBound(t *testing.T) {
	tally := newFacetTally()
	tally.add(&facetCounts{values: []valueCount{{"a", 5}, {"b", 3}}, missing: 2}, 2, 100)
	tally.add(&facetCounts{values: []valueCount{{"c", 9}, {"a", 1}}}, 2, 100)
	got := tally.top(1, 100)
	if want := (facetCounts{values: []valueCount{{"a", 6}}, missing: 2, other: 12}); !reflect.DeepEqual(got.values, want.values) || got.missing != 2 || got.other != 12 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	joined := joinFacets(&SearchRequest{Facets: []query.Field{query.Rule}, FacetValues: 5}, []reply{{answer: &shardAnswer{aggregated: aggregated{facets: []facetCounts{got}}}}}, true)
	if joined[0].Exact || joined[0].Other != 12 || joined[0].Values[0].Count != 6 {
		t.Errorf("joined: %+v", joined)
	}
}

func TestAggregateRefusals(t *testing.T) {
	r := newRegion(t, 2, 1<<14)
	var docs []Document
	for i := range HistogramBucketsMax + 1 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Time: int64(i+1) * HistogramIntervalMin}))
	}
	r.ingest(docs...)
	for name, req := range map[string]SearchRequest{
		"unknown":          {Facets: []query.Field{query.ID}, FacetValues: 1},
		"twice":            {Facets: []query.Field{query.Rule, query.Rule}, FacetValues: 1},
		"no values":        {Facets: []query.Field{query.Rule}},
		"many values":      {Facets: []query.Field{query.Rule}, FacetValues: FacetValuesMax + 1},
		"too short":        {Histogram: 5},
		"negative":         {Histogram: -2},
		"too many buckets": {Histogram: HistogramIntervalMin},
	} {
		req.Limit = 1
		if _, err := r.service.Search(context.Background(), req); !errors.Is(err, ErrCondition) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
