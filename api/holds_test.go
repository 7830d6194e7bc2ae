package api

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// oneGroup is a limiter group without Raft.
type oneGroup struct {
	mu     sync.Mutex
	driver *fsmtest.Driver
	level  int
}

func (g *oneGroup) Propose(_ context.Context, _ raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.driver.Time += time.Millisecond
	a := g.driver.Propose(cmd)[0]
	return a.Result, a.Err
}

func (g *oneGroup) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	data, err := g.driver.Machine().Query(ctx, q)
	return raftfsm.Answer{Data: data}, err
}

func (g *oneGroup) Level() int { return g.level }

// realLimiter is an API in front of a limiter with limits.
func realLimiter(t *testing.T, limits ...limiter.Limit) (*env, *oneGroup) {
	t.Helper()
	g := &oneGroup{driver: fsmtest.New(t, func() raftfsm.Machine { return limiter.NewMachine() }), level: raftfsm.LevelCurrent}
	s := limiter.NewService(g, []raftfsm.GroupID{1})
	if _, _, err := s.Configure(t.Context(), 1, limiter.Change{To: 1, Puts: limits}); err != nil {
		t.Fatal(err)
	}
	return newEnv(t, func(d *Deps) { d.Checker, d.Holder = withoutLimits{s}, s }), g
}

// withoutLimits is a checker that knows no limit by name, and no busy key.
type withoutLimits struct{ *limiter.Service }

func (withoutLimits) Limit(string) (limiter.Limit, bool) { return limiter.Limit{}, false }

// What a tenant reserves, takes and holds goes through the API and back, and is nobody else's.
func TestHoldsThroughTheAPI(t *testing.T) {
	e, _ := realLimiter(t,
		limiter.Limit{ID: "tokens", Scope: limiter.ScopeTenant, Selector: "*", Window: limiter.Window{Limit: 100, Length: "1h"}},
		limiter.Limit{ID: "runs", Scope: limiter.ScopeKey, Selector: "*/build", Concurrency: limiter.Concurrency{Limit: 2, TTL: "30s"}})
	ctx := t.Context()
	acme := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url)
	globex := limiterv1connect.NewLimiterClient(e.client(secretOf("globex", RoleRunner)), e.url)
	reason := func(err error) string {
		t.Helper()
		if err == nil {
			return ""
		}
		return detailOf(t, err).GetReason()
	}

	res, err := acme.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{Cost: 60, TtlMs: 5000, RequestId: "r"}))
	if err != nil || res.Msg.GetId() == "" || res.Msg.GetExpiresInMs() != 5000 || res.Msg.GetDecision().GetLevels()[0].GetRemaining() != 40 {
		t.Fatalf("reserve: %v, %v", res, err)
	}
	id := res.Msg.GetId()
	if again, err := acme.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{Cost: 60, TtlMs: 5000, RequestId: "r"})); err != nil || again.Msg.GetId() != id {
		t.Errorf("reserve again: %v, %v", again, err)
	}
	if denied, err := acme.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{Cost: 60})); err != nil || denied.Msg.GetId() != "" || denied.Msg.GetDecision().GetLimitId() != "tokens" || denied.Msg.GetDecision().GetRetryAfterMs() == 0 {
		t.Errorf("reserve too much: %v, %v", denied, err)
	}
	if _, err := globex.Commit(ctx, connect.NewRequest(&limiterv1.CommitRequest{Id: id})); reason(err) != "reservation_unknown" {
		t.Errorf("another tenant's commit: %v", err)
	}
	commit, err := acme.Commit(ctx, connect.NewRequest(&limiterv1.CommitRequest{Id: id, Actual: 50}))
	if s := commit.Msg.GetSettlement(); err != nil || s.GetActual() != 50 || s.GetRefunded() != 10 || s.GetLate() {
		t.Errorf("commit: %v, %v", s, err)
	}
	cancel, err := acme.Cancel(ctx, connect.NewRequest(&limiterv1.CancelRequest{Id: id}))
	if err != nil || cancel.Msg.GetSettlement().GetActual() != 50 {
		t.Errorf("cancel after commit: %v, %v", cancel, err)
	}

	if _, err := acme.Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Cost: 5, RequestId: "c"})); err != nil {
		t.Fatal(err)
	}
	if _, err := globex.Refund(ctx, connect.NewRequest(&limiterv1.RefundRequest{RequestId: "c"})); reason(err) != "request_unknown" {
		t.Errorf("another tenant's refund: %v", err)
	}
	refund, err := acme.Refund(ctx, connect.NewRequest(&limiterv1.RefundRequest{RequestId: "c", Cost: 2}))
	if err != nil || refund.Msg.GetRefunded() != 2 {
		t.Errorf("refund: %v, %v", refund, err)
	}

	slot, err := acme.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{Key: "build", Weight: 2, TtlMs: 60_000}))
	if err != nil || slot.Msg.GetExpiresInMs() != 30_000 || slot.Msg.GetDecision().GetLevels()[0].GetKind() != limiter.KindConcurrency {
		t.Fatalf("acquire: %v, %v", slot, err)
	}
	if full, err := acme.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{Key: "build"})); err != nil || full.Msg.GetDecision().GetAllow() || full.Msg.GetDecision().GetKind() != limiter.KindConcurrency {
		t.Errorf("acquire when full: %v, %v", full, err)
	}
	if _, err := globex.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{Id: slot.Msg.GetId()})); reason(err) != "slot_unknown" {
		t.Errorf("another tenant's renewal: %v", err)
	}
	if more, err := acme.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{Id: slot.Msg.GetId()})); err != nil || more.Msg.GetId() != slot.Msg.GetId() || more.Msg.GetExpiresInMs() != 30_000 {
		t.Errorf("renew: %v, %v", more, err)
	}
	usage, err := acme.Usage(ctx, connect.NewRequest(&limiterv1.UsageRequest{Key: "build"}))
	if err != nil || len(usage.Msg.GetLevels()) != 2 || usage.Msg.GetLevels()[0].GetUsed() != 53 || usage.Msg.GetLevels()[1].GetUsed() != 2 {
		t.Errorf("usage: %v, %v; want 53 of the window and 2 slots", usage, err)
	}
	for i, want := range []bool{false, true, false} {
		client := acme
		if i == 0 {
			client = globex
		}
		if got, err := client.Release(ctx, connect.NewRequest(&limiterv1.ReleaseRequest{Id: slot.Msg.GetId()})); err != nil || got.Msg.GetReleased() != want {
			t.Errorf("release %d: %v, %v", i, got, err)
		}
	}
}

