package limiter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// lender is the side of a group in the tests of leases: the real one, or a mutant.
type lender interface {
	renew(now int64, h Holder, r Renewal) Grant
	check(now int64, r Request) (bool, uint32)
}

// leased drives a machine by group time.
type leased struct {
	*driven
	uid uint64
}

func leasedMachine(t testing.TB, l Limit) *leased {
	d := drive(t, 8)
	d.set(l)
	return &leased{d, d.Machine().(*Machine).published.Load().byID[l.ID].uid}
}

func (d *leased) renew(now int64, h Holder, r Renewal) Grant {
	d.t.Helper()
	d.Time = time.Duration(now) * time.Microsecond
	r.Limit, r.Tenant = d.uid, "acme"
	res, err := decodeResult(d.Apply(appendLease(nil, leaseCommand{holder: h, renewals: []Renewal{r}}))[0])
	if err != nil || res.outcome != outcomeLent || len(res.grants) != 1 {
		d.t.Fatalf("renew %+v: outcome %d %s, %v", r, res.outcome, res.message, err)
	}
	return res.grants[0]
}

func (d *leased) check(now int64, r Request) (bool, uint32) {
	d.t.Helper()
	got := d.driven.check(time.Duration(now)*time.Microsecond, r)
	return got.Allow, got.RetryAfterMs
}

// simLease is a holder's side of one epoch, as the rules say.
type simLease struct {
	holder                           Holder
	epoch, seq                       uint64
	granted, spent, returned, report uint64
	deadline                         int64
	flying                           *simMessage
}

// simMessage is a renewal on its way; it may be delivered late, twice or never.
type simMessage struct {
	from   *simLease
	holder Holder
	sent   int64
	r      Renewal
}

// simulate runs holders that spend what they have at random moments beside checks that the group
// decides, over a network that loses, repeats and delays. It returns what passed, by when it did.
func simulate(random *rand.Rand, l Limit, group lender) []passed {
	var (
		all      []passed
		now      int64 = 1
		holders        = make([]*simLease, 1+random.IntN(3))
		air      []*simMessage
		settings = struct{ loss, repeat, crash int }{random.IntN(30), random.IntN(30), random.IntN(4)}
	)
	if random.IntN(2) == 0 { // calm, so that nothing of the limit is lost
		settings.loss, settings.crash = 0, 0
	}
	for i := range holders {
		holders[i] = &simLease{holder: Holder(i + 1), epoch: 1}
	}
	drop := func(h *simLease) { *h = simLease{holder: h.holder, epoch: h.epoch + 1} }
	deliver := func(m *simMessage) {
		g := group.renew(now, m.holder, m.r)
		h := m.from
		if random.IntN(100) < settings.loss || h.holder != m.holder || h.epoch != m.r.Epoch || h.seq != m.r.Seq {
			return
		}
		h.flying = nil
		if g.Refused {
			drop(h)
			return
		}
		h.granted = max(h.granted, g.Granted)
		h.deadline = m.sent + g.TTL.Microseconds()
	}
	for range 600 {
		now += random.Int64N(1 + int64(random.IntN(30_000)))
		if h := holders[random.IntN(len(holders))]; random.IntN(100) < settings.crash {
			*h = simLease{holder: h.holder + 100, epoch: 1}
		}
		h := holders[random.IntN(len(holders))]
		if h.granted > 0 && now >= h.deadline {
			drop(h)
		}
		switch random.IntN(8) {
		case 0: // spend
			if left := h.granted - h.spent - h.returned; left > 0 {
				n := left - random.Uint64N(left)/2
				h.spent += n
				all = append(all, passed{now, int64(n)})
			}
		case 1, 2: // renew, or return
			if h.flying == nil {
				h.seq++
				h.report = h.spent
				want := random.Uint64N(60)
				if random.IntN(3) == 0 && h.seq > 1 {
					h.returned, want = h.granted-h.spent, 0
				}
				if h.seq == 1 {
					want++
				}
				h.flying = &simMessage{h, h.holder, now, Renewal{Epoch: h.epoch, Seq: h.seq, Spent: h.report, Returned: h.returned, Want: want}}
			}
			air = append(air, h.flying) // or the same once more
		case 3, 4: // the network
			if len(air) > 0 {
				i := random.IntN(len(air))
				m := air[i]
				if random.IntN(100) >= settings.repeat {
					air = append(air[:i], air[i+1:]...)
				}
				if random.IntN(100) >= settings.loss {
					deliver(m)
				}
			}
		default: // the group itself
			cost := uint32(random.IntN(12))
			if ok, _ := group.check(now, Request{Tenant: "acme", Cost: cost}); ok && cost > 0 {
				all = append(all, passed{now, int64(cost)})
			}
		}
	}
	return all
}

