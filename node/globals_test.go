package node

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// Whichever node is asked for whichever tenant, a global limit is one counter: a small one exactly, a
// large one from leases, and what a tenant's own limit denies takes nothing from it.
func TestNodesShareGlobalLimits(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	set := func(limits ...*limiterv1.Limit) {
		_, err := r.limiter(1).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits}))
		check(t, err)
	}
	ask := func(i int, tenant string) *limiterv1.CheckResponse {
		resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: 1}))
		check(t, err)
		return resp.Msg
	}
	set(
		&limiterv1.Limit{Id: "large", Scope: "global", Window: &limiterv1.Window{Limit: 100_000, Length: "1h"}},
		&limiterv1.Limit{Id: "each", Scope: "tenant", Selector: "*", TokenBucket: &limiterv1.TokenBucket{Rate: "30/d", Burst: 1000}},
		&limiterv1.Limit{Id: "shut", Scope: "tenant", Selector: "acme", TokenBucket: &limiterv1.TokenBucket{Rate: "1/d", Burst: 0}},
	)
	passed := uint32(0)
	for i := range 3 {
		r.await("a check from leases of both groups", func() bool {
			d := ask(i, fmt.Sprint("t", i))
			if len(d.Levels) == 1 {
				return false // the node does not know of the limit yet
			}
			if !d.Allow || len(d.Levels) != 2 || d.Levels[0].LimitId != "large" {
				t.Fatalf("node %d: %v", i, d)
			}
			passed++
			return d.Source == limiter.SourceLease
		})
	}
	for i := range 6 {
		if d := ask(i%3, "acme"); d.Allow || d.LimitId != "shut" {
			t.Errorf("denied by its own limit: %v", d)
		}
	}
	r.Stop(2) // which gives back what it holds
	usage, err := r.limiter(0).Usage(ctx, connect.NewRequest(&limiterv1.UsageRequest{Tenant: "acme"}))
	check(t, err)
	// Two nodes hold a 1024th of the limit each.
	if l := usage.Msg.Levels[0]; l.Level.LimitId != "large" || l.Used < passed || l.Used > passed+2*100_000/1024 {
		t.Errorf("%v, want %d used and what two nodes hold", l, passed)
	}
	r.Start(2)
	r.await("readiness", func() bool { return r.ready(2) })

	set(&limiterv1.Limit{Id: "small", Scope: "global", Window: &limiterv1.Window{Limit: 10, Length: "1h"}})
	knows := func(d *limiterv1.CheckResponse) bool {
		return slices.ContainsFunc(d.GetLevels(), func(l *limiterv1.Level) bool { return l.GetLimitId() == "small" })
	}
	allowed := 0
	for i := range 60 {
		var d *limiterv1.CheckResponse
		// Until a node knows of the limit it does not count there.
		r.await("the node to know the limit", func() bool { d = ask(i%3, fmt.Sprint("t", i%7)); return knows(d) })
		if d.Allow {
			allowed++
		} else if d.LimitId != "small" || d.RetryAfterMs == 0 {
			t.Errorf("denied: %v", d)
		}
	}
	if allowed != 10 {
		t.Errorf("%d of 10 passed", allowed)
	}
}
