package limiter

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// lender is a group in the tests of leases: the real machine, or a mutant.
type lender interface {
	renew(now int64, h Holder, r Renewal) Grant
	check(now int64, r Request) (bool, uint32)
	change(now int64, l Limit)
	roll(now int64)
	sweep(now int64)
}

// leaseHistory is what a checker may know of one counter: which limits were in force, when calendar
// periods began, what passed by the time at which it really did, and what the group answered.
type leaseHistory struct {
	settings []setting
	rolls    []int64
	passed   []passed
	granted  map[leaseLife]*answered
	odd      string
}

type setting struct {
	at    int64
	limit Limit
}

type leaseLife struct {
	holder Holder
	epoch  uint64
}

type answered struct {
	seq, granted uint64
	over         bool
}

// answer notes what the group said, which must agree with what it said before.
func (h *leaseHistory) answer(who Holder, r Renewal, g Grant) {
	key := leaseLife{who, r.Epoch}
	a := h.granted[key]
	switch {
	case a == nil && g.Refused:
	case a == nil:
		h.granted[key] = &answered{seq: r.Seq, granted: g.Granted}
	case g.Refused:
		a.over = true
	case a.over:
		h.odd = fmt.Sprintf("epoch %d of holder %d was over, and is granted %d", r.Epoch, who, g.Granted)
	case r.Seq <= a.seq && g.Granted != a.granted:
		h.odd = fmt.Sprintf("renewal %d of holder %d is granted %d; it was %d at %d", r.Seq, who, g.Granted, a.granted, a.seq)
	default:
		a.seq, a.granted = max(a.seq, r.Seq), g.Granted
	}
}

// bound is what limits allow in an interval: the most generous of those that were in force in it, or
// under which something was lent that may be spent in it; but the shortest window. A part that one of
// them lacks is no bound.
type bound struct {
	bucket, window, calendar bool
	burst, most, period      int64
	length                   int64
	refill                   int64 // millionths of tokens, in the interval
}

func (h *leaseHistory) bound(from, to, life int64) bound {
	b := bound{bucket: true, window: true, calendar: true, length: 1 << 62}
	for i, s := range h.settings {
		until := int64(1 << 62)
		if i+1 < len(h.settings) {
			until = h.settings[i+1].at
		}
		if s.at > to || until < from-life {
			continue
		}
		b.bucket, b.window, b.calendar = b.bucket && s.limit.hasBucket(), b.window && s.limit.hasWindow(), b.calendar && s.limit.hasCalendar()
		b.burst, b.most, b.period = max(b.burst, int64(s.limit.TokenBucket.Burst)), max(b.most, int64(s.limit.Window.Limit)), max(b.period, int64(s.limit.Calendar.Limit))
		if until < from {
			continue
		}
		if s.limit.hasWindow() {
			b.length = min(b.length, microsOf(s.limit.Window.Length))
		}
		if s.limit.hasBucket() {
			perSecond, _ := parseRate(s.limit.TokenBucket.Rate)
			b.refill += int64(perSecond.refill*1_000_000/perSecond.unit) * (min(to, until) - max(from, s.at))
		}
	}
	return b
}

// violation finds what must not be, or returns "".
func (h *leaseHistory) violation() string {
	if h.odd != "" {
		return h.odd
	}
	life := (leaseSpans * leaseSpanMax).Microseconds()
	if h.settings[0].limit.hasBucket() || h.settings[0].limit.hasWindow() { // then it is known to be shorter
		life = 0
		for _, s := range h.settings {
			speed, _ := speedOf(s.limit, 0)
			life = max(life, newLimitState(s.limit, 1, 0, []generation{speed}).leaseTTL().Microseconds())
		}
	}
	for i, first := range h.passed {
		sum := int64(0)
		for _, p := range h.passed[i:] {
			sum += p.cost
			b := h.bound(first.at, p.at, life)
			if b.bucket && sum*1_000_000 > b.burst*1_000_000+b.refill {
				return fmt.Sprintf("%d tokens in [%d, %d] µs; the bucket allows %d and what flows back, %d millionths", sum, first.at, p.at, b.burst, b.refill)
			}
			if b.window && p.at-first.at <= b.length && sum > b.most {
				return fmt.Sprintf("%d tokens in [%d, %d] µs; the window allows %d", sum, first.at, p.at, b.most)
			}
		}
	}
	for i, begin := range h.rolls {
		end := int64(1 << 62)
		if i+1 < len(h.rolls) {
			end = h.rolls[i+1]
		}
		sum := int64(0)
		for _, p := range h.passed {
			if p.at >= begin && p.at < end {
				sum += p.cost
			}
		}
		if b := h.bound(begin, min(end, h.passed[len(h.passed)-1].at), life); b.calendar && sum > b.period {
			return fmt.Sprintf("%d tokens in the period that begins at %d µs; it allows %d", sum, begin, b.period)
		}
	}
	return ""
}

