package limiter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// realm is groups of their own, the first of which counts global limits, with a network that a test
// breaks where it likes.
type realm struct {
	t      testing.TB
	ids    []raftfsm.GroupID
	groups map[raftfsm.GroupID]*driven

	mu sync.Mutex
	// faults are what becomes of the next commands to a group, in their order; those after the last are
	// carried out.
	faults map[raftfsm.GroupID][]fault
	// late are commands that are under way for longer than their callers wait.
	late []lateCommand
	// hold, when not nil, holds queries up: each says twice that it is there before it goes on.
	hold chan struct{}
	// broken counts the commands that did not go as they should.
	broken int
}

type lateCommand struct {
	group raftfsm.GroupID
	cmd   raftfsm.Command
}

// fault is what becomes of a command.
type fault int

const (
	faultNone    fault = iota
	faultRefused       // not carried out, and the caller knows
	faultDropped       // not carried out, and the caller does not know
	faultLost          // carried out, and the caller does not know
	faultLate          // carried out later, and the caller does not know
	faultTwice         // carried out, and once more later, as a network repeats it
	faultKinds
)

func startRealm(t testing.TB, groups int, limits ...Limit) *realm {
	r := &realm{t: t, groups: map[raftfsm.GroupID]*driven{}, faults: map[raftfsm.GroupID][]fault{}}
	for i := range groups {
		id := raftfsm.GroupID(10 + i)
		r.ids, r.groups[id] = append(r.ids, id), drive(t, 64)
		r.groups[id].set(limits...)
	}
	return r
}

// node is a service without leases.
func (r *realm) node() *Service { return NewService(r, r.ids) }

func (r *realm) Level() int { return raftfsm.LevelCurrent }

func (r *realm) Query(ctx context.Context, id raftfsm.GroupID, q []byte, c raftfsm.Consistency) (raftfsm.Answer, error) {
	if r.hold != nil {
		r.hold <- struct{}{}
		r.hold <- struct{}{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.groups[id].Query(ctx, id, q, c)
}

func (r *realm) Propose(ctx context.Context, id raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := faultNone
	if planned := r.faults[id]; len(planned) > 0 {
		f, r.faults[id] = planned[0], planned[1:]
	}
	if f == faultTwice && cmd.RequestID == (raftfsm.RequestID{}) {
		f = faultNone // groups repeat only what they can recognise
	}
	if f != faultNone {
		r.broken++
	}
	unknown := &raftfsm.Error{Op: "propose", Group: "test", Outcome: raftfsm.OutcomeUnknown, Err: raftfsm.ErrLost}
	switch f {
	case faultRefused:
		return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: "test", Outcome: raftfsm.OutcomeDefinite, Err: raftfsm.ErrNoLeader}
	case faultDropped:
		return raftfsm.Result{}, unknown
	case faultLate, faultTwice:
		r.late = append(r.late, lateCommand{id, cmd})
	}
	if f == faultLate {
		return raftfsm.Result{}, unknown
	}
	res, err := r.groups[id].Propose(ctx, id, cmd)
	if err != nil {
		err = &raftfsm.Error{Op: "propose", Group: "test", Outcome: raftfsm.OutcomeDefinite, Err: err}
	}
	if f == faultLost {
		return raftfsm.Result{}, unknown
	}
	return res, err
}

// land carries out what is late.
func (r *realm) land() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.late {
		r.groups[c.group].Driver.Propose(c.cmd)
	}
	r.late = nil
}

// fail plans faults of the group of a tenant.
func (r *realm) fail(s *Service, tenant string, all ...fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[s.Group(tenant)] = all
}

// used is what a tenant's group, or that of globalTenant, counts of each limit.
func (r *realm) used(s *Service, tenant, key string) map[string]uint32 {
	r.t.Helper()
	d, err := s.peekTenant(r.t.Context(), ModeEnforce, Request{Tenant: tenant, Key: key})
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]uint32{}
	for _, l := range d.Levels {
		out[l.LimitID] = l.Used
	}
	return out
}

// apartFrom is a tenant of another group than that of global limits.
func (r *realm) apartFrom(s *Service) string {
	for i := 0; ; i++ {
		if tenant := fmt.Sprint("t", i); s.Group(tenant) != s.Group(globalTenant) {
			return tenant
		}
	}
}

