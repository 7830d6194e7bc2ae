package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// checkPlans puts a tenant on the plan of the sample file and takes it off again.
func checkPlans(t *testing.T) {
	t.Helper()
	run := func(want int, args ...string) string {
		t.Helper()
		out, errs, status := maestro(t, "", append([]string{"limit"}, args...)...)
		if status != want {
			t.Errorf("limit %v: %d %s %s", args, status, out, errs)
		}
		return out + errs
	}
	contains := func(out string, all ...string) {
		t.Helper()
		for _, want := range all {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	}
	contains(run(statusDone, "plan", "set", "gold", "hooli", "initech"), "2 put on plan gold, 0 from another plan, 0 on it already; limits are at version", ", in force")
	contains(run(statusDone, "plan", "set", "basic", "initech"), "0 put on plan basic, 1 from another plan, 0 on it already")
	contains(run(statusDone, "plan", "list"), "TENANT   PLAN", "hooli    gold", "initech  basic")
	contains(run(statusDone, "plan", "list", "--plan", "gold", "-o", "yaml"), "tenant: hooli\n    plan: gold")
	contains(run(statusDone, "plan", "list", "--tenant", "nobody"), "no tenant is on such a plan")
	contains(run(statusDone, "usage", "--tenant", "hooli"), "gold-monthly", "calendar")
	if out := run(statusDone, "usage", "--tenant", "initech"); strings.Contains(out, "gold-monthly") {
		t.Errorf("a tenant of another plan: %s", out)
	}
	contains(run(statusDone, "plan", "remove", "hooli", "initech", "-o", "json"), `"removed":2`, `"inForce":true`)
	contains(run(statusError, "plan", "remove", "hooli"), "tenant hooli: the tenant is on no plan", "hint: leave out the tenant")
	contains(run(statusError, "plan", "set", "go*ld", "hooli"), "assignments[0].plan: must be 1 to 63")
	contains(run(statusDone, "plan", "list"), "no tenant is on such a plan")
}

// A list goes through all pages, and ends with the first that fails.
func TestPlansAreListedWhole(t *testing.T) {
	asked := ""
	page := func(_ context.Context, r *connect.Request[limiterv1.ListPlansRequest]) (*connect.Response[limiterv1.ListPlansResponse], error) {
		asked += r.Msg.GetPlan() + "<" + r.Msg.GetAfter() + ">"
		switch r.Msg.GetAfter() {
		case "":
			return connect.NewResponse(&limiterv1.ListPlansResponse{Assignments: []*limiterv1.PlanAssignment{{Tenant: "a"}, {Tenant: "b"}}, Next: "b", Version: 3}), nil
		case "b":
			return connect.NewResponse(&limiterv1.ListPlansResponse{Assignments: []*limiterv1.PlanAssignment{{Tenant: "c"}}, Version: 4}), nil
		}
		return nil, errors.New("lost")
	}
	all, err := listPlans(t.Context(), page, &limiterv1.ListPlansRequest{Plan: "gold"})
	if err != nil || len(all.GetAssignments()) != 3 || all.GetVersion() != 4 || all.GetNext() != "" || asked != "gold<>gold<b>" {
		t.Errorf("asked %s, got %v, %v", asked, all, err)
	}
	if _, err := listPlans(t.Context(), page, &limiterv1.ListPlansRequest{After: "x"}); err == nil {
		t.Error("a page that fails is passed over")
	}
}