// lateSpender is lent all of a window, spends it just before the deadline, and asks for more as early
// as it may get it.
func lateSpender(group lender) (Limit, []passed) {
	l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Window: Window{Limit: 100, Length: "1600ms"}}
	g := group.renew(0, 1, Renewal{Epoch: 1, Seq: 1, Want: 100})
	at := g.TTL.Microseconds() - 1
	all := []passed{{at, 100}}
	group.renew(at, 1, Renewal{Epoch: 1, Seq: 2, Spent: 100})
	for now := at; now < 3_200_000; now += 1000 {
		if ok, _ := group.check(now, Request{Tenant: "acme", Cost: 1}); ok {
			all = append(all, passed{now, 1})
		}
	}
	return l, all
}

func simLimit(random *rand.Rand) Limit {
	l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme"}
	kind := random.IntN(3)
	if kind != 0 {
		l.TokenBucket = TokenBucket{Rate: fmt.Sprintf("%d/s", 50+random.IntN(300)), Burst: uint32(leaseTokensMin + random.IntN(60))}
	}
	if kind != 1 {
		l.Window = Window{Limit: uint32(logMax + 1 + random.IntN(100)), Length: fmt.Sprintf("%dms", 1500+random.IntN(500))}
	}
	return l
}

// Whatever holders, crashes and the network do, no interval exceeds the limit.
func TestLeasesAreNeverOver(t *testing.T) {
	lent := 0
	for seed := range uint64(120) {
		random := rand.New(rand.NewPCG(seed, 1))
		l := simLimit(random)
		m := leasedMachine(t, l)
		if m.Machine().(*Machine).published.Load().byID["a"].leaseSpan() == 0 {
			continue
		}
		all := simulate(random, l, m)
		if v := violation(l, all); v != "" {
			t.Fatalf("seed %d, %+v: %s", seed, l, v)
		}
		lent += len(all)
	}
	if lent < 4_000 {
		t.Errorf("only %d times something passed", lent)
	}
}

// nowhere lends nothing.
type nowhere struct{}

func (nowhere) renew(int64, Holder, Renewal) Grant  { return Grant{} }
func (nowhere) check(int64, Request) (bool, uint32) { return false, 0 }

// mutant is a group with one rule left out.
type mutant struct {
	*leased
	change func(m *mutant, c *counter, h Holder, r *Renewal)
}

// renew implements lender on the counter itself, around the change.
func (m *mutant) renew(now int64, h Holder, r Renewal) Grant {
	limit := m.Machine().(*Machine).set.byUID[m.uid]
	c := m.counter(now)
	m.change(m, &c, h, &r)
	g, _ := c.renew(limit, true, h, r)
	m.store(c)
	return g
}

func (m *mutant) counter(now int64) counter {
	machine := m.Machine().(*Machine)
	limit := machine.set.byUID[m.uid]
	if c, ok := machine.cache.get(m.rowKey()); ok {
		return limit.settle(c, now)
	}
	return limit.fresh(now, 0)
}

func (m *mutant) rowKey() []byte { return appendCounterKey(nil, m.uid, "acme", "") }

func (m *mutant) store(c counter) { m.Machine().(*Machine).cache.put(m.rowKey(), c) }

func (m *mutant) check(now int64, r Request) (bool, uint32) {
	c := m.counter(now)
	limit := m.Machine().(*Machine).set.byUID[m.uid]
	ok := c.room(limit) >= uint64(r.Cost)
	if ok {
		c.debit(limit, r.Cost)
	}
	m.store(c)
	return ok, 0
}

