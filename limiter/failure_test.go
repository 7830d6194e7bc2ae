package limiter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// patchy is a realm of which some groups have no leader, or take commands and never answer.
type patchy struct {
	*realm
	mu          sync.Mutex
	gone, stuck map[raftfsm.GroupID]bool
	// behind are groups that their replica at the node does not follow.
	behind map[raftfsm.GroupID]bool
}

func (p *patchy) is(of map[raftfsm.GroupID]bool, id raftfsm.GroupID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return of[id]
}

func (p *patchy) set(of map[raftfsm.GroupID]bool, id raftfsm.GroupID, is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of[id] = is
}

func (p *patchy) Propose(ctx context.Context, id raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	switch {
	case p.is(p.gone, id):
		return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: "test", Err: raftfsm.ErrNoLeader}
	case p.is(p.stuck, id):
		<-ctx.Done()
		return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: "test", Outcome: raftfsm.OutcomeUnknown, Err: ctx.Err()}
	}
	return p.realm.Propose(ctx, id, cmd)
}

func (p *patchy) Query(ctx context.Context, id raftfsm.GroupID, q []byte, c raftfsm.Consistency) (raftfsm.Answer, error) {
	if p.is(p.gone, id) {
		return raftfsm.Answer{}, &raftfsm.Error{Op: "query", Group: "test", Err: raftfsm.ErrNoLeader}
	}
	return p.realm.Query(ctx, id, q, c)
}

// Tell reaches nobody: there is one node.
func (p *patchy) Tell(context.Context, raftfsm.GroupID, []byte) {}

