package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/maestro-conductor/maestro/api/envoymap"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
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
		if c.request == nil || asked[c.procedure] || strings.Contains(c.procedure, " ") {
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
		if row.cutOff == cutOffLeases && (row.stream || c.procedure == envoyShouldRateLimit) {
			continue // see TestCutOffChecksGoOnFromLeases
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

// TestCutOffChecksGoOnFromLeases: what leases decide is answered at once; the rest waits and is refused,
// check by check where others of its message were decided.
func TestCutOffChecksGoOnFromLeases(t *testing.T) {
	g := newGatedFreshness()
	mapping, problems := envoymap.Parse([]byte(`domains: [{domain: edge, unmatched: deny, rules: [{match: {key: "*"}, tenant: acme, key: "{key}"}]}]`))
	if problems != nil {
		t.Fatal(problems)
	}
	e := newEnv(t, func(d *Deps) { d.Freshness, d.Envoy = g, mapping })
	secret := secretOf("acme", RoleRunner)
	client := limiterv1connect.NewLimiterClient(e.client(secret), e.url)
	check := func(key string) (*limiterv1.CheckResponse, error) {
		res, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Key: key, Cost: 1}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	refused := func() {
		g.answer <- ErrMetaStale
	}
	if d, err := check("held"); err != nil || !d.GetAllow() || d.GetSource() != limiter.SourceLease {
		t.Errorf("held: %v, %v", d, err)
	}
	refused()
	_, err := check("other")
	wantReason(t, err, connect.CodeUnavailable, "meta_stale")
	<-g.waiting

	batch := func(keys ...string) (*limiterv1.CheckBatchResponse, error) {
		m := &limiterv1.CheckBatchRequest{}
		for _, key := range keys {
			m.Checks = append(m.Checks, &limiterv1.CheckRequest{Key: key, Cost: 1})
		}
		res, err := client.CheckBatch(t.Context(), connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	refused()
	res, err := batch("held", "other", "held")
	if err != nil || !res.GetResults()[0].GetDecision().GetAllow() || !res.GetResults()[2].GetDecision().GetAllow() ||
		res.GetResults()[1].GetError().GetReason() != "meta_stale" || res.GetResults()[1].GetDecision() != nil {
		t.Errorf("batch: %v, %v", res, err)
	}
	<-g.waiting
	refused()
	_, err = batch("other")
	wantReason(t, err, connect.CodeUnavailable, "meta_stale")
	<-g.waiting
	if len(e.services.checks) != 0 {
		t.Errorf("%d checks went further", len(e.services.checks))
	}
	g.answer <- nil
	if res, err = batch("held", "other"); err != nil || len(e.services.checks) != 1 || res.GetResults()[1].GetDecision() == nil {
		t.Errorf("batch at a node that came back: %v, %v", res, err)
	}
	<-g.waiting

	stream := e.checkStream(t, secret)
	m := &limiterv1.CheckStreamRequest{Checks: 2, Keys: "heldother", KeyBytes: []uint32{4, 5}}
	refused()
	if got := ask(t, stream, m); len(got.GetFailed()) != 1 || got.GetFailed()[0].GetCheck() != 1 ||
		got.GetFailed()[0].GetError().GetReason() != "meta_stale" || got.GetAllowed()[0] != 1 {
		t.Errorf("stream: %v", got)
	}
	<-g.waiting
	refused()
	m.Keys = "moreother"
	if got := ask(t, stream, m); got.GetRefused().GetError().GetReason() != "meta_stale" {
		t.Errorf("stream, nothing held: %v", got)
	}
	<-g.waiting

	envoy := func(keys ...string) (*rlsv3.RateLimitResponse, error) {
		r := &rlsv3.RateLimitRequest{Domain: "edge"}
		for _, key := range keys {
			r.Descriptors = append(r.Descriptors, descriptor("key", key))
		}
		return askEnvoy(t, e, secret, r)
	}
	if got, err := envoy("held"); err != nil || got.GetOverallCode() != rlsv3.RateLimitResponse_OK {
		t.Errorf("envoy: %v, %v", got, err)
	}
	refused()
	if _, err := envoy("held", "held"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("descriptors that pass together, of which no lease decides: %v", err)
	}
	<-g.waiting

	// A token that is known to be revoked is refused at once, as ever.
	e.services.breakToken(secret, ErrTokenRevoked)
	_, err = check("held")
	wantReason(t, err, connect.CodeUnauthenticated, "token_revoked")
}

// TestCutOffChecksDoWhatTheirLimitsSay: what leases leave open is decided by the limits' onFailure where they
// have one, after a wait for the node that not every check repeats, and said and counted so.
func TestCutOffChecksDoWhatTheirLimitsSay(t *testing.T) {
	g := newGatedFreshness()
	mapping, problems := envoymap.Parse([]byte(`domains: [{domain: edge, unmatched: deny, rules: [{match: {key: "*"}, tenant: acme, key: "{key}"}]}]`))
	if problems != nil {
		t.Fatal(problems)
	}
	registry := prometheus.NewRegistry()
	e := newEnv(t, func(d *Deps) { d.Freshness, d.Envoy, d.Metrics = g, mapping, registry })
	past := time.Now().Add(-coveredWait)
	e.handler.stale.Store(&past) // nobody needs to wait any more
	secret := secretOf("acme", RoleRunner)
	client := limiterv1connect.NewLimiterClient(e.client(secret), e.url)
	m := &limiterv1.CheckBatchRequest{}
	for _, key := range []string{"open", "held", "shut", "other"} {
		m.Checks = append(m.Checks, &limiterv1.CheckRequest{Key: key, Cost: 1})
	}
	g.answer <- ErrMetaStale
	res, err := client.CheckBatch(t.Context(), connect.NewRequest(m))
	if err != nil {
		t.Fatal(err)
	}
	<-g.waiting
	said := ""
	for _, r := range res.Msg.GetResults() {
		said += fmt.Sprintln(r.GetDecision().GetAllow(), r.GetDecision().GetSource(), r.GetDecision().GetReason(), r.GetError().GetReason())
	}
	if said != "true failure  \ntrue lease  \nfalse failure group_away \nfalse   meta_stale\n" {
		t.Errorf("batch:\n%s", said)
	}
	one, err := client.Check(t.Context(), connect.NewRequest(m.Checks[0]))
	if err != nil || !one.Msg.GetAllow() || one.Msg.GetSource() != limiter.SourceFailure {
		t.Errorf("check: %v, %v", one, err)
	}
	stream := e.checkStream(t, secret)
	got := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 3, Keys: "openheldshut", KeyBytes: []uint32{4, 4, 4}})
	if got.GetAllowed()[0] != 0b011 || !slices.Equal(got.GetOnFailure(), []uint32{0, 2}) || got.GetDenials()[0].GetReason() != limiter.ReasonAway {
		t.Errorf("stream: %v", got)
	}
	for key, want := range map[string]rlsv3.RateLimitResponse_Code{"open": rlsv3.RateLimitResponse_OK, "shut": rlsv3.RateLimitResponse_OVER_LIMIT} {
		r := &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{descriptor("key", "open"), descriptor("key", key)}}
		if got, err := askEnvoy(t, e, secret, r); err != nil || got.GetOverallCode() != want {
			t.Errorf("envoy about open and %s: %v, %v", key, got, err)
		}
	}
	if len(e.services.checks)+len(e.services.together) != 0 {
		t.Error("a group was asked")
	}
	counted := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mc_rl_on_failure_total" {
			for _, c := range f.GetMetric() {
				counted[c.GetLabel()[0].GetValue()] = c.GetCounter().GetValue()
			}
		}
	}
	if counted["open"] != 6 || counted["deny"] != 3 {
		t.Errorf("counted %v, want 6 open and 3 deny", counted)
	}

	// A node that came back while they waited asks the groups.
	e.handler.stale.Store(nil)
	g.answer <- nil
	if _, err := client.Check(t.Context(), connect.NewRequest(m.Checks[0])); err != nil || len(e.services.checks) != 1 {
		t.Errorf("at a node that came back: %v, %d checks", err, len(e.services.checks))
	}
	<-g.waiting
}
