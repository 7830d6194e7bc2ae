package limiter

import (
	"fmt"
	"testing"
)

// A key that is exhausted before a million new keys come is still denied after them.
func TestAnExhaustedKeyIsDeniedAfterAMillionNewKeys(t *testing.T) {
	keys := 1_000_000
	if raceDetector || testing.Short() {
		keys = 50_000
	}
	d := drive(t, cacheCounters)
	d.set(limit("a", ScopeKey, "acme/*", "1/h", 2))
	victim := Request{Tenant: "acme", Key: "victim", Cost: 2}
	if first := d.check(0, victim); !first.Allow {
		t.Fatal(first)
	}
	for i := 0; i < keys; i += batchCommandMax {
		all := make([]Request, 0, batchCommandMax)
		for k := range batchCommandMax {
			all = append(all, Request{Tenant: "acme", Key: fmt.Sprint("flood-", i+k), Cost: 1})
		}
		d.Apply(appendBatch(nil, all))
		if i/batchCommandMax%50 == 0 {
			d.sweep()
		}
	}
	victim.Cost = 1
	if got := d.check(0, victim); got.Allow {
		t.Errorf("after %d new keys: %v", keys, got)
	}
}
