package limiter

import (
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

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
	// together is set while several checks are one run of the table, and read once that has read the clock.
	together, read bool
	// latest is when each lease was last sent, for a flaw.
	latest map[*lease]int64
}

type simWaiter struct {
	batch *renewals
	retry func()
}

// start begins a run of a node.
func (s *sim) start(i int, id Holder) *simHolder {
	h := &simHolder{sim: s, latest: map[*lease]int64{}, rate: s.skew(), offset: s.random.Int64N(int64(time.Hour))}
	h.table = newHolderTable(id, 1, h.clock, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: s.group.published()})
	if s.plan.blankets {
		h.table.groups[testGroup].covers = h.covers
		h.askBlanket()
	}
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
	// In a run only at the first reading, so that what passes is noted when it did.
	if !(h.together && h.read) && h.chance(2) {
		h.sim.now += int64(h.between(0, 400*time.Millisecond))
	}
	h.read = true
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
	if h.flaw == flawForgetsAdopted {
		h.forgetAdopted()
	}
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
	cost := 1 + h.random.Uint32N(h.plan.cost)
	if h.plan.blankets {
		key = fmt.Sprint("k", h.sim.now/int64(400*time.Millisecond)*2+h.random.Int64N(2))
		if h.random.IntN(2) == 0 {
			cost = 1
		}
	}
	if h.plan.globals {
		h.stats.checks++
		h.askGlobally(Request{Tenant: globalTenant, Cost: cost}, 0, 0)
	} else {
		// Some come together, in one run of the table.
		h.ask(Request{Tenant: "acme", Key: key, Cost: cost}, 1+boolInt(h.random.IntN(4) == 0)*h.random.IntN(4))
	}
	if h.random.IntN(500) == 0 && h.chance(100) {
		h.crash(i)
	}
	wait := h.between(0, 2*time.Second/time.Duration(h.plan.demand))
	if h.plan.breaks > 0 && h.random.IntN(100) == 0 {
		wait += h.between(0, h.plan.breaks)
	}
	h.after(wait, func() { h.demand(i) })
}

// ask is some equal checks at once, as the shell makes them.
func (h *simHolder) ask(r Request, n int) {
	h.stats.checks += n
	checks := make([]heldCheck, n)
	run := make([]*heldCheck, n)
	for i := range checks {
		checks[i] = heldCheck{request: &r, decision: &Decision{}}
		run[i] = &checks[i]
	}
	h.try(run, 0)
}

func (h *simHolder) try(run []*heldCheck, tries int) {
	h.together, h.read = len(run) > 1, false
	h.table.checkMany(run)
	for _, c := range run {
		h.decided(c, tries)
	}
	h.pump()
}

// decided goes on with what the table made of a check.
func (h *simHolder) decided(c *heldCheck, tries int) {
	r := *c.request
	switch {
	case c.answer == heldSpent:
		h.stats.local++
		h.passed(r)
		h.spentHere(r)
	case c.answer == heldDenied:
		h.stats.cached++
		h.stats.denied++
	case c.answer == heldLacks && tries < waitsMax:
		h.waiting = append(h.waiting, simWaiter{c.batch, func() { h.try([]*heldCheck{c}, tries+1) }})
	default:
		h.central(r, true)
	}
	if h.flaw == flawProvisionalReported && c.late && c.answer != heldSpent {
		for _, l := range h.leasesOf(r) {
			if l.left >= r.Cost && l.epoch != 0 {
				l.left -= r.Cost // reported as spent
			}
		}
	}
}

// central asks the group.
func (h *simHolder) central(r Request, again bool) {
	sent := h.local()
	h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
		d, recalls := h.group.check(h.groupTime(), r)
		h.noteRows(r.Tenant, "", r.Key)
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
				h.table.deny(&r, &d, sent, len(recalls) > 0)
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
			for i := range all {
				h.noteRows(all[i].Tenant, all[i].Subject)
			}
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
		case flawSpendsAhead:
			grants[i].Coming = 0
		case flawDelayFromSending:
			grants[i].Delay = max(0, grants[i].Delay-time.Duration(h.local()-b.sent[i].first))
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
