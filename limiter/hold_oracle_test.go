package limiter

import (
	"fmt"
	"math"
	"math/big"
	"slices"
)

// holdOracle knows beside levels and windows also calendars, slots, and what can be given back. It knows
// no rows, and forgets nothing.
type holdOracle struct {
	*oracle
	period int
	spent  map[string]int64
	slots  map[string][]oracleSlot
	held   map[holdID]oracleSlot
	debits map[holdID]*oracleDebit
}

type oracleSlot struct {
	id       holdID
	weight   int64
	deadline int64
	limits   []Limit
}

type oracleDebit struct {
	r       Request
	at      int64
	period  int
	expires int64
	settled *Settlement
}

func newHoldOracle(limits []Limit) *holdOracle {
	o := &holdOracle{oracle: newOracle(), spent: map[string]int64{}, slots: map[string][]oracleSlot{}, held: map[holdID]oracleSlot{}, debits: map[holdID]*oracleDebit{}}
	o.set(0, limits)
	return o
}

func counterName(l Limit, r Request) string {
	s := l.ID + "\x00" + r.Tenant
	switch l.Scope {
	case ScopeToken:
		s += "\x00" + r.Token
	case ScopeKey:
		s += "\x00" + r.Key
	}
	return s
}

// check decides and debits; what it took is kept under id.
func (o *holdOracle) check(now int64, r Request, id holdID, remembered int64) bool {
	d, _ := o.decide(now, r)
	matching := o.matching(r)
	for _, l := range matching {
		if l.hasCalendar() && o.spent[counterName(l, r)]+int64(r.Cost) > int64(l.Calendar.Limit) {
			d.Allow = false
		}
	}
	if d.Allow && r.Cost > 0 {
		o.debit(r, int64(r.Cost))
		o.debits[id] = &oracleDebit{r: r, at: now, period: o.period, expires: now + remembered}
	}
	return d.Allow
}

func (o *holdOracle) debit(r Request, n int64) {
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		c.level.Sub(c.level, new(big.Rat).SetInt64(n))
		c.taken = append(c.taken, passed{o.now, n})
		if l.hasCalendar() {
			o.spent[counterName(l, r)] += n
		}
	}
}

func (o *holdOracle) giveBack(d *oracleDebit, n int64) {
	for _, l := range o.matching(d.r) {
		c := o.counter(l, d.r)
		if l.hasBucket() {
			back := new(big.Rat).Mul(perMicro(l), new(big.Rat).SetInt64(o.now-d.at))
			if back.Sub(new(big.Rat).SetInt64(n), back); back.Sign() > 0 {
				c.level.Add(c.level, back)
			}
			c.settle(l, o.now)
		}
		for i := range c.taken {
			if c.taken[i].at == d.at && c.taken[i].cost == int64(d.r.Cost) {
				c.taken[i].cost -= n
				break
			}
		}
		if l.hasCalendar() && d.period == o.period {
			o.spent[counterName(l, d.r)] -= n
		}
	}
}

// settle is a commit; nil means that the reservation is not known.
func (o *holdOracle) settle(now int64, id holdID, actual uint32) *Settlement {
	o.now = now
	d := o.debits[id]
	switch {
	case d == nil || d.expires+rememberFor.Microseconds() <= now:
		return nil
	case d.settled != nil:
		return d.settled
	}
	s := &Settlement{Actual: actual, Late: d.expires <= now}
	if actual > d.r.Cost {
		s.Overdrawn = actual - d.r.Cost
		o.debit(d.r, int64(s.Overdrawn))
	} else if !s.Late {
		s.Refunded = d.r.Cost - actual
		o.giveBack(d, int64(s.Refunded))
	}
	d.settled = s
	return s
}

// refund gives back what a check took; ok is false when it is not known.
func (o *holdOracle) refund(now int64, id holdID, cost uint32) (n uint32, ok bool) {
	o.now = now
	d := o.debits[id]
	if d == nil || d.expires <= now {
		return 0, false
	}
	if d.settled == nil {
		n := d.r.Cost
		if cost > 0 {
			n = min(n, cost)
		}
		o.giveBack(d, int64(n))
		d.settled = &Settlement{Refunded: n}
	}
	return d.settled.Refunded, true
}

