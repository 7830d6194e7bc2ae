package api

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

func (e *env) limiter(secret string) limiterv1connect.LimiterClient {
	return limiterv1connect.NewLimiterClient(e.client(secret), e.url)
}

func setPlans(pairs ...string) *connect.Request[limiterv1.SetPlansRequest] {
	r := &limiterv1.SetPlansRequest{}
	for _, p := range pairs {
		tenant, plan, _ := strings.Cut(p, ":")
		r.Assignments = append(r.Assignments, &limiterv1.PlanAssignment{Tenant: tenant, Plan: plan})
	}
	return connect.NewRequest(r)
}

// The platform puts tenants on plans and sees all of them by page; a tenant sees its own.
func TestPlansThroughTheAPI(t *testing.T) {
	e := newEnv(t, nil)
	admin := e.limiter(secretOf(AllTenants, RoleAdmin))
	if _, err := admin.SetPlans(t.Context(), setPlans("acme:gold", "initech:gold", "globex:basic", "umbrella:gold")); err != nil {
		t.Fatal(err)
	}
	got, err := admin.SetPlans(t.Context(), setPlans("initech:basic", "umbrella:", "hooli:gold"))
	if m := got.Msg; err != nil || m.GetCreated() != 1 || m.GetReplaced() != 1 || m.GetRemoved() != 1 || m.GetVersion() != 8 || !m.GetInForce() {
		t.Errorf("%v, %v", got.Msg, err)
	}
	_, err = admin.SetPlans(t.Context(), setPlans("nobody:"))
	wantReason(t, err, connect.CodeNotFound, "plan_unassigned")
	_, err = admin.SetPlans(t.Context(), setPlans("Acme:gold", "acme:go*", "acme:x"))
	wantReason(t, err, connect.CodeInvalidArgument, "limit_invalid")
	for _, want := range []string{"assignments[0].tenant", "assignments[1].plan", "assignments[2].tenant"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	_, err = admin.SetPlans(t.Context(), setPlans(make([]string, MaxBatchPlans+1)...))
	wantReason(t, err, connect.CodeInvalidArgument, "batch_too_large")
	long := setPlans("acme:gold")
	long.Msg.RequestId = strings.Repeat("x", MaxRequestIDBytes+1)
	_, err = admin.SetPlans(t.Context(), long)
	wantReason(t, err, connect.CodeInvalidArgument, "field_too_long")

	for _, c := range []struct {
		tenant string
		r      *limiterv1.ListPlansRequest
		want   string
	}{
		{AllTenants, &limiterv1.ListPlansRequest{}, "acme:gold globex:basic hooli:gold initech:basic"},
		{AllTenants, &limiterv1.ListPlansRequest{Plan: "gold", Most: 1}, "acme:gold then acme"},
		{AllTenants, &limiterv1.ListPlansRequest{Plan: "gold", Most: 1, After: "acme"}, "hooli:gold"},
		{AllTenants, &limiterv1.ListPlansRequest{Tenant: "globex"}, "globex:basic"},
		{"acme", &limiterv1.ListPlansRequest{}, "acme:gold"},
		{"acme", &limiterv1.ListPlansRequest{Plan: "basic"}, ""},
	} {
		got, err := e.limiter(secretOf(c.tenant, RoleOperator)).ListPlans(t.Context(), connect.NewRequest(c.r))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, a := range got.Msg.GetAssignments() {
			all = append(all, a.GetTenant()+":"+a.GetPlan())
		}
		if next := got.Msg.GetNext(); next != "" {
			all = append(all, "then "+next)
		}
		if text := strings.Join(all, " "); text != c.want || got.Msg.GetVersion() != 7 {
			t.Errorf("%v for %s: %q, want %q", c.r, c.tenant, text, c.want)
		}
	}
	for _, r := range []*limiterv1.ListPlansRequest{{Most: MaxBatchPlans + 1}, {Plan: "go*"}, {After: "Acme"}} {
		_, err := admin.ListPlans(t.Context(), connect.NewRequest(r))
		wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	}
}

// A tenant sees the limits of the plan that it is on, and nobody but the platform sets them.
func TestLimitsOfPlansAreShownToTheirTenants(t *testing.T) {
	e := newEnv(t, nil)
	admin := e.limiter(secretOf(AllTenants, RoleAdmin))
	var limits []*limiterv1.Limit
	for _, plan := range []string{"gold", "basic"} {
		limits = append(limits, LimitMessage(limiter.Limit{
			ID: plan + "-api", Scope: limiter.ScopeTenant, Selector: "plan:" + plan, TokenBucket: limiter.TokenBucket{Rate: "1/s", Burst: 5},
		}))
	}
	if _, err := admin.SetLimits(t.Context(), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits})); err != nil {
		t.Fatal(err)
	}
	_, err := e.limiter(secretOf("acme", RoleAdmin)).SetLimits(t.Context(), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits}))
	wantReason(t, err, connect.CodePermissionDenied, "platform_only")
	seen := func(tenant string) string {
		t.Helper()
		got, err := e.limiter(secretOf(tenant, RoleOperator)).ListLimits(t.Context(), connect.NewRequest(&limiterv1.ListLimitsRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, l := range got.Msg.GetLimits() {
			ids = append(ids, l.GetId())
		}
		return fmt.Sprint(ids)
	}
	if got := seen("acme"); got != "[acme-api everyone]" {
		t.Errorf("on no plan: %s", got)
	}
	if _, err := admin.SetPlans(t.Context(), setPlans("acme:gold")); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string]string{
		"acme": "[acme-api everyone gold-api]", "globex": "[everyone globex-keys]", AllTenants: "[acme-api everyone globex-keys gold-api basic-api]",
	} {
		if got := seen(tenant); got != want {
			t.Errorf("%s sees %s, want %s", tenant, got, want)
		}
	}
}
