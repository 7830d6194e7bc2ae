package limiter

import (
	"slices"
	"time"
)

const (
	// routeIdle is for how long a route is remembered that nobody uses.
	routeIdle = 5 * time.Second
	// routesEvery is how often the routes are looked through.
	routesEvery = 2 * time.Second
)

// tick gives back what idles, drops what is over, and forgets what nobody uses. It is called every
// few milliseconds, and looks at each lease a few times in its life. It returns whether anything is
// held or remembered at all.
func (t *holderTable) tick(now int64) (busy bool) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for class := range s.leases {
			if now-s.checked[class] >= leaseClass[class].every {
				s.checked[class] = now
				t.tickLeases(s, class, now)
			}
			busy = busy || s.leases[class].n > 0
		}
		if now-s.routesChecked >= int64(routesEvery) {
			s.routesChecked = now
			s.tickRoutes(now)
		}
		busy = busy || s.routes.n > 0
		s.mu.Unlock()
	}
	if t.urgent || now-t.gathered >= int64(gatherFor) {
		t.urgent, t.gathered = false, now
		t.pokeAll()
	}
	return busy
}

func (t *holderTable) tickLeases(s *holderShard, class int, now int64) {
	table := &s.leases[class]
	for i := 0; i < len(table.slots); {
		l := table.slots[i]
		if l == nil {
			i++
			continue
		}
		t.tickLease(s, l, now, leaseClass[class].every)
		if l.refs == 0 && l.epoch == 0 && l.flight == nil && !t.adopting(l, now) {
			s.forgetLease(class, l) // another one may now stand at i
			continue
		}
		i++
	}
	table.shrink()
}

func (t *holderTable) tickLease(s *holderShard, l *lease, now, every int64) {
	if l.holds && !l.postponed(now) {
		l.holds, l.scarce = false, false
	}
	if l.flight != nil && l.flight.batch != nil {
		return // on its way already
	}
	if l.epoch == 0 {
		l.flight = nil
		return
	}
	used := l.fresh > 0
	l.fold(now)
	if l.silent && l.live(now) && !l.scarce {
		if t.outlives(s, l, now, every) {
			t.ask(l)
		}
		return // nobody waits for what is left
	}
	// A message that failed has said something that may be in force, so it is said again.
	due := l.flight != nil && l.flight.first != 0 && now < l.flight.first+usable(l.limit.terms.ttl)
	switch {
	case !l.live(now) && !due:
		s.counts.unspent += l.end()
		l.flight = nil
	case l.live(now) && (l.scarce || !used && (l.idle(now) || l.deadline-now < every+l.limit.terms.ttl/16)):
		// What idles is missing elsewhere, and what is spent but not reported counts as if it idled.
		if l.unspent() > 0 {
			l.giveBack(s)
		}
		if l.dirty {
			t.tell(l)
		}
	case due && l.dirty:
		t.tell(l)
	}
	t.urgent = t.urgent || l.flight != nil && (l.hurries() || l.scarce)
}

// idle tells whether nothing was spent for half of the lease's life, although all that is lent had come.
func (l *lease) idle(now int64) bool {
	since := l.folded
	if l.coming != nil {
		if last := moment(min(l.coming.last(), l.deadline)); before(since, last) {
			since = last
		}
	}
	return before(since+uint32(l.limit.terms.ttl/2/int64(time.Millisecond)), moment(now))
}

func (s *holderShard) tickRoutes(now int64) {
	at := moment(now - int64(routeIdle))
	for i := 0; i < len(s.routes.slots); {
		r := s.routes.slots[i]
		if r != nil && before(r.used, at) {
			s.forget(r)
			continue
		}
		i++
	}
	s.routes.shrink()
}

// recall gives back what is held of counters of a tenant whose group lacks it elsewhere, and asks for
// nothing more for a while. It returns the messages that tell the group. What is on its way here
// follows with the next call, once these are answered, and with tick. settled, if not nil, is closed once some
// of what checks have taken, but may not need, is settled.
func (t *holderTable) recall(tenant string, all []Recall, now int64) (out []*renewals, settled <-chan struct{}) {
	hash := hashString(t.seed, tenant)
	s := t.shardOf(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		if !slices.Contains(r.Holders, t.holder) {
			continue
		}
		l := s.anyLease(s.tenants[tenant], r.Limit, r.Subject)
		if l == nil || l.epoch == 0 {
			l = t.disown(s, hash, tenant, &r, now)
		}
		if l == nil || l.epoch == 0 {
			continue
		}
		l.postpone(now, l.rest(), true)
		if l.unspent() > 0 && l.live(now) {
			l.giveBack(s)
		}
		if l.dirty {
			t.tell(l)
		}
		if l.pending > 0 {
			if s.settled == nil {
				s.settled = make(chan struct{})
			}
			settled = s.settled
		}
		if f := l.flight; f != nil && f.batch != nil && !slices.Contains(out, f.batch) {
			out = append(out, f.batch)
		}
	}
	s.counts.recalls++
	t.pokeAll()
	return out, settled
}

// pokeAll wakes the senders of all groups that have something to send.
func (t *holderTable) pokeAll() {
	for _, g := range t.groups { // any order
		if g.queue.waits() {
			g.poke()
		}
	}
}

// giveAllBack gives everything back, for good.
func (t *holderTable) giveAllBack(now int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for class := range s.leases {
			for _, l := range s.leases[class].slots {
				if l == nil || !l.live(now) || l.silent {
					continue
				}
				if l.unspent() > 0 {
					l.giveBack(s)
				}
				if l.dirty {
					t.tell(l)
				}
			}
		}
		s.mu.Unlock()
	}
	t.pokeAll()
}
