package limiter

import (
	"math"
	"sync"
)

// Sources of a decision: who decided.
const (
	SourceLease  = "lease"  // tokens that this node holds
	SourceLeader = "leader" // the leader of the tenant's group
	SourceCached = "cached" // the leader, a while ago: a denial until its own retry time
)

// heldAnswer says what became of a check that was looked for in the table.
type heldAnswer uint8

const (
	heldNot    heldAnswer = iota // its group must decide
	heldSpent                    // decided: allowed
	heldDenied                   // decided: denied
	heldLacks                    // renewals are under way that may let it pass
)

// heldCheck is one check on its way through the table.
type heldCheck struct {
	request *Request
	// decision is filled in if there is an answer; its Levels are used again.
	decision *Decision

	answer heldAnswer
	// batch is the message to wait for before the next try.
	batch *renewals
	// asked are the levels for which a message asked on behalf of this check. What it did not bring,
	// only the group can tell.
	asked uint64
	place int // in a batch

	tenantHash uint64
	hash       uint32
	route      *route
	debited    bool
	late       bool // the debit was undone: a deadline had passed
	told       bool // some lease has something to tell at once

	// only keeps the check from asking for tokens: what is here decides it, or nothing does. looks keeps it from
	// taking any.
	only, looks bool
	// holds keeps what the check takes pending until settle; epochs tells which epochs it took it from.
	holds  bool
	epochs uint64
}

// leasable tells whether a request may be decided from leases at all.
func leasable(r *Request) bool { return r.Cost > 0 && r.RequestID == "" }

// hash finds out where the check's tenant is.
func (t *holderTable) hash(c *heldCheck) *holderShard {
	c.tenantHash = hashString(t.seed, c.request.Tenant)
	h := hashString(hashString(c.tenantHash, c.request.Token), c.request.Key)
	c.hash = uint32(h ^ h>>32)
	return t.shardOf(c.tenantHash)
}

// check decides one check if it can.
func (t *holderTable) check(c *heldCheck) {
	run := [...]*heldCheck{c}
	t.checkRun(t.hash(c), run[:])
	c.poke()
}

// poke wakes who sends what the check has told.
func (c *heldCheck) poke() {
	if c.told {
		c.route.tenant.group.poke()
	}
}

// checkRun decides checks of one shard that are hashed. All are debited before the clock is read,
// once for all: whatever time passes in between, what is spent afterwards was still valid then.
func (t *holderTable) checkRun(s *holderShard, run []*heldCheck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(run) > 1 {
		s.warm(run)
	}
	for _, c := range run {
		c.answer, c.batch, c.debited, c.told = heldNot, nil, false, false
		if c.route = t.routeOf(s, c.tenantHash, c.hash, c.request); c.route != nil && !c.route.central {
			c.debited = c.route.debit(c.request.Cost)
		}
	}
	now := t.now()
	// All that came too late is undone before anything else happens to leases: an epoch that is ended, or
	// begun, must not get back what was taken from the one before.
	for _, c := range run {
		if c.late = c.debited && !c.route.live(now); c.late {
			c.route.undo(c.request.Cost)
		}
	}
	for _, c := range run {
		switch {
		case c.route == nil:
		case c.debited && !c.late:
			t.spend(s, c, now)
		default:
			t.lack(s, c, now)
		}
	}
}

// warm touches what the checks of a run will need. Most of their time is waiting for memory, and
// these reads do not wait for each other.
func (s *holderShard) warm(run []*heldCheck) {
	slots := s.routes.slots
	if len(slots) == 0 {
		return
	}
	var routes [runMax]*route
	for i, c := range run {
		routes[i] = slots[int(c.hash)&(len(slots)-1)]
	}
	var leases [runMax]*lease
	sum := 0
	for i := range run {
		if r := routes[i]; r != nil {
			leases[i] = r.few[len(r.few)-1]
			if len(r.subject) > 0 {
				sum += int(r.subject[0])
			}
		}
	}
	for i := range run {
		if l := leases[i]; l != nil {
			sum += int(l.left)
		}
	}
	s.warmed = sum
}

// debit takes cost from all leases of the route, or from none.
func (r *route) debit(cost uint32) bool {
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		if l.left < cost {
			return false
		}
	}
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return true
		}
		l.left -= cost
	}
}

func (r *route) undo(cost uint32) {
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return
		}
		l.left += cost
	}
}

func (r *route) live(now int64) bool {
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return true
		}
		if !l.live(now) {
			return false
		}
	}
}

// spend makes the debits of a check final.
func (t *holderTable) spend(s *holderShard, c *heldCheck, now int64) {
	r, cost := c.route, c.request.Cost
	c.answer = heldSpent
	if r.used = moment(now); c.looks {
		r.undo(cost)
		return
	}
	d := c.decision
	*d = Decision{Allow: true, Version: r.tenant.set.version, Source: SourceLease, Levels: d.Levels[:0]}
	c.epochs = s.epochs
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		if c.holds {
			l.pending += cost
		} else {
			l.spend(cost)
		}
		if l.flight == nil && !c.only && l.low(now) {
			t.ask(l)
			c.told = c.told || l.hurries()
		}
		d.Levels = l.levels(d.Levels, c.request)
	}
	if !c.holds {
		s.counts.spent++
	}
}

// spend notes that cost, which was taken out of left before, is spent.
func (l *lease) spend(cost uint32) {
	l.fresh += min(cost, math.MaxUint32-l.fresh)
	l.dirty = true
}

