package limiter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// leasing are nodes with leases in a realm of two groups.
type leasing struct {
	*realm
	nodes []*leasingNode
	// told gets a word when a node recalls something.
	told chan struct{}
}

// leasingNode calls before, when not nil, ahead of each command that it proposes.
type leasingNode struct {
	*Service
	*realm
	leases *Leases
	before atomic.Pointer[func(raftfsm.GroupID, raftfsm.Command)]
}

func (n *leasingNode) Level() int { return raftfsm.LevelCurrent }

func (n *leasingNode) Query(ctx context.Context, id raftfsm.GroupID, q []byte, c raftfsm.Consistency) (raftfsm.Answer, error) {
	return n.realm.Query(ctx, id, q, c)
}

func (n *leasingNode) Propose(ctx context.Context, id raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	if before := n.before.Load(); before != nil {
		(*before)(id, cmd)
	}
	return n.realm.Propose(ctx, id, cmd)
}

// Tell brings recalls to the other nodes.
func (l *leasing) Tell(ctx context.Context, from *leasingNode, message []byte) {
	select {
	case l.told <- struct{}{}:
	default:
	}
	var all sync.WaitGroup
	for _, n := range l.nodes {
		if n != from {
			all.Go(func() {
				if err := n.leases.Recalled(ctx, message); err != nil {
					l.t.Error(err)
				}
			})
		}
	}
	all.Wait()
}

type leasingTeller struct {
	all  *leasing
	from *leasingNode
}

func (t leasingTeller) Tell(ctx context.Context, _ raftfsm.GroupID, message []byte) {
	t.all.Tell(ctx, t.from, message)
}

func startLeasing(t testing.TB, nodes int, limits ...Limit) *leasing {
	l := &leasing{realm: startRealm(t, 2, limits...), told: make(chan struct{}, 1)}
	system, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	machines := map[raftfsm.GroupID]*Machine{}
	for id, g := range l.groups { // any order
		machines[id] = g.Machine().(*Machine)
	}
	for range nodes {
		n := &leasingNode{realm: l.realm}
		n.Service = NewService(n, l.ids)
		n.leases, err = n.NewLeases(LeaseOptions{
			Groups: n, Recaller: leasingTeller{l, n}, Clock: clock.NewFast(system), Machines: machines,
			Follows: func(raftfsm.GroupID) bool { return true },
		})
		if err != nil {
			t.Fatal(err)
		}
		l.nodes = append(l.nodes, n)
	}
	return l
}

func (l *leasing) close() {
	for _, n := range l.nodes {
		n.leases.Close(l.t.Context())
	}
}

