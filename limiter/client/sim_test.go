package client

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// The simulation runs the lease tables of several clients against a real group, behind the RPC by which a node lends, in one
// goroutine and in its own time, so that a seed replays exactly. Connections break with messages under way, nodes
// go away, answers are lost before and after they took effect, clients pause, crash and begin anew, clocks err by
// a thousandth, leaders and limits change. The judge knows what passed, and when, and nothing of leases.

const (
	simTenant = "acme"
	simGroup  = raftfsm.GroupID(7)
)

// simPlan is what happens in a run.
type simPlan struct {
	limits []limiter.Limit
	// demand is how often each client is asked, in checks a second, and costs up to which size.
	clients, demand int
	cost            uint32
	keys            int
	lasts           time.Duration
	// faults switches on all that fails; breaks is the percentage of messages under which the connection breaks, and slow
	// of those that are late by up to a second. named is that of checks with a request id.
	faults              bool
	breaks, slow, named int
	open                bool // clients are told to fail open
	// gaps are made by demand now and then, this long at most.
	gaps time.Duration
	// changed, when not nil, are the limits from the middle of the run on.
	changed []limiter.Limit
}

// simEvent happens at a real time, in the order of at and number.
type simEvent struct {
	at     int64
	number int
	do     func()
}

type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// sim is one run.
type sim struct {
	t      testing.TB
	plan   simPlan
	flaw   simFlaw
	random *rand.Rand
	now    atomic.Int64 // real time in nanoseconds; the node's own goroutine reads it too
	events simEvents
	number int

	driver *fsmtest.Driver
	// The leader's clock: group time is stamp + what has passed since from, slowed.
	stamp, from int64
	rate        float64
	// node lends, and asker decides what clients do not: a node that holds nothing itself.
	node, asker *limiter.Service
	leases      *limiter.Leases
	clients     []*simClient
	over        bool // nobody asks any more

	passed  map[simCounter][]pass
	decided map[string]bool // by request id
	denials []simDenial
	lost    error
	stats   simStats
}

type simStats struct {
	local, asked, denied, open, failed, messages, crashes int
}

// simCounter is a counter as the judge knows it.
type simCounter struct{ limit, key string }

// pass is what passed, and when, in nanoseconds.
type pass struct{ at, cost int64 }

// simDenial is the last word of a node about a check, with what clients held then.
type simDenial struct {
	at   int64
	r    Request
	ms   uint32
	held int64
}

func newSim(t testing.TB, seed uint64, plan simPlan, flaw simFlaw) *sim {
	s := &sim{t: t, plan: plan, flaw: flaw, random: rand.New(rand.NewPCG(seed, 0)), rate: 1, passed: map[simCounter][]pass{}, decided: map[string]bool{}}
	s.now.Store(int64(time.Second))
	s.stamp, s.from = 1_000_000, s.now.Load()
	s.driver = fsmtest.New(t, func() raftfsm.Machine { return limiter.NewMachine() })
	s.node = limiter.NewService(simGroups{s, true}, []raftfsm.GroupID{simGroup})
	s.asker = limiter.NewService(simGroups{s, false}, []raftfsm.GroupID{simGroup})
	s.set(plan.limits)
	var err error
	s.leases, err = s.node.NewLeases(limiter.LeaseOptions{
		Groups: simGroups{s, true}, Clock: simClock{s}, Machines: map[raftfsm.GroupID]*limiter.Machine{simGroup: s.driver.Machine().(*limiter.Machine)},
		Follows: func(raftfsm.GroupID) bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range plan.clients {
		s.clients = append(s.clients, s.start(i, uint64(i+1)))
	}
	return s
}

func (s *sim) close() { s.leases.Close(context.Background()) }

// simClock is the node's clock, which nothing of what is simulated depends on.
type simClock struct{ sim *sim }

func (c simClock) Steady() int64 { return c.sim.now.Load() }
func (c simClock) Sync() int64   { return c.sim.now.Load() }

// simGroups is the group as nodes reach it. What lends may lose a command, or its answer.
type simGroups struct {
	sim   *sim
	lends bool
}

var errSimLost = errors.New("lost")

func (g simGroups) Level() int { return raftfsm.LevelCurrent }

func (g simGroups) Propose(_ context.Context, _ raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	s := g.sim
	if g.lends && s.chance(3) {
		return raftfsm.Result{}, errSimLost
	}
	s.driver.Time = max(s.driver.Time, time.Duration(s.groupTime())*time.Microsecond)
	a := s.driver.Propose(cmd)[0]
	if g.lends && s.chance(3) {
		return raftfsm.Result{}, errSimLost
	}
	return a.Result, a.Err
}

func (g simGroups) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	data, err := g.sim.driver.Machine().Query(ctx, q)
	return raftfsm.Answer{Data: data}, err
}

func (s *sim) set(limits []limiter.Limit) {
	v, err := s.asker.Version(context.Background(), simGroup, raftfsm.Linearizable)
	if err == nil {
		_, _, err = s.asker.Configure(context.Background(), simGroup, limiter.Change{To: v + 1, Puts: limits})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) after(d time.Duration, do func()) {
	s.number++
	heap.Push(&s.events, simEvent{s.now.Load() + int64(d), s.number, do})
}

// between draws a duration.
func (s *sim) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.random.Int64N(int64(to-from)+1))
}

