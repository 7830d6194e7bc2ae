package limiter

import (
	"slices"
	"testing"
)

// heldRegion is a region of one node that holds tokens of the limit wide for the tenant acme, after some
// checks have passed.
func heldRegion(t *testing.T, limits ...Limit) (r *region, n *node, passed uint32) {
	r = startRegion(t, 1, append(limits, limit("wide", ScopeTenant, "acme", "1000/d", 1000), limit("small", ScopeTenant, "tiny", "10/d", 10))...)
	n = r.nodes[0]
	for d := (Decision{}); d.Source != SourceLease; passed++ {
		d = n.ask(t, Request{Tenant: "acme", Cost: 1})
	}
	return r, n, passed
}

func (n *node) held(r Request) (Decision, bool) {
	out := [1]Outcome{}
	open := n.CheckHeld([]Request{r}, out[:])
	return out[0].Decision, len(open) == 0
}

// What is held is spent and nobody is asked, so that a node that may have missed something ends by itself.
func TestHeldTokensAreSpentAndNoMoreAskedFor(t *testing.T) {
	for name, limits := range map[string][]Limit{"": nil, "with a global limit": {hourly("all", ScopeGlobal, anyTenant, 1_000_000)}} {
		r, n, _ := heldRegion(t, limits...)
		passed, more := 0, Request{Tenant: "acme", Cost: 1}
		for open := 0; open < 1000; {
			d, decided := n.held(more)
			if !decided {
				open++
				continue
			}
			if passed++; !d.Allow || d.Source != SourceLease || len(d.Levels) != 1+len(limits) {
				t.Fatalf("%s: %+v", name, d)
			}
		}
		if most := 2 * chunkMax; passed == 0 || passed > most {
			t.Errorf("%s: %d passed, want the tokens of one lease, at most %d", name, passed, most)
		}
		if d := n.ask(t, more); !d.Allow {
			t.Errorf("%s: asked as usual afterwards: %+v", name, d)
		}
		r.close()
	}
}

// Only what leases decide is decided, by limits that count now.
func TestHeldChecksLeaveTheRestOpen(t *testing.T) {
	r, n, _ := heldRegion(t)
	defer r.close()
	all := []Request{
		{Tenant: "acme", Cost: 1},
		{Tenant: "acme", Cost: 0},
		{Tenant: "acme", Cost: 1, RequestID: "r"},
		{Tenant: "acme", Cost: 999},
		{Tenant: "tiny", Cost: 1},
		{Tenant: "nobody", Cost: 1},
		{Tenant: "Odd", Cost: 1},
		{Tenant: "acme", Cost: 1},
	}
	out, before := make([]Outcome, len(all)), r.count()
	open := n.CheckHeld(all, out)
	if slices.Sort(open); !slices.Equal(open, []int{1, 2, 3, 4, 5, 6}) || !out[0].Decision.Allow || !out[7].Decision.Allow {
		t.Errorf("open %v, decided %+v and %+v", open, out[0], out[7])
	}
	if n.ask(t, Request{Tenant: "tiny", Cost: 10}); r.count() != before+1 {
		t.Errorf("%d commands for one check, want none for those that were left open", r.count()-before)
	}

	held := Request{Tenant: "acme", Cost: 1}
	for _, mode := range []Mode{ModeShadow, ModeOff} {
		n.FollowMode(func() Mode { return mode })
		if d, decided := n.held(held); decided {
			t.Errorf("mode %s: %+v", mode, d)
		}
	}
	n.FollowMode(func() Mode { return ModeEnforce })
	n.lost.Store(true)
	n.leases.look()
	if d, decided := n.held(held); decided {
		t.Errorf("by limits that may be old: %+v", d)
	}
	n.lost.Store(false)
	n.leases.look()
	if _, decided := n.held(held); !decided {
		t.Error("not decided by limits that count again")
	}
}

// A check that lacks tokens of its tenant takes none of those for all tenants.
func TestHeldChecksGiveGlobalTokensBack(t *testing.T) {
	r, n, passed := heldRegion(t, hourly("all", ScopeGlobal, anyTenant, 1_000_000))
	defer r.close()
	for decided := true; decided; {
		if _, decided = n.held(Request{Tenant: "acme", Cost: 1}); decided {
			passed++
		}
	}
	if _, decided := n.held(Request{Tenant: "acme", Cost: 5}); decided {
		t.Error("more passed than was held")
	}
	if used := r.used(t); used != passed {
		t.Errorf("%d used of the global limit, %d passed", used, passed)
	}
}
