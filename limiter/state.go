package limiter

import (
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// generationsMax bounds how many rates and lengths of a limit are remembered for counters that
// were last written under an older one.
const generationsMax = 16

// scopes by their numbers on disk. Those of a tenant are in the order of evaluation; layouts before
// codecLeases know them alone.
var (
	scopes       = [...]string{ScopeTenant, ScopeToken, ScopeKey, ScopeGlobal}
	tenantScopes = scopes[:3]
)

// limitState is a limit in force, ready for evaluation. It never changes once built.
type limitState struct {
	Limit
	// uid tells apart limits that had the same id one after the other, or one limit before
	// and after a change of scope: their counters have nothing in common.
	uid     uint64
	pattern pattern
	// gens are the limit's speeds, oldest first; gens[0] has number firstGen. Only the last
	// one is in force; the others say how counters written under them drained until then.
	firstGen uint64
	gens     []generation
	capacity u128 // burst in units of the last generation
	terms    leaseTerms
	calendar calendarState
	slotTTL  int64 // for how long a slot is held, in microseconds of group time
}

// generation is how fast what was used is given back, and the group time, in microseconds, from
// which that holds.
type generation struct {
	start int64
	rate  rate // zero without a token bucket
	ring  ring // zero without a window
}

// speedOf is the generation that a valid limit begins.
func speedOf(l Limit, start int64) (generation, error) {
	g := generation{start: start}
	var err error
	if l.hasBucket() {
		if g.rate, err = parseRate(l.TokenBucket.Rate); err != nil {
			return generation{}, fmt.Errorf("limiter: limit %s: %w", l.ID, err)
		}
	}
	if l.hasWindow() {
		if g.ring, err = ringOf(l.Window); err != nil {
			return generation{}, fmt.Errorf("limiter: limit %s: %w", l.ID, err)
		}
	}
	return g, nil
}

// newLimitState compiles a valid limit.
func newLimitState(l Limit, uid, firstGen uint64, gens []generation) *limitState {
	_, text, ok := strings.Cut(l.Selector, "/")
	if !ok {
		text = wildcard
	}
	s := &limitState{
		Limit:    l,
		uid:      uid,
		pattern:  compilePattern(text),
		firstGen: firstGen,
		gens:     gens,
		capacity: mul64(uint64(l.TokenBucket.Burst), gens[len(gens)-1].rate.unit),
		slotTTL:  l.Concurrency.micros(),
	}
	s.terms = s.leaseTerms()
	return s
}

// changed is the limit after it was replaced by one of the same scope at the given time. What
// was used stays used: counters keep their content, which drains at the new speed from now on.
func (l *limitState) changed(to Limit, now, emptied int64) (*limitState, error) {
	next, err := speedOf(to, now)
	if err != nil {
		return nil, err
	}
	gens, firstGen := l.gens, l.firstGen
	if last := l.speed(); next.rate != last.rate || next.ring != last.ring {
		gens = append(append([]generation(nil), gens...), next)
		if drop := len(gens) - generationsMax; drop > 0 {
			gens, firstGen = gens[drop:], firstGen+uint64(drop)
		}
	}
	state := newLimitState(to, l.uid, firstGen, gens)
	state.calendar = l.calendar
	switch {
	case to.hasCalendar() && !l.hasCalendar():
		state.calendar = calendarState{epoch: newEpoch(l.calendar.epoch, now, emptied)}
	case to.Calendar.rule() != l.Calendar.rule():
		// What was used counts until the end of the new period, which is not known yet.
		state.calendar.begin, state.calendar.end = 0, 0
	}
	return state, nil
}

func (l *limitState) speed() generation { return l.gens[len(l.gens)-1] }

func (l *limitState) lastGen() uint64 { return l.firstGen + uint64(len(l.gens)) - 1 }

// subject is what, besides the tenant, gets a counter of its own.
func (l *limitState) subject(token, key string) string {
	switch l.Scope {
	case ScopeToken:
		return token
	case ScopeKey:
		return key
	}
	return ""
}

// counter is what was used of one limit by one subject, as of a moment. The bucket is kept
// upside down: used = burst - level. So an empty row and an unused bucket are the same thing,
// and a change of burst, which must keep what was used, changes nothing here.
type counter struct {
	// gen is the generation that the parts belong to.
	gen uint64
	// t is the group time of used, in microseconds.
	t int64
	// used is the bucket's, and unit how many units of it make one token; 0 without a bucket.
	used u128
	unit uint64
	// slots are what a window counts, and tick the width of a slot; 0 without a window.
	slots []slot
	tick  uint64
	// spent is what a calendar window counts in the period epoch.
	spent, epoch uint64
	// accounts are what was lent. used includes what they have left, and never drains below it; slots
	// and spent do not include it.
	accounts []account
}

// fresh is a counter without a row: one that nothing was taken from. In a group whose counters
// were all emptied at a time it is one that has recovered since.
func (l *limitState) fresh(now, emptied int64) counter {
	g := l.speed()
	if emptied == 0 {
		return counter{unit: g.rate.unit, tick: g.ring.tick, epoch: l.calendar.epoch, gen: l.lastGen(), t: now}
	}
	first := l.gens[0]
	c := counter{used: mul64(uint64(l.TokenBucket.Burst), first.rate.unit), unit: first.rate.unit, gen: l.firstGen, t: emptied}
	if l.firstGen > 0 {
		c.t = max(c.t, first.start) // what held before is forgotten: nothing flowed back
	}
	c = l.settle(c, now)
	if g.ring.tick != 0 && l.Window.Limit > 0 {
		// Full at that moment, whatever its length was then.
		c.slots = g.ring.live([]slot{{at: uint64(emptied) / g.ring.tick, n: uint64(l.Window.Limit)}}, now)
	}
	if l.hasCalendar() && l.calendar.epoch == 0 {
		c.spent = uint64(l.Calendar.Limit)
	}
	return c
}

// settle brings c to the present: it drains at each speed for as long as that one held, and accounts
// end at their deadlines. Settling twice on the way is the same as settling once at the end.
func (l *limitState) settle(c counter, now int64) counter {
	if c.epoch != l.calendar.epoch {
		c.spent, c.epoch = 0, l.calendar.epoch
	}
	if c.gen < l.firstGen {
		// The speeds since then are forgotten. Draining nothing meanwhile admits less, never more.
		c.enter(l.gens[0], l.firstGen)
	}
	for c.gen < l.lastGen() {
		at := c.gen - l.firstGen
		next := l.gens[at+1]
		c.drain(l.gens[at], next.start, l.calendar.since)
		c.enter(next, c.gen+1)
	}
	c.drain(l.speed(), now, l.calendar.since)
	if !l.hasCalendar() {
		c.spent = 0
	}
	c.forget()
	return c
}

// drain lets time pass at one speed. A calendar counts what ends after since.
func (c *counter) drain(g generation, until, since int64) {
	for i := c.due(until); i >= 0; i = c.due(until) {
		c.flow(g, c.accounts[i].deadline)
		c.end(i, since)
	}
	c.flow(g, until)
	c.slots = g.ring.live(c.slots, c.t)
}

// flow lets the bucket drain while no account ends.
func (c *counter) flow(g generation, until int64) {
	if until > c.t {
		c.used = c.used.sub(mul64(g.rate.refill, uint64(until)-uint64(c.t)))
		c.t = until
	}
	if lent := mul64(c.out(), c.unit); c.used.less(lent) {
		c.used = lent
	}
}

// enter converts c to the units of g, rounding up what was used.
func (c *counter) enter(g generation, number uint64) {
	switch {
	case c.unit == 0 || g.rate.unit == 0:
		c.used = u128{}
	case c.unit != g.rate.unit:
		c.used = c.used.mul(g.rate.unit).divCeil(c.unit)
	}
	c.unit = g.rate.unit
	if c.tick != g.ring.tick {
		c.slots = retick(c.slots, c.tick, g.ring.tick, g.start)
		c.tick = g.ring.tick
	}
	c.t = max(c.t, g.start)
	c.gen = number
}

// unused tells whether c, which is settled, equals a fresh counter.
func (c *counter) unused() bool {
	return c.used.isZero() && len(c.slots) == 0 && c.spent == 0 && len(c.accounts) == 0
}

// debit takes cost tokens from a settled counter of limit. It leaves what others share with c alone.
func (c *counter) debit(limit *limitState, cost uint32) {
	if c.unit != 0 {
		c.used = c.used.add(mul64(uint64(cost), c.unit))
	}
	if c.tick != 0 {
		c.slots = addToSlots(c.slots, uint64(c.t)/c.tick, uint64(cost))
	}
	if limit.hasCalendar() {
		c.countSpent(uint64(cost))
	}
}

// countSpent adds to what a calendar counts. What is admitted fits; debt may not, and is then as much as
// a row holds.
func (c *counter) countSpent(n uint64) { c.spent = min(c.spent+n, slotTokensMax) }

// retryAfterMs is the shortest real time, in whole milliseconds, in which group time surely
// advances by wait. Group time runs at (1 - rho) of the leader's clock with rho = 1/1000, so a
// millisecond is 999 microseconds of group time.
func retryAfterMs(wait u128) uint32 {
	return wait.divCeil(groupMicrosPerMs).clamp32()
}

const groupMicrosPerMs = 1000 - 1000/raftfsm.RateErrorDenominator