// Each rule of leases is needed: without it the checker finds a limit exceeded.
func TestCheckerCatchesLeaseMutants(t *testing.T) {
	find := func(c *counter, h Holder, epoch uint64) *account {
		for i := range c.accounts {
			if a := &c.accounts[i]; a.holder == h && a.epoch == epoch {
				return a
			}
		}
		return nil
	}
	for _, tc := range []struct {
		name   string
		change func(m *mutant, c *counter, h Holder, r *Renewal)
	}{
		{"none", func(*mutant, *counter, Holder, *Renewal) {}},
		{"refill up to the burst, not to the burst less what is lent", func(_ *mutant, c *counter, _ Holder, _ *Renewal) {
			c.used = c.used.sub(mul64(c.out(), c.unit))
		}},
		{"a window counts what is spent when it was lent", func(m *mutant, c *counter, h Holder, r *Renewal) {
			a := find(c, h, r.Epoch)
			if a == nil || a.ended || c.tick == 0 || r.Spent <= a.spent || r.Spent > a.granted {
				return
			}
			ttl := m.Machine().(*Machine).set.byUID[m.uid].leaseTTL().Microseconds()
			c.slots = insertSlot(c.slots, uint64(max(0, a.deadline-ttl))/c.tick, r.Spent-a.spent)
			a.spent = r.Spent
		}},
		{"a return after the end is credited", func(_ *mutant, c *counter, h Holder, r *Renewal) {
			if a := find(c, h, r.Epoch); a != nil && a.ended && a.granted > a.spent {
				back := a.granted - a.spent
				c.used = c.used.sub(mul64(back, c.unit))
				c.slots = nil
				a.spent = a.granted
			}
		}},
		{"what is returned is a difference", func(_ *mutant, c *counter, h Holder, r *Renewal) {
			if a := find(c, h, r.Epoch); a != nil && !a.ended && r.Returned > 0 {
				c.used = c.used.sub(mul64(r.Returned, c.unit))
			}
		}},
		{"the same number is granted again", func(_ *mutant, c *counter, h Holder, r *Renewal) {
			if a := find(c, h, r.Epoch); a != nil && !a.ended && a.seq == r.Seq && r.Want > 0 {
				a.granted += r.Want
			}
		}},
		{"what ended with its holder is forgotten", func(_ *mutant, c *counter, _ Holder, _ *Renewal) {
			for i := range c.accounts {
				if a := &c.accounts[i]; a.ended {
					c.slots = nil
					c.used = c.used.sub(mul64(a.granted-a.spent-a.returned, c.unit))
					a.granted = a.spent + a.returned
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, _ := lateSpender(nowhere{})
			if l, all := lateSpender(&mutant{leasedMachine(t, l), tc.change}); violation(l, all) != "" {
				if tc.name == "none" {
					t.Fatal("a late spender exceeds the limit")
				}
				return
			}
			for seed := range uint64(120) {
				random := rand.New(rand.NewPCG(seed, 1))
				l := simLimit(random)
				m := &mutant{leasedMachine(t, l), tc.change}
				if m.Machine().(*Machine).published.Load().byID["a"].leaseSpan() == 0 {
					continue
				}
				if violation(l, simulate(random, l, m)) != "" {
					if tc.name == "none" {
						t.Fatalf("seed %d: the harness itself exceeds the limit", seed)
					}
					return
				}
			}
			if tc.name != "none" {
				t.Error("not caught")
			}
		})
	}
}

// A check that is denied while holders are silent passes exactly when it was told.
func TestRetryAdviceBesideLeases(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		l := simLimit(random)
		m := leasedMachine(t, l)
		now := int64(1)
		for i := range 6 {
			m.renew(now, Holder(i), Renewal{Epoch: 1, Seq: 1, Want: random.Uint64N(100)})
			now += random.Int64N(30_000)
		}
		cost := uint32(1 + random.IntN(60))
		for range 50 {
			ok, wait := m.check(now, Request{Tenant: "acme", Cost: cost})
			if !ok {
				if wait == 0 {
					break // more than the limit
				}
				// Group time passes at 999 microseconds a millisecond at least.
				if ok, _ := m.check(now+int64(wait-1)*groupMicrosPerMs, Request{Tenant: "acme", Cost: cost}); ok {
					t.Fatalf("seed %d, %+v: passed a millisecond before the advice %d", seed, l, wait)
				}
				now += int64(wait) * groupMicrosPerMs
				if ok, again := m.check(now, Request{Tenant: "acme", Cost: cost}); !ok {
					t.Fatalf("seed %d, %+v: denied after the advised %d ms, and told %d", seed, l, wait, again)
				}
			}
		}
	}
}

// A denial names the holders of what makes it longer, and advises the time that it takes without.
func TestAdviceOnceLeasesAreReturned(t *testing.T) {
	scarce, exact := 0, 0
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 3))
		l := simLimit(random)
		m := leasedMachine(t, l)
		now := int64(1)
		lent := map[Holder]uint64{}
		for i := range 5 {
			if g := m.renew(now, Holder(i), Renewal{Epoch: 1, Seq: 1, Want: random.Uint64N(60)}); !g.Refused {
				lent[Holder(i)] = g.Granted
			}
			m.check(now, Request{Tenant: "acme", Cost: uint32(random.IntN(30))})
			now += random.Int64N(30_000)
		}
		q := Request{Tenant: "acme", Cost: uint32(1 + random.IntN(90))}
		m.Time = time.Duration(now) * time.Microsecond
		res, err := decodeResult(m.Apply(appendRecallingCheck(nil, q, holdID{}))[0])
		if err != nil {
			t.Fatal(err)
		}
		if res.decision.Allow || res.decision.RetryAfterMs == 0 {
			continue
		}
		for h, n := range lent { // any order
			m.renew(now, h, Renewal{Epoch: 1, Seq: 2, Returned: n})
		}
		advice := int64(res.decision.RetryAfterMs)
		least := scarceMin.Milliseconds()
		if res.outcome == outcomeDecided {
			least = 0
		} else if scarce++; len(res.recalls) != 1 || len(res.recalls[0].Holders) == 0 {
			t.Fatalf("seed %d, %+v: nobody is named: %+v", seed, l, res)
		}
		if advice > least {
			exact++
			if ok, _ := m.check(now+(advice-1)*groupMicrosPerMs, q); ok {
				t.Fatalf("seed %d, %+v, outcome %d: passed a millisecond before the advice %d", seed, l, res.outcome, advice)
			}
		}
		if ok, again := m.check(now+advice*groupMicrosPerMs, q); !ok {
			t.Fatalf("seed %d, %+v, outcome %d: denied after the advised %d ms, and told %d", seed, l, res.outcome, advice, again)
		}
	}
	if scarce < 50 || exact < 50 {
		t.Errorf("%d denials that leases made longer, %d with an exact advice", scarce, exact)
	}
}