// lack finds out how a check that leases do not let pass goes on.
func (t *holderTable) lack(s *holderShard, c *heldCheck, now int64) {
	r, cost := c.route, c.request.Cost
	r.used = moment(now)
	if !r.central {
		if !c.only {
			t.adoptAll(s, r, now)
		}
		var decided bool
		if decided, now = t.retry(s, c, now); decided {
			return
		}
	}
	if r.more != nil && r.more.denial != nil && r.more.denial.answer(c, now) {
		c.answer = heldDenied
		s.counts.cached++
		return
	}
	if r.central || c.only || !r.mayAsk(c, now) {
		return
	}
	c.answer, c.told = heldLacks, true
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		if !l.lacks(cost, now) {
			continue
		}
		if b := l.blanketAsked(now); b != nil {
			c.wait(b)
			continue
		}
		sent := l.flight != nil && l.flight.sent
		if t.ask(l); !sent {
			l.flight.lack += uint64(cost)
			c.asked |= 1 << i
		}
		c.wait(l.flight.batch)
	}
}

// wait has the check wait for a message too.
func (c *heldCheck) wait(b *renewals) {
	if c.batch == nil || b.number > c.batch.number {
		c.batch = b
	}
}

// adoptAll opens what leases of the route blankets can.
func (t *holderTable) adoptAll(s *holderShard, r *route, now int64) {
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return
		}
		if l.epoch != 0 && !l.live(now) && l.silent && l.flight == nil {
			s.counts.unspent += l.end() // nobody was told of it
		}
		if l.epoch == 0 && l.flight == nil {
			t.adopt(s, l, now)
		}
	}
}

// retry decides a check that a moment ago could not be debited by what has come since, or what other checks
// of its run have put back, or by what comes. It returns the time that holds after it.
func (t *holderTable) retry(s *holderShard, c *heldCheck, now int64) (decided bool, at int64) {
	r, cost := c.route, c.request.Cost
	r.mature(now)
	if !r.debit(cost) {
		return t.denyAhead(s, c, now), now
	}
	if now = t.now(); r.live(now) { // after the debit, as before
		c.debited, c.late = true, false
		t.spend(s, c, now)
		return true, now
	}
	r.undo(cost)
	return false, now
}

// mayAsk tells whether renewals can let a check pass.
func (r *route) mayAsk(c *heldCheck, now int64) bool {
	cost := c.request.Cost
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return true
		}
		if !l.lacks(cost, now) {
			continue
		}
		if cost > l.limit.terms.most || l.postponed(now) {
			return false
		}
		// Others took what the message brought. Where the next tokens are lent ahead, asking again brings some.
		if c.asked&(1<<i) != 0 && (l.limit.terms.ahead == 0 || cost > aheadMin) {
			return false
		}
	}
}

// ask sees to it that a message asks for more tokens.
func (t *holderTable) ask(l *lease) {
	t.tell(l)
	if !l.flight.sent {
		l.flight.asks = true
	}
}

// tell sees to it that a message, or one that is under way, reports the lease. Who calls it wakes
// the group's senders when all that belongs together has been told.
func (t *holderTable) tell(l *lease) {
	if l.flight == nil {
		l.flight = &flight{}
	}
	if l.flight.batch == nil {
		l.flight.batch = l.tenant.group.queue.add(l)
	}
}

// runMax bounds how many checks share a reading of the clock: more would hold a lock for longer.
const runMax = 32

// checkMany decides checks, those of a tenant in their order as far as leases suffice.
func (t *holderTable) checkMany(all []*heldCheck) {
	// Counting sort by shard, so that each lock is taken seldom.
	var begin [holderShards + 1]int
	for _, c := range all {
		t.hash(c)
		begin[c.shard()+1]++
	}
	for i := range holderShards {
		begin[i+1] += begin[i]
	}
	many := heldMany.Get().(*heldChecks)
	defer many.free()
	sorted := many.sort(len(all))
	at := begin
	for _, c := range all {
		sorted[at[c.shard()]] = c
		at[c.shard()]++
	}
	for i := range holderShards {
		for run := sorted[begin[i]:begin[i+1]]; len(run) > 0; {
			n := min(len(run), runMax)
			t.checkRun(&t.shards[i], run[:n])
			run = run[n:]
		}
	}
	for _, c := range all { // only now, so that messages say all that is lacking
		c.poke()
	}
}

// heldChecks is the memory of a batch on its way through the table, which is used again.
type heldChecks struct {
	checks []heldCheck
	refs   []*heldCheck
	used   int
}

var heldMany = sync.Pool{New: func() any { return &heldChecks{} }}

// room is for n checks, and references to some of them.
func (h *heldChecks) room(n int) (checks []heldCheck, refs []*heldCheck) {
	if len(h.checks) < n {
		h.checks = make([]heldCheck, n)
	}
	h.used = n
	return h.checks[:n], h.sort(n)[:0]
}

// sort is for references to n checks.
func (h *heldChecks) sort(n int) []*heldCheck {
	if len(h.refs) < n {
		h.refs = make([]*heldCheck, n)
	}
	return h.refs[:n]
}

// free gives it back, and lets go of what it refers to.
func (h *heldChecks) free() {
	clear(h.checks[:h.used])
	clear(h.refs)
	h.used = 0
	heldMany.Put(h)
}

func (c *heldCheck) shard() int { return shardNumber(c.tenantHash) }
