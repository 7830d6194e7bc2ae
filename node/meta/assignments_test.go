package meta

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

func on(plan string, tenants ...string) (out []limiter.Assignment) {
	for _, t := range tenants {
		out = append(out, limiter.Assignment{Tenant: t, Plan: plan})
	}
	return out
}

// plans shows who is on which plan.
func plans(t testing.TB, s *Service, q api.PlanQuery) string {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	p, err := s.ListPlans(t.Context(), q)
	check(t, err)
	var out []string
	for _, a := range p.Assignments {
		out = append(out, a.Tenant+":"+a.Plan)
	}
	if p.Next != "" {
		out = append(out, "then "+p.Next)
	}
	return strings.Join(out, " ")
}

// Tenants enter, change and leave plans in the versions of the limits, and the groups' checks follow
// at once.
func TestPlans(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	tenants := []string{"a", "b", "c", "d"} // of both groups
	_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("gold", "plan:gold", 10), limit("basic", "plan:basic", 1)}, "")
	check(t, err)
	for _, step := range []struct {
		set  []limiter.Assignment
		want string // of the change
		on   string // the limits of the tenants
	}{
		{on("gold", tenants...), "version 2: 4 created, 0 replaced, 0 unchanged, 0 removed", "gold gold gold gold"},
		{on("gold", tenants...), "version 2: 0 created, 0 replaced, 4 unchanged, 0 removed", "gold gold gold gold"},
		{append(on("basic", "b", "c"), on("", "a")...), "version 3: 0 created, 2 replaced, 0 unchanged, 1 removed", "none basic basic gold"},
		{append(on("free", "d"), on("", "b", "c")...), "version 4: 0 created, 1 replaced, 0 unchanged, 2 removed", "none none none none"},
	} {
		c, err := s.SetPlans(t.Context(), step.set, "")
		check(t, err)
		got := fmt.Sprintf("version %d: %d created, %d replaced, %d unchanged, %d removed", c.Version, c.Created, c.Replaced, c.Unchanged, c.Removed)
		if got != step.want || !c.InForce {
			t.Errorf("%s, in force %v; want %s", got, c.InForce, step.want)
		}
		var limits []string
		for _, tenant := range tenants {
			d, err := r.limiter().Check(t.Context(), limiter.Request{Tenant: tenant})
			check(t, err)
			if len(d.Levels) == 0 {
				limits = append(limits, "none")
			} else {
				limits = append(limits, d.Levels[0].LimitID)
			}
		}
		if got := strings.Join(limits, " "); got != step.on {
			t.Errorf("limits are %s, want %s", got, step.on)
		}
	}
	if limits, version, err := s.ListLimits(t.Context()); err != nil || len(limits) != 2 || version != 4 {
		t.Errorf("limits %v at version %d, %v; want two at 4", limits, version, err)
	}
}

