package limiter

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A row stays readable however many slots reports and ends of leases fill: a replica that cannot read it
// stops.
func TestManyReportsFitIntoARow(t *testing.T) {
	m := leasedMachine(t, windowed("w", "acme", 10_000, "24h"))
	const holders = accountsMax
	for h := range int64(holders) {
		m.renew(1+h*1_000_000, Holder(h+1), Renewal{Epoch: 1, Seq: 1, Want: 100})
	}
	m.set(windowed("w", "acme", logMax, "24h")) // from now on each microsecond has a slot
	now := int64(holders * 1_000_000)
	for i := range uint64(5) {
		for h := range int64(holders) {
			now += 3
			m.renew(now, Holder(h+1), Renewal{Epoch: 1, Seq: 2 + i, Spent: 1 + i})
		}
	}
	// Most of them end, each at a moment of its own, before the last one reports again.
	m.renew((holders-2)*1_000_000+(leaseSpans*leaseSpanMax).Microseconds(), holders, Renewal{Epoch: 1, Seq: 7, Spent: 6})
	m.Restart()
	c := m.row()
	if len(c.slots) > slotsMax || sumOf(c.slots)+c.out() != holders*100 {
		t.Errorf("%d tokens in %d slots and %d lent, want %d in at most %d slots", sumOf(c.slots), len(c.slots), c.out(), holders*100, slotsMax)
	}
	for i := range c.slots[1:] {
		if c.slots[i].at >= c.slots[i+1].at {
			t.Fatalf("slots out of order: %v", c.slots)
		}
	}
}

// So it does whatever was overdrawn beside leases.
func TestLargestCountsFitIntoARow(t *testing.T) {
	l := windowed("w", "acme", 1<<32-1, "24h")
	l.Calendar = Calendar{Limit: 1<<32 - 1, Period: PeriodMonth}
	s := newLimitState(l, 1, 0, []generation{{ring: ring{1000, 64}}})
	lent := func(spent uint64) counter {
		return counter{
			tick: 1000, slots: []slot{{at: 5, n: slotTokensMax - 1}}, spent: slotTokensMax - 1,
			accounts: []account{{holder: 1, epoch: 1, seq: 1, granted: 1 << 31, spent: spent, deadline: 5500}},
		}
	}
	burned := s.settle(lent(0), 6000)
	reported := s.settle(lent(0), 5100)
	if g, _ := reported.renew(s, true, false, 1, Renewal{Epoch: 1, Seq: 2, Spent: 1 << 30}); g.Refused {
		t.Fatal("refused")
	}
	for name, c := range map[string]counter{"burned": burned, "reported": reported} {
		if got, err := decodeCounter(appendCounter(nil, c)); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c)
		}
	}
}

// After a limit was made smaller, renewals do not keep alive what exceeds it: the new limit is in force
// when the leases from before are over.
func TestSmallerLimitEndsWhatExceedsIt(t *testing.T) {
	m := leasedMachine(t, limit("a", ScopeTenant, "acme", "100/s", 1000))
	g := m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 1000})
	m.set(limit("a", ScopeTenant, "acme", "100/s", 40))
	end, now := 1+g.TTL.Microseconds(), int64(1)
	for seq := uint64(2); now < end-100_000; seq++ {
		now += 100_000
		if g := m.renew(now, 1, Renewal{Epoch: 1, Seq: seq, Want: 10}); g.Refused || g.Granted != 1000 || now+g.TTL.Microseconds() != end {
			t.Fatalf("at %d: %+v, want 1000 until %d", now, g, end)
		}
	}
	if g := m.renew(end, 1, Renewal{Epoch: 1, Seq: 1000, Want: 10}); !g.Refused {
		t.Errorf("at the end: %+v", g)
	}
}

