package limiter

import (
	"context"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// blanketWorth is how many counters must be asked for the first time within blanketLook for a blanket
	// to be worth its entry in the log.
	blanketWorth = 64
	blanketLook  = time.Second
	// blanketAgain is how long before the end of a blanket the next one is asked for: enough for a slow
	// commit. While both last, counters that get rows are short of both.
	blanketAgain = time.Second
	// silentUsed is how many tokens must have been spent of what a blanket has lent of a counter for it to be
	// worth a lease of its own that nobody waits for.
	silentUsed = 2
	// blanketRest is for how long none is asked for after there was none.
	blanketRest = 5 * time.Second
	// blanketSeen bounds how long checks wait for the replica here to have a blanket that was lent.
	blanketSeen = 100 * time.Millisecond
)

// limitBlankets is what a node does about the blankets of a limit.
type limitBlankets struct {
	mu sync.Mutex
	// held may be over; nil for none.
	held *heldBlanket
	// first counts the counters that were asked for the first time since began.
	first int
	began int64
	// asking is there while a command is under way, or unsent, for checks to wait for; no other one is sent before
	// rests.
	asking *renewals
	unsent bool
	rests  int64
}

// heldBlanket is a blanket that this node was lent.
type heldBlanket struct {
	epoch    uint64
	tokens   uint32
	deadline int64 // by the holder's clock
}

// blanketsOf finds what is known of the blankets of a limit.
func (g *holderGroup) blanketsOf(limit uint64) *limitBlankets {
	if b, ok := g.blankets.Load(limit); ok {
		return b.(*limitBlankets)
	}
	b, _ := g.blankets.LoadOrStore(limit, &limitBlankets{})
	return b.(*limitBlankets)
}

// touch counts the first touch of a counter and returns the blanket that lasts.
func (b *limitBlankets) touch(now int64) (heldBlanket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first++
	if b.held == nil || now >= b.held.deadline {
		return heldBlanket{}, false
	}
	return *b.held, true
}

// want begins to ask for a blanket if there is none and it is worth it, and tells whether it did: due then says so
// at once.
func (b *limitBlankets) want(g *holderGroup, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first < blanketWorth || b.asking != nil || now < b.rests || b.held != nil && now < b.held.deadline {
		return false
	}
	b.asking, b.unsent = g.queue.begin(g), true
	return true
}

// await is what to wait for while a blanket is asked for and there is none; else nil.
func (b *limitBlankets) await(now int64) *renewals {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != nil && now < b.held.deadline {
		return nil
	}
	return b.asking
}

// due tells whether it is time to ask for a blanket, and notes that it is asked for.
func (b *limitBlankets) due(g *holderGroup, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unsent {
		b.unsent = false
		return true
	}
	worth := b.first >= blanketWorth
	if now-b.began >= int64(blanketLook) {
		b.first, b.began = 0, now
	}
	if !worth || b.asking != nil || now < b.rests || b.held != nil && now < b.held.deadline-int64(blanketAgain) {
		return false
	}
	b.asking = g.queue.begin(g)
	return true
}

// asked notes what a command that was sent at a time has brought; nil when nobody knows.
func (b *limitBlankets) asked(epoch uint64, g *blanketGrant, sent, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asking != nil {
		defer b.asking.group.queue.finish(b.asking)
		b.asking, b.unsent = nil, false
	}
	if g == nil || g.tokens == 0 {
		b.rests = now + int64(blanketRest)
		return
	}
	b.held = &heldBlanket{epoch: epoch, tokens: g.tokens, deadline: sent + usable(int64(g.ttl))}
}

// newEpoch is an epoch that no lease has had or will have.
func (t *holderTable) newEpoch() uint64 {
	raise := func(to uint64) (most uint64) {
		for i := range t.shards {
			s := &t.shards[i]
			s.mu.Lock()
			most = max(most, s.epochs)
			s.epochs = max(s.epochs, to)
			s.mu.Unlock()
		}
		return most
	}
	epoch := raise(0) + 1
	for most := raise(epoch); most >= epoch; most = raise(epoch) { // some shard has opened that many meanwhile
		epoch = most + 1
	}
	return epoch
}

// adopt opens a lease by a blanket, if its counter has no row where this node's replica is. From there on
// whoever makes the row finds the blanket's account, so there is nothing to tell.
func (t *holderTable) adopt(s *holderShard, l *lease, now int64) bool {
	g := l.tenant.group
	if g.covers == nil || l.limit.blanketTokens() == 0 {
		return false
	}
	b, ok := g.blanketsOf(l.limit.uid).touch(now)
	if !ok && g.blanketsOf(l.limit.uid).want(g, now) {
		select {
		case t.wanted <- struct{}{}:
		default:
		}
	}
	if !ok || l.adopted == b.epoch {
		return false
	}
	s.key = appendCounterKey(s.key[:0], l.limit.uid, l.tenant.name, l.subject)
	if !g.covers(l.limit.uid, t.holder, b.epoch, s.key) {
		return false
	}
	l.openSilently(b)
	l.folded = moment(now)
	s.counts.adopted++
	s.counts.granted += uint64(b.tokens)
	return true
}

