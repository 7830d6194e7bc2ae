package limiter

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

func hourly(id, scope, selector string, most uint32) Limit {
	return Limit{ID: id, Scope: scope, Selector: selector, Window: Window{Limit: most, Length: "1h"}}
}

// used is what the group counts of global limits, leases returned.
func (r *region) used(t *testing.T) uint32 {
	t.Helper()
	for range 2 { // what is under way brings more
		for _, n := range r.nodes {
			n.leases.table.giveAllBack(n.leases.options.Clock.Sync())
			for _, g := range n.leases.table.groups {
				for _, done := range g.queue.pending(1 << 60) {
					<-done
				}
			}
		}
	}
	d, err := r.nodes[0].peekTenant(t.Context(), ModeEnforce, Request{Tenant: globalTenant})
	if err != nil || len(d.Levels) == 0 {
		t.Fatalf("%+v: %v", d, err)
	}
	return d.Levels[0].Used
}

// A small global limit is exact from whatever node and tenant it is asked, and denials say when.
func TestSmallGlobalLimitIsExact(t *testing.T) {
	for _, most := range []uint32{10, 100} { // a log, and a ring too small to be lent by demand
		r := startRegion(t, 3, hourly("all", ScopeGlobal, anyTenant, most), hourly("each", ScopeTenant, anyTenant, 1_000_000))
		passed := uint32(0)
		for i := range 2 * most {
			d := r.nodes[i%3].ask(t, Request{Tenant: fmt.Sprint("t", i%5), Cost: 1})
			if d.Allow {
				passed++
			} else if d.LimitID != "all" || d.Reason != ReasonLimited || d.RetryAfterMs == 0 || d.Levels[0].Scope != ScopeGlobal {
				t.Fatalf("denied by %+v, want the limit all", d)
			}
		}
		if passed != most {
			t.Errorf("%d of %d passed", passed, most)
		}
		r.close()
	}
}

// What a tenant's limit denies takes nothing from global limits, whether they are lent by demand or
// one check at a time.
func TestDeniedChecksTakeNothingFromGlobalLimits(t *testing.T) {
	for _, most := range []uint32{20, 1_000_000} {
		r := startRegion(t, 2, hourly("all", ScopeGlobal, anyTenant, most), hourly("each", ScopeTenant, anyTenant, 3))
		passed := uint32(0)
		for i := range 12 {
			d := r.nodes[i%2].ask(t, Request{Tenant: "acme", Cost: 1})
			if len(d.Levels) != 2 || d.Levels[0].LimitID != "all" {
				t.Fatalf("levels %+v, want the global one first", d.Levels)
			}
			if d.Allow {
				passed++
			} else if d.LimitID != "each" {
				t.Errorf("denied by %s", d.LimitID)
			}
		}
		out, err := r.nodes[0].CheckBatch(t.Context(), []Request{{Tenant: "acme", Cost: 1}, {Tenant: "other", Cost: 2}, {Tenant: "other", Cost: 2}})
		if err != nil || out[0].Decision.Allow || !out[1].Decision.Allow || out[2].Decision.Allow {
			t.Errorf("batch %+v: %v, want only the second to pass", out, err)
		}
		parts := []Part{{Request: Request{Tenant: "third", Cost: 2}}, {Request: Request{Tenant: "third", Cost: 2}}}
		if all, err := r.nodes[1].CheckTogether(t.Context(), parts); err != nil || !all[0].Allow || all[1].Allow {
			t.Errorf("together %+v: %v, want the second denied", all, err)
		}
		if all, err := r.nodes[1].CheckTogether(t.Context(), parts[:1]); err != nil || !all[0].Allow || len(all[0].Levels) != 2 {
			t.Errorf("together %+v: %v", all, err)
		}
		if h, err := r.nodes[1].Reserve(t.Context(), Request{Tenant: "third", Cost: 2}, 0); err != nil || h.Allow {
			t.Errorf("reserve %+v: %v", h, err)
		}
		if h, err := r.nodes[1].Reserve(t.Context(), Request{Tenant: "third", Cost: 1}, 0); err != nil || !h.Allow || h.ID == "" || len(h.Levels) != 2 {
			t.Errorf("reserve %+v: %v", h, err)
		}
		if used := r.used(t); passed != 3 || used != 3+2+2+1 {
			t.Errorf("%d of 3 passed, and %d are used of the global limit, want 8", passed, used)
		}
		r.close()
	}
}

