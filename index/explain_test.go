package index

import (
	"fmt"
	"testing"
)

// What a search says of itself: segments of other times and without the term are turned away
// unread, those behind a full page are not needed, and the answer is the same.
func TestExplain(t *testing.T) {
	r := newRegion(t, 1, 8)
	for i := range 64 {
		r.ingest(normal(t, Document{ID: fmt.Sprint(i), Time: int64(i + 1), Task: fmt.Sprint("task-", i/32)}))
		r.machine(0).settle(t)
	}
	segments, later := len(r.machine(0).segments), 0 // later are those with documents of task-1
	for _, g := range r.machine(0).segments {
		if g.Newest() >= 33 {
			later++
		}
	}
	if later == 0 || later == segments {
		t.Fatalf("%d of %d segments have later documents: nothing can be told apart", later, segments)
	}
	for _, c := range []struct {
		req   SearchRequest
		check func(e ShardExplain) bool
	}{
		{SearchRequest{Query: "task:task-1", Exact: true}, func(e ShardExplain) bool {
			return e.Visited == later && e.SkippedByFilter == segments-later && e.FilterMisses > 0 && e.BlocksRead+e.BlocksCached > 0
		}},
		{SearchRequest{Query: "kind:receipt", From: 33}, func(e ShardExplain) bool { return e.SkippedByBounds == segments-later && e.Visited == later }},
		{SearchRequest{Query: "nothing"}, func(e ShardExplain) bool { return e.Visited == 0 && e.SkippedByFilter == segments && e.Examined == 0 }},
		{SearchRequest{Query: "cost:>1"}, func(e ShardExplain) bool { return e.Visited == 0 && e.SkippedByBounds == segments }},
	} {
		c.req.Limit = 5
		plain := r.search(c.req)
		c.req.Explain = true
		res := r.search(c.req)
		if plain.Explain != nil || res.Explain == nil || len(res.Explain.Shards) != 1 || res.Explain.Query == "" {
			t.Fatalf("%s: explain %+v and %+v", c.req.Query, plain.Explain, res.Explain)
		}
		if e := res.Explain.Shards[0]; !c.check(e) || e.Documents != 64 || e.Shard != "index-0" {
			t.Errorf("%s of %d segments: %+v", c.req.Query, segments, e)
		}
		if fmt.Sprint(idsOf(plain.Items)) != fmt.Sprint(idsOf(res.Items)) || plain.Total != res.Total {
			t.Errorf("%s: explained it finds %v, else %v", c.req.Query, idsOf(res.Items), idsOf(plain.Items))
		}
	}
}