func TestRenewals(t *testing.T) {
	m := leasedMachine(t, limit("a", ScopeTenant, "acme", "100/s", 100))
	expect := func(now int64, h Holder, r Renewal, refused bool, granted uint64) Grant {
		t.Helper()
		g := m.renew(now, h, r)
		if g.Refused != refused || g.Granted != granted {
			t.Fatalf("renewal %+v at %d: %+v, want refused %v, granted %d", r, now, g, refused, granted)
		}
		return g
	}
	ttl := (leaseSpans * 500 * time.Millisecond).Microseconds()
	if g := expect(1, 1, Renewal{Epoch: 5, Seq: 1, Want: 30}, false, 30); g.TTL.Microseconds() != ttl || g.Remaining != 70 {
		t.Errorf("first grant %+v", g)
	}
	expect(2, 1, Renewal{Epoch: 5, Seq: 1, Want: 30}, false, 30)                            // the same again
	expect(2, 1, Renewal{Epoch: 4, Seq: 1, Want: 30}, true, 0)                              // an older epoch
	expect(2, 1, Renewal{Epoch: 6, Seq: 2, Want: 30}, true, 0)                              // not the first of its epoch
	expect(2, 2, Renewal{Epoch: 1, Seq: 1, Want: 1000}, false, 70)                          // as much as there is
	expect(2, 3, Renewal{Epoch: 1, Seq: 1, Want: 1}, true, 0)                               // nothing is left
	expect(3, 1, Renewal{Epoch: 5, Seq: 2, Spent: 31}, true, 0)                             // more than was lent
	expect(3, 1, Renewal{Epoch: 5, Seq: 2, Spent: 20, Returned: 11}, true, 0)               // together too
	expect(3, 1, Renewal{Epoch: 5, Seq: 2, Spent: 10, Returned: 20}, false, 30)             // all of it
	expect(3, 1, Renewal{Epoch: 5, Seq: 1, Spent: 5, Want: 9}, false, 30)                   // an older report says less
	expect(4, 3, Renewal{Epoch: 1, Seq: 1, Want: 25}, false, 20)                            // what came back
	expect(ttl+2, 2, Renewal{Epoch: 1, Seq: 2, Spent: 1, Want: 1}, true, 0)                 // too late
	expect(ttl+2, 2, Renewal{Epoch: 1, Seq: 1, Want: 1}, true, 0)                           // never opened again
	expect(ttl+4+fenceTime.Microseconds(), 9, Renewal{Epoch: 1, Seq: 1, Want: 5}, false, 5) // the old ones are forgotten
	if n := len(m.Machine().(*Machine).cache.slots[0].counter.accounts); n != 1 {
		t.Errorf("%d accounts are remembered", n)
	}
	if g := m.renew(1, 1, Renewal{Epoch: math.MaxUint64, Seq: 1, Want: 1}); g.Refused {
		t.Errorf("largest epoch: %+v", g)
	}
}