func TestPlansAreListedByPage(t *testing.T) {
	s := newRegion(t, regionRules).service()
	_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("zz", "*", 10)}, "")
	check(t, err)
	_, err = s.SetPlans(t.Context(), append(on("gold", "a", "c", "e", "ee"), on("basic", "b", "d")...), "")
	check(t, err)
	_, err = s.SetPlans(t.Context(), on("", "ee"), "")
	check(t, err)
	for _, c := range []struct {
		q    api.PlanQuery
		want string
	}{
		{api.PlanQuery{}, "a:gold b:basic c:gold d:basic e:gold"},
		{api.PlanQuery{Limit: 2}, "a:gold b:basic then b"},
		{api.PlanQuery{Limit: 2, After: "b"}, "c:gold d:basic then d"},
		{api.PlanQuery{Limit: 2, After: "d"}, "e:gold"},
		{api.PlanQuery{Limit: 5}, "a:gold b:basic c:gold d:basic e:gold"},
		{api.PlanQuery{Plan: "gold", Limit: 2}, "a:gold c:gold then c"},
		{api.PlanQuery{Plan: "gold", Limit: 2, After: "c"}, "e:gold"},
		{api.PlanQuery{Plan: "gold", After: "zz"}, ""},
		{api.PlanQuery{Tenant: "b"}, "b:basic"},
		{api.PlanQuery{Tenant: "b", After: "a"}, "b:basic"},
		{api.PlanQuery{Tenant: "b", After: "b"}, ""},
		{api.PlanQuery{Tenant: "b", Plan: "gold"}, ""},
		{api.PlanQuery{Tenant: "ee"}, ""},
	} {
		if got := plans(t, s, c.q); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

// A change of plans is all or nothing, and a retry gets the first answer.
func TestPlansAllOrNone(t *testing.T) {
	s := newRegion(t, regionRules).service()
	first, err := s.SetPlans(t.Context(), on("gold", "a"), "r1")
	check(t, err)
	_, err = s.SetPlans(t.Context(), append(on("basic", "a", "b"), on("", "nobody")...), "")
	wantError(t, "a tenant that is on no plan leaves", err, api.ErrPlanNone)
	if got := plans(t, s, api.PlanQuery{}); got != "a:gold" {
		t.Errorf("after a change that was refused: %s", got)
	}
	_, err = s.SetPlans(t.Context(), on("basic", "a"), "")
	check(t, err)
	if again, err := s.SetPlans(t.Context(), on("gold", "a"), "r1"); err != nil || again != first {
		t.Errorf("retry: %+v, %v; want %+v", again, err, first)
	}
	if got := plans(t, s, api.PlanQuery{}); got != "a:basic" {
		t.Errorf("after a retry: %s; want the later change to stand", got)
	}
	for what, all := range map[string][]limiter.Assignment{
		"none": nil, "a tenant twice": on("gold", "a", "a"), "a plan with a wildcard": on("go*", "a"), "every tenant": on("gold", "*"),
		"too many": make([]limiter.Assignment, opsMax+1),
	} {
		_, err := s.SetPlans(t.Context(), all, "")
		wantError(t, what, err, limiter.ErrInvalid)
	}
}

// Limits and assignments are bounded each for itself, and a limit's owner cannot touch those of
// plans.
func TestPlansAndLimitsAreBoundedApart(t *testing.T) {
	r := newRegion(t, func(t table) rules {
		rules := regionRules(t)
		rules.recordsMax, rules.apartMax = 2, 3
		return rules
	})
	s := r.service()
	set := func(ids ...string) error {
		var all []limiter.Limit
		for _, id := range ids {
			all = append(all, limit(id, "*", 1))
		}
		_, err := s.SetLimits(t.Context(), "*", all, "")
		return err
	}
	assign := func(plan string, tenants ...string) error {
		_, err := s.SetPlans(t.Context(), on(plan, tenants...), "")
		return err
	}
	check(t, assign("gold", "a", "b", "c"))
	check(t, set("x", "y"))
	wantError(t, "one limit too many", set("z"), limiter.ErrInvalid)
	wantError(t, "one assignment too many", assign("gold", "d"), limiter.ErrInvalid)
	check(t, assign("basic", "a"))
	check(t, assign("", "b"))
	check(t, assign("gold", "d"))
	wantError(t, "one assignment too many", assign("gold", "e"), limiter.ErrInvalid)
	_, err := s.DeleteLimits(t.Context(), "*", []string{"x"}, "")
	check(t, err)
	r.meta.Restart()
	s = r.service()
	check(t, set("z"))
	wantError(t, "one limit too many", set("w"), limiter.ErrInvalid)
	f, err := s.read(t.Context(), tableLimits, 0)
	if err != nil || f.counters.live != 5 || f.counters.apart != 3 {
		t.Errorf("counters %+v, %v; want 3 of 5 records apart", f.counters, err)
	}
	_, err = s.SetLimits(t.Context(), "a", []limiter.Limit{limit("own", "plan:gold", 1)}, "")
	wantError(t, "a tenant limits a plan", err, api.ErrLimitForeign)
}

// While a member does not know plans, nothing of them is written, and limits are listed as ever.
func TestPlansWaitForTheLevel(t *testing.T) {
	r := newRegion(t, regionRules)
	r.level = raftfsm.LevelLimits
	s := r.service()
	_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("everyone", "*", 1)}, "")
	check(t, err)
	before, groups := r.meta.StateHash(), r.groups[limitGroup].StateHash()
	_, err = s.SetPlans(t.Context(), on("gold", "a"), "r1")
	wantError(t, "an assignment", err, api.ErrLevel)
	_, err = s.SetLimits(t.Context(), "*", []limiter.Limit{limit("fine", "*", 1), limit("gold", "plan:gold", 1)}, "r2")
	wantError(t, "a limit of a plan", err, api.ErrLevel)
	_, err = s.ListPlans(t.Context(), api.PlanQuery{Limit: 1})
	wantError(t, "a list of plans", err, api.ErrLevel)
	if limits, version, err := s.ListLimits(t.Context()); err != nil || len(limits) != 1 || version != 1 {
		t.Errorf("limits %v at version %d, %v", limits, version, err)
	}
	if r.meta.StateHash() != before || r.groups[limitGroup].StateHash() != groups {
		t.Error("what was refused left something behind")
	}
	r.level = raftfsm.LevelLeases
	_, err = s.SetPlans(t.Context(), on("gold", "a"), "r1")
	check(t, err)
	_, err = s.SetLimits(t.Context(), "*", []limiter.Limit{limit("fine", "*", 1), limit("gold", "plan:gold", 1)}, "r2")
	check(t, err)
	if got := plans(t, s, api.PlanQuery{}); got != "a:gold" {
		t.Errorf("once all members know plans: %s", got)
	}
}

