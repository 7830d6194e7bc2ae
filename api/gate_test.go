package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// TestGate: a tenant has half of the room, the platform all of it, and a place that was left
// is free again.
func TestGate(t *testing.T) {
	g := newGate(classLimit{requests: 4})
	want := func(tenant, reason string) {
		t.Helper()
		got := ""
		if f := g.enter(tenant); f != nil {
			got = f.name
		}
		if got != reason {
			t.Fatalf("%s enters: %q, want %q", tenant, got, reason)
		}
	}
	want("acme", "")
	want("acme", "")
	want("acme", "tenant_overloaded")
	want("globex", "")
	want(AllTenants, "")
	want("globex", "overloaded")
	want(AllTenants, "overloaded")
	g.leave("acme")
	want("globex", "")
	g.leave("acme")
	want(AllTenants, "")
	g.leave("globex")
	g.leave("globex")
	g.leave(AllTenants)
	g.leave(AllTenants)
	if g.inside != (share{}) || len(g.byTenant) != 0 {
		t.Errorf("after all have left: %d under way, tenants %v", g.inside.requests, g.byTenant)
	}
}

// TestGateBytes: bytes are bounded like requests, for a tenant and in all, and come back.
func TestGateBytes(t *testing.T) {
	g := newGate(classLimit{requests: 10, bytes: 100})
	meters := map[string]*meter{}
	for _, tenant := range []string{"acme", "globex", "initech", AllTenants} {
		if f := g.enter(tenant); f != nil {
			t.Fatal(f)
		}
		meters[tenant] = &meter{gate: g, tenant: tenant}
	}
	want := func(tenant string, n int, reason string) {
		t.Helper()
		got := ""
		if f := meters[tenant].take(n); f != nil {
			got = f.name
		}
		if got != reason {
			t.Fatalf("%s takes %d bytes: %q, want %q", tenant, n, got, reason)
		}
	}
	want("acme", 50, "")
	want("acme", 1, "tenant_overloaded")
	want("globex", 40, "")
	want("initech", 11, "overloaded")
	want(AllTenants, 10, "")
	want(AllTenants, 1, "overloaded")
	meters["acme"].release()
	want("initech", 11, "")
	for tenant, m := range meters {
		m.release()
		g.leave(tenant)
	}
	if g.inside != (share{}) || len(g.byTenant) != 0 {
		t.Errorf("after all have left: %v, tenants %v", g.inside, g.byTenant)
	}
}

// TestAdvice: what is advised is the time in which those inside leave, as they did lately.
func TestAdvice(t *testing.T) {
	g := newGate(classLimit{requests: 10})
	now := time.Unix(1_700_000_000, 0)
	g.now = func() time.Time { return now }
	fill := func() *fault {
		for {
			if f := g.enter(AllTenants); f != nil {
				return f
			}
		}
	}
	if f := fill(); f.retryAfterMs != reasonOverloaded.retryAfterMs {
		t.Errorf("before anybody has left: %d ms", f.retryAfterMs)
	}
	for range 200 {
		now = now.Add(30 * time.Millisecond)
		g.leave(AllTenants)
		fill()
	}
	if f := fill(); f.retryAfterMs < 290 || f.retryAfterMs > 300 {
		t.Errorf("10 inside of which one leaves every 30 ms: %d ms", f.retryAfterMs)
	}
	now = now.Add(24 * time.Hour)
	g.leave(AllTenants)
	if f := fill(); f.retryAfterMs > 1000 {
		t.Errorf("after a quiet day: %d ms", f.retryAfterMs)
	}
}

// TestShedBodies: a body for which there is no room is refused as it arrives, and nothing of
// the request happens; one tenant's bodies leave room for another's.
func TestShedBodies(t *testing.T) {
	e := newEnv(t, nil)
	e.handler.gates[classIngest] = newGate(classLimit{requests: 10, bytes: 2000})
	ingest := func(tenant string) error {
		client := provenancev1connect.NewProvenanceClient(e.client(secretOf(tenant, RoleRunner)), e.url)
		_, err := client.Ingest(t.Context(), connect.NewRequest(&provenancev1.IngestRequest{
			RequestId: "r", Records: []*provenancev1.Record{{Format: "json", Content: make([]byte, 900)}},
		}))
		return err
	}
	held := &meter{gate: e.handler.gates[classIngest], tenant: "acme"}
	if f := held.gate.enter("acme"); f != nil {
		t.Fatal(f)
	}
	if f := held.take(500); f != nil {
		t.Fatal(f)
	}
	d := wantReason(t, ingest("acme"), connect.CodeResourceExhausted, "tenant_overloaded")
	if d.GetOutcome() != "definite" || d.GetRetryAfterMs() == 0 {
		t.Errorf("the refusal says %v", d)
	}
	if err := ingest("globex"); connect.CodeOf(err) == connect.CodeResourceExhausted {
		t.Errorf("another tenant: %v", err)
	}
	if len(e.services.requests) != 0 {
		t.Error("a refused request reached the index")
	}
	e.close() // requests are counted after their answers
	if n := counterOf(t, e, "mc_api_shed_total", "ingest", "tenant_overloaded"); n != 1 {
		t.Errorf("%v requests are counted as shed", n)
	}
}