// historyHolder is a holder as the rules say: it spends at any moment before its deadline, tells
// it when it likes, and may fall silent for ever.
type historyHolder struct {
	id                                   Holder
	epoch, seq, granted, spent, returned uint64
	deadline, first                      int64
	flying                               bool
}

func (h *historyHolder) drop() { *h = historyHolder{id: h.id, epoch: h.epoch + 1} }

// letter is a renewal, or the answer to it, on its way: it may arrive late, twice or never.
type letter struct {
	from  Holder
	r     Renewal
	reply *Grant
}

// historyPlan is how a history goes.
type historyPlan struct {
	limits          []Limit // one after the other
	steps           int
	holders         int
	loss, twice     int // percent
	crash           int // per mille of the steps
	returns, checks int // percent of renewals, and of steps
	rolls           bool
}

// play runs a plan.
func play(random *rand.Rand, p historyPlan, group lender) *leaseHistory {
	h := &leaseHistory{granted: map[leaseLife]*answered{}, settings: []setting{{0, p.limits[0]}}}
	holders := make([]*historyHolder, p.holders)
	for i := range holders {
		holders[i] = &historyHolder{id: Holder(i + 1), epoch: 1}
	}
	var (
		now  int64
		air  []letter
		runs = len(holders)
	)
	for step := range p.steps {
		now += 1 + random.Int64N(1+int64(random.IntN(30_000)))
		if i := step * len(p.limits) / p.steps; i >= len(h.settings) {
			h.settings = append(h.settings, setting{now, p.limits[i]})
			group.change(now, p.limits[i])
		}
		if p.rolls && random.IntN(150) == 0 {
			h.rolls = append(h.rolls, now)
			group.roll(now)
		}
		if random.IntN(40) == 0 {
			group.sweep(now)
		}
		at := random.IntN(len(holders))
		if random.IntN(1000) < p.crash {
			runs++
			holders[at] = &historyHolder{id: Holder(runs), epoch: 1}
		}
		o := holders[at]
		if o.granted > 0 && now >= o.deadline && !o.flying || o.flying && now-o.first > 2_000_000 {
			o.drop()
		}
		switch n := random.IntN(100); {
		case n < p.checks:
			cost := uint32(random.IntN(12))
			if ok, _ := group.check(now, Request{Tenant: "acme", Cost: cost}); ok && cost > 0 {
				h.passed = append(h.passed, passed{now, int64(cost)})
			}
		case n < p.checks+15:
			if left := o.granted - o.spent - o.returned; left > 0 && now < o.deadline {
				n := left - random.Uint64N(left+1)/2
				o.spent += n
				h.passed = append(h.passed, passed{now, int64(n)})
			}
		case n < p.checks+40:
			r := Renewal{Epoch: o.epoch, Want: random.Uint64N(60)}
			if !o.flying {
				o.seq, o.first, o.flying = o.seq+1, now, true
				if o.seq > 1 && random.IntN(100) < p.returns {
					o.returned, r.Want = o.granted-o.spent, 0
				}
			}
			r.Seq, r.Spent, r.Returned = o.seq, o.spent, o.returned
			air = append(air, letter{from: o.id, r: r})
		case len(air) > 0:
			i := random.IntN(len(air))
			l := air[i]
			if random.IntN(100) >= p.twice {
				air = append(air[:i], air[i+1:]...)
			}
			switch {
			case random.IntN(100) < p.loss:
			case l.reply == nil:
				g := group.renew(now, l.from, l.r)
				h.answer(l.from, l.r, g)
				air = append(air, letter{l.from, l.r, &g})
			case l.from == o.id && l.r.Epoch == o.epoch && l.reply.Refused:
				o.drop()
			case l.from == o.id && l.r.Epoch == o.epoch:
				o.granted = max(o.granted, l.reply.Granted)
				if o.flying && l.r.Seq == o.seq {
					o.deadline, o.flying = o.first+l.reply.TTL.Microseconds(), false
				}
			}
		}
	}
	return h
}

