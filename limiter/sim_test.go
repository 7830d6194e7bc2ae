package limiter

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
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
	// breaks are made by demand now and then, this long at most.
	breaks time.Duration
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
	// what was spent of each epoch, as the messages must report it
	spent map[simEpoch]uint64
	stats struct{ allowed, denied, cached, local, messages, checks int }
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

// simHolder is one run of a node.
type simHolder struct {
	*sim
	table  *holderTable
	rate   float64
	offset int64
	dead   bool
	// sending is the message under way, and waiting who waits for it or a later one.
	sending *renewals
	waiting []simWaiter
	// latest is when each lease was last sent, for a flaw.
	latest map[*lease]int64
}

type simWaiter struct {
	batch *renewals
	retry func()
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
)

func newSim(t testing.TB, seed uint64, plan simPlan, flaw simFlaw) *sim {
	s := &sim{plan: plan, random: rand.New(rand.NewPCG(seed, 0)), now: int64(time.Second), rate: 1, flaw: flaw, taken: map[simCounter][]passed{}, spent: map[simEpoch]uint64{}}
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

// start begins a run of a node.
func (s *sim) start(i int, id Holder) *simHolder {
	h := &simHolder{sim: s, latest: map[*lease]int64{}, rate: s.skew(), offset: s.random.Int64N(int64(time.Hour))}
	h.table = newHolderTable(id, 1, h.clock, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: s.group.published()})
	h.tick()
	if s.plan.demand > 0 {
		s.after(s.between(0, time.Second/time.Duration(s.plan.demand)), func() { h.demand(i) })
	}
	return h
}

func (h *simHolder) local() int64 { return h.offset + int64(float64(h.sim.now)*h.rate) + 1 }

// clock is the reading after the debits: before it, time may pass.
func (h *simHolder) clock() int64 {
	before := h.local()
	if h.chance(2) {
		h.sim.now += int64(h.between(0, 400*time.Millisecond))
	}
	if h.flaw == flawNoRecheck {
		return before
	}
	return h.local()
}

func (h *simHolder) tick() {
	if h.dead {
		return
	}
	h.table.tick(h.local())
	h.pump()
	h.after(10*time.Millisecond, h.tick)
}

// crash ends a run at once; another one follows.
func (h *simHolder) crash(i int) {
	h.dead = true
	id := Holder(100*i + 1)
	if h.flaw != flawAdoptsLease {
		id = Holder(h.random.Uint64())
	}
	h.after(h.between(0, 50*time.Millisecond), func() { h.holders[i] = h.start(i, id) })
}

func (h *simHolder) demand(i int) {
	if h.dead {
		return
	}
	key := fmt.Sprint("k", h.random.IntN(max(1, h.plan.keys)))
	h.ask(Request{Tenant: "acme", Key: key, Cost: 1 + h.random.Uint32N(h.plan.cost)})
	if h.random.IntN(500) == 0 && h.chance(100) {
		h.crash(i)
	}
	wait := h.between(0, 2*time.Second/time.Duration(h.plan.demand))
	if h.plan.breaks > 0 && h.random.IntN(100) == 0 {
		wait += h.between(0, h.plan.breaks)
	}
	h.after(wait, func() { h.demand(i) })
}

// ask is one check, as the shell makes it.
func (h *simHolder) ask(r Request) {
	h.stats.checks++
	h.try(r, 0, 0)
}

func (h *simHolder) try(r Request, asked uint64, tries int) {
	var d Decision
	c := heldCheck{request: &r, decision: &d, asked: asked}
	h.table.check(&c)
	switch c.answer {
	case heldSpent:
		h.stats.local++
		h.passed(r)
		h.spentHere(r)
	case heldDenied:
		h.stats.cached++
		h.stats.denied++
	case heldLacks:
		if tries < waitsMax {
			h.waiting = append(h.waiting, simWaiter{c.batch, func() { h.try(r, c.asked, tries+1) }})
			break
		}
		h.central(r, true)
	default:
		h.central(r, true)
	}
	if h.flaw == flawProvisionalReported && c.debited && c.answer != heldSpent {
		for _, l := range h.leasesOf(r) {
			if l.left >= r.Cost && l.epoch != 0 {
				l.left -= r.Cost // reported as spent
			}
		}
	}
	h.pump()
}

