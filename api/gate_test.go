package api

import (
	"context"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
)

// TestGate: a tenant has half of the room, the platform all of it, and a place that was left
// is free again.
func TestGate(t *testing.T) {
	g := newGate(4)
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
	if g.inFlight != 0 || len(g.byTenant) != 0 {
		t.Errorf("after all have left: %d under way, tenants %v", g.inFlight, g.byTenant)
	}
}

// TestShedding: beyond the room a request is refused at once, with advice when to retry,
// while the ones inside go on; other classes have their own room.
func TestShedding(t *testing.T) {
	e := newEnv(t, nil)
	e.handler.gates[classCheck] = newGate(1)
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
