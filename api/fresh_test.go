package api

import (
	"context"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
)

// gatedFreshness becomes fresh when it is told, or refuses.
type gatedFreshness struct {
	fresh   atomic.Bool
	waiting chan struct{} // receives when a request begins to wait
	answer  chan error
}

func (g *gatedFreshness) Fresh() bool { return g.fresh.Load() }

func (g *gatedFreshness) AwaitFresh(ctx context.Context) error {
	g.waiting <- struct{}{}
	select {
	case err := <-g.answer:
		return err
	case <-ctx.Done():
		return ErrMetaStale
	}
}

func newGatedFreshness() *gatedFreshness {
	return &gatedFreshness{waiting: make(chan struct{}, 1), answer: make(chan error, 1)}
}

// TestMetaStaleRefusesEverything that could be a revoked token's; nothing reaches a service.
func TestMetaStaleRefusesEverything(t *testing.T) {
	g := newGatedFreshness()
	e := newEnv(t, func(d *Deps) { d.Freshness = g })
	asked := map[string]bool{}
	for _, c := range accessCases {
		if c.request == nil || asked[c.procedure] || c.procedure == restCheck {
			continue
		}
		asked[c.procedure] = true
		row := e.handler.routes[c.procedure]
		if row.cutOff == cutOffAll {
			if err := callDynamic(t, e, c, secretOf(AllTenants, RoleAdmin)); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		g.answer <- ErrMetaStale
		d := wantReason(t, callDynamic(t, e, c, secretOf(AllTenants, RoleAdmin)), connect.CodeUnavailable, "meta_stale")
		if d.GetOutcome() != "definite" || d.GetRetryAfterMs() == 0 {
			t.Errorf("%s: %v", c.what, d)
		}
		<-g.waiting
	}
	if len(e.services.checks)+len(e.services.searches)+len(e.services.requests) != 0 {
		t.Error("a request went through")
	}
	e.close() // the last request leaves its place after its answer
	for class, gate := range e.handler.gates {
		if gate.inside != (share{}) {
			t.Errorf("class %d keeps %v", class, gate.inside)
		}
	}
}

// TestMetaStaleWaits: a request that waited is served, unless its token was revoked meanwhile.
func TestMetaStaleWaits(t *testing.T) {
	g := newGatedFreshness()
	e := newEnv(t, func(d *Deps) { d.Freshness = g })
	secret := secretOf("acme", RoleRunner)
	client := limiterv1connect.NewLimiterClient(e.client(secret), e.url)
	call := func(meanwhile func()) error {
		done := make(chan error)
		go func() {
			_, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{}))
			done <- err
		}()
		<-g.waiting
		meanwhile()
		g.answer <- nil
		return <-done
	}
	if err := call(func() {}); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	err := call(func() { e.services.breakToken(secret, ErrTokenRevoked) })
	wantReason(t, err, connect.CodeUnauthenticated, "token_revoked")
}
