package client

import (
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// connected begins to use a node.
func (t *leaseTable) connected(tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.online, t.tenant, t.counts.Failure = true, tenant, ""
	if tenant == everyTenant {
		t.tenant = ""
	}
	t.state++
	t.poke()
}

// everyTenant is the tenant of identities of the platform.
const everyTenant = "*"

// disconnected fails what was to be told. Leases are spent on, to their deadlines.
func (t *leaseTable) disconnected(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.online, t.counts.Failure = false, why
	for _, l := range t.tell {
		l.queued = false
		t.land(l)
	}
	for _, r := range t.ask {
		r.asked = false
	}
	t.tell, t.ask = nil, nil
}

// event takes what a node says by itself.
func (t *leaseTable) event(m *limiterv1.LeaseResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.GetChanged() {
		t.state++
	}
	now := t.now()
	for _, r := range m.GetRecalls() {
		l := t.leases[counter{r.GetTenant(), r.GetLimit(), r.GetSubject()}]
		if l == nil || l.epoch == 0 {
			continue
		}
		l.hold, l.scarce = now+int64(max(l.span, scarceFor)), true
		t.counts.Recalled++
		if l.left > 0 && l.live(now) {
			l.giveBack()
		}
		if l.dirty {
			t.report(l)
		}
	}
}

// tick gives back what idles, drops what is over, and forgets what nobody uses. It returns whether
// anything is left.
func (t *leaseTable) tick(every time.Duration) (busy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for s, r := range t.routes { // any order
		if t.online && now-r.used > int64(routeIdle) && !r.asked { // offline it could not be learned again
			for _, l := range r.leases {
				l.refs--
			}
			delete(t.routes, s)
		}
	}
	for c, l := range t.leases { // any order
		t.tickLease(l, now, every)
		if l.refs == 0 && l.epoch == 0 && !l.queued && !l.sending {
			delete(t.leases, c)
		}
	}
	return len(t.routes)+len(t.leases) > 0
}

func (t *leaseTable) tickLease(l *lease, now int64, every time.Duration) {
	if !l.held(now) {
		l.scarce = false
	}
	if l.sending || l.queued || l.epoch == 0 {
		return
	}
	used := l.fresh > 0
	l.fold(now)
	soon := l.deadline-now < int64(every+l.ttl()/16)
	switch {
	case !l.live(now) && !l.pending(now):
		l.end()
	case !t.online:
	case l.live(now) && (l.scarce || !used && (l.idle(now) || soon)):
		// What idles is missing elsewhere, and what is spent but not reported counts as if it idled.
		if l.left > 0 {
			l.giveBack()
		}
		if l.dirty {
			t.report(l)
		}
	case l.pending(now) && l.dirty:
		t.report(l)
	}
}

// giveAllBack gives everything back, for good, and returns what to wait for.
func (t *leaseTable) giveAllBack() (landed []<-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if !t.online {
		return nil
	}
	now := t.now()
	for _, l := range t.leases { // any order
		if l.left > 0 && l.live(now) {
			l.giveBack()
		}
		if l.dirty && l.epoch != 0 {
			t.report(l)
		}
		if l.landed != nil {
			landed = append(landed, l.landed)
		}
	}
	return landed
}
