package limiter

import (
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A bucket that is asked for more than it has lends tokens before they have flowed back, each to be spent no
// earlier. So holders share its refill by time, and who has a part of it knows alone when a request
// passes.

// blocksMax bounds how many grants are remembered of which some tokens have yet to come.
const blocksMax = 4

// coming are tokens that may not be spent yet, in the order in which they come.
type coming struct {
	blocks []block
	// limit, and denials of the tenant, are those of when the last ones were asked for: see stale.
	limit   *limitState
	denials uint32
}

// block is the tokens of one grant: the first comes at first, by the holder's clock, and the last one
// span later. taken have come already.
type block struct {
	first, span int64
	n, taken    uint32
}

// at is when the k-th token of the block comes, from 0 on.
func (b *block) at(k uint32) int64 {
	if b.n == 1 {
		return b.first
	}
	at := mul64(uint64(b.span), uint64(k)).divCeil(uint64(b.n - 1))
	return b.first + int64(at.lo)
}

// came is how many of the block have come by a time.
func (b *block) came(now int64) uint32 {
	switch {
	case now < b.first:
		return 0
	case now >= b.first+b.span:
		return b.n
	}
	// The first that comes after now, within rounding.
	k := uint32(mul64(uint64(now-b.first), uint64(b.n-1)).divFloor(uint64(b.span)).lo) + 1
	for k > 0 && b.at(k-1) > now {
		k--
	}
	return k
}

// total is how many tokens have yet to come.
func (c *coming) total() uint64 {
	if c == nil {
		return 0
	}
	var n uint64
	for i := range c.blocks {
		n += uint64(c.blocks[i].n - c.blocks[i].taken)
	}
	return n
}

// last is when the last token comes.
func (c *coming) last() int64 {
	b := &c.blocks[len(c.blocks)-1]
	return b.first + b.span
}

// expect adds n tokens of a grant that come later. They are the last ones of those that the grant tells of.
func (l *lease) expect(n uint64, sent sentRenewal, g Grant, now int64) {
	if n == 0 {
		return
	}
	b := block{first: now + slowed(g.Delay), span: slowed(g.Span), n: uint32(n)}
	if skip := g.Coming - n; skip > 0 {
		all := block{first: b.first, span: b.span, n: uint32(g.Coming)}
		b.first, b.span = all.at(uint32(skip)), all.first+all.span-all.at(uint32(skip))
	}
	if l.coming == nil {
		l.coming = &coming{}
	}
	l.coming.limit, l.coming.denials = sent.limit, sent.denials
	// Answers that take differently long must not change the order.
	if k := len(l.coming.blocks); k > 0 {
		last := &l.coming.blocks[k-1]
		b.first = max(b.first, last.first+last.span)
		if k == blocksMax {
			// More than are asked for; as one they come later, never earlier.
			*last = block{first: b.first + b.span, n: last.n - last.taken + b.n}
			return
		}
	}
	l.coming.blocks = append(l.coming.blocks, b)
}

// slowed is in how much time, by a clock that may be fast by one part in raftfsm.RateErrorDenominator, d has
// surely passed.
func slowed(d time.Duration) int64 {
	return int64(d) + (int64(d)+raftfsm.RateErrorDenominator-1)/raftfsm.RateErrorDenominator
}

// mature makes what has come spendable.
func (l *lease) mature(now int64) {
	if l.coming == nil {
		return
	}
	for i := range l.coming.blocks {
		b := &l.coming.blocks[i]
		if came := b.came(now); came > b.taken {
			l.left += came - b.taken
			b.taken = came
		}
	}
	l.coming.blocks = slices.DeleteFunc(l.coming.blocks, func(b block) bool { return b.taken == b.n })
	if len(l.coming.blocks) == 0 {
		l.coming = nil
	}
}

// stale tells whether the group may have more than what comes: the limit was changed, or tokens were given back.
func (l *lease) stale() bool {
	return l.coming.limit != l.limit || l.coming.denials != l.tenant.denials
}

// passes is when, with what comes, there will be enough for a cost; 0 if there will not, or nobody knows.
func (l *lease) passes(cost uint32) int64 {
	if l.coming == nil || l.left >= cost || l.stale() {
		return 0
	}
	lacking := cost - l.left
	for i := range l.coming.blocks {
		b := &l.coming.blocks[i]
		if rest := b.n - b.taken; lacking > rest {
			lacking -= rest
			continue
		}
		if at := b.at(b.taken + lacking - 1); at < l.deadline {
			return at
		}
		break
	}
	return 0
}

// ending tells whether it is time to ask for what comes after what is coming: early, as whoever has nothing
// coming can decide nothing, and on a busy machine the answer takes a while.
func (l *lease) ending(now int64) bool {
	return len(l.coming.blocks) < blocksMax && l.coming.last()-now < int64(aheadSpanMax)*3/4
}

func (r *route) mature(now int64) {
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return
		}
		l.mature(now)
	}
}

// lacks tells whether a lease does not let a cost pass, and nobody knows when it will.
func (l *lease) lacks(cost uint32, now int64) bool {
	return !l.live(now) || l.left < cost && l.passes(cost) == 0
}

// denyAhead denies a check if it is known from what comes when it passes.
func (t *holderTable) denyAhead(s *holderShard, c *heldCheck, now int64) bool {
	r, cost := c.route, c.request.Cost
	var by *lease
	var passes int64
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		if l.lacks(cost, now) {
			return false
		}
		if at := l.passes(cost); at > passes {
			by, passes = l, at
		}
	}
	if by == nil {
		return false
	}
	d := c.decision
	*d = Decision{
		Reason: ReasonLimited, LimitID: by.limit.ID, Kind: KindTokenBucket, Version: r.tenant.set.version, Source: SourceLease, Levels: d.Levels[:0],
		RetryAfterMs: uint32((passes - now + int64(time.Millisecond) - 1) / int64(time.Millisecond)),
	}
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		if !c.only && l.passes(cost) > 0 && l.flight == nil && l.low(now) {
			t.ask(l)
			c.told = c.told || l.hurries()
		}
		if f := l.flight; !c.only && f != nil && !f.sent && l.left < cost {
			f.lack += uint64(cost)
		}
		d.Levels = l.levels(d.Levels, c.request)
	}
	c.answer = heldDenied
	s.counts.denied++
	return true
}