func (s *sim) chance(percent int) bool {
	return s.plan.faults && !s.over && s.random.IntN(100) < percent
}

// groupTime is the present stamp of the group, in microseconds.
func (s *sim) groupTime() int64 {
	elapsed := int64(float64(s.now.Load()-s.from)*s.rate) / 1000
	return s.stamp + elapsed - (elapsed+raftfsm.RateErrorDenominator-1)/raftfsm.RateErrorDenominator
}

// skew is the rate of a clock.
func (s *sim) skew() float64 {
	if !s.plan.faults {
		return 1
	}
	return 1 + (s.random.Float64()*2-1)*0.00099
}

// elect makes another node the leader, whose clock goes on from the last stamp; some time may be lost.
func (s *sim) elect() {
	now := s.groupTime()
	s.stamp = now - s.random.Int64N(1+min(now-s.stamp, 300_000))
	s.from, s.rate = s.now.Load(), s.skew()
}

func (s *sim) disturb() {
	s.elect()
	s.after(s.between(100*time.Millisecond, 2*time.Second), s.disturb)
}

// fail notes the first thing that must not be.
func (s *sim) fail(format string, args ...any) {
	if s.lost == nil {
		s.lost = fmt.Errorf("at %d: "+format, append([]any{s.now.Load()}, args...)...)
	}
}

// pass notes that a request has passed, now.
func (s *sim) pass(r *Request) {
	for _, l := range s.plan.limits {
		c := simCounter{limit: l.ID}
		if l.Scope == limiter.ScopeKey {
			c.key = r.Key
		}
		s.passed[c] = append(s.passed[c], pass{s.now.Load(), int64(r.Cost)})
	}
}

// run plays the plan.
func (s *sim) run() {
	if s.plan.faults {
		s.after(s.between(100*time.Millisecond, time.Second), s.disturb)
	}
	if s.plan.changed != nil {
		s.after(s.plan.lasts/2, func() {
			s.driver.Time = max(s.driver.Time, time.Duration(s.groupTime())*time.Microsecond)
			s.set(s.plan.changed)
			for _, c := range s.clients {
				c.hear()
			}
		})
	}
	s.play(s.plan.lasts)
}

// play lets some time pass.
func (s *sim) play(d time.Duration) {
	end := s.now.Load() + int64(d)
	for len(s.events) > 0 && s.events[0].at < end && s.lost == nil {
		e := heap.Pop(&s.events).(simEvent)
		s.now.Store(max(s.now.Load(), e.at))
		e.do()
	}
	s.now.Store(max(s.now.Load(), end))
}