// central asks the group.
func (h *simHolder) central(r Request, again bool) {
	sent := h.local()
	h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
		d, recalls := h.group.check(h.groupTime(), r)
		if d.Allow {
			h.passed(r) // the tokens are gone, whether the answer arrives or not
		}
		h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
			switch {
			case h.dead:
			case d.Allow:
			case len(recalls) > 0 && again:
				h.recall(r.Tenant, recalls)
				h.after(10*time.Millisecond, func() { h.central(r, false) })
			default:
				h.stats.denied++
				h.advice = append(h.advice, simAdvice{h.sim.now, d.RetryAfterMs, r})
				h.table.deny(&r, &d, sent)
			}
		})
	})
}

func (h *simHolder) recall(tenant string, recalls []Recall) {
	for _, to := range h.holders {
		if h.chance(20) {
			continue
		}
		h.after(h.between(0, 2*time.Millisecond), func() {
			if !to.dead {
				to.table.recall(tenant, recalls, to.local())
				to.pump()
			}
		})
	}
}

// pump sends the next message if none is under way.
func (h *simHolder) pump() {
	if h.sending != nil || h.dead {
		return
	}
	b, all := h.table.prepare(h.table.groups[testGroup], h.local())
	if b == nil {
		return
	}
	h.stats.messages++
	h.sending = b
	for i, r := range all {
		key := simEpoch{simCounter{r.Limit, r.Tenant, r.Subject}, h.table.holder, r.Epoch}
		if r.Spent != h.spent[key] && h.lost == nil {
			h.lost = fmt.Errorf("at %d: holder %d reports %d spent of limit %d, %d were", h.sim.now, h.table.holder, r.Spent, r.Limit, h.spent[key])
		}
		h.latest[b.sent[i].lease] = h.local()
	}
	h.transmit(b, all)
}

