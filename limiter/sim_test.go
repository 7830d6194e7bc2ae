package limiter

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// The simulation runs several holders, a group and the network between them in one goroutine and
// in its own time, so that a seed replays exactly. What passes is judged by a checker that knows
// nothing of leases: only who spent how much of which counter, and when.

// simPlan is what happens in a run.
type simPlan struct {
	limits []Limit
	// demand is how often each holder is asked, in checks a second, and costs up to which size.
	holders, demand int
	cost            uint32
	keys            int
	lasts           time.Duration
	// faults switches on loss, duplicates, delays, pauses, crashes, changes of the leader and skew;
	// loss and slow are the percentages of messages that are lost, or late by up to a second.
	faults     bool
	loss, slow int
	// changed, when not nil, are the limits from the middle of the run on.
	changed []Limit
	// upgrade is when holders begin to take tokens that come later.
	upgrade time.Duration
	// breaks are made by demand now and then, this long at most.
	breaks time.Duration
	// blankets is set if holders ask for blankets, and who asks moves from one pair of keys to the next.
	blankets bool
	// globals is set if all limits are of the scope global: see sim_globals_test.go.
	globals bool
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
	plan   simPlan
	random *rand.Rand
	now    int64 // real time in nanoseconds
	events simEvents
	number int
	group  *machineGroup
	// leader's clock: group time is stamp + what has passed since from, slowed.
	stamp   int64
	from    int64
	rate    float64
	holders []*simHolder
	flaw    simFlaw
	lost    error
	// what passed of each counter, in real microseconds
	taken map[simCounter][]passed
	// what was spent of each epoch, as the messages must report it, and what is pending
	spent, pending map[simEpoch]uint64
	// born is when counters got their rows, and lentAt when blankets were lent.
	born   map[string]int64
	lentAt map[blanketCommand]int64
	stats  struct{ allowed, denied, cached, local, messages, checks int }
	// denied checks with their advice, for those who look at it
	advice []simAdvice
}

type simCounter struct {
	uid             uint64
	tenant, subject string
}

type simEpoch struct {
	simCounter
	holder Holder
	epoch  uint64
}

type simAdvice struct {
	at int64
	ms uint32
	r  Request
}

// simFlaw is a planted bug.
type simFlaw int

const (
	flawNone simFlaw = iota
	flawNoRecheck
	flawDeadlineFromReceipt
	flawDeadlineFromResend
	flawAdoptsLease
	flawRefusalExtends
	flawProvisionalReported
	flawOldEpoch
	flawSpendsAhead
	flawDelayFromSending
	flawSettlesOldEpoch
	flawPassedGoesBack
	flawAdoptsAnyCounter
	flawAdoptsUnseenBlanket
	flawForgetsAdopted
)

func newSim(t testing.TB, seed uint64, plan simPlan, flaw simFlaw) *sim {
	s := &sim{plan: plan, random: rand.New(rand.NewPCG(seed, 0)), now: int64(time.Second), rate: 1, flaw: flaw, taken: map[simCounter][]passed{}, spent: map[simEpoch]uint64{}, pending: map[simEpoch]uint64{}, born: map[string]int64{}, lentAt: map[blanketCommand]int64{}}
	s.stamp, s.from = 1_000_000, s.now
	s.group = newMachineGroup(t, plan.limits...)
	for i := range plan.holders {
		s.holders = append(s.holders, s.start(i, Holder(100*i+1)))
	}
	return s
}

func (s *sim) after(d time.Duration, do func()) {
	s.number++
	heap.Push(&s.events, simEvent{s.now + int64(d), s.number, do})
}

// between draws a duration.
func (s *sim) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.random.Int64N(int64(to-from)+1))
}

func (s *sim) chance(percent int) bool { return s.plan.faults && s.random.IntN(100) < percent }

// groupTime is the present stamp of the group, in microseconds.
func (s *sim) groupTime() int64 {
	elapsed := int64(float64(s.now-s.from)*s.rate) / 1000
	return s.stamp + elapsed - ceilDiv64(elapsed, raftfsm.RateErrorDenominator)
}

func ceilDiv64(a, b int64) int64 { return (a + b - 1) / b }