// A named check whose tenant's part fails keeps its global tokens, since a retry finds that it has them.
func TestRetryAfterAFailureHasItsGlobalTokens(t *testing.T) {
	for name, ask := range map[string]func(*Service, Request) (bool, error){
		"check": func(s *Service, r Request) (bool, error) {
			d, err := s.Check(t.Context(), r)
			return d.Allow, err
		},
		"reserve": func(s *Service, r Request) (bool, error) {
			h, err := s.Reserve(t.Context(), r, 0)
			return h.Allow, err
		},
	} {
		for _, f := range []fault{faultRefused, faultDropped, faultLost, faultLate} {
			r := startRealm(t, 2, hourly("all", ScopeGlobal, anyTenant, 3), hourly("each", ScopeTenant, anyTenant, 1000))
			s := r.node()
			tenant := r.apartFrom(s)
			passed := 0
			for i := range 6 {
				q := Request{Tenant: tenant, Cost: 1, RequestID: fmt.Sprint(i)}
				r.fail(s, tenant, f)
				_, _ = ask(s, q)
				r.fail(s, tenant)
			}
			for i := range 6 {
				if allow, err := ask(s, Request{Tenant: tenant, Cost: 1, RequestID: fmt.Sprint(i)}); err != nil {
					t.Errorf("%s, fault %d, retry: %v", name, f, err)
				} else if allow {
					passed++
				}
			}
			if used := r.used(s, globalTenant, "")["all"]; passed > 3 || int(used) != passed {
				t.Errorf("%s, fault %d: %d of 3 passed, and %d count", name, f, passed, used)
			}
		}
	}
}

// A request id that comes again with another key is refused, and gives back nothing of what the first
// check took.
func TestReusedRequestIDGivesNothingBack(t *testing.T) {
	r := startRealm(t, 2, hourly("all", ScopeGlobal, anyTenant, 3), hourly("each", ScopeKey, "*/*", 1000))
	s := r.node()
	tenant := r.apartFrom(s)
	passed := 0
	for i := range 6 {
		q := Request{Tenant: tenant, Key: "a", Cost: 1, RequestID: fmt.Sprint(i)}
		d, err := s.Check(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Allow {
			continue
		}
		passed++
		q.Key = "b"
		if _, err := s.Check(t.Context(), q); !errors.Is(err, raftfsm.ErrRequestReused) {
			t.Errorf("with another key: %v", err)
		}
	}
	if used := r.used(s, globalTenant, "")["all"]; passed != 3 || used != 3 {
		t.Errorf("%d of 3 passed, and %d count", passed, used)
	}
}

// Parts that no check could ask for at once are not cut to what one could.
func TestPartsBeyondAllTokensAreRefused(t *testing.T) {
	r := startRealm(t, 2, hourly("all", ScopeGlobal, anyTenant, math.MaxUint32))
	s := r.node()
	parts := []Part{{Request: Request{Tenant: "acme", Key: "a", Cost: math.MaxUint32}}, {Request: Request{Tenant: "acme", Key: "b", Cost: 1}}}
	var invalid *InvalidError
	if d, err := s.CheckTogether(t.Context(), parts); !errors.As(err, &invalid) {
		t.Errorf("%v, %v; want that they are refused", d, err)
	}
	if used := r.used(s, globalTenant, "")["all"]; used != 0 {
		t.Errorf("%d are used", used)
	}
}

// While one check asks a group that does not answer whether there are global limits, the others go on with what
// is known.
func TestChecksDoNotWaitForWhetherThereAreGlobalLimits(t *testing.T) {
	r := startRealm(t, 2, hourly("each", ScopeTenant, anyTenant, 1000))
	s := r.node()
	if d, err := s.Check(t.Context(), Request{Tenant: "acme", Cost: 1}); err != nil || !d.Allow {
		t.Fatal(d, err)
	}
	r.hold = make(chan struct{})
	s.remote.known = s.remote.known.Add(-globalsFresh)
	asked := make(chan error)
	check := func() error {
		d, err := s.Check(t.Context(), Request{Tenant: "acme", Cost: 1})
		if err == nil && !d.Allow {
			err = fmt.Errorf("%v", d)
		}
		return err
	}
	go func() { asked <- check() }()
	<-r.hold
	if err := check(); err != nil { // it would wait for ever if it waited
		t.Error("beside one that asks:", err)
	}
	<-r.hold
	if err := <-asked; err != nil {
		t.Error("the one that asks:", err)
	}
}
