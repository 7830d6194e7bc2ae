package index

import (
	"fmt"
	"slices"
	"testing"
)

// A shard that has more of a page than its part is asked for the rest.
func TestPageOfOneShard(t *testing.T) {
	r := newRegion(t, 3, 64)
	var docs []Document
	for n := 0; len(docs) < 200; n++ {
		d := Document{ID: fmt.Sprintf("d%d", n), Kind: KindEvent, Tenant: "acme", Time: int64(1000 + n)}
		// The newest are all of one shard, those before of all of them.
		if len(docs) < 100 || r.service.router.shard(d.Tenant, d.ID) == 1 {
			docs = append(docs, normal(t, d))
		}
	}
	r.ingest(docs...)
	slices.Reverse(docs)
	for _, limit := range []int{1, 2, 50, 99, 150, 200, 1000} {
		got, first := r.pages(SearchRequest{Tenant: "acme", Limit: limit}, func() {})
		if !slices.Equal(idsOf(got), idsOf(docs)) || len(first.Items) != min(limit, len(docs)) {
			t.Errorf("limit %d: a page of %d documents, all %d: %v", limit, len(first.Items), len(got), idsOf(got))
		}
	}
}

func TestShareOfPage(t *testing.T) {
	for _, c := range []struct{ limit, shards, want int }{{50, 1, 50}, {50, 3, 27}, {1, 3, 1}, {10, 3, 8}, {1000, 3, 379}, {1000, 16, 86}} {
		if got := shareOf(c.limit, c.shards); got != c.want {
			t.Errorf("%d of %d shards: %d, want %d", c.limit, c.shards, got, c.want)
		}
	}
}