// skew is the rate of a clock.
func (s *sim) skew() float64 {
	if !s.plan.faults {
		return 1
	}
	return 1 + (s.random.Float64()*2-1)*0.00099
}

// elect makes another node the leader: its clock goes on from the last stamp, and some time may be lost.
func (s *sim) elect() {
	now := s.groupTime()
	s.stamp = now - s.random.Int64N(1+min(now-s.stamp, 300_000))
	s.from, s.rate = s.now, s.skew()
}

// passed notes that a request has passed, now.
func (s *sim) passed(r Request) { s.passedAt(r, s.now) }

func (s *sim) passedAt(r Request, at int64) {
	s.stats.allowed++
	for _, l := range s.group.published().Load().match(nil, r.Tenant, r.Token, r.Key) {
		key := simCounter{l.uid, r.Tenant, l.subject(r.Token, r.Key)}
		s.taken[key] = append(s.taken[key], passed{at / 1000, int64(r.Cost)})
	}
}

// run plays the plan.
func (s *sim) run() {
	end := s.now + int64(s.plan.lasts)
	if s.plan.faults {
		s.after(s.between(100*time.Millisecond, time.Second), s.disturb)
	}
	if s.plan.upgrade > 0 {
		s.group.plain = true
		s.after(s.plan.upgrade, func() { s.group.plain = false })
	}
	if s.plan.changed != nil {
		s.after(s.plan.lasts/2, func() { s.group.configure(s.groupTime(), s.plan.changed...) })
	}
	for len(s.events) > 0 && s.events[0].at < end && s.lost == nil {
		e := heap.Pop(&s.events).(simEvent)
		s.now = max(s.now, e.at)
		e.do()
	}
}

func (s *sim) disturb() {
	s.elect()
	s.after(s.between(100*time.Millisecond, 2*time.Second), s.disturb)
}

// simPlanOf draws a plan with every fault.
func simPlanOf(seed uint64) simPlan {
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	bucket := func(id, scope, selector string) Limit {
		return Limit{ID: id, Scope: scope, Selector: selector, TokenBucket: TokenBucket{pick("100/s", "300/s", "1000/s"), 40 + random.Uint32N(200)}}
	}
	p := simPlan{
		holders: 2 + random.IntN(3), demand: 100 << random.IntN(4), cost: 1 + random.Uint32N(4), keys: 1 + random.IntN(3), lasts: 3 * time.Second,
		faults: true, loss: []int{0, 5, 5, 20}[random.IntN(4)], slow: []int{2, 5, 25}[random.IntN(3)], breaks: time.Duration(random.IntN(2)) * 400 * time.Millisecond,
	}
	p.limits = append(p.limits, bucket("a", ScopeTenant, "acme"))
	if random.IntN(2) == 0 {
		p.limits = append(p.limits, bucket("b", ScopeKey, "acme/*"))
	}
	if random.IntN(2) == 0 {
		p.limits = append(p.limits, Limit{ID: "w", Scope: ScopeTenant, Selector: "acme", Window: Window{100 + random.Uint32N(400), pick("2s", "4s")}})
	}
	if random.IntN(3) == 0 {
		for _, l := range p.limits {
			if l.hasBucket() {
				l.TokenBucket = TokenBucket{pick("100/s", "300/s", "1000/s"), 40 + random.Uint32N(200)}
			} else {
				l.Window.Limit = 100 + random.Uint32N(400)
			}
			p.changed = append(p.changed, l)
		}
	}
	p.upgrade = []time.Duration{0, 0, 0, p.lasts / 2, p.lasts}[random.IntN(5)]
	return p
}

// Whatever fails, no more passes than the limits allow, and what is reported was spent.
func TestLeasesNeverExceedTheirLimits(t *testing.T) {
	var allowed, local int
	seeds := uint64(1000)
	if raceDetector {
		seeds = 100
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run("", func(t *testing.T) {
			s := newSim(t, seed, simPlanOf(seed), flawNone)
			s.run()
			if err := s.judge(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			allowed += s.stats.allowed
			local += s.stats.local
		})
	}
	t.Logf("%d checks passed, %d of them from leases", allowed, local)
}