// What exceeds a limit that may be owed passes when nothing is used, so leases can be in its way too.
func TestDebtRecallsLeases(t *testing.T) {
	for _, l := range []Limit{
		{ID: "a", Scope: ScopeTenant, Selector: "acme", Oversize: OversizeDebt, TokenBucket: TokenBucket{"100/s", 100}},
		{ID: "a", Scope: ScopeTenant, Selector: "acme", Oversize: OversizeDebt, Window: Window{100, "10s"}},
		{ID: "a", Scope: ScopeTenant, Selector: "acme", Oversize: OversizeDebt, Calendar: Calendar{Limit: 100, Period: PeriodDay}},
	} {
		m := leasedMachine(t, l)
		m.renew(1, 7, Renewal{Epoch: 1, Seq: 1, Want: 10})
		if res := m.ask(appendRecallingCheck(nil, Request{Tenant: "acme", Cost: 150}, holdID{})); res.outcome != outcomeScarce {
			t.Errorf("%+v: outcome %d, want to have 10 tokens returned", l, res.outcome)
		}
		m.renew(1, 7, Renewal{Epoch: 1, Seq: 2, Spent: 1})
		// A token is spent for good; those that are lent make it last longer, but for the calendar.
		if res := m.ask(appendRecallingCheck(nil, Request{Tenant: "acme", Cost: 150}, holdID{})); (res.outcome == outcomeScarce) == l.hasCalendar() {
			t.Errorf("%+v: outcome %d after a token was spent", l, res.outcome)
		}
	}
}

// A member of an older level must be able to execute a roll, and to read what it writes.
func TestRollsOfOldMembers(t *testing.T) {
	m := leasedMachine(t, Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: 100, Period: PeriodDay}})
	m.Time = time.Second
	s := NewService(membersOfLimits{m.driven}, []raftfsm.GroupID{testGroup})
	for days, want := range []byte{rowVersion2, rowVersion2, rowVersion4, rowVersion2} {
		if want == rowVersion4 {
			m.days = days - 1
			m.roll(time.Hour.Microseconds())
		} else if err := s.Roll(t.Context(), testGroup, someDay.AddDate(0, 0, days)); err != nil {
			t.Fatal(err)
		}
		v, err := m.Machine().(*Machine).store.Get(limitKey("a"))
		if err != nil || v[0] != want {
			t.Errorf("after day %d the row is of version %d, %v; want %d", days, v[0], err, want)
		}
		m.Restart()
	}
}

type membersOfLimits struct{ *driven }

func (membersOfLimits) Level() int { return raftfsm.LevelLimits }

// What died with its holder counts in the period of its deadline, also when nobody looks until the next.
func TestBurnedInTheirPeriod(t *testing.T) {
	for _, looks := range []bool{false, true} {
		t.Run(fmt.Sprint(looks), func(t *testing.T) {
			m := leasedMachine(t, Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: 100, Period: PeriodDay}})
			m.roll(1)
			g := m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60})
			if looks {
				m.check(1+g.TTL.Microseconds(), Request{Tenant: "acme", Cost: 1})
			}
			later := time.Hour.Microseconds()
			m.roll(later)
			if ok, _ := m.check(later, Request{Tenant: "acme", Cost: 100}); !ok {
				t.Error("the next day has less than its limit")
			}
		})
	}
}

// What ends when the next period begins was spent before, whether or not somebody looks in between.
func TestEndsWithTheirPeriod(t *testing.T) {
	for _, looks := range []bool{false, true} {
		m := leasedMachine(t, Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: 100, Period: PeriodDay}})
		m.roll(1)
		end := 1 + m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60}).TTL.Microseconds()
		if looks {
			m.renew(end, 2, Renewal{Epoch: 1, Seq: 1, Want: 1})
			m.renew(end, 2, Renewal{Epoch: 1, Seq: 2, Returned: 1})
		}
		m.roll(end)
		if ok, _ := m.check(end, Request{Tenant: "acme", Cost: 100}); !ok {
			t.Errorf("the next period has less than its limit; somebody looked: %v", looks)
		}
	}
}