// A retry under a request id is the first decision, and takes nothing again; a refund gives back both.
func TestRetriesTakeGlobalTokensOnce(t *testing.T) {
	r := startRegion(t, 2, hourly("all", ScopeGlobal, anyTenant, 2), hourly("each", ScopeTenant, anyTenant, 1))
	defer r.close()
	for i, n := range []*node{r.nodes[0], r.nodes[1], r.nodes[0]} {
		if d := n.ask(t, Request{Tenant: "acme", Cost: 1, RequestID: "one"}); !d.Allow {
			t.Errorf("try %d: %+v", i, d)
		}
	}
	for i := range 2 { // denied by the tenant's limit, so that it takes nothing
		if d := r.nodes[i].ask(t, Request{Tenant: "acme", Cost: 1, RequestID: "two"}); d.Allow || d.LimitID != "each" {
			t.Errorf("denied one, try %d: %+v", i, d)
		}
	}
	if used := r.used(t); used != 1 {
		t.Errorf("%d used, want 1", used)
	}
	for range 2 {
		if n, err := r.nodes[1].Refund(t.Context(), "acme", "one", 0); n != 1 || err != nil {
			t.Errorf("refund of %d: %v", n, err)
		}
	}
	if used := r.used(t); used != 0 {
		t.Errorf("%d used after the refund, want 0", used)
	}
}

// Many tenants and nodes at the same time never take more than the limit, and nearly all of it.
func TestGlobalLimitIsNeverExceeded(t *testing.T) {
	const most = 3000
	r := startRegion(t, 3, Limit{ID: "all", Scope: ScopeGlobal, Selector: anyTenant, Calendar: Calendar{Limit: most, Period: PeriodDay}}, hourly("each", ScopeTenant, anyTenant, 400))
	defer r.close()
	var passed atomic.Int64
	var all sync.WaitGroup
	for i, n := range r.nodes {
		all.Go(func() {
			for k := range 20 {
				var checks []Request
				for j := range 100 {
					checks = append(checks, Request{Tenant: fmt.Sprint("t", (i+j+k)%10), Cost: 1})
				}
				out, err := n.CheckBatch(t.Context(), checks)
				if err != nil {
					t.Error(err)
				}
				for _, o := range out {
					if o.Err != nil {
						t.Error(o.Err)
					} else if o.Decision.Allow {
						passed.Add(1)
					}
				}
			}
		})
	}
	all.Wait()
	if n := passed.Load(); n > most || n < most*9/10 {
		t.Errorf("%d passed of %d", n, most)
	}
	if used := r.used(t); int64(used) != passed.Load() {
		t.Errorf("%d passed, and %d count", passed.Load(), used)
	}
}

// Shadows and canaries count for themselves.
func TestGlobalShadowsAndCanaries(t *testing.T) {
	shadow := hourly("watch", ScopeGlobal, anyTenant, 2)
	shadow.Enforcement = EnforcementShadow
	r := startRegion(t, 2, shadow)
	for i := range 4 {
		d := r.nodes[i%2].ask(t, Request{Tenant: "acme", Cost: 1})
		if !d.Allow || d.WouldDeny() != (i >= 2) {
			t.Errorf("check %d: %+v", i, d)
		}
	}
	r.close()

	canary := hourly("some", ScopeGlobal, anyTenant, 2)
	canary.Canary = 50
	r = startRegion(t, 1, canary)
	defer r.close()
	seen := map[bool]bool{}
	for i := range 40 {
		tenant := fmt.Sprint("t", i)
		d := r.nodes[0].ask(t, Request{Tenant: tenant, Cost: 1})
		if i >= 2 && d.Allow != canary.shadows(tenant) {
			t.Errorf("%s: %+v", tenant, d)
		}
		seen[d.Allow] = true
	}
	if !seen[true] || !seen[false] {
		t.Errorf("not both kinds of tenants: %v", seen)
	}
}

