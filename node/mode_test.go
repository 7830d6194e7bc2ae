package node

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// The mode of the limits, set through one node, holds at every other, and after all were restarted.
func TestModeOfTheLimitsHoldsEverywhere(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	_, err := r.limiter(1).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "none", Scope: "tenant", Selector: "acme", TokenBucket: &limiterv1.TokenBucket{Rate: "1/d", Burst: 0}},
	}}))
	check(t, err)
	ask := func(i int) *limiterv1.CheckResponse {
		resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 1}))
		check(t, err)
		return resp.Msg
	}
	holds := func(mode string) {
		t.Helper()
		for i := range 3 {
			r.await("the metric to show the mode "+mode, func() bool { return strings.Contains(r.metrics(i), `mc_rl_mode{mode="`+mode+`"} 1`) })
			got := ask(i)
			if shown := strings.TrimPrefix(mode, "enforce"); got.Mode != shown || got.Allow != (shown != "") || got.WouldDeny != (mode == "shadow") {
				t.Errorf("node %d in the mode %s: %v", i+1, mode, got)
			}
		}
	}
	set := func(i int, mode, before string) {
		t.Helper()
		resp, err := r.limiter(i).SetMode(ctx, connect.NewRequest(&limiterv1.SetModeRequest{Mode: mode}))
		check(t, err)
		if resp.Msg.Before != before {
			t.Errorf("set %s: it was %q, want %q", mode, resp.Msg.Before, before)
		}
	}
	for i := range 3 {
		r.await("the limit to be in force", func() bool { return !ask(i).Allow })
	}
	set(0, "shadow", "enforce")
	holds("shadow")
	set(1, "off", "shadow")
	holds("off")
	for i := range 3 {
		r.Stop(i)
	}
	for i := range 3 {
		r.Start(i)
	}
	for i := range 3 {
		r.await("readiness", func() bool { return r.ready(i) })
	}
	holds("off")
	if got, err := r.limiter(2).GetMode(ctx, connect.NewRequest(&limiterv1.GetModeRequest{})); err != nil || got.Msg.Mode != "off" {
		t.Errorf("after the restart: %v, %v", got, err)
	}
	set(2, "enforce", "off")
	holds("enforce")
}

func (r *testRegion) metrics(i int) string {
	r.t.Helper()
	resp, err := http.Get("http://" + r.configs[i].Admin.Listen + "/metrics")
	check(r.t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	check(r.t, err)
	return string(all)
}