// patchyNode is a node of such a realm with a replica of each group.
func patchyNode(t *testing.T, limits ...Limit) (*Service, *patchy) {
	p := &patchy{realm: startRealm(t, 2, limits...), gone: map[raftfsm.GroupID]bool{}, stuck: map[raftfsm.GroupID]bool{}, behind: map[raftfsm.GroupID]bool{}}
	s := NewService(p, p.ids)
	system, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	machines := map[raftfsm.GroupID]*Machine{}
	for id, g := range p.groups {
		machines[id] = g.Machine().(*Machine)
	}
	l, err := s.NewLeases(LeaseOptions{
		Groups: p, Recaller: p, Clock: clock.NewFast(system), Machines: machines, Follows: func(id raftfsm.GroupID) bool { return !p.is(p.behind, id) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		l.Close(ctx)
	})
	return s, p
}

// elsewhere is a tenant of another group than the global limits.
func (p *patchy) elsewhere(s *Service) string {
	for _, tenant := range []string{"acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne"} {
		if s.Group(tenant) != s.Group(globalTenant) {
			return tenant
		}
	}
	p.t.Fatal("all tenants are in one group")
	return ""
}

func onFailure(l Limit, what string) Limit {
	l.OnFailure = what
	return l
}

func shadow(l Limit) Limit {
	l.Enforcement = EnforcementShadow
	return l
}

// What a check is told without its group is what all limits that match say, and otherwise it fails.
func TestLimitsStandInForTheirGroup(t *testing.T) {
	own := func(id, what string) Limit { return onFailure(hourly(id, ScopeTenant, anyTenant, 50), what) }
	all := func(what string) Limit { return onFailure(hourly("all", ScopeGlobal, anyTenant, 50), what) }
	key := onFailure(hourly("key", ScopeKey, "*/export", 5), OnFailureDeny)
	for _, c := range []struct {
		name       string
		limits     []Limit
		globalGone bool // the group of the global limits too
		ownThere   bool // and only that
		want       string
		source     string
	}{
		{name: "open", limits: []Limit{own("a", OnFailureOpen)}, want: "allow", source: SourceFailure},
		{name: "deny", limits: []Limit{own("a", OnFailureDeny)}, want: "deny group_away by a", source: SourceFailure},
		{name: "error", limits: []Limit{own("a", "")}, want: "error"},
		{name: "no limit matches", limits: []Limit{onFailure(hourly("a", ScopeTenant, "nobody", 5), OnFailureOpen)}, want: "error"},
		{name: "open and deny", limits: []Limit{own("a", OnFailureOpen), own("b", OnFailureDeny)}, want: "deny group_away by b", source: SourceFailure},
		{name: "open and error", limits: []Limit{own("a", OnFailureOpen), own("b", "")}, want: "error"},
		{name: "deny and error", limits: []Limit{own("a", OnFailureDeny), own("b", "")}, want: "error"},
		{name: "one for another key", limits: []Limit{own("a", OnFailureOpen), key}, want: "allow", source: SourceFailure},
		{name: "a shadow that says nothing", limits: []Limit{own("a", OnFailureOpen), shadow(own("b", ""))}, want: "allow", source: SourceFailure},
		{name: "a shadow that denies", limits: []Limit{own("a", OnFailureOpen), shadow(own("b", OnFailureDeny))}, want: "allow", source: SourceFailure},
		{name: "shadows alone", limits: []Limit{shadow(own("b", OnFailureDeny))}, want: "allow", source: SourceFailure},
		{name: "shadows alone that say nothing", limits: []Limit{shadow(own("b", ""))}, want: "error"},
		{name: "a ban", limits: []Limit{{ID: "ban", Scope: ScopeTenant, Selector: anyTenant, Access: AccessBanned, OnFailure: OnFailureDeny}}, want: "deny banned by ban", source: SourceFailure},
		{name: "free of limits", limits: []Limit{{ID: "free", Scope: ScopeTenant, Selector: anyTenant, Access: AccessUnlimited, OnFailure: OnFailureOpen}, own("a", "")}, want: "allow", source: SourceFailure},
		{name: "a global limit that can be asked", limits: []Limit{own("a", OnFailureOpen), all("")}, want: "allow", source: SourceFailure},
		{name: "a global limit that denies, and cannot be asked either", limits: []Limit{own("a", OnFailureOpen), all(OnFailureDeny)}, globalGone: true, want: "deny group_away by all", source: SourceFailure},
		{name: "only the global limit away, open", limits: []Limit{own("a", ""), all(OnFailureOpen)}, globalGone: true, ownThere: true, want: "allow", source: SourceFailure},
		{name: "only the global limit away, deny", limits: []Limit{own("a", ""), all(OnFailureDeny)}, globalGone: true, ownThere: true, want: "deny group_away by all", source: SourceFailure},
		{name: "only the global limit away", limits: []Limit{own("a", OnFailureOpen), all("")}, globalGone: true, ownThere: true, want: "error"},
		{name: "the tenant's limit denies by itself, the global one is open", limits: []Limit{hourly("a", ScopeTenant, anyTenant, 0), all(OnFailureOpen)}, globalGone: true, ownThere: true, want: "deny cost_exceeds_limit by a", source: SourceLeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, p := patchyNode(t, c.limits...)
			tenant := p.elsewhere(s)
			p.set(p.gone, s.Group(tenant), !c.ownThere)
			p.set(p.gone, s.Group(globalTenant), c.globalGone)
			said := func(d Decision, err error) (string, string) {
				switch {
				case errors.Is(err, raftfsm.ErrNoLeader):
					return "error", ""
				case err != nil:
					t.Fatal(err)
				case d.Allow:
					return "allow", d.Source
				}
				return "deny " + d.Reason + " by " + d.LimitID, d.Source
			}
			want := func(way string, d Decision, err error) {
				t.Helper()
				if got, source := said(d, err); got != c.want || source != c.source {
					t.Errorf("%s: %s by %q, want %s by %q", way, got, source, c.want, c.source)
				}
			}
			r := Request{Tenant: tenant, Cost: 1}
			for range 2 { // at first, and once the node knows
				d, err := s.Check(t.Context(), r)
				want("a check", d, err)
			}
			out, err := s.CheckBatch(t.Context(), []Request{r, {Tenant: tenant, Token: "other", Cost: 1}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range out {
				want("a batch", out[i].Decision, out[i].Err)
			}
			r.RequestID = "named"
			d, err := s.Check(t.Context(), r)
			want("a check with a request id", d, err)
			together, err := s.CheckTogether(t.Context(), []Part{{Request: Request{Tenant: tenant, Cost: 1}}})
			if err != nil {
				together = []Decision{{}}
			}
			want("checks that pass together", together[0], err)
		})
	}
}

// await polls for something that another goroutine brings about.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	end, tick := time.NewTimer(time.Minute), time.NewTicker(time.Millisecond)
	defer end.Stop()
	defer tick.Stop()
	for !is() {
		select {
		case <-end.C:
			t.Fatal("waited in vain for", what)
		case <-tick.C:
		}
	}
}

// Once the group is there again it decides, and counts what it was asked alone.
func TestTheGroupDecidesAgain(t *testing.T) {
	s, p := patchyNode(t, onFailure(hourly("a", ScopeTenant, anyTenant, 5), OnFailureOpen))
	r := Request{Tenant: p.elsewhere(s), Cost: 1}
	p.set(p.gone, s.Group(r.Tenant), true)
	for range 20 {
		if d, err := s.Check(t.Context(), r); err != nil || !d.Allow || d.Source != SourceFailure {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	p.set(p.gone, s.Group(r.Tenant), false)
	await(t, "the group", func() bool {
		d, err := s.Check(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return d.Source == SourceLeader
	})
	if d, err := s.Check(t.Context(), Request{Tenant: r.Tenant}); err != nil || d.Levels[0].Remaining != 4 {
		t.Errorf("%+v, %v; want one counted", d, err)
	}
}

// A group that does not answer in time is not away: a caller with a short deadline gets no limit to be open.
func TestImpatienceOpensNothing(t *testing.T) {
	s, p := patchyNode(t, onFailure(hourly("a", ScopeTenant, anyTenant, 5), OnFailureOpen))
	r := Request{Tenant: p.elsewhere(s), Cost: 1}
	p.set(p.stuck, s.Group(r.Tenant), true)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if d, err := s.Check(ctx, r); err == nil {
			t.Errorf("passed: %+v", d)
		}
		cancel()
	}
	p.set(p.stuck, s.Group(r.Tenant), false)
	if d, err := s.Check(t.Context(), r); err != nil || d.Source != SourceLeader {
		t.Errorf("then %+v, %v", d, err)
	}
}

// While a group is away, what the node holds of it is spent first.
func TestLeasesAreSpentBeforeLimitsStandIn(t *testing.T) {
	s, p := patchyNode(t, onFailure(limit("a", ScopeTenant, anyTenant, "1000/h", 1000), OnFailureDeny))
	r := Request{Tenant: p.elsewhere(s), Cost: 1}
	await(t, "a lease", func() bool {
		d, err := s.Check(t.Context(), r)
		return err == nil && d.Source == SourceLease
	})
	p.set(p.gone, s.Group(r.Tenant), true)
	leased, d := 0, Decision{}
	for d.Source != SourceFailure {
		var err error
		if d, err = s.Check(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if d.Source == SourceLease {
			leased++
		}
	}
	if leased == 0 || d.Allow {
		t.Errorf("%d from leases, then %+v", leased, d)
	}
}

// What a node says that must not ask is what its limits say, global ones too, and nothing while limits are not
// enforced.
func TestCheckOnFailure(t *testing.T) {
	s, p := patchyNode(t, onFailure(hourly("a", ScopeTenant, anyTenant, 5), OnFailureOpen), onFailure(hourly("all", ScopeGlobal, anyTenant, 5), OnFailureDeny),
		hourly("key", ScopeKey, "*/export", 5))
	tenant := p.elsewhere(s)
	all := []Request{{Tenant: tenant, Cost: 1}, {Tenant: tenant, Key: "export", Cost: 1}, {Tenant: "Bad", Cost: 1}}
	out := make([]Outcome, len(all))
	open := s.CheckOnFailure(all, out)
	if d := out[0].Decision; len(open) != 2 || open[0] != 1 || d.Allow || d.LimitID != "all" || d.Source != SourceFailure {
		t.Errorf("open %v, %+v", open, out[0])
	}
	s.FollowMode(func() Mode { return ModeOff })
	if open := s.CheckOnFailure(all, out); len(open) != len(all) {
		t.Errorf("while limits are off: open %v", open)
	}
}

// A holder outside that was told to ask the node, because it could not know of global limits, hears when it can.
func TestHoldersOutsideHearThatTheyMayBeLentTo(t *testing.T) {
	s, p := patchyNode(t, limit("a", ScopeTenant, anyTenant, "1000/h", 1000))
	tenant := p.elsewhere(s)
	o := s.Attend(1)
	defer o.Leave()
	lent := func() bool {
		routes, err := s.Lend(t.Context(), 1, tenant, []Ask{{}})
		if err != nil || routes[0].Version == 0 {
			t.Fatalf("%+v, %v", routes, err)
		}
		return routes[0].Lent
	}
	p.set(p.behind, s.Group(globalTenant), true)
	await(t, "the node to be behind", func() bool { return !lent() })
	o.Take()
	p.set(p.behind, s.Group(globalTenant), false)
	await(t, "word from the node", func() bool { return o.Take().Changed })
	if !lent() {
		t.Error("told too early")
	}
}