func (o *holdOracle) heldAt(l Limit, r Request, at int64) int64 {
	sum := int64(0)
	for _, s := range o.slots[counterName(l, r)] {
		if s.deadline > at {
			sum += s.weight
		}
	}
	return sum
}

// acquire returns whether slots were taken, for how long, or how long to wait.
func (o *holdOracle) acquire(now int64, r Request, id holdID, ttl int64) (allow, never bool, micros int64) {
	longest, life := int64(0), int64(math.MaxInt64)
	var from []Limit
	for _, l := range o.matching(r) {
		if !l.hasConcurrency() {
			continue
		}
		from = append(from, l)
		life = min(life, microsOf(l.Concurrency.TTL))
		most, weight := int64(l.Concurrency.Limit), int64(r.Cost)
		if weight > most {
			never = true
			continue
		}
		if o.heldAt(l, r, now)+weight <= most {
			continue
		}
		best := int64(math.MaxInt64)
		for _, s := range o.slots[counterName(l, r)] {
			if s.deadline > now && s.deadline < best && o.heldAt(l, r, s.deadline)+weight <= most {
				best = s.deadline
			}
		}
		longest = max(longest, best-now)
	}
	if never || longest > 0 {
		return false, never, longest
	}
	switch {
	case len(from) == 0 && ttl == 0:
		life = HoldUsual.Microseconds()
	case ttl > 0:
		life = min(life, ttl)
	}
	s := oracleSlot{id: id, weight: int64(r.Cost), deadline: now + life, limits: from}
	o.hold(r, s)
	return true, false, life
}

func (o *holdOracle) hold(r Request, s oracleSlot) {
	o.held[s.id] = s
	for _, l := range s.limits {
		o.slots[counterName(l, r)] = append(o.slots[counterName(l, r)], s)
	}
}

// release tells whether a slot was held, and takes it away.
func (o *holdOracle) release(now int64, id holdID) bool {
	s, ok := o.held[id]
	delete(o.held, id)
	for name, all := range o.slots {
		o.slots[name] = slices.DeleteFunc(all, func(s oracleSlot) bool { return s.id == id })
	}
	return ok && s.deadline > now
}

// renew returns how long a slot is held from now on; 0 when it is not.
func (o *holdOracle) renew(now int64, r Request, id holdID, ttl int64) int64 {
	s, ok := o.held[id]
	if !ok || s.deadline <= now {
		return 0
	}
	life := int64(math.MaxInt64)
	for _, l := range s.limits {
		life = min(life, microsOf(l.Concurrency.TTL))
	}
	switch {
	case len(s.limits) == 0 && ttl == 0:
		life = HoldUsual.Microseconds()
	case ttl > 0:
		life = min(life, ttl)
	}
	o.release(now, id)
	s.deadline = max(s.deadline, now+life)
	o.hold(r, s)
	return s.deadline - now
}

// usage is what a peek shows of the levels: limit, kind, used and remaining.
func (o *holdOracle) usage(now int64, r Request) (lines []string) {
	o.now = now
	add := func(l Limit, kind string, most uint32, used int64) {
		lines = append(lines, fmt.Sprintf("%s %s %d, %d left", l.ID, kind, used, max(0, int64(most)-used)))
	}
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		if l.hasBucket() {
			used := new(big.Rat).Sub(burstOf(l), c.level)
			add(l, KindTokenBucket, l.TokenBucket.Burst, ceil(used))
		}
		if l.hasWindow() {
			add(l, KindWindow, l.Window.Limit, c.inWindow(l, now))
		}
		if l.hasCalendar() {
			add(l, KindCalendar, l.Calendar.Limit, o.spent[counterName(l, r)])
		}
		if l.hasConcurrency() {
			add(l, KindConcurrency, l.Concurrency.Limit, o.heldAt(l, r, now))
		}
	}
	return lines
}
