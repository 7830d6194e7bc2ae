package limiter

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// fenceTime is for how long, in group time, an account that has ended is remembered, so that a
// renewal of it that was under way is refused.
const fenceTime = time.Minute

// accountsMax bounds the accounts of a counter, those that are only remembered included: a region's
// nodes and some dozens of other holders. Who comes later is lent nothing until one is forgotten.
const accountsMax = 64

// account is what one holder was lent from a counter in one epoch. Its numbers only grow.
type account struct {
	holder                   Holder
	epoch, seq               uint64
	granted, spent, returned uint64
	// deadline is in group time, in microseconds. From then on the account has ended.
	deadline int64
	ended    bool
}

// left is what the holder may still spend.
func (a *account) left() uint64 {
	if a.ended {
		return 0
	}
	return a.granted - a.spent - a.returned
}

// out is what all holders may still spend.
func (c *counter) out() uint64 {
	var out uint64
	for i := range c.accounts {
		out += c.accounts[i].left()
	}
	return out
}

// due is the account that ends first, if that is at or before until; -1 for none.
func (c *counter) due(until int64) int {
	first := -1
	for i := range c.accounts {
		a := &c.accounts[i]
		if !a.ended && a.deadline <= until && (first < 0 || a.deadline < c.accounts[first].deadline) {
			first = i
		}
	}
	return first
}

// end closes an account whose deadline has come. What it had left may have been spent at any moment
// until then, so it counts as taken at the last one; in the calendar if that was after since, when its
// period began.
func (c *counter) end(i int, since int64) {
	c.accounts = slices.Clone(c.accounts)
	a := &c.accounts[i]
	burned := a.left()
	a.ended = true
	if burned == 0 {
		return
	}
	if c.tick != 0 {
		c.slots = insertSlot(c.slots, uint64(a.deadline)/c.tick, burned)
	}
	if a.deadline > since {
		c.countSpent(burned)
	}
}

// forget drops accounts that ended so long ago that nothing about them is under way any more.
func (c *counter) forget() {
	over := func(a account) bool { return a.ended && a.deadline+fenceTime.Microseconds() <= c.t }
	if slices.ContainsFunc(c.accounts, over) {
		c.accounts = slices.DeleteFunc(slices.Clone(c.accounts), over)
	}
}

// held is c.slots with what is lent in the slots of its deadlines: what a window counts now, and
// when it will not if no holder is heard of again.
func (c *counter) held() []slot {
	slots := c.slots
	for i := range c.accounts {
		if left := c.accounts[i].left(); left > 0 && c.tick != 0 {
			slots = insertSlot(slots, uint64(c.accounts[i].deadline)/c.tick, left)
		}
	}
	return slots
}

// drained is how long, in group time, until the bucket has used no more than target, if no holder is
// heard of: it does not drain below what is lent.
func (c *counter) drained(target u128, refill uint64) u128 {
	used, t, out := c.used, c.t, c.out()
	var ends []account
	for _, a := range c.accounts {
		if a.left() > 0 {
			ends = append(ends, a)
		}
	}
	slices.SortFunc(ends, func(a, b account) int { return cmp.Compare(a.deadline, b.deadline) })
	for _, a := range ends {
		floor := mul64(out, c.unit)
		if !target.less(floor) {
			break
		}
		if a.deadline > t {
			used = used.sub(mul64(refill, uint64(a.deadline-t)))
			t = a.deadline
		}
		if used.less(floor) {
			used = floor
		}
		out -= a.left()
	}
	return u128{0, uint64(t - c.t)}.add(used.sub(target).divCeil(refill))
}

// insertSlot returns slots with n more in the slot at, wherever that is. The result shares no memory
// with slots. Where debt has filled a slot, or made as many as there can be, it counts as addToSlots
// says: as the most that a slot holds, or in a later one.
func insertSlot(slots []slot, at, n uint64) []slot {
	i, found := slices.BinarySearchFunc(slots, at, func(s slot, at uint64) int { return cmp.Compare(s.at, at) })
	if i == len(slots) {
		return addToSlots(slots, at, n)
	}
	out := slices.Clone(slots)
	if !found && len(out) < slotsMax {
		return slices.Insert(out, i, slot{at, n})
	}
	out[i].n = min(out[i].n+n, slotTokensMax)
	return out
}

// room is how many tokens a settled counter has, in each of its parts.
func (c *counter) room(l *limitState) uint64 {
	room := uint64(slotTokensMax)
	if l.hasBucket() {
		left := l.capacity.sub(c.used).divFloor(c.unit)
		if left.hi == 0 {
			room = min(room, left.lo)
		}
	}
	out := c.out()
	if l.hasWindow() {
		most := uint64(l.Window.Limit)
		room = min(room, most-min(most, sumOf(c.slots)+out))
	}
	if l.hasCalendar() {
		most := uint64(l.Calendar.Limit)
		room = min(room, most-min(most, c.spent+out))
	}
	return room
}