// A group that lags, and one that must start over, come to the plans of the region.
func TestPlansReachALaggingGroup(t *testing.T) {
	r := newRegion(t, func(t table) rules {
		rules := regionRules(t)
		rules.tombstonesMax = 1
		return rules
	})
	s := r.service()
	_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("gold", "plan:gold", 10)}, "")
	check(t, err)
	tenants := []string{"a", "b", "c", "d", "e", "f"} // of both groups
	_, err = s.SetPlans(t.Context(), on("gold", tenants...), "")
	check(t, err)
	for _, leave := range [][]string{{"a"}, {"b", "c", "d", "e"}} {
		r.down[limitGroup], r.down[otherGroup] = true, true
		_, err := s.SetPlans(t.Context(), on("", leave...), "")
		check(t, err)
		r.down[limitGroup], r.down[otherGroup] = false, false
		c, err := s.limitsSince(t.Context(), r.version(limitGroup))
		check(t, err)
		if full := len(leave) > 1; (c.From == 0) != full || full == (len(c.Leavers) > 0) {
			t.Errorf("after %v have left: %+v; want all of it: %v", leave, c, full)
		}
		check(t, s.PushLimits(t.Context(), limitGroup))
		check(t, s.PushLimits(t.Context(), otherGroup))
		var on []string
		for _, tenant := range tenants {
			d, err := r.limiter().Check(t.Context(), limiter.Request{Tenant: tenant})
			check(t, err)
			if len(d.Levels) > 0 {
				on = append(on, tenant)
			}
		}
		tenants = tenants[len(leave):]
		if fmt.Sprint(on) != fmt.Sprint(tenants) {
			t.Errorf("on the plan are %v, want %v", on, tenants)
		}
	}
}

// A list of limits is of one moment however the table changes between its pages, and assignments
// beside them do not show.
func TestRangesAreOfOneMoment(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	for i := 0; i < pageRecordsMax+opsMax; i += opsMax {
		var limits []limiter.Limit
		var tenants []string
		for n := range opsMax {
			limits = append(limits, limit(fmt.Sprintf("limit-%05d", i+n), "*", 1))
			tenants = append(tenants, fmt.Sprintf("tenant-%05d", i+n))
		}
		_, err := s.SetLimits(t.Context(), "*", limits, "")
		check(t, err)
		_, err = s.SetPlans(t.Context(), on("gold", tenants...), "")
		check(t, err)
	}
	queries := 0
	r.beforeQ = func() {
		if queries++; queries != 2 {
			return
		}
		r.beforeQ = nil
		_, err := s.DeleteLimits(t.Context(), "*", []string{"limit-00000"}, "") // on a page that was read
		check(t, err)
		_, err = s.SetLimits(t.Context(), "*", []limiter.Limit{limit("limit-00001", "*", 7), limit("limit-00001x", "*", 1), limit("zz", "*", 1)}, "")
		check(t, err)
	}
	limits, version, err := s.ListLimits(t.Context())
	check(t, err)
	want := pageRecordsMax + opsMax - 1 + 2
	if len(limits) != want || version != 8 || limits[0].TokenBucket.Burst != 7 || limits[1].ID != "limit-00001x" || limits[want-1].ID != "zz" {
		t.Errorf("%d limits at version %d: %+v ...; want %d at 8", len(limits), version, limits[:2], want)
	}
}

