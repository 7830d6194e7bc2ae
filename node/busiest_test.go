package node

import (
	"context"
	"slices"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// Every node tells of the checks that all of them were asked, and names those that do not answer.
func TestBusiestKeysOfTheRegion(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	_, err := r.limiter(0).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "none", Scope: "tenant", Selector: "globex", TokenBucket: &limiterv1.TokenBucket{Rate: "1/d", Burst: 0}},
	}}))
	check(t, err)
	ask := func(i int, tenant, key string) bool {
		resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Key: key, Cost: 1}))
		check(t, err)
		return resp.Msg.Allow
	}
	r.await("the limit to be in force", func() bool { return !ask(0, "globex", "warm") })
	for range 20 {
		ask(0, "acme", "busy") // at all nodes together more often than any other
		ask(1, "acme", "busy")
		ask(2, "acme", "busy")
		ask(0, "acme", "second")
		ask(0, "acme", "second")
	}
	ask(2, "globex", "denied")
	top := func(i int, req *limiterv1.TopRequest) *limiterv1.TopResponse {
		t.Helper()
		resp, err := r.limiter(i).Top(ctx, connect.NewRequest(req))
		check(t, err)
		return resp.Msg
	}
	for i := range 3 {
		got := top(i, &limiterv1.TopRequest{Most: 1})
		if len(got.Keys) != 1 || got.Keys[0].Key != "busy" || got.Keys[0].DeniesPerSecond != 0 || len(got.Missing) != 0 {
			t.Errorf("through node %d: %v", i+1, got)
		}
		got = top(i, &limiterv1.TopRequest{Denied: true, Tenant: "globex"})
		if !slices.ContainsFunc(got.Keys, func(k *limiterv1.BusyKey) bool {
			return k.Key == "denied" && k.LimitId == "none" && k.DeniesPerSecond == k.ChecksPerSecond
		}) {
			t.Errorf("denied, through node %d: %v", i+1, got)
		}
	}
	r.Stop(2)
	if got := top(0, &limiterv1.TopRequest{}); !slices.Equal(got.Missing, []string{"node-3"}) || len(got.Keys) == 0 {
		t.Errorf("without a node: %v", got)
	}
}
