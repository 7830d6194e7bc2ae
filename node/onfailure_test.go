package node

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// A node that is left alone tells checks what their limits say for that case, and fails the others; once a majority
// is back, groups decide again, and count nothing of what passed meanwhile.
func TestLimitsSayWhatIsDecidedWithoutAMajority(t *testing.T) {
	r := newRegion(t)
	r.run()
	window := &limiterv1.Window{Limit: 10, Length: "1h"}
	r.setLimits(
		&limiterv1.Limit{Id: "open", Scope: "tenant", Selector: "acme", Window: window, OnFailure: limiter.OnFailureOpen},
		&limiterv1.Limit{Id: "shut", Scope: "tenant", Selector: "globex", Window: window, OnFailure: limiter.OnFailureDeny},
		&limiterv1.Limit{Id: "fails", Scope: "tenant", Selector: "initech", Window: window},
	)
	ask := func(tenant string) (*limiterv1.CheckResponse, error) {
		resp, err := r.limiter(0).Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: 1}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	bySource := func(tenant, source string) *limiterv1.CheckResponse {
		t.Helper()
		var d *limiterv1.CheckResponse
		r.await("an answer of "+source, func() (ok bool) {
			var err error
			d, err = ask(tenant)
			return err == nil && d.GetSource() == source
		})
		return d
	}
	passed := uint32(0)
	for _, tenant := range []string{"acme", "globex", "initech"} {
		if !bySource(tenant, limiter.SourceLeader).GetAllow() {
			t.Errorf("%s is denied", tenant)
		}
	}
	passed++
	r.Stop(1)
	r.Stop(2)
	if d := bySource("acme", limiter.SourceFailure); !d.GetAllow() || len(d.GetLevels()) != 0 {
		t.Errorf("open: %v", d)
	}
	if d := bySource("globex", limiter.SourceFailure); d.GetAllow() || d.GetLimitId() != "shut" || d.GetReason() != limiter.ReasonAway || d.GetRetryAfterMs() == 0 {
		t.Errorf("shut: %v", d)
	}
	if d, err := ask("initech"); err == nil {
		t.Errorf("a limit that says nothing: %v", d)
	}
	for range 20 { // more than the limit has
		if d, err := ask("acme"); err != nil || !d.GetAllow() || d.GetSource() != limiter.SourceFailure {
			t.Fatalf("open: %v, %v", d, err)
		}
	}
	r.Start(1)
	r.Start(2)
	d := bySource("acme", limiter.SourceLeader)
	if passed++; !d.GetAllow() || d.GetLevels()[0].GetRemaining() < 10-passed-1 {
		t.Errorf("then %v", d)
	}
}
