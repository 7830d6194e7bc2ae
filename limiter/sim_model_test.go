package limiter

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// simGroup decides for the simulation, at a group time in microseconds.
type simGroup interface {
	renew(now int64, h Holder, all []Renewal) []Grant
	// check decides with authority, and names the holders without whose tokens it had to deny.
	check(now int64, r Request) (Decision, []Recall)
	// configure changes the limits.
	configure(now int64, limits ...Limit)
	published() limitSource
	// lent is how much a holder was granted in an epoch that has not ended.
	lent(now int64, e simEpoch) uint64
}

// modelGroup is the rules of leases in few words: a bucket and a window with accounts, all in
// plain integers.
type modelGroup struct {
	set      *limitSet
	source   limitSource
	counters map[modelKey]*modelCounter
	opened   map[modelAccountKey]uint64 // largest epoch ever
}

type modelKey struct {
	uid             uint64
	tenant, subject string
}

type modelAccountKey struct {
	modelKey
	holder Holder
}

type modelCounter struct {
	t        int64
	used     u128
	slots    []slot
	accounts []*modelAccount
}

type modelAccount struct {
	holder                            Holder
	epoch, seq, granted, spent, given uint64
	deadline                          int64
}

func (a *modelAccount) out() uint64 { return a.granted - a.spent - a.given }

func (c *modelCounter) out() (out uint64) {
	for _, a := range c.accounts {
		out += a.out()
	}
	return out
}

// settle brings c to a time; accounts end on the way.
func (c *modelCounter) settle(l *limitState, now int64) {
	slices.SortStableFunc(c.accounts, func(a, b *modelAccount) int { return cmp.Compare(a.deadline, b.deadline) })
	for len(c.accounts) > 0 && c.accounts[0].deadline <= now {
		a := c.accounts[0]
		c.refill(l, a.deadline)
		c.accounts = c.accounts[1:]
		c.count(l, a.deadline, a.out())
	}
	c.refill(l, now)
}

func (c *modelCounter) refill(l *limitState, now int64) {
	if now <= c.t {
		return
	}
	floor := mul64(c.out(), l.speed().rate.unit)
	c.used = c.used.sub(mul64(l.speed().rate.refill, uint64(now-c.t)))
	if c.used.less(floor) {
		c.used = floor
	}
	c.t = now
	c.slots = l.speed().ring.live(c.slots, now)
}

// count puts n tokens into the window.
func (c *modelCounter) count(l *limitState, at int64, n uint64) {
	if n > 0 && l.hasWindow() {
		c.slots = addToSlots(c.slots, uint64(max(at, c.t))/l.speed().ring.tick, n)
	}
}

func (c *modelCounter) room(l *limitState) uint64 {
	room := ^uint64(0)
	if l.hasBucket() {
		room = l.capacity.sub(c.used).divFloor(l.speed().rate.unit).lo
	}
	if l.hasWindow() {
		used := sumOf(c.slots) + c.out()
		room = min(room, max(uint64(l.Window.Limit), used)-used)
	}
	return room
}

func (g *modelGroup) counter(l *limitState, tenant, subject string, now int64) (*modelCounter, modelKey) {
	key := modelKey{l.uid, tenant, subject}
	c := g.counters[key]
	if c == nil {
		c = &modelCounter{t: now}
		g.counters[key] = c
	}
	c.settle(l, now)
	return c, key
}

func (g *modelGroup) renew(now int64, h Holder, all []Renewal) []Grant {
	out := make([]Grant, len(all))
	for i, r := range all {
		out[i] = g.renewOne(now, h, r)
	}
	return out
}

