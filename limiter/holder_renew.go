package limiter

import (
	"slices"
	"sync"
)

// renewalsMax bounds the renewals of one message, and so of a command.
const renewalsMax = 500

// renewalBytes is what one takes at most besides its names.
const renewalBytes = 8 * 10

// renewalQueue holds the leases of a group that have something to tell it. A lease is in one
// message at a time, waiting or under way.
type renewalQueue struct {
	mu      sync.Mutex
	waiting []*renewals
	sent    []*renewals // those under way
	made    uint64
}

// renewals is one message to a group.
type renewals struct {
	group *holderGroup
	// number orders the messages of a group.
	number uint64
	leases []*lease
	bytes  int
	// sent is what the message said, once it was prepared.
	sent []sentRenewal
	// done is closed once it is answered, or was given up.
	done chan struct{}
}

// add puts a lease into the last message that waits.
func (q *renewalQueue) add(l *lease) *renewals {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := renewalBytes + len(l.tenant.name) + len(l.subject)
	var b *renewals
	if n := len(q.waiting); n > 0 {
		b = q.waiting[n-1]
	}
	if b == nil || len(b.leases) >= renewalsMax || b.bytes+size > partBytes {
		q.made++
		b = &renewals{group: l.tenant.group, number: q.made, done: make(chan struct{})}
		q.waiting = append(q.waiting, b)
	}
	b.leases = append(b.leases, l)
	b.bytes += size
	return b
}

// next takes the first message that waits, or nil.
func (q *renewalQueue) next() *renewals {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	b := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.sent = append(q.sent, b)
	return b
}

// begin makes a message of no leases, which is under way, for checks to wait for.
func (q *renewalQueue) begin(g *holderGroup) *renewals {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.made++
	b := &renewals{group: g, number: q.made, done: make(chan struct{})}
	q.sent = append(q.sent, b)
	return b
}

// finish wakes who waits for a message that is answered or was given up.
func (q *renewalQueue) finish(b *renewals) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = slices.DeleteFunc(q.sent, func(s *renewals) bool { return s == b })
	close(b.done)
}

// waits tells whether a message waits.
func (q *renewalQueue) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

// pending are the messages up to a number that are not finished.
func (q *renewalQueue) pending(number uint64) (done []chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range slices.Concat(q.sent, q.waiting) {
		if b.number <= number {
			done = append(done, b.done)
		}
	}
	return done
}

// poke wakes one who sends messages of the group.
func (g *holderGroup) poke() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// prepare takes the next message of a group and says what it tells; nil when none waits. A message
// of nothing is possible. Each one must come back by answer or fail, and then be finished.
func (t *holderTable) prepare(g *holderGroup, now int64) (*renewals, []Renewal) {
	b := g.queue.next()
	if b == nil {
		return nil, nil
	}
	all := make([]Renewal, 0, len(b.leases))
	for _, l := range b.leases {
		s := l.tenant.shard
		s.mu.Lock()
		if r, ok := l.report(s, now); ok {
			all = append(all, r)
			b.sent = append(b.sent, sentRenewal{
				lease: l, epoch: r.Epoch, seq: l.seq, want: r.Want, first: l.flight.first, limit: l.flight.limit, denials: l.flight.denials,
			})
			s.counts.renewals++
		} else {
			l.flight = nil
		}
		s.mu.Unlock()
	}
	return b, all
}

// answer takes a group's answers to a message, one for each renewal in it.
func (t *holderTable) answer(b *renewals, grants []Grant, now int64) {
	for i, sent := range b.sent {
		s := sent.lease.tenant.shard
		s.mu.Lock()
		t.landed(sent.lease, b)
		sent.lease.take(s, sent, grants[i], now)
		if f := sent.lease.flight; f != nil && f.batch == nil && f.first == 0 {
			sent.lease.flight = nil
		}
		s.mu.Unlock()
	}
}

// fail notes that nobody knows what became of a message. The same will be told again.
func (t *holderTable) fail(b *renewals) {
	for _, sent := range b.sent {
		s := sent.lease.tenant.shard
		s.mu.Lock()
		t.landed(sent.lease, b)
		if sent.lease.epoch == sent.epoch {
			sent.lease.dirty = true
		}
		s.mu.Unlock()
	}
}

// landed takes a lease out of a message that is not under way any more.
func (t *holderTable) landed(l *lease, b *renewals) {
	if f := l.flight; f != nil && f.batch == b {
		f.batch, f.sent = nil, false
	}
}
