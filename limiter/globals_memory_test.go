package limiter

import (
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A request id is remembered for ten minutes of its group's time, which may lag behind another group's after a
// change of leader. Whichever forgets it first, what passes is counted.
func TestGroupsOfDifferentTimeForgetARequestID(t *testing.T) {
	const most = 3
	for name, lag := range map[string]time.Duration{"the same time": 0, "global limits lag": 30 * time.Second, "the tenant's lag": -30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			r := startRealm(t, 2, hourly("all", ScopeGlobal, anyTenant, most), hourly("own", ScopeTenant, anyTenant, 100))
			s := r.node()
			tenant := ""
			for _, name := range []string{"acme", "globex", "initech", "umbrella", "hooli"} {
				if s.Group(name) != s.Group(globalTenant) {
					tenant = name
				}
			}
			clocks := func(at, lag time.Duration) {
				r.groups[s.Group(tenant)].Time = at - max(0, -lag)
				r.groups[s.Group(globalTenant)].Time = at - max(0, lag)
			}
			passed := uint32(0)
			ask := func(id string) (d Decision) {
				t.Helper()
				d, err := s.Check(t.Context(), Request{Tenant: tenant, Cost: 1, RequestID: id})
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			left := func() uint32 {
				t.Helper()
				d, err := s.peekTenant(t.Context(), ModeEnforce, Request{Tenant: globalTenant})
				if err != nil {
					t.Fatal(err)
				}
				return d.Levels[0].Remaining
			}
			clocks(time.Minute, 0)
			if !ask("one").Allow {
				t.Fatal("denied at first")
			}
			passed++
			clocks(time.Minute+raftfsm.RequestMemory/2, 0)
			if !ask("one").Allow || left() != most-1 {
				t.Fatalf("a retry: %d left of %d", left(), most)
			}
			// Ten minutes after the first one for one of the clocks, or for both.
			clocks(time.Minute+raftfsm.RequestMemory+10*time.Second, lag)
			before := ownLeft(t, s, tenant)
			if ask("one").Allow && ownLeft(t, s, tenant) < before {
				passed++ // decided anew
			}
			if used := most - left(); used < passed {
				t.Errorf("%d passed, and the global limit counts %d", passed, used)
			}
		})
	}
}

// ownLeft is what is left of a tenant's own limit.
func ownLeft(t *testing.T, s *Service, tenant string) uint32 {
	t.Helper()
	d, err := s.peekTenant(t.Context(), ModeEnforce, Request{Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	return d.Levels[0].Remaining
}
