package limiter

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// leaseFlaw leaves out or changes one rule of the group. Each function may be nil.
type leaseFlaw struct {
	// settle replaces how a counter is brought to the present.
	settle func(l *limitState, c counter, now int64) counter
	// before changes a settled counter ahead of a renewal, and after, which is told what the counter
	// was then, behind it.
	before func(l *limitState, c *counter, h Holder, r Renewal)
	after  func(l *limitState, was, c *counter, h Holder, r Renewal, g *Grant)
	// room replaces what a check of the group itself may take.
	room func(l *limitState, c *counter) uint64
}

// mutant is a group with a flaw. Its counter is in the cache of the real machine, which changes limits.
type mutant struct {
	*leased
	flaw leaseFlaw
}

func (m *mutant) counter(now int64) (*limitState, counter) {
	machine := m.Machine().(*Machine)
	l := machine.set.byUID[m.uid]
	c, ok := machine.cached(m.rowKey())
	switch {
	case !ok:
		return l, l.fresh(now, 0)
	case m.flaw.settle != nil:
		return l, m.flaw.settle(l, c, now)
	}
	return l, l.settle(c, now)
}

func (m *mutant) store(c counter) {
	machine := m.Machine().(*Machine)
	machine.cache.put(machine.hash(m.rowKey()), m.rowKey(), appendCounter(nil, c))
}

func (m *mutant) renew(now int64, h Holder, r Renewal) Grant {
	l, c := m.counter(now)
	c.accounts = slices.Clone(c.accounts) // flaws change them in place
	if m.flaw.before != nil {
		m.flaw.before(l, &c, h, r)
	}
	was := c
	was.accounts = slices.Clone(c.accounts)
	g, _ := c.renew(l, l.leaseSpan() > 0, false, h, r)
	if m.flaw.after != nil {
		m.flaw.after(l, &was, &c, h, r, &g)
	}
	m.store(c)
	return g
}

func (m *mutant) check(now int64, r Request) (bool, uint32) {
	l, c := m.counter(now)
	room := (*counter).room
	have := room(&c, l)
	if m.flaw.room != nil {
		have = m.flaw.room(l, &c)
	}
	ok := have >= uint64(r.Cost)
	if ok {
		c.debit(l, r.Cost)
	}
	m.store(c)
	return ok, 0
}

func (m *mutant) sweep(int64) {} // it has no rows

func accountOf(c *counter, h Holder, epoch uint64) *account {
	for i := range c.accounts {
		if a := &c.accounts[i]; a.holder == h && a.epoch == epoch {
			return a
		}
	}
	return &account{}
}

// burnedSince are the accounts that have ended between two states of a counter, as they were before.
func burnedSince(was, c counter) []account {
	var out []account
	for _, a := range was.accounts {
		if now := accountOf(&c, a.holder, a.epoch); !a.ended && (now.ended || now.holder == 0) {
			out = append(out, a)
		}
	}
	return out
}

// lateSpender is lent all 100 tokens of a limit, spends them just before the deadline, and asks for more as
// early as it may get it; it reports what it spent, or falls silent.
func lateSpender(l Limit, reports bool) func(group lender) *leaseHistory {
	return func(group lender) *leaseHistory {
		h := historyOf(l, group)
		at := group.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 100}).TTL.Microseconds()
		h.passed = append(h.passed, passed{at, 100})
		if reports {
			group.renew(at, 1, Renewal{Epoch: 1, Seq: 2, Spent: 100})
		}
		for now := at + 2; now < at+1_700_000; now += 1000 {
			if ok, _ := group.check(now, Request{Tenant: "acme", Cost: 1}); ok {
				h.passed = append(h.passed, passed{now, 1})
			}
		}
		return h
	}
}

// lateReturn arrives when what it gives back has flowed back already, and was taken.
func lateReturn(group lender) *leaseHistory {
	h := historyOf(limit("a", ScopeTenant, "acme", "100/s", 100), group)
	at := group.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60}).TTL.Microseconds() + 700_000
	for i := range int64(2) {
		if ok, _ := group.check(at+2*i, Request{Tenant: "acme", Cost: uint32(100 - 40*i)}); ok {
			h.passed = append(h.passed, passed{at + 2*i, 100 - 40*i})
		}
		group.renew(at+2*i+1, 1, Renewal{Epoch: 1, Seq: 2, Returned: 60})
	}
	return h
}

func historyOf(l Limit, group lender) *leaseHistory {
	group.change(1, l)
	group.roll(1)
	return &leaseHistory{granted: map[leaseLife]*answered{}, settings: []setting{{0, l}}, rolls: []int64{1}}
}