// A node without leases, and one without a replica, ask the group; without a leader nothing is known.
func TestGlobalLimitsWithoutLeases(t *testing.T) {
	r := startRegion(t, 1, hourly("all", ScopeGlobal, anyTenant, 3), hourly("each", ScopeTenant, anyTenant, 2))
	defer r.close()
	far := NewService(r, []raftfsm.GroupID{testGroup})
	want := []bool{true, true, false}
	for i, allow := range want {
		if d, err := far.Check(t.Context(), Request{Tenant: "acme", Cost: 1}); err != nil || d.Allow != allow {
			t.Errorf("check %d: %+v: %v", i, d, err)
		}
	}
	if used := r.used(t); used != 2 {
		t.Errorf("%d used, want 2", used)
	}
	d, err := far.Peek(t.Context(), Request{Tenant: "acme", Cost: 2})
	if err != nil || d.Allow || len(d.Levels) != 2 || d.Levels[0].Used != 2 {
		t.Errorf("peek %+v: %v", d, err)
	}
	r.mu.Lock()
	r.cut = true
	r.mu.Unlock()
	if _, err := far.Check(t.Context(), Request{Tenant: "acme", Cost: 1}); !errors.Is(err, raftfsm.ErrNoLeader) {
		t.Errorf("error %v, want no leader", err)
	}
	r.mu.Lock()
	r.cut = false
	r.mu.Unlock()
}

// A holder outside the nodes holds nothing of a global limit, so it is lent nothing beside one.
func TestNothingIsLentOutsideBesideGlobalLimits(t *testing.T) {
	own := limit("own", ScopeTenant, "acme", "1000/s", 1000)
	all := limit("all", ScopeGlobal, "*", "1000/s", 1000)
	for _, limits := range [][]Limit{{own}, {own, all}} {
		r := startRegion(t, 1, limits...)
		routes, err := r.nodes[0].Lend(t.Context(), 7, "acme", []Ask{{}})
		if want := len(limits) == 1; err != nil || len(routes) != 1 || routes[0].Lent != want {
			t.Errorf("beside %d limits: %+v, %v; want lent %v", len(limits), routes, err, want)
		}
		r.close()
	}
}

// The checks of a batch wait for the tokens that the node has asked for on their behalf, and are then
// decided from these.
func TestBatchWaitsForGlobalTokens(t *testing.T) {
	for _, most := range []uint32{500, 1_000_000} { // lent one check at a time, and by demand
		r := startRegion(t, 1, hourly("all", ScopeGlobal, anyTenant, most), hourly("each", ScopeTenant, anyTenant, 1_000_000))
		var all []Request
		for i := range 200 {
			all = append(all, Request{Tenant: fmt.Sprint("t", i%20), Cost: 1})
		}
		before := r.count()
		out, err := r.nodes[0].CheckBatch(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Err != nil || !o.Decision.Allow || o.Decision.Source != SourceLease {
				t.Fatalf("check %d: %v %+v", i, o.Err, o.Decision)
			}
		}
		if n := r.count() - before; n > 20 {
			t.Errorf("of %d: 200 checks took %d commands", most, n)
		}
		if used := r.used(t); used != 200 {
			t.Errorf("of %d: %d used, want 200", most, used)
		}
		r.close()
	}
}

// A retry that finds an old denial says nothing about now.
func TestOldGlobalDenialsAreNotRemembered(t *testing.T) {
	some := Limit{ID: "some", Scope: ScopeGlobal, Selector: anyTenant, Window: Window{Limit: 2, Length: "5m"}, Canary: 99}
	r := startRegion(t, 1, some)
	defer r.close()
	n, tenant := r.nodes[0], "acme"
	for i := 0; some.shadows(tenant); i++ {
		tenant = fmt.Sprint("t", i)
	}
	if d := n.ask(t, Request{Tenant: tenant, Cost: 2, RequestID: "first"}); !d.Allow {
		t.Fatal(d)
	}
	if d := n.ask(t, Request{Tenant: tenant, Cost: 1, RequestID: "second"}); d.Allow {
		t.Fatal(d)
	}
	r.mu.Lock()
	r.Time += 6 * time.Minute
	r.mu.Unlock()
	if d := n.ask(t, Request{Tenant: tenant, Cost: 1, RequestID: "second"}); d.Allow {
		t.Errorf("a retry: %v, want the first decision", d)
	}
	if d := n.ask(t, Request{Tenant: tenant, Cost: 1}); !d.Allow {
		t.Errorf("a new check: %v from %s; nothing is used any more", d, d.Source)
	}
}
