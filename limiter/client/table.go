package client

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

const (
	// routesMax bounds what is remembered; keys beyond are asked for at a node.
	routesMax = 100_000
	// routeIdle is for how long a route is remembered that nobody uses.
	routeIdle = 5 * time.Second
	// askEvery is how long after one ask for a route comes the next: a node may not know the limits yet.
	askEvery = 100 * time.Millisecond
	// asksMax bounds the asks of one message, as nodes do.
	asksMax = 100
	// textBytesMax bounds tokens and keys, as nodes do.
	textBytesMax = 256
)

// subject is what a request is about.
type subject struct{ tenant, token, key string }

// askable tells whether a node takes an ask for it. One that it refuses would take all that is told in the
// same message with it, and one that is no text the stream.
func (s *subject) askable() bool {
	return len(s.token) <= textBytesMax && len(s.key) <= textBytesMax &&
		utf8.ValidString(s.tenant) && utf8.ValidString(s.token) && utf8.ValidString(s.key)
}

// route is the limits that match a subject, each with a lease of its counter.
type route struct {
	subject
	version uint32
	lent    bool
	leases  []*lease
	// asked is set while a message is to ask, or asks, for the route, last at asking; seen is the state
	// of the table for which the answer holds.
	asked  bool
	asking int64
	seen   uint64
	used   int64
}

// leaseTable is the leases of this process and what leads to them.
type leaseTable struct {
	now  func() int64
	kick chan struct{} // wakes who sends

	mu     sync.Mutex
	online bool
	closed bool
	tenant string // of the identity, once known
	// state grows with each connection and each change of limits. Routes of an older one are used on,
	// for the milliseconds until they have been asked for again.
	state  uint64
	epochs uint64
	routes map[subject]*route
	leases map[counter]*lease
	ask    []*route
	tell   []*lease
	counts Stats
}

func newLeaseTable(now func() int64) *leaseTable {
	return &leaseTable{now: now, kick: make(chan struct{}, 1), state: 1, routes: map[subject]*route{}, leases: map[counter]*lease{}}
}

// verdict says how a check goes on.
type verdict uint8

const (
	elsewhere verdict = iota // a node must decide
	passes
	waits // a message is under way that may let it pass
)

// check decides a request if it can. asked are the leases for which a message has asked on its behalf.
func (t *leaseTable) check(r *Request, asked *uint64) (d Decision, v verdict, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := t.route(r)
	if to == nil {
		return d, elsewhere, nil
	}
	enough := true
	for _, l := range to.leases {
		enough = enough && l.left >= r.Cost
	}
	if enough {
		for _, l := range to.leases {
			l.left -= r.Cost
		}
	}
	now := t.now() // after the debits: what is spent now was still valid then
	to.used = now
	for _, l := range to.leases {
		if enough && !l.live(now) {
			for _, l := range to.leases {
				l.left += r.Cost
			}
			enough = false
		}
	}
	if !enough {
		return t.lack(to, r.Cost, now, asked)
	}
	d = Decision{Allow: true, Version: to.version, Source: SourceLease}
	for _, l := range to.leases {
		l.fresh += r.Cost
		l.dirty = true
		if t.online && !l.sending && l.low(now) {
			t.want(l, 0)
		}
		d.Levels = l.levels(d.Levels)
	}
	t.counts.Local++
	return d, passes, nil
}

// route finds a route that can be used, or asks for it.
func (t *leaseTable) route(r *Request) *route {
	s := subject{r.Tenant, r.Token, r.Key}
	if s.tenant == "" {
		s.tenant = t.tenant
	}
	if s.tenant == "" || t.closed {
		return nil
	}
	to, now := t.routes[s], t.now()
	if to == nil && t.online && len(t.routes) < routesMax && s.askable() {
		to = &route{subject: subject{strings.Clone(s.tenant), strings.Clone(s.token), strings.Clone(s.key)}, asking: now - int64(askEvery), used: now}
		t.routes[to.subject] = to
	}
	if to == nil {
		return nil
	}
	if to.seen != t.state && !to.asked && t.online && now-to.asking >= int64(askEvery) {
		to.asked, to.asking = true, now
		t.ask = append(t.ask, to)
		t.poke()
	}
	if !to.lent {
		to.used = now
		return nil
	}
	return to
}

// lack finds out how a check that leases do not let pass goes on.
func (t *leaseTable) lack(to *route, cost uint32, now int64, asked *uint64) (d Decision, v verdict, wait <-chan struct{}) {
	if !t.online {
		return d, elsewhere, nil
	}
	for i, l := range to.leases {
		if short := l.left < cost || !l.live(now); short && (cost > l.most || l.held(now) || *asked&(1<<i) != 0) {
			return d, elsewhere, nil
		}
	}
	for i, l := range to.leases {
		if l.left >= cost && l.live(now) {
			continue
		}
		if !l.sending {
			*asked |= 1 << i
		}
		t.want(l, cost)
		wait = l.landed
	}
	return d, waits, wait
}