// Each rule of leases is needed: without it the checker finds a limit exceeded, or an answer that
// contradicts another one. It finds nothing in ours.
func TestCheckerCatchesLeaseMutants(t *testing.T) {
	window := windowed("a", "acme", 100, "1600ms")
	period := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: 100, Period: PeriodDay}}
	directed := []func(lender) *leaseHistory{lateSpender(window, true), lateSpender(window, false), lateSpender(period, false), lateReturn}
	for _, c := range []struct {
		name string
		flaw leaseFlaw
	}{
		{"ours", leaseFlaw{}},
		{"a bucket fills up to the burst, not to the burst less what is lent", leaseFlaw{settle: func(l *limitState, c counter, now int64) counter {
			bare := c
			bare.accounts = nil
			c = l.settle(c, now)
			c.used = l.settle(bare, now).used
			return c
		}}},
		{"a window counts what is spent from when it was lent", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			a := accountOf(c, h, r.Epoch)
			if c.tick != 0 && !a.ended && r.Spent > a.spent && r.Spent+a.returned <= a.granted {
				c.slots = insertSlot(c.slots, uint64(max(0, a.deadline-l.leaseTTL().Microseconds()))/c.tick, r.Spent-a.spent)
				a.spent = r.Spent
			}
		}}},
		{"a window does not count what is lent", leaseFlaw{room: func(l *limitState, c *counter) uint64 {
			bare := *c
			bare.accounts = nil
			return bare.room(l)
		}}},
		{"what is returned after the end is credited", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			if a := accountOf(c, h, r.Epoch); a.ended && r.Returned > a.returned {
				back := min(r.Returned, a.granted-a.spent) - a.returned
				c.used = c.used.sub(mul64(back, c.unit))
				a.returned += back
			}
		}}},
		{"what is spent is a difference", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			if a := accountOf(c, h, r.Epoch); !a.ended && r.Spent > 0 {
				a.spent = min(a.spent+r.Spent, a.granted-a.returned)
			}
		}}},
		{"what is returned is a difference", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			if a := accountOf(c, h, r.Epoch); !a.ended && a.holder != 0 && a.returned > 0 {
				c.used = c.used.sub(mul64(r.Returned, c.unit))
			}
		}}},
		{"the same number is granted again", leaseFlaw{after: func(l *limitState, was, c *counter, h Holder, r Renewal, g *Grant) {
			if a := accountOf(c, h, r.Epoch); !g.Refused && r.Seq == accountOf(was, h, r.Epoch).seq && r.Want > 0 {
				c.lend(l, a, r.Want, false)
				*g = c.grant(l, a)
			}
		}}},
		{"an epoch that is over is opened again", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			if a := accountOf(c, h, r.Epoch); a.ended {
				a.ended, a.deadline = false, c.t+l.leaseTTL().Microseconds()
			}
		}}},
		{"an epoch that is over is forgotten at once", leaseFlaw{before: func(l *limitState, c *counter, h Holder, r Renewal) {
			c.accounts = slices.DeleteFunc(c.accounts, func(a account) bool { return a.ended })
		}}},
		{"a window forgets what died with its holder", leaseFlaw{settle: func(l *limitState, c counter, now int64) counter {
			after := l.settle(c, now)
			for _, a := range burnedSince(c, after) {
				if after.tick != 0 {
					after.slots = takeFromSlot(after.slots, uint64(a.deadline)/after.tick, a.left())
				}
			}
			return after
		}}},
		{"a bucket forgets what died with its holder", leaseFlaw{settle: func(l *limitState, c counter, now int64) counter {
			after := l.settle(c, now)
			for _, a := range burnedSince(c, after) {
				after.used = after.used.sub(mul64(a.left(), after.unit))
			}
			return after
		}}},
		{"a calendar forgets what died with its holder", leaseFlaw{settle: func(l *limitState, c counter, now int64) counter {
			after := l.settle(c, now)
			for _, a := range burnedSince(c, after) {
				after.spent -= min(after.spent, a.left())
			}
			return after
		}}},
		{"a calendar does not count what is reported", leaseFlaw{after: func(l *limitState, was, c *counter, h Holder, r Renewal, g *Grant) {
			c.spent = was.spent
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			find := func() string {
				for _, play := range directed {
					if v := play(&mutant{leasedMachine(t, limit("a", ScopeTenant, "acme", "1/s", 1)), c.flaw}).violation(); v != "" {
						return v
					}
				}
				for seed := range uint64(250) {
					random := rand.New(rand.NewPCG(seed, 1))
					p := planOf(random)
					if v := play(random, p, &mutant{leasedMachine(t, p.limits[0]), c.flaw}).violation(); v != "" {
						return v
					}
				}
				return ""
			}
			v := find()
			t.Log(v)
			if (v != "") != (c.name != "ours") {
				t.Errorf("found %q", v)
			}
		})
	}
}