// renew executes one renewal on a settled counter. It tells whether the counter has changed.
func (c *counter) renew(l *limitState, lends, ahead bool, h Holder, r Renewal) (g Grant, changed bool) {
	i := slices.IndexFunc(c.accounts, func(a account) bool { return a.holder == h && a.epoch == r.Epoch })
	if i < 0 {
		return c.open(l, lends, ahead, h, r)
	}
	before := c.accounts[i]
	if before.ended || r.Spent > before.granted || r.Returned > before.granted-r.Spent {
		return Grant{Refused: true}, false
	}
	// An older report that comes late says less.
	spent, returned := max(before.spent, r.Spent), max(before.returned, r.Returned)
	if returned > before.granted-spent {
		return Grant{Refused: true}, false
	}
	c.accounts = slices.Clone(c.accounts)
	a := &c.accounts[i]
	a.spent, a.returned = spent, returned
	if n := spent - before.spent; n > 0 {
		if c.tick != 0 {
			c.slots = addToSlots(c.slots, uint64(c.t)/c.tick, n)
		}
		if l.hasCalendar() {
			c.countSpent(n)
		}
	}
	c.used = c.used.sub(mul64(returned-before.returned, c.unit))
	if r.Seq > a.seq {
		a.seq = r.Seq
		if r.Want > 0 && lends {
			return c.lend(l, a, r.Want, ahead), *a != before
		}
	}
	return c.again(l, a, ahead), *a != before
}

// open begins an account. An epoch is opened once, by its first renewal, and only when there is
// something to lend; whoever gets nothing must begin another one.
func (c *counter) open(l *limitState, lends, ahead bool, h Holder, r Renewal) (g Grant, changed bool) {
	known := slices.ContainsFunc(c.accounts, func(a account) bool { return a.holder == h && a.epoch >= r.Epoch })
	if known || r.Seq != 1 || r.Spent != 0 || r.Returned != 0 || !lends || r.Want == 0 || c.others(h) >= accountsMax {
		return Grant{Refused: true, Remaining: c.remaining(l)}, false
	}
	was := *c
	// The new account fences what the holder's ended ones did.
	c.accounts = slices.DeleteFunc(slices.Clone(c.accounts), func(a account) bool { return a.ended && a.holder == h })
	c.accounts = append(c.accounts, account{holder: h, epoch: r.Epoch, seq: r.Seq})
	a := &c.accounts[len(c.accounts)-1]
	if g = c.lend(l, a, r.Want, ahead); g.Granted == 0 {
		*c = was
		return Grant{Refused: true, Remaining: c.remaining(l)}, false
	}
	return g, true
}

// others counts the accounts that stay when a holder opens another one.
func (c *counter) others(h Holder) int {
	n := 0
	for i := range c.accounts {
		if a := &c.accounts[i]; !a.ended || a.holder != h {
			n++
		}
	}
	return n
}

// lend gives up to want more tokens to an account, and time. Who holds what a limit that was made smaller
// does not have any more gets no time either, so that it is in force one life of a lease later.
func (c *counter) lend(l *limitState, a *account, want uint64, ahead bool) Grant {
	n := min(want, c.room(l))
	var later uint64
	if ahead {
		later = c.ahead(l, a, want, n)
	}
	if n+later == 0 && c.exceeds(l) {
		return c.again(l, a, ahead)
	}
	a.granted += n + later
	// A limit that was changed to a shorter life must not end what was promised: the answer may be lost.
	a.deadline = max(a.deadline, c.t+l.leaseTTL().Microseconds())
	c.used = c.used.add(mul64(n, c.unit))
	if later == 0 {
		return c.again(l, a, ahead)
	}
	g := c.grant(l, a)
	g.Coming, g.Delay = later, c.comes(l, 1)
	g.Span = c.comes(l, later) - g.Delay
	c.used = c.used.add(mul64(later, c.unit))
	return g
}

// ahead is how many tokens that have yet to flow back an account is lent besides n, for want in all. Each
// gets half of what may be lent so, so that there is something for who comes next. Holders never have more
// than the bucket takes, or it would overflow into them; and if the others have much, they are to give
// that back first.
func (c *counter) ahead(l *limitState, a *account, want, n uint64) uint64 {
	most, out := uint64(l.terms.ahead), c.out()
	if most == 0 || out-a.left() > aheadOthers*most {
		return 0
	}
	owed := c.owed(l, n)
	if owed >= 2*most {
		return 0
	}
	share := max((most-min(most, owed)+1)/2, aheadMin)
	burst := uint64(l.TokenBucket.Burst)
	return min(want-n, share, burst-min(burst, out+n))
}