// A calendar that a limit gets later counts what died before if nobody has looked since: it is on the safe side.
func TestCalendarAddedBesideLeases(t *testing.T) {
	l := limit("a", ScopeTenant, "acme", "100/s", 100)
	with := l
	with.Calendar = Calendar{Limit: 100, Period: PeriodDay}
	for looks, room := range map[bool]uint32{false: 40, true: 100} {
		m := leasedMachine(t, l)
		end := 1 + m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60}).TTL.Microseconds()
		if looks {
			m.check(end, Request{Tenant: "acme", Cost: 1})
		}
		m.change(end+2_000_000, with)
		if ok, _ := m.check(end+2_000_000, Request{Tenant: "acme", Cost: room}); !ok {
			t.Errorf("looked %v: %d do not pass", looks, room)
		}
		if ok, _ := m.check(end+4_000_000, Request{Tenant: "acme", Cost: 1}); ok {
			t.Errorf("looked %v: more than %d passed", looks, room)
		}
	}
}

// An account outlives whatever becomes of its limit, and its reports are taken; nothing more is lent.
func TestLeasesOfLimitsThatChange(t *testing.T) {
	l := limit("a", ScopeTenant, "acme", "100/s", 100)
	changed := func(change func(l *Limit)) Limit { out := l; change(&out); return out }
	for name, to := range map[string]Limit{
		"too small":  changed(func(l *Limit) { l.TokenBucket.Burst = leaseTokensMin - 1 }),
		"off":        changed(func(l *Limit) { l.Enforcement = EnforcementOff }),
		"banned":     {ID: "a", Scope: ScopeTenant, Selector: "acme", Access: AccessBanned},
		"unlimited":  {ID: "a", Scope: ScopeTenant, Selector: "acme", Access: AccessUnlimited},
		"concurrent": {ID: "a", Scope: ScopeTenant, Selector: "acme", Concurrency: Concurrency{Limit: 5, TTL: "60s"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := leasedMachine(t, l)
			g := m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60})
			m.change(2, to)
			m.Restart()
			if g := m.renew(3, 2, Renewal{Epoch: 1, Seq: 1, Want: 1}); !g.Refused {
				t.Errorf("another holder is granted %+v", g)
			}
			again := m.renew(3, 1, Renewal{Epoch: 1, Seq: 2, Spent: 10, Want: 5})
			if again.Refused || again.Granted != 60 || again.TTL != g.TTL-2*time.Microsecond {
				t.Errorf("its report is answered with %+v", again)
			}
			if a := m.row().accounts[0]; a.spent != 10 || a.left() != 50 {
				t.Errorf("account %+v", a)
			}
			// As it was: what is lent is still missing.
			m.change(4, l)
			if ok, _ := m.check(5, Request{Tenant: "acme", Cost: 51}); ok {
				t.Error("what is lent passes again")
			}
		})
	}
	t.Run("deleted", func(t *testing.T) {
		m := leasedMachine(t, l)
		m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60})
		m.set()
		if g := m.renew(2, 1, Renewal{Epoch: 1, Seq: 2, Spent: 10}); !g.Refused {
			t.Errorf("%+v", g)
		}
		m.sweep(3)
		if n := m.counters(); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		m.change(4, l) // another one, whose counters have nothing in common
		if g := m.renew(5, 1, Renewal{Epoch: 1, Seq: 2, Spent: 10}); !g.Refused {
			t.Errorf("the number of the old one: %+v", g)
		}
	})
	t.Run("expired", func(t *testing.T) {
		ends := l
		ends.Expires = someDay.Unix()
		m := leasedMachine(t, ends)
		m.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60})
		m.roll(2) // a day later
		if g := m.renew(3, 2, Renewal{Epoch: 1, Seq: 1, Want: 1}); !g.Refused {
			t.Errorf("granted %+v", g)
		}
		if g := m.renew(3, 1, Renewal{Epoch: 1, Seq: 2, Spent: 10, Want: 5}); g.Refused || g.Granted != 60 {
			t.Errorf("its report is answered with %+v", g)
		}
	})
}