// What is wrong with a field is told with the reason of malformed fields.
func TestHoldsRefuseOddFields(t *testing.T) {
	e, g := realLimiter(t)
	ctx := t.Context()
	c := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url)
	long := strings.Repeat("x", MaxRequestIDBytes+1)
	calls := map[string]func() error{
		"reserve of nothing": func() error { _, err := c.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{})); return err },
		"reserve too shortly": func() error {
			_, err := c.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{Cost: 1, TtlMs: 1}))
			return err
		},
		"acquire too long": func() error {
			_, err := c.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{TtlMs: 3_600_001}))
			return err
		},
		"renew of no id": func() error {
			_, err := c.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{Id: "x"}))
			return err
		},
		"commit without id":  func() error { _, err := c.Commit(ctx, connect.NewRequest(&limiterv1.CommitRequest{})); return err },
		"cancel without id":  func() error { _, err := c.Cancel(ctx, connect.NewRequest(&limiterv1.CancelRequest{})); return err },
		"release without id": func() error { _, err := c.Release(ctx, connect.NewRequest(&limiterv1.ReleaseRequest{})); return err },
		"refund without id":  func() error { _, err := c.Refund(ctx, connect.NewRequest(&limiterv1.RefundRequest{})); return err },
	}
	for what, call := range calls {
		if got := detailOf(t, call()); got.GetReason() != "field_malformed" || got.GetOutcome() != "definite" {
			t.Errorf("%s: %v", what, got)
		}
	}
	for what, call := range map[string]func() error{
		"reserve": func() error {
			_, err := c.Reserve(ctx, connect.NewRequest(&limiterv1.ReserveRequest{Cost: 1, RequestId: long}))
			return err
		},
		"acquire": func() error {
			_, err := c.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{RequestId: long}))
			return err
		},
		"refund": func() error {
			_, err := c.Refund(ctx, connect.NewRequest(&limiterv1.RefundRequest{RequestId: long}))
			return err
		},
	} {
		if got := detailOf(t, call()).GetReason(); got != "field_too_long" {
			t.Errorf("%s with a long request id: %s", what, got)
		}
	}
	g.level = raftfsm.LevelLimits
	_, err := c.Acquire(ctx, connect.NewRequest(&limiterv1.AcquireRequest{}))
	if got := detailOf(t, err); got.GetReason() != "level_too_low" || got.GetOutcome() != "definite" {
		t.Errorf("in a region of the level before: %v", got)
	}
}

func (withoutLimits) BusyKeys(context.Context, string, bool, int) ([]BusyKey, []string, error) {
	return nil, nil, nil
}