// owed is how many tokens have yet to flow back, once n more are taken, until the bucket is just empty.
func (c *counter) owed(l *limitState, n uint64) uint64 {
	owed := c.used.add(mul64(n, c.unit)).sub(l.capacity).divCeil(max(c.unit, 1))
	if owed.hi > 0 {
		return slotTokensMax
	}
	return min(owed.lo, slotTokensMax)
}

// comes is how long until the n-th token more than used has flowed back.
func (c *counter) comes(l *limitState, n uint64) time.Duration {
	micros := c.used.add(mul64(n, c.unit)).sub(l.capacity).divCeil(l.speed().rate.refill)
	if most := (u128{0, uint64(comingMax.Microseconds())}); most.less(micros) {
		return comingMax
	}
	return time.Duration(micros.lo) * time.Microsecond
}

// again is the answer to what was answered before, or lends nothing. When what is granted flows back is not
// remembered, but all of it has once the bucket is not overdrawn any more. Who does not understand that
// was never lent anything ahead.
func (c *counter) again(l *limitState, a *account, ahead bool) Grant {
	g := c.grant(l, a)
	if ahead && l.hasBucket() {
		if g.Coming = min(a.left(), c.owed(l, 0)); g.Coming > 0 {
			g.Delay = c.comes(l, 0)
		}
	}
	return g
}

// exceeds tells whether more is used or lent of a settled counter than the limit has.
func (c *counter) exceeds(l *limitState) bool {
	out := c.out()
	return l.hasBucket() && l.capacity.less(c.used) ||
		l.hasWindow() && sumOf(c.slots)+out > uint64(l.Window.Limit) ||
		l.hasCalendar() && c.spent+out > uint64(l.Calendar.Limit)
}

func (c *counter) grant(l *limitState, a *account) Grant {
	return Grant{Granted: a.granted, TTL: time.Duration(a.deadline-c.t) * time.Microsecond, Remaining: c.remaining(l)}
}

func (c *counter) remaining(l *limitState) uint32 { return u128{0, c.room(l)}.clamp32() }

// lease executes the renewals of one holder, each for itself.
func (m *Machine) lease(tx *raftfsm.Tx, now int64, c leaseCommand) ([]byte, error) {
	grants := make([]Grant, len(c.renewals))
	for i, r := range c.renewals {
		g, err := m.renewLease(tx, now, c.holder, c.ahead, r)
		if err != nil {
			return nil, err
		}
		grants[i] = g
	}
	return appendGrants(nil, grants, c.ahead), nil
}

func (m *Machine) renewLease(tx *raftfsm.Tx, now int64, h Holder, ahead bool, r Renewal) (Grant, error) {
	limit := m.set.byUID[r.Limit]
	if limit == nil {
		return Grant{Refused: true}, nil
	}
	m.key = appendCounterKey(m.key[:0], r.Limit, r.Tenant, r.Subject)
	c, found, err := m.read(tx, m.key)
	if err != nil {
		return Grant{}, fmt.Errorf("limiter: counter of %s: %w", limit.ID, err)
	}
	c = m.set.present(limit, c, found, now)
	g, changed := c.renew(limit, limit.leaseSpan() > 0 && !limit.over(m.set.wall.passed), ahead, h, r)
	if !changed {
		return g, nil
	}
	m.write(m.key, c)
	return g, nil
}

// recalls names who holds the tokens that make d, which denies, wait for longer than it would with all of
// them back, and shortens its advice to that. Nil when that would not help.
func recalls(levels []level, cost uint32, wall int64, d *Decision) []Recall {
	var back verdict
	for i := range levels {
		l := levels[i]
		if l.shadow || !l.verdict.denies() {
			continue
		}
		l.counter = l.counter.returned()
		if v := l.judge(cost, wall); v.worse(back) {
			back = v
		}
	}
	var out []Recall
	for i := range levels {
		if l := &levels[i]; !l.shadow && l.verdict.worse(back) {
			out = append(out, Recall{Limit: l.limit.uid, Subject: l.subject, Holders: l.counter.holders()})
		}
	}
	if out != nil {
		// Who holds them needs a moment, and is asked as often at most.
		d.RetryAfterMs = min(d.RetryAfterMs, max(retryAfterMs(back.wait), uint32(scarceMin.Milliseconds())))
	}
	return out
}

// returned is a settled counter once all that is lent has come back.
func (c counter) returned() counter {
	c.used = c.used.sub(mul64(c.out(), c.unit))
	c.accounts = nil
	return c
}

// holders are those who have something left, each once.
func (c *counter) holders() []Holder {
	var out []Holder
	for i := range c.accounts {
		if a := &c.accounts[i]; a.left() > 0 && !slices.Contains(out, a.holder) {
			out = append(out, a.holder)
		}
	}
	return out
}