func (n *leasingNode) ask(t testing.TB, r Request) Decision {
	t.Helper()
	d, err := n.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// giveBack gives back what a node holds, and waits until the groups know.
func (n *leasingNode) giveBack() {
	for range 2 { // what is under way brings more
		n.leases.table.giveAllBack(n.leases.options.Clock.Sync())
		for _, g := range n.leases.table.groups { // any order
			for _, done := range g.queue.pending(math.MaxUint64) {
				<-done
			}
		}
	}
}

// waysToAsk are all ways to ask for one token, and tell whether it was given.
var waysToAsk = []struct {
	name string
	ask  func(ctx context.Context, s *Service, r Request) (bool, error)
}{
	{"check", func(ctx context.Context, s *Service, r Request) (bool, error) {
		d, err := s.Check(ctx, r)
		return d.Allow, err
	}},
	{"named check", func(ctx context.Context, s *Service, r Request) (bool, error) {
		r.RequestID = "named"
		d, err := s.Check(ctx, r)
		return d.Allow, err
	}},
	{"batch", func(ctx context.Context, s *Service, r Request) (bool, error) {
		out, err := s.CheckBatch(ctx, []Request{r, r})
		if err != nil {
			return false, err
		}
		return out[0].Decision.Allow || out[1].Decision.Allow, errors.Join(out[0].Err, out[1].Err)
	}},
	{"together", func(ctx context.Context, s *Service, r Request) (bool, error) {
		out, err := s.CheckTogether(ctx, []Part{{Request: r}})
		return err == nil && out[0].Allow, err
	}},
	{"reserve", func(ctx context.Context, s *Service, r Request) (bool, error) {
		h, err := s.Reserve(ctx, r, 0)
		return h.Allow, err
	}},
	{"named reserve", func(ctx context.Context, s *Service, r Request) (bool, error) {
		r.RequestID = "named"
		h, err := s.Reserve(ctx, r, 0)
		return h.Allow, err
	}},
}

// While a tenant that is at its own limit asks, by whatever way and from whatever node, the last token of a global
// limit that is lent to one check at a time is there for everybody else.
func TestATenantAtItsLimitHoldsNoGlobalTokens(t *testing.T) {
	limits := []Limit{hourly("all", ScopeGlobal, anyTenant, 4), hourly("each", ScopeTenant, anyTenant, 3)}
	for _, way := range waysToAsk {
		for _, never := range []bool{false, true} { // the cost exceeds the tenant's limit
			for step := 1; step <= 8; step++ { // ahead of which of its commands the others ask
				name := fmt.Sprintf("%s, never %v, step %d", way.name, never, step)
				l := startLeasing(t, 2, limits...)
				a, b := l.nodes[0], l.nodes[1]
				full, other := l.apartFrom(a.Service), "other"
				for range 3 {
					if d := a.ask(t, Request{Tenant: full, Cost: 1}); !d.Allow {
						t.Fatalf("%s: before the limit: %v", name, d)
					}
				}
				q := Request{Tenant: full, Cost: 1}
				if never {
					if q.Cost = 4; l.used(a.Service, globalTenant, "")["all"] != 3 {
						t.Fatalf("%s: %v used", name, l.used(a.Service, globalTenant, ""))
					}
				}
				var n atomic.Int32
				before := func(raftfsm.GroupID, raftfsm.Command) {
					if int(n.Add(1)) == step {
						if d := b.ask(t, Request{Tenant: other, Cost: 1}); !d.Allow {
							t.Errorf("%s: another tenant is denied: %v", name, d)
						}
					}
				}
				a.before.Store(&before)
				if allow, err := way.ask(t.Context(), a.Service, q); allow || err != nil {
					t.Errorf("%s: the tenant at its limit: %v, %v", name, allow, err)
				}
				l.close()
				reached := int(n.Load()) >= step
				if !reached {
					if d := b.ask(t, Request{Tenant: other, Cost: 1}); !d.Allow {
						t.Errorf("%s: another tenant is denied afterwards: %v", name, d)
					}
				}
				b.giveBack()
				if used := l.used(a.Service, globalTenant, "")["all"]; used != 4 {
					t.Errorf("%s: %d used of the global limit, want 4", name, used)
				}
				if used := l.used(a.Service, full, "")["each"]; used != 3 {
					t.Errorf("%s: %d used of the tenant's limit, want 3", name, used)
				}
				if !reached {
					break
				}
			}
		}
	}
}

// Two checks of a tenant that has room for one hold a global token each for a moment. Who asks meanwhile waits until
// it is known which of them comes back, instead of being denied.
func TestOthersWaitForWhatIsPending(t *testing.T) {
	for _, most := range []uint32{5, 100} { // lent one check at a time, and by demand
		l := startLeasing(t, 2, hourly("all", ScopeGlobal, anyTenant, most), hourly("each", ScopeTenant, "full", 1))
		a, b := l.nodes[0], l.nodes[1]
		b.leases.pendingWait = time.Minute
		b.ask(t, Request{Tenant: "other", Cost: most - 2})
		b.giveBack()
		// Both have looked, and taken a global token, before the first of them is decided.
		arrived, decide := make(chan struct{}, 2), make(chan struct{})
		group := a.Group("full")
		before := func(id raftfsm.GroupID, cmd raftfsm.Command) {
			if c, err := decodeCommand(cmd.Data); err == nil && id == group && c.op == opCheck && c.check.Tenant == "full" {
				arrived <- struct{}{}
				<-decide
			}
		}
		a.before.Store(&before)
		passed := make(chan bool, 2)
		for range 2 {
			go func() {
				d, err := a.Check(t.Context(), Request{Tenant: "full", Cost: 1})
				if err != nil {
					t.Error(err)
				}
				passed <- d.Allow
			}()
		}
		<-arrived
		<-arrived
		var third sync.WaitGroup
		third.Go(func() {
			if d, err := b.Check(t.Context(), Request{Tenant: "other", Cost: 1}); err != nil || !d.Allow {
				t.Errorf("of %d: denied by what came back: %v, %v", most, d, err)
			}
		})
		<-l.told
		close(decide)
		if first, second := <-passed, <-passed; first == second {
			t.Errorf("of %d: both of the tenant's checks: %v", most, first)
		}
		third.Wait()
		l.close()
		if used := l.used(b.Service, globalTenant, "")["all"]; used != most {
			t.Errorf("%d of %d used", used, most)
		}
	}
}
