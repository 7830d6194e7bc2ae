package client

import (
	"context"
	"fmt"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// simClient is one run of a process that holds leases: its table is the real one, and around it is what session and Limiter
// do, in simulated time.
type simClient struct {
	*sim
	i       int
	limiter *Limiter // with the table
	table   *leaseTable
	holder  uint64
	rate    float64
	offset  int64
	dead    bool
	away    bool // no node can be reached
	asks    int

	// session numbers connections, 0 while there is none; sent are its messages under way.
	session, sessions int
	sent              []*sentMessage
	waiting           []simWaiter
	spent, told       map[simEpoch]uint64 // told is what messages have reported, for a flaw
	pauses            []time.Duration     // ahead of the next readings of the clock
}

type simEpoch struct {
	limit   uint64
	subject string
	epoch   uint64
}

type simWaiter struct {
	landed <-chan struct{}
	until  int64
	retry  func(patient bool)
}

// start begins a run of a client.
func (s *sim) start(i int, holder uint64) *simClient {
	c := s.client(i, holder)
	c.connect()
	c.tick()
	s.after(s.between(0, time.Second/time.Duration(s.plan.demand)), c.demand)
	return c
}

// client is one that does nothing by itself.
func (s *sim) client(i int, holder uint64) *simClient {
	c := &simClient{sim: s, i: i, holder: holder, rate: s.skew(), offset: s.random.Int64N(int64(time.Hour)), spent: map[simEpoch]uint64{}, told: map[simEpoch]uint64{}}
	c.table = newLeaseTable(c.clock)
	c.limiter = &Limiter{table: c.table, onFailure: FailDeny}
	if s.plan.open {
		c.limiter.onFailure = FailOpen
	}
	return c
}

func (c *simClient) local() int64 { return c.offset + int64(float64(c.now.Load())*c.rate) + 1 }

// clock is the reading of a table: before it, time may pass.
func (c *simClient) clock() int64 {
	before := c.local()
	if len(c.pauses) > 0 {
		c.now.Add(int64(c.pauses[0]))
		c.pauses = c.pauses[1:]
	}
	if c.chance(1) {
		c.now.Add(int64(c.between(0, 600*time.Millisecond)))
	}
	if c.flaw == flawNoRecheck {
		return before
	}
	return c.local()
}

func (c *simClient) tick() {
	if c.dead {
		return
	}
	c.table.tick(tickEvery)
	c.pump()
	c.after(tickEvery, c.tick)
}

// crash ends a run at once; another one follows, with a number of its own.
func (c *simClient) crash() {
	c.dead = true
	c.stats.crashes++
	holder := c.random.Uint64() | 1
	if c.flaw == flawAdoptsLease {
		holder = c.holder
	}
	c.after(c.between(0, 50*time.Millisecond), func() { c.clients[c.i] = c.sim.start(c.i, holder) })
}

func (c *simClient) connect() {
	if c.dead || c.session != 0 || c.away {
		return
	}
	c.sessions++
	c.session = c.sessions
	c.table.connected(simTenant)
	c.pump()
}

// hang ends the connection, as the client sees it: what is under way may arrive later, and its answer does not.
func (c *simClient) hang() {
	if c.dead || c.session == 0 {
		return
	}
	c.session = 0
	c.table.disconnected("broken")
	sent := c.sent
	c.sent = nil
	for _, m := range sent {
		c.answer(m, nil)
	}
	c.wake()
	if c.chance(30) {
		c.away = true
		c.after(c.between(0, 2*time.Second), func() { c.away = false; c.connect() })
		return
	}
	c.after(c.between(50*time.Millisecond, 200*time.Millisecond), c.connect)
}

// hear brings word that limits have changed.
func (c *simClient) hear() {
	session := c.session
	c.after(c.between(0, 200*time.Millisecond), func() {
		if !c.dead && session != 0 && session == c.session {
			c.table.event(&limiterv1.LeaseResponse{Changed: true})
			c.pump()
		}
	})
}

func (c *simClient) demand() {
	if c.dead || c.over {
		return
	}
	c.asks++
	r := &Request{Tenant: simTenant, Key: fmt.Sprint("k", c.random.IntN(c.plan.keys)), Cost: 1 + c.random.Uint32N(c.plan.cost)}
	if c.random.IntN(100) < c.plan.named {
		r.RequestID = fmt.Sprint(c.holder, " ", c.asks)
	}
	if r.RequestID != "" {
		c.askNode(r, true)
	} else {
		var asked uint64
		c.try(r, &asked, 0, c.now.Load()+int64(patience))
	}
	if c.random.IntN(400) == 0 && c.chance(100) {
		c.crash()
	}
	wait := c.between(0, 2*time.Second/time.Duration(c.plan.demand))
	if c.plan.gaps > 0 && c.random.IntN(50) == 0 {
		wait += c.between(0, c.plan.gaps)
	}
	c.after(wait, c.demand)
}

// try is Limiter.checkHere, and then askNode.
func (c *simClient) try(r *Request, asked *uint64, tries int, until int64) {
	d, v, landed := c.table.check(r, asked)
	switch {
	case v == passes:
		if !d.Allow || d.Source != SourceLease {
			c.fail("passed: %+v", d)
		}
		c.stats.local++
		c.pass(r)
		c.spend(r)
	case v == elsewhere || tries == waitsMax:
		c.askNode(r, true)
	default:
		c.waiting = append(c.waiting, simWaiter{landed, until, func(patient bool) {
			if patient {
				c.try(r, asked, tries+1, until)
			} else {
				c.askNode(r, true)
			}
		}})
	}
	c.pump()
}

// spend notes what was spent from leases.
func (c *simClient) spend(r *Request) {
	to := c.table.routes[subject{simTenant, r.Token, r.Key}]
	for i, l := range to.leases {
		c.spent[simEpoch{l.limit, l.subject, l.epoch}] += uint64(r.Cost)
		if c.flaw == flawDebitsOne && i > 0 {
			l.left += r.Cost
		}
	}
}

// wake goes on with those whose message has landed, or whose patience is over.
func (c *simClient) wake() {
	waiting := c.waiting
	c.waiting = nil
	for _, w := range waiting {
		select {
		case <-w.landed:
			w.retry(true)
		default:
			if c.now.Load() >= w.until {
				w.retry(false)
			} else {
				c.waiting = append(c.waiting, w)
			}
		}
	}
}

// askNode lets a node decide, or what the client was told to do without one. A request with an id whose answer is lost is
// asked again, and must get the first decision.
func (c *simClient) askNode(r *Request, again bool) {
	if c.away {
		d := c.limiter.fail()
		if d.Source != SourceFailure || d.Allow != c.plan.open || !d.Allow && d.RetryAfterMs == 0 {
			c.fail("without a node: %+v", d)
		}
		if c.stats.failed++; d.Allow {
			c.stats.open++
		}
		return
	}
	c.stats.asked++
	fly := func() time.Duration { return c.between(300*time.Microsecond, 3*time.Millisecond) }
	c.after(fly(), func() {
		d, err := c.asker.Check(context.Background(), limiter.Request{Tenant: simTenant, Key: r.Key, Cost: r.Cost, RequestID: r.RequestID})
		if err != nil {
			c.fail("a node's check: %v", err)
			return
		}
		at, held := c.now.Load(), c.held()
		before, known := c.decided[r.RequestID]
		if r.RequestID != "" && known && before != d.Allow {
			c.fail("request %s is decided %v, and %v before", r.RequestID, d.Allow, before)
		}
		if c.decided[r.RequestID] = d.Allow; d.Allow && (r.RequestID == "" || !known) {
			c.pass(r) // the tokens are gone, whether the answer arrives or not
		}
		if r.RequestID != "" && c.chance(30) { // lost
			c.after(c.between(0, time.Second), func() { c.askNode(r, again) })
			return
		}
		c.after(fly(), func() {
			switch {
			case d.Allow:
			case again && r.RequestID == "":
				c.recall(r)
				c.after(10*time.Millisecond, func() { c.askNode(r, false) })
			default:
				c.stats.denied++
				c.denials = append(c.denials, simDenial{at, *r, d.RetryAfterMs, held})
			}
		})
	})
}

// held is what all clients have left.
func (s *sim) held() (n int64) {
	for _, c := range s.clients {
		for _, l := range c.table.leases { // any order
			n += int64(l.left)
		}
	}
	return n
}

// recall asks all that are connected for what they hold of the counters of a request.
func (s *sim) recall(r *Request) {
	for _, to := range s.clients {
		if to.session == 0 || s.chance(20) {
			continue
		}
		session := to.session
		s.after(s.between(0, 2*time.Millisecond), func() {
			if to.dead || to.session != session {
				return
			}
			m := &limiterv1.LeaseResponse{}
			for c := range to.table.leases { // any order: all are given back
				if c.subject == "" || c.subject == r.Key {
					m.Recalls = append(m.Recalls, &limiterv1.LeaseRecall{Tenant: c.tenant, Limit: c.limit, Subject: c.subject})
				}
			}
			sortRecalls(m.Recalls)
			to.table.event(m)
			to.pump()
		})
	}
}

// pump sends what is to be told, as far as messages may be under way.
func (c *simClient) pump() {
	for !c.dead && c.session != 0 && len(c.sent) < messagesMax {
		m, out := c.table.prepare()
		if m == nil {
			break
		}
		c.stats.messages++
		c.sent = append(c.sent, m)
		for i, a := range m.asks {
			for k, sent := range a.reports {
				r := out.GetAsks()[i].GetReports()[k]
				key := simEpoch{r.GetLimit(), sent.lease.subject, r.GetEpoch()}
				if c.flaw == flawDeltaReports {
					r.Spent -= min(r.Spent, c.told[key])
				}
				c.told[key] = c.spent[key]
				if r.GetSpent() != c.spent[key] {
					c.fail("client %d reports %d spent of limit %d in epoch %d, %d were", c.holder, r.GetSpent(), r.GetLimit(), r.GetEpoch(), c.spent[key])
				}
			}
		}
		c.transmit(m, out)
	}
	c.wake()
}

// transmit carries a message to a node and its answer back, unless the connection breaks meanwhile.
func (c *simClient) transmit(m *sentMessage, out *limiterv1.LeaseRequest) {
	fly := func() time.Duration {
		if c.chance(c.plan.slow) {
			return c.between(0, 900*time.Millisecond)
		}
		return c.between(300*time.Microsecond, 2*time.Millisecond)
	}
	session := c.session
	if c.chance(c.plan.breaks) {
		c.after(c.between(0, 100*time.Millisecond), func() {
			if session == c.session {
				c.hang()
			}
		})
		if c.chance(50) {
			return // it never arrives
		}
	}
	c.after(fly(), func() { // at a node, whatever became of the connection
		answers := c.lend(out)
		c.after(fly(), func() {
			if late := c.session != session; !c.dead && (!late || c.flaw == flawOldEpoch) {
				c.answer(m, answers)
				c.pump()
			}
		})
	})
}

// lend is what a node answers.
func (c *simClient) lend(out *limiterv1.LeaseRequest) (answers []*limiterv1.LeaseAnswer) {
	var asks []limiter.Ask
	for _, a := range out.GetAsks() {
		ask := limiter.Ask{Token: a.GetToken(), Key: a.GetKey()}
		for _, r := range a.GetReports() {
			ask.Reports = append(ask.Reports, limiter.Renewal{
				Limit: r.GetLimit(), Epoch: r.GetEpoch(), Seq: r.GetSeq(), Spent: r.GetSpent(), Returned: r.GetReturned(), Want: uint64(r.GetWant()),
			})
		}
		asks = append(asks, ask)
	}
	routes, err := c.node.Lend(context.Background(), limiter.OutsideHolder(simTenant, c.holder), out.GetTenant(), asks)
	if err != nil {
		c.fail("lend: %v", err)
	}
	for _, r := range routes {
		a := &limiterv1.LeaseAnswer{LimitsVersion: r.Version, Lent: r.Lent}
		for _, l := range r.Levels {
			a.Levels = append(a.Levels, &limiterv1.LeaseLevel{Limit: l.Limit, Subject: l.Subject, SpanUs: uint64(l.Span.Microseconds()), Most: l.Most, Chunk: l.Chunk})
		}
		for _, g := range r.Grants {
			a.Grants = append(a.Grants, &limiterv1.LeaseGrant{Refused: g.Refused, Granted: g.Granted, TtlUs: uint64(g.TTL.Microseconds()), Remaining: g.Remaining})
		}
		answers = append(answers, a)
	}
	return answers
}

// answer takes an answer, nil for one that is lost.
func (c *simClient) answer(m *sentMessage, answers []*limiterv1.LeaseAnswer) {
	for i, sent := range c.sent {
		if sent == m {
			c.sent = append(c.sent[:i], c.sent[i+1:]...)
			break
		}
	}
	c.tamper(m, answers)
	c.table.answer(m, answers)
}