// A counter has a bounded number of accounts, and gets room again when the ended are forgotten.
func TestAccountsAreBounded(t *testing.T) {
	m := leasedMachine(t, limit("a", ScopeTenant, "acme", "1000/s", 1000))
	var end int64
	for h := range accountsMax {
		end = 1 + m.renew(1, Holder(h), Renewal{Epoch: 1, Seq: 1, Want: 1}).TTL.Microseconds()
	}
	late := Renewal{Epoch: 1, Seq: 1, Want: 1}
	for _, at := range []int64{1, end, end + fenceTime.Microseconds() - 1} {
		if g := m.renew(at, accountsMax, late); !g.Refused {
			t.Errorf("at %d: %+v", at, g)
		}
	}
	// Who is known already takes no other place.
	if g := m.renew(end+1, 0, Renewal{Epoch: 2, Seq: 1, Want: 1}); g.Refused {
		t.Errorf("the next epoch of a holder: %+v", g)
	}
	if g := m.renew(end+fenceTime.Microseconds(), accountsMax, late); g.Refused {
		t.Errorf("when the others are forgotten: %+v", g)
	}
	if n := len(m.row().accounts); n != 2 {
		t.Errorf("%d accounts, want the two that have not ended", n)
	}
}

// A restored region knows nothing of what was lent before, and its counters are empty.
func TestRestoreVoidsLeases(t *testing.T) {
	from := leasedMachine(t, limit("a", ScopeTenant, "acme", "100/s", 100))
	from.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 60})
	to := &leased{driven: drive(t, 8), uid: from.uid}
	to.Time = time.Minute
	if err := to.Restore(from.Backup(2)...); err != nil {
		t.Fatal(err)
	}
	now := time.Minute.Microseconds()
	if g := to.renew(now, 1, Renewal{Epoch: 1, Seq: 2, Returned: 60}); !g.Refused {
		t.Errorf("a lease of the old region: %+v", g)
	}
	if g := to.renew(now, 1, Renewal{Epoch: 2, Seq: 1, Want: 1}); !g.Refused {
		t.Errorf("lent from an empty counter: %+v", g)
	}
	if g := to.renew(now+100_000, 1, Renewal{Epoch: 3, Seq: 1, Want: 60}); g.Granted != 10 {
		t.Errorf("after 100 ms of 100/s: %+v", g)
	}
}

// Leases are in the way only if every limit that denies would not, were they back.
func TestRecallsNeedEveryLimit(t *testing.T) {
	lends, tight := limit("a", ScopeTenant, "acme", "100/s", 100), limit("b", ScopeTenant, "acme", "100/s", 10)
	watches := tight
	watches.Enforcement = EnforcementShadow
	for name, c := range map[string]struct {
		other   Limit
		recalls bool
	}{
		"another one is short": {tight, true}, // for 10 ms, without what is lent
		"a shadow is spent":    {watches, true},
		"one can never pass":   {limit("b", ScopeTenant, "acme", "100/s", 5), false},
		"a ban":                {Limit{ID: "b", Scope: ScopeTenant, Selector: "*", Access: AccessBanned}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := leasedMachine(t, lends)
			m.renew(1, 7, Renewal{Epoch: 1, Seq: 1, Want: 95})
			m.set(lends, c.other)
			m.check(2, Request{Tenant: "acme", Cost: 5}) // then b has 5 left, if it counts anything
			res := m.ask(m.at(3, appendRecallingCheck(nil, Request{Tenant: "acme", Cost: 6}, holdID{})))
			if res.decision.Allow || (len(res.recalls) > 0) != c.recalls {
				t.Errorf("%v, recalls %+v", res.decision, res.recalls)
			}
		})
	}
}
