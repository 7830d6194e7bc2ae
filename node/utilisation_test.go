package node

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// Three nodes that are all asked for more than a limit has let nearly all of it pass, and no more, whatever leases move between
// them. The window does not move on while the test runs, so that no clock decides.
func TestNodesUseTheirLimits(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	const most, size = 3000, 200
	_, err := r.limiter(1).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "window", Scope: "tenant", Selector: "acme", Window: &limiterv1.Window{Limit: most, Length: "24h"}},
	}}))
	check(t, err)
	for i := range 3 {
		r.await("the limit", func() bool {
			resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme"}))
			return err == nil && len(resp.Msg.Levels) == 1
		})
	}
	batch := &limiterv1.CheckBatchRequest{}
	for range size {
		batch.Checks = append(batch.Checks, &limiterv1.CheckRequest{Tenant: "acme", Cost: 1})
	}
	var passed atomic.Int64
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for range 4 * most / size { // four times what there is, at each node
				resp, err := r.limiter(i).CheckBatch(ctx, connect.NewRequest(batch))
				if err != nil {
					t.Error(err)
					return
				}
				for _, o := range resp.Msg.Results {
					if o.GetError() != nil {
						t.Error(o.GetError())
					} else if o.GetDecision().GetAllow() {
						passed.Add(1)
					}
				}
			}
		})
	}
	all.Wait()
	if n := passed.Load(); n > most || n < most*97/100 {
		t.Errorf("%d of %d passed", n, most)
	}
}