func (g *modelGroup) renewOne(now int64, h Holder, r Renewal) Grant {
	l := g.set.byUID[r.Limit]
	if l == nil || l.terms.span == 0 {
		return Grant{Refused: true}
	}
	c, key := g.counter(l, r.Tenant, r.Subject, now)
	at := slices.IndexFunc(c.accounts, func(a *modelAccount) bool { return a.holder == h && a.epoch == r.Epoch })
	if at < 0 {
		who := modelAccountKey{key, h}
		if r.Epoch <= g.opened[who] || r.Seq != 1 {
			return Grant{Refused: true}
		}
		g.opened[who] = r.Epoch
		at = len(c.accounts)
		c.accounts = append(c.accounts, &modelAccount{holder: h, epoch: r.Epoch})
	}
	a := c.accounts[at]
	if r.Spent+r.Returned > a.granted {
		return Grant{Refused: true}
	}
	spent, given := max(a.spent, r.Spent)-a.spent, max(a.given, r.Returned)-a.given
	a.spent += spent
	a.given += given
	c.count(l, now, spent)
	c.used = c.used.sub(mul64(given, l.speed().rate.unit))
	if r.Seq > a.seq {
		grant := min(r.Want, c.room(l))
		c.used = c.used.add(mul64(grant, l.speed().rate.unit))
		a.seq, a.granted = r.Seq, a.granted+grant
		a.deadline = max(a.deadline, now+l.terms.ttl/1000)
	}
	// The seq may have been granted earlier, for less time than a limit that has changed since gives.
	ttl := min(l.terms.ttl/1000, a.deadline-now)
	return Grant{Granted: a.granted, TTL: time.Duration(ttl) * time.Microsecond, Remaining: uint32(min(c.room(l), 1<<31))}
}

func (g *modelGroup) check(now int64, r Request) (Decision, []Recall) {
	matched := g.set.match(nil, r.Tenant, r.Token, r.Key)
	d := Decision{Allow: true, Version: g.set.version}
	var recalls []Recall
	for _, l := range matched {
		c, _ := g.counter(l, r.Tenant, l.subject(r.Token, r.Key), now)
		if c.room(l) >= uint64(r.Cost) {
			continue
		}
		// The advice is that of the bucket alone, as if nothing were lent.
		d.Allow, d.Reason, d.LimitID, d.RetryAfterMs = false, ReasonLimited, l.ID, 1
		if l.hasBucket() {
			need := c.used.add(mul64(uint64(r.Cost), l.speed().rate.unit)).sub(l.capacity)
			d.RetryAfterMs = max(d.RetryAfterMs, retryAfterMs(need.divCeil(l.speed().rate.refill)))
		}
		if c.out() > 0 {
			recall := Recall{Limit: l.uid, Subject: l.subject(r.Token, r.Key)}
			for _, a := range c.accounts {
				if a.out() > 0 {
					recall.Holders = append(recall.Holders, a.holder)
				}
			}
			recalls = append(recalls, recall)
		}
	}
	if !d.Allow {
		return d, recalls
	}
	for _, l := range matched {
		c, _ := g.counter(l, r.Tenant, l.subject(r.Token, r.Key), now)
		c.used = c.used.add(mul64(uint64(r.Cost), l.speed().rate.unit))
		c.count(l, now, uint64(r.Cost))
	}
	return d, nil
}

func (g *modelGroup) published() limitSource { return g.source }

// newModelGroup is a group with limits in force from time 0.
func newModelGroup(limits ...Limit) *modelGroup {
	g := &modelGroup{source: new(atomic.Pointer[limitSet]), counters: map[modelKey]*modelCounter{}, opened: map[modelAccountKey]uint64{}}
	g.set = newLimitSet(0, nil, 0, wallState{})
	g.configure(0, limits...)
	return g
}

func (g *modelGroup) configure(now int64, limits ...Limit) {
	var sorted []*limitState
	for i, l := range limits {
		old, next := g.set.byID[l.ID], (*limitState)(nil)
		if old == nil {
			speed, err := speedOf(l, now)
			if err != nil {
				panic(err)
			}
			next = newLimitState(l, uint64(i+1), 0, []generation{speed})
		} else {
			var err error
			if next, err = old.changed(l, now, 0); err != nil {
				panic(err)
			}
			for key, c := range g.counters { // any order
				if key.uid == old.uid {
					c.settle(old, now)
					c.used = c.used.mul(next.speed().rate.unit).divCeil(max(1, old.speed().rate.unit))
				}
			}
		}
		sorted = append(sorted, next)
	}
	slices.SortFunc(sorted, func(a, b *limitState) int { return cmp.Compare(a.ID, b.ID) })
	g.set = newLimitSet(g.set.version+1, sorted, 0, wallState{})
	g.source.Store(g.set)
}

func (g *modelGroup) lent(now int64, e simEpoch) uint64 {
	c := g.counters[e.modelKey]
	if c == nil {
		return 0
	}
	for _, a := range c.accounts {
		if a.holder == e.holder && a.epoch == e.epoch && now < a.deadline {
			return a.granted
		}
	}
	return 0
}