// blanketAsked is what to wait for instead of asking for a lease: a blanket is asked for that may open it. Else
// every counter that is new meanwhile would get a row, and then no blanket opens it anywhere.
func (l *lease) blanketAsked(now int64) *renewals {
	if l.epoch != 0 || l.flight != nil || l.limit.blanketTokens() == 0 {
		return nil
	}
	known, ok := l.tenant.group.blankets.Load(l.limit.uid)
	if !ok {
		return nil
	}
	return known.(*limitBlankets).await(now)
}

// openSilently begins an epoch as if its first message were answered.
func (l *lease) openSilently(b heldBlanket) {
	l.epoch, l.adopted, l.seq, l.silent = b.epoch, b.epoch, 1, true
	l.granted, l.left, l.deadline = uint64(b.tokens), b.tokens, b.deadline
}

// disown opens the lease of a counter by a blanket only to give it back: others have made its row and lack
// what it withholds.
func (t *holderTable) disown(s *holderShard, tenantHash uint64, tenant string, r *Recall, now int64) *lease {
	owner := t.tenantOf(s, tenantHash, tenant)
	if owner == nil {
		return nil
	}
	defer func() { s.drop(owner) }()
	limit := owner.set.byUID[r.Limit]
	if limit == nil || limit.Scope == ScopeGlobal {
		return nil
	}
	held, ok := owner.group.blankets.Load(r.Limit)
	if !ok || t.full(s) {
		return nil
	}
	b, ok := held.(*limitBlankets).touch(now)
	if !ok {
		return nil
	}
	l := s.leaseOf(owner, limit, r.Subject, moment(now))
	if l.epoch != 0 || l.adopted == b.epoch {
		return l
	}
	l.openSilently(b)
	return l
}

// adopting tells whether the blanket that the lease was opened by may last: then the lease must not be
// forgotten, or it would be opened once more.
func (t *holderTable) adopting(l *lease, now int64) bool {
	if l.adopted == 0 {
		return false
	}
	b := l.tenant.group.blanketsOf(l.limit.uid)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held != nil && b.held.epoch == l.adopted && now < b.held.deadline
}

// outlives tells whether a lease that a blanket has opened is used and must be asked for before the blanket ends:
// its counter has got a row, by others, so that the next blanket will not open it.
func (t *holderTable) outlives(s *holderShard, l *lease, now, every int64) bool {
	g := l.tenant.group
	if l.spent() < silentUsed || l.deadline-now > every+int64(blanketAgain) || l.postponed(now) || g.covers == nil {
		return false
	}
	s.key = appendCounterKey(s.key[:0], l.limit.uid, l.tenant.name, l.subject)
	return !g.covers(l.limit.uid, t.holder, l.adopted, s.key)
}

// dueBlankets calls ask for each limit of which a blanket is wanted.
func (t *holderTable) dueBlankets(now int64, ask func(g *holderGroup, limit uint64, b *limitBlankets)) {
	for _, g := range t.groups { // any order
		g.blankets.Range(func(limit, known any) bool {
			if b := known.(*limitBlankets); b.due(g, now) {
				ask(g, limit.(uint64), b)
			}
			return true
		})
	}
}

// askBlankets asks for the blankets that are wanted.
func (l *Leases) askBlankets(now int64) {
	known := l.options.Groups.Level() >= raftfsm.LevelBlankets
	l.table.dueBlankets(now, func(g *holderGroup, limit uint64, b *limitBlankets) {
		if !known || !l.goes(func() { l.askBlanket(g, limit, b) }) {
			b.asked(0, nil, now, now) // checks may wait for it
		}
	})
}

// awaitBlanket waits a moment until this node's replica has a blanket too: before, it opens nothing.
func (l *Leases) awaitBlanket(ctx context.Context, g *holderGroup, c blanketCommand) {
	ctx, cancel := context.WithTimeout(ctx, blanketSeen)
	defer cancel()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for m := l.options.Machines[g.id]; !m.hasBlanket(c.limit, c.holder, c.epoch); {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Leases) askBlanket(g *holderGroup, limit uint64, b *limitBlankets) {
	ctx, cancel := context.WithTimeout(l.ctx, sendTimeout)
	defer cancel()
	c := blanketCommand{holder: l.table.holder, limit: limit, epoch: l.table.newEpoch()}
	sent := l.options.Clock.Sync()
	var grant *blanketGrant
	r, err := l.options.Groups.Propose(ctx, g.id, raftfsm.Command{Data: appendBlanket(nil, c)})
	if err == nil {
		if res, decodeErr := decodeResult(r.Data); decodeErr == nil && res.outcome == outcomeBlanket {
			grant = &res.blanket
		}
	}
	if grant == nil {
		l.metrics.failed.Inc()
	} else if grant.tokens > 0 {
		l.awaitBlanket(ctx, g, c)
	}
	b.asked(c.epoch, grant, sent, l.options.Clock.Steady())
}