// A page by key says what the table holds, from any key to any other.
func TestRangesAgreeWithTheTable(t *testing.T) {
	key := rapid.StringOfN(rapid.SampledFrom([]rune("abdfg~")), 1, 2, -1)
	rapid.Check(t, func(rt *rapid.T) {
		r := &region{t: t, meta: fsmtest.New(t, plainMachine)}
		r.groups = map[raftfsm.GroupID]*fsmtest.Driver{metaGroup: r.meta}
		s := NewService(Options{Groups: r, Group: metaGroup, Region: "us-west"})
		for range rapid.IntRange(0, 6).Draw(rt, "changes") {
			r.meta.Apply(encodeChange(genChange().Draw(rt, "change")))
		}
		from, until := key.Draw(rt, "from"), key.Draw(rt, "until")
		got, version, err := s.readRange(t.Context(), tableSettings, from, until)
		check(t, err)
		all, err := s.read(t.Context(), tableSettings, 0)
		check(t, err)
		want := 0
		for k, rec := range all.records {
			if rec.deleted || k < from || k >= until {
				continue
			}
			if want++; string(got[k].value) != string(rec.value) {
				rt.Fatalf("%s: %q, want %q", k, got[k].value, rec.value)
			}
		}
		if len(got) != want || version != all.counters.version {
			rt.Fatalf("from %q to %q: %v at version %d, want %d of %v", from, until, got, version, want, all.records)
		}
	})
}

// A backup has the plans, and a region restored from it goes on with them.
func TestRestoredPlans(t *testing.T) {
	old := newRegion(t, regionRules)
	s := old.service()
	_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("gold", "plan:gold", 10)}, "")
	check(t, err)
	_, err = s.SetPlans(t.Context(), on("gold", "a", "b", "c"), "")
	check(t, err)
	_, err = s.SetPlans(t.Context(), append(on("", "b"), on("basic", "c")...), "")
	check(t, err)
	now := newRegion(t, regionRules)
	for _, g := range []raftfsm.GroupID{limitGroup, otherGroup} {
		check(t, now.groups[g].Restore(old.groups[g].Backup(2)...))
	}
	check(t, now.meta.Restore(old.meta.Backup(2)...))
	s = now.service()
	if got := plans(t, s, api.PlanQuery{}); got != "a:gold c:basic" {
		t.Errorf("restored plans: %s", got)
	}
	f, err := s.read(t.Context(), tableLimits, 0)
	if err != nil || f.counters.apart != 2 {
		t.Errorf("counters %+v, %v; want 2 apart", f.counters, err)
	}
	if c, err := s.SetPlans(t.Context(), on("gold", "b"), ""); err != nil || !c.InForce {
		t.Errorf("the next change: %+v, %v", c, err)
	}
	for tenant, want := range map[string]int{"a": 1, "b": 1, "c": 0} {
		if d, err := now.limiter().Check(t.Context(), limiter.Request{Tenant: tenant}); err != nil || len(d.Levels) != want {
			t.Errorf("tenant %s: %+v, %v", tenant, d, err)
		}
	}
	bad := record{key: "~plan/a", value: []byte{1, 0}, owner: "*", version: 1, tableVersion: 1}
	wantError(t, "a row of no plan", newRegion(t, regionRules).meta.Restore(raftfsm.AppendRow(nil, recordKey(tableLimits, bad.key), appendRecord(nil, bad))), raftfsm.ErrRestoreRefused)
}