func counterOf(t *testing.T, e *env, name string, want ...string) float64 {
	t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && strings.TrimSpace(labels(t, m)) == strings.Join(want, " ") {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// busyError is what the pace of ingest says.
type busyError struct{}

func (busyError) Error() string             { return "busy" }
func (busyError) RetryAfter() time.Duration { return 7 * time.Second }

// TestPaceRefusals: what a service says about when to come again reaches the caller, and the
// refusal is definite.
func TestPaceRefusals(t *testing.T) {
	f := faultOf(&raftfsm.Error{Op: "ingest", Err: errors.Join(raftfsm.ErrOverloaded, busyError{})}, true)
	if f.reason != reasonOverloaded || f.retryAfterMs != 7000 || f.outcome != raftfsm.OutcomeDefinite {
		t.Errorf("%s, retry after %d ms, %s", f.name, f.retryAfterMs, f.outcome)
	}
}

// TestShedding: beyond the room a request is refused at once, with advice when to retry,
// while the ones inside go on; other classes have their own room.
func TestShedding(t *testing.T) {
	e := newEnv(t, nil)
	e.handler.gates[classCheck] = newGate(classLimit{requests: 1, bytes: 1 << 20})
	entered, release := make(chan struct{}), make(chan struct{})
	e.services.checking = func(context.Context) { entered <- struct{}{}; <-release }
	client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleOperator)), e.url)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{})); err != nil {
			t.Errorf("the request inside: %v", err)
		}
	})
	<-entered
	_, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{}))
	if d := wantReason(t, err, connect.CodeResourceExhausted, "overloaded"); d.GetRetryAfterMs() == 0 {
		t.Errorf("no advice: %v", d)
	}
	if _, err := client.ListLimits(t.Context(), connect.NewRequest(&limiterv1.ListLimitsRequest{})); err != nil {
		t.Errorf("another class: %v", err)
	}
	close(release)
	wg.Wait()
}

// TestMetrics: requests are counted by procedure and code, denies by reason, and no tenant
// is a label.
func TestMetrics(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decision = deniedDecision
	runner := secretOf("acme", RoleRunner)
	for _, body := range []string{`{}`, `{}`, `{"tenant":"globex"}`, `{"prize":1}`} {
		e.send(t, runner, "POST", checkPath, "application/json", []byte(body))
	}
	e.send(t, runner, "POST", checkPath, "application/json", []byte("x"), "Content-Encoding", "gzip")
	e.send(t, runner, "GET", "/api/provenance/search", "", nil)
	e.send(t, runner, "GET", "/nothing", "", nil)
	e.close() // the last request is counted after its answer
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got[family.GetName()+labels(t, m)] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"mc_api_requests_total ok " + checkPath:                2,
		"mc_api_requests_total permission_denied " + checkPath: 1,
		"mc_api_requests_total invalid_argument " + checkPath:  2,
		"mc_api_requests_total ok " + restSearch:               1,
		"mc_api_requests_total unimplemented unknown":          1,
		"mc_api_request_ms " + checkPath:                       5,
		"mc_rl_check_ms":                                       2,
		"mc_rl_denies_total limited":                           2,
		"mc_prov_search_ms":                                    1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func labels(t *testing.T, m *dto.Metric) string {
	t.Helper()
	var b strings.Builder
	for _, l := range m.GetLabel() {
		if strings.Contains(l.GetName(), "tenant") || l.GetValue() == "acme" {
			t.Errorf("the label %s=%s names a tenant", l.GetName(), l.GetValue())
		}
		b.WriteString(" " + l.GetValue())
	}
	return b.String()
}
