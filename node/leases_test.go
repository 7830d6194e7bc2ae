package node

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// All nodes decide from leases, together exactly what the limit has: what idles at one of them comes
// back when another one lacks it, and when the node stops.
func TestNodesShareALimitByLeases(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	set := func(id, rate string, burst uint32) {
		_, err := r.limiter(1).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
			{Id: id, Scope: "tenant", Selector: id, TokenBucket: &limiterv1.TokenBucket{Rate: rate, Burst: burst}},
		}}))
		check(t, err)
	}
	ask := func(i int, tenant string, cost uint32) *limiterv1.CheckResponse {
		resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: cost}))
		check(t, err)
		return resp.Msg
	}
	// Once the nodes have heard of each other's level, and until then of a limit of its own.
	set("globex", "30/d", 1000)
	for i := range 3 {
		r.await("a check from a lease", func() bool { return ask(i, "globex", 1).Source == limiter.SourceLease })
	}
	set("acme", "3/d", 100)
	passed, lent := 0, 0
	r.await("the limit to be used up", func() bool {
		for i := range 3 {
			for range 10 {
				d := ask(i, "acme", 1)
				if d.Allow {
					passed++
				}
				if d.Source == limiter.SourceLease {
					lent++
				}
			}
		}
		return passed >= 100
	})
	for i := range 3 {
		if ask(i, "acme", 1).Allow {
			passed++
		}
	}
	usage, err := r.limiter(0).Usage(ctx, connect.NewRequest(&limiterv1.UsageRequest{Tenant: "acme"}))
	check(t, err)
	if used := usage.Msg.Levels[0].Used; used != 100 || passed != 100 {
		t.Errorf("%d used of 100, %d passed", used, passed)
	}
	if lent == 0 {
		t.Error("no check was decided from a lease")
	}

	// What node 3 is lent now it gives back when it stops.
	set("initech", "30/d", 1000)
	asked := uint32(0)
	r.await("a check from a lease", func() bool {
		asked++
		return ask(2, "initech", 1).Source == limiter.SourceLease
	})
	r.Stop(2)
	usage, err = r.limiter(0).Usage(ctx, connect.NewRequest(&limiterv1.UsageRequest{Tenant: "initech"}))
	check(t, err)
	if used := usage.Msg.Levels[0].Used; used != asked {
		t.Errorf("%d of 1000 used after the node that held leases has stopped, want %d that passed", used, asked)
	}
}
