package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/query"
)

// TestSearchCountsREST: facets and histograms reach the index and come back with the documented names.
func TestSearchCountsREST(t *testing.T) {
	e := newEnv(t, nil)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	e.services.found = index.SearchResult{
		Facets:    []index.Facet{{Field: query.Rule, Values: []index.FacetValue{{Value: "r1", Count: 4}}, Other: 3, Missing: 2, Exact: true}, {Field: query.Reason}},
		Histogram: &index.Histogram{Interval: int64(time.Hour), Buckets: []index.Bucket{{Start: start.UnixNano(), Count: 9}}},
	}
	res, body := e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/search?order=cost&facets=rule,reason&facetValues=1&histogram=1h", "", nil)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	want := index.SearchRequest{
		Tenant: "acme", Limit: DefaultPage, Order: index.OrderCost, Facets: []query.Field{query.Rule, query.Reason}, FacetValues: 1, Histogram: int64(time.Hour),
	}
	if got := e.services.lastSearch(); !reflect.DeepEqual(got, want) {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
	var answer struct {
		Facets []struct {
			Field  string
			Values []struct {
				Value string
				Count int
			}
			Other, Missing int
			Relation       string
		}
		Histogram struct {
			IntervalMs float64
			Buckets    []struct {
				Start string
				Count int
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	f, h := answer.Facets, answer.Histogram
	if len(f) != 2 || f[0].Field != "rule" || f[0].Values[0].Count != 4 || f[0].Other != 3 || f[0].Missing != 2 || f[0].Relation != "eq" ||
		f[1].Relation != "gte" || h.IntervalMs != 3_600_000 || h.Buckets[0].Count != 9 || h.Buckets[0].Start != "2026-01-01T00:00:00Z" {
		t.Errorf("answer %s", body)
	}
}

// TestHistogramInterval: lengths are read, and what is none is refused.
func TestHistogramInterval(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "auto": index.HistogramAuto, "1ms": 1e6, "90m": 5400e9, "7d": 7 * 86400e9,
		"1": -9, "0": -9, "-1h": -9, "1us": -9, "d": -9, "-1d": -9, "99999999d": -9, "week": -9,
	} {
		got, f := histogramInterval(text)
		if (f != nil) != (want == -9) || f == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, f)
		}
	}
}