// transmit carries a message to the group and its answer back, as far as the network lets it.
func (h *simHolder) transmit(b *renewals, all []Renewal) {
	fly := func() time.Duration {
		if h.chance(h.plan.slow) {
			return h.between(0, 900*time.Millisecond)
		}
		return h.between(300*time.Microsecond, 2*time.Millisecond)
	}
	landed := false
	copies := 1
	if h.chance(5) {
		copies = 2
	}
	for range copies {
		if h.chance(h.plan.loss) {
			continue
		}
		h.after(fly(), func() {
			grants := h.group.renew(h.groupTime(), h.table.holder, all)
			for range 1 + h.random.IntN(1+boolInt(h.chance(5))) {
				if h.chance(h.plan.loss) {
					continue
				}
				h.after(fly(), func() {
					if h.dead {
						return
					}
					h.tamper(b, grants)
					h.table.answer(b, grants, h.local())
					if !landed {
						landed = true
						h.landed(b)
					}
				})
			}
		})
	}
	h.after(60*time.Millisecond, func() {
		if !landed && !h.dead {
			landed = true
			h.table.fail(b)
			h.landed(b)
		}
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tamper plants bugs in how answers are understood.
func (h *simHolder) tamper(b *renewals, grants []Grant) {
	for i := range b.sent {
		l := b.sent[i].lease
		switch h.flaw {
		case flawDeadlineFromResend:
			b.sent[i].first = h.latest[l]
		case flawDeadlineFromReceipt:
			b.sent[i].first = h.local()
		case flawRefusalExtends:
			if grants[i].Refused {
				grants[i] = Grant{Granted: l.granted, TTL: time.Duration(l.limit.terms.ttl)}
			}
		case flawOldEpoch:
			if !grants[i].Refused && l.epoch != 0 {
				b.sent[i].epoch = l.epoch
			}
		}
	}
}

// landed wakes who waited for a message, and sends the next one.
func (h *simHolder) landed(b *renewals) {
	h.sending = nil
	h.table.groups[testGroup].queue.finish(b)
	waiting := h.waiting
	h.waiting = nil
	for _, w := range waiting {
		if w.batch.number <= b.number {
			w.retry()
		} else {
			h.waiting = append(h.waiting, w)
		}
	}
	h.pump()
}

func (h *simHolder) leasesOf(r Request) []*lease {
	hash := hashString(h.table.seed, r.Tenant)
	shard := h.table.shardOf(hash)
	var out []*lease
	for _, l := range h.group.published().Load().match(nil, r.Tenant, r.Token, r.Key) {
		out = append(out, shard.anyLease(shard.tenants[r.Tenant], l.uid, l.subject(r.Token, r.Key)))
	}
	return out
}

// spentHere notes what was spent from leases, which must still be lent.
func (h *simHolder) spentHere(r Request) {
	for _, l := range h.leasesOf(r) {
		key := simEpoch{simCounter{l.limit.uid, r.Tenant, l.subject}, h.table.holder, l.epoch}
		h.spent[key] += uint64(r.Cost)
		if granted := h.group.lent(h.groupTime(), key); h.spent[key] > granted && h.lost == nil {
			h.lost = fmt.Errorf("at %d: holder %d has spent %d of limit %d in epoch %d; it may spend %d", h.sim.now, h.table.holder, h.spent[key], l.limit.uid, l.epoch, granted)
		}
	}
}

// passed notes that a request has passed, now.
func (s *sim) passed(r Request) {
	s.stats.allowed++
	for _, l := range s.group.published().Load().match(nil, r.Tenant, r.Token, r.Key) {
		key := simCounter{l.uid, r.Tenant, l.subject(r.Token, r.Key)}
		s.taken[key] = append(s.taken[key], passed{s.now / 1000, int64(r.Cost)})
	}
}

// run plays the plan.
func (s *sim) run() {
	end := s.now + int64(s.plan.lasts)
	if s.plan.faults {
		s.after(s.between(100*time.Millisecond, time.Second), s.disturb)
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

// judge finds what must not be.
func (s *sim) judge() error {
	if s.lost != nil {
		return s.lost
	}
	limits := slices.Concat(s.plan.limits, s.plan.changed)
	keys := make([]simCounter, 0, len(s.taken))
	for key := range s.taken { // any order
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b simCounter) int {
		return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.subject, b.subject))
	})
	for _, key := range keys {
		all := s.taken[key]
		slices.SortStableFunc(all, func(a, b passed) int { return cmp.Compare(a.at, b.at) })
		// While a change is under way the larger limit holds; when the old leases are over, the new one.
		widest := s.widest(key.uid, limits)
		if err := over(widest, all); err != "" {
			return fmt.Errorf("limit %d of %q: %s", key.uid, key.subject, err)
		}
	}
	return nil
}

// widest is the limit with this number, or the more generous one of it before and after a change.
func (s *sim) widest(uid uint64, limits []Limit) Limit {
	var out Limit
	for i, l := range limits {
		if uint64(i%len(s.plan.limits)+1) != uid {
			continue
		}
		if out.ID == "" {
			out = l
			continue
		}
		out.TokenBucket.Burst = max(out.TokenBucket.Burst, l.TokenBucket.Burst)
		out.Window.Limit = max(out.Window.Limit, l.Window.Limit)
		if l.hasBucket() && perMicro(l).Cmp(perMicro(out)) > 0 {
			out.TokenBucket.Rate = l.TokenBucket.Rate
		}
	}
	return out
}

// over is violation in one pass: the bucket by its arrival curve, the window by two pointers.
func over(l Limit, all []passed) string {
	if l.hasBucket() {
		rate, _ := perMicro(l).Float64()
		level, last := float64(l.TokenBucket.Burst), int64(0)
		for _, p := range all {
			level = min(float64(l.TokenBucket.Burst), level+rate*float64(p.at-last)) - float64(p.cost)
			if last = p.at; level < -1e-6 {
				return fmt.Sprintf("%.3f tokens more than the bucket allows at %d µs", -level, p.at)
			}
		}
	}
	if l.hasWindow() {
		sum, first, length := int64(0), 0, microsOf(l.Window.Length)
		for _, p := range all {
			for sum += p.cost; p.at-all[first].at > length; first++ {
				sum -= all[first].cost
			}
			if sum > int64(l.Window.Limit) {
				return fmt.Sprintf("%d tokens in the window that ends at %d µs; it allows %d", sum, p.at, l.Window.Limit)
			}
		}
	}
	return ""
}

// simPlanOf draws a plan with every fault.
func simPlanOf(seed uint64) simPlan {
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	bucket := func(id, scope, selector string) Limit {
		return Limit{ID: id, Scope: scope, Selector: selector, TokenBucket: TokenBucket{pick("100/s", "300/s", "1000/s"), 40 + random.Uint32N(200)}}
	}
	p := simPlan{holders: 2 + random.IntN(3), demand: 100 << random.IntN(4), cost: 1 + random.Uint32N(4), keys: 1 + random.IntN(3), lasts: 3 * time.Second,
		faults: true, loss: []int{0, 5, 5, 20}[random.IntN(4)], slow: []int{2, 5, 25}[random.IntN(3)], breaks: time.Duration(random.IntN(2)) * 400 * time.Millisecond}
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
	return p
}

// Whatever fails, no more passes than the limits allow, and what is reported was spent.
func TestLeasesNeverExceedTheirLimits(t *testing.T) {
	var allowed, local int
	for seed := uint64(1); seed <= 1000; seed++ {
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