// want sees to it that a message asks for more tokens.
func (t *leaseTable) want(l *lease, cost uint32) {
	if !l.sending {
		l.asks = true
		l.lack += uint64(cost)
	}
	t.report(l)
}

// report sees to it that a message, or one that is under way, reports the lease.
func (t *leaseTable) report(l *lease) {
	if l.landed == nil {
		l.landed = make(chan struct{})
	}
	if !l.queued && !l.sending {
		l.queued = true
		t.tell = append(t.tell, l)
		t.poke()
	}
}

func (t *leaseTable) poke() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// sentMessage is a message and what it was about.
type sentMessage struct {
	state uint64
	asks  []sentAsk
}

type sentAsk struct {
	subject subject
	reports []sentReport
}

// prepare makes the next message, of one tenant; nil when there is nothing to say.
func (t *leaseTable) prepare() (*sentMessage, *limiterv1.LeaseRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	m, out := &sentMessage{state: t.state}, &limiterv1.LeaseRequest{}
	places := map[subject]int{}
	add := func(s subject) (at int, ok bool) {
		if at, ok = places[s]; ok {
			return at, len(m.asks[at].reports) < reportsMax
		}
		if len(m.asks) == asksMax || len(m.asks) > 0 && out.Tenant != s.tenant {
			return 0, false
		}
		out.Tenant, places[s] = s.tenant, len(m.asks)
		m.asks = append(m.asks, sentAsk{subject: s})
		out.Asks = append(out.Asks, &limiterv1.LeaseAsk{Token: s.token, Key: s.key})
		return len(m.asks) - 1, true
	}
	var later []*lease
	for _, l := range t.tell {
		s := subject{l.tenant, l.token, l.key}
		at, ok := add(s)
		if !ok {
			later = append(later, l)
			continue
		}
		l.queued = false
		report := l.report(now, func() uint64 { t.epochs++; return t.epochs })
		if report == nil {
			t.land(l)
			continue
		}
		l.sending = true
		out.Asks[at].Reports = append(out.Asks[at].Reports, report)
		m.asks[at].reports = append(m.asks[at].reports, sentReport{l, report.Epoch, report.Seq, report.Want, l.first})
	}
	t.tell = later
	var routes []*route
	for _, r := range t.ask {
		if _, ok := add(r.subject); !ok {
			routes = append(routes, r)
		}
	}
	t.ask = routes
	if len(m.asks) == 0 {
		return nil, nil
	}
	if len(t.tell)+len(t.ask) > 0 {
		t.poke()
	}
	return m, out
}

// reportsMax bounds the reports of one ask, as nodes do.
const reportsMax = 64

// land ends a lease's part in a message.
func (t *leaseTable) land(l *lease) {
	l.sending = false
	if l.landed != nil && !l.queued {
		close(l.landed)
		l.landed = nil
	}
}

// answer takes the answer to a message; nil when it was lost.
func (t *leaseTable) answer(m *sentMessage, answers []*limiterv1.LeaseAnswer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i, ask := range m.asks {
		to := t.routes[ask.subject]
		if to != nil {
			to.asked = false
		}
		var a *limiterv1.LeaseAnswer
		if len(answers) == len(m.asks) {
			a = answers[i]
		}
		if to != nil && a != nil {
			// A node that does not know the limits now says nothing about them.
			if a.GetLimitsVersion() > 0 {
				to.seen = m.state
				t.learn(to, a)
			}
		}
		known := len(a.GetGrants()) == len(ask.reports)
		for k, sent := range ask.reports {
			if t.land(sent.lease); known {
				sent.lease.take(sent, a.GetGrants()[k], now)
			} else if sent.lease.epoch == sent.epoch {
				sent.lease.dirty = true // the same will be told again
			}
		}
	}
}

// learn brings a route to what a node says.
func (t *leaseTable) learn(to *route, a *limiterv1.LeaseAnswer) {
	before := to.leases
	to.leases, to.version, to.lent = nil, a.GetLimitsVersion(), a.GetLent()
	for _, level := range a.GetLevels() {
		c := counter{to.tenant, level.GetLimit(), level.GetSubject()}
		l := t.leases[c]
		if l == nil {
			l = &lease{counter: c, folded: t.now()}
			t.leases[c] = l
		}
		l.token, l.key = to.token, to.key
		l.span = time.Duration(level.GetSpanUs()) * time.Microsecond
		l.most, l.chunk, l.parts = level.GetMost(), level.GetChunk(), levelsOf(level.GetParts())
		l.refs++
		to.leases = append(to.leases, l)
	}
	for _, l := range before {
		l.refs--
	}
}