// A check that only leases are in the way of names who holds them.
func TestScarceChecksNameHolders(t *testing.T) {
	m := leasedMachine(t, limit("a", ScopeTenant, "acme", "100/s", 100))
	m.renew(1, 7, Renewal{Epoch: 1, Seq: 1, Want: 60})
	m.renew(1, 8, Renewal{Epoch: 1, Seq: 1, Want: 30})
	ask := func(data []byte) result {
		t.Helper()
		res, err := decodeResult(m.Apply(data)[0])
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	r := Request{Tenant: "acme", Cost: 50}
	if res := ask(appendCheck(nil, r)); res.outcome != outcomeDecided || res.decision.Allow {
		t.Errorf("a check that does not ask: %+v", res)
	}
	want := []Recall{{Limit: m.uid, Holders: []Holder{7, 8}}}
	res := ask(appendRecallingCheck(nil, r, holdID{}))
	if res.outcome != outcomeScarce || res.decision.Allow || res.decision.RetryAfterMs == 0 || fmt.Sprint(res.recalls) != fmt.Sprint(want) {
		t.Errorf("scarce check: %+v", res)
	}
	res = ask(appendRecallingBatch(nil, []Request{{Tenant: "acme", Cost: 5}, r}))
	if len(res.batch) != 2 || !res.batch[0].decision.Allow || fmt.Sprint(res.batch[1].recalls) != fmt.Sprint(want) {
		t.Errorf("scarce batch: %+v", res)
	}
	m.renew(2, 7, Renewal{Epoch: 1, Seq: 2, Spent: 60})
	if res := ask(appendRecallingCheck(nil, r, holdID{})); fmt.Sprint(res.recalls) != fmt.Sprint([]Recall{{Limit: m.uid, Holders: []Holder{8}}}) || res.decision.RetryAfterMs != 151 {
		t.Errorf("what is spent cannot come back, and 15 tokens flow back beside what is lent: %+v", res)
	}
	m.renew(3, 8, Renewal{Epoch: 1, Seq: 2, Spent: 30})
	if res := ask(appendRecallingCheck(nil, r, holdID{})); res.outcome != outcomeDecided {
		t.Errorf("what is spent cannot come back: %+v", res)
	}
}