// planOf draws a plan in which everything goes wrong.
func planOf(random *rand.Rand) historyPlan {
	p := historyPlan{
		steps: 700, holders: 1 + random.IntN(4), loss: random.IntN(30), twice: random.IntN(30), crash: random.IntN(8),
		returns: 10 + random.IntN(40), checks: 5 + random.IntN(35), rolls: random.IntN(3) == 0,
	}
	if random.IntN(3) == 0 { // calm, so that nothing of the limit is lost
		p.loss, p.crash = 0, 0
	}
	kind := 1 + random.IntN(3) // bucket, window, both
	for range 1 + random.IntN(3) {
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme"}
		if kind&1 != 0 {
			l.TokenBucket = TokenBucket{Rate: fmt.Sprintf("%d/s", 50+random.IntN(300)), Burst: uint32(leaseTokensMin + random.IntN(80))}
		}
		if kind&2 != 0 {
			l.Window = Window{Limit: uint32(logMax + 1 + random.IntN(100)), Length: fmt.Sprintf("%dms", 1500+random.IntN(1500))}
		}
		if p.rolls {
			l.Calendar = Calendar{Limit: uint32(leaseTokensMin + random.IntN(400)), Period: PeriodDay}
		}
		switch random.IntN(8) {
		case 0: // too small to be lent, while leases are out
			l.TokenBucket.Burst, l.Window.Limit = min(l.TokenBucket.Burst, 10), min(l.Window.Limit, 20)
		case 1:
			kind = 1 + random.IntN(3)
		}
		p.limits = append(p.limits, l)
	}
	return p
}

// leased is the real machine with one limit, driven by group time.
type leased struct {
	*driven
	uid  uint64
	days int
}

func leasedMachine(t testing.TB, l Limit) *leased {
	d := drive(t, 8)
	d.set(l)
	return &leased{driven: d, uid: d.Machine().(*Machine).published.Load().byID[l.ID].uid}
}

func (d *leased) renew(now int64, h Holder, r Renewal) Grant {
	d.t.Helper()
	d.Time = time.Duration(now) * time.Microsecond
	r.Limit, r.Tenant = d.uid, "acme"
	res := d.ask(appendLease(nil, leaseCommand{holder: h, renewals: []Renewal{r}}))
	if res.outcome != outcomeLent || len(res.grants) != 1 {
		d.t.Fatalf("renew %+v: outcome %d %s", r, res.outcome, res.message)
	}
	return res.grants[0]
}

func (d *leased) check(now int64, r Request) (bool, uint32) {
	d.t.Helper()
	got := d.driven.check(time.Duration(now)*time.Microsecond, r)
	return got.Allow, got.RetryAfterMs
}

func (d *leased) change(now int64, l Limit) {
	d.Time = time.Duration(now) * time.Microsecond
	d.set(l)
}

func (d *leased) roll(now int64) {
	d.Time = time.Duration(now) * time.Microsecond
	d.days++
	d.driven.roll(someDay.AddDate(0, 0, d.days))
}

func (d *leased) sweep(now int64) {
	d.Time = time.Duration(now) * time.Microsecond
	d.driven.sweep()
}

// at sets the group's time for what is asked.
func (d *leased) at(now int64, data []byte) []byte {
	d.Time = time.Duration(now) * time.Microsecond
	return data
}

func (d *leased) ask(data []byte) result {
	d.t.Helper()
	res, err := decodeResult(d.Apply(data)[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return res
}

// row is the counter as it is stored, which must be readable.
func (d *leased) row() counter {
	d.t.Helper()
	v, err := d.Machine().(*Machine).store.Get(d.rowKey())
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := decodeCounter(v)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (d *leased) rowKey() []byte { return appendCounterKey(nil, d.uid, "acme", "") }

// Whatever holders, crashes and the network do while limits change, no interval exceeds what they allow,
// and no answer contradicts another one.
func TestLeasesAreNeverOver(t *testing.T) {
	spent := 0
	for seed := range uint64(250) {
		random := rand.New(rand.NewPCG(seed, 1))
		p := planOf(random)
		h := play(random, p, leasedMachine(t, p.limits[0]))
		if v := h.violation(); v != "" {
			t.Fatalf("seed %d, %+v: %s", seed, p, v)
		}
		spent += len(h.passed)
	}
	if spent < 10_000 {
		t.Errorf("only %d times something passed", spent)
	}
}
