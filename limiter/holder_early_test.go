package limiter

import (
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// earlyTable is a holder's table in its own time, with messages that are answered at once.
type earlyTable struct {
	*holderTable
	group *machineGroup
	at    int64
}

func newEarlyTable(t *testing.T, limits ...Limit) *earlyTable {
	e := &earlyTable{group: newMachineGroup(t, limits...), at: int64(2 * time.Second)}
	e.holderTable = newHolderTable(1, 1, func() int64 { return e.at }, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: e.group.published()})
	return e
}

// pass asks until the check passes, and returns the only lease that it is decided by.
func (e *earlyTable) pass(t *testing.T, r Request) *lease {
	t.Helper()
	c := heldCheck{request: &r, decision: &Decision{}}
	for e.check(&c); c.answer == heldLacks; e.check(&c) {
		e.send()
	}
	if c.answer != heldSpent {
		t.Fatalf("%+v: answer %d", r, c.answer)
	}
	return c.route.lease(0)
}

// send has all messages answered, and returns what they said.
func (e *earlyTable) send() (said []Renewal) {
	for {
		b, all := e.prepare(e.groups[testGroup], e.at)
		if b == nil {
			return said
		}
		if len(all) > 0 {
			e.answer(b, e.group.renew(e.at/1000, e.holder, all), e.at)
		}
		e.groups[testGroup].queue.finish(b)
		said = append(said, all...)
	}
}

// A lease that is used is given time before it ends, also when it has more tokens than are needed.
func TestALeaseOfManyTokensGetsTime(t *testing.T) {
	e := newEarlyTable(t, limit("a", ScopeTenant, "acme", "1000/s", 2000))
	l := e.pass(t, Request{Tenant: "acme", Cost: 1})
	l.demand = 1000
	e.ask(l)
	e.send()
	if l.demand = 0; l.left < 4*l.target() {
		t.Fatalf("%d left, want far more than %d", l.left, l.target())
	}
	for range 40 {
		e.at = l.deadline - l.limit.terms.ttl/8
		before, left := l.deadline, l.left
		if e.pass(t, Request{Tenant: "acme", Cost: 1}); l.left != left-1 {
			t.Fatalf("%d of %d tokens are left", l.left, left)
		}
		if e.send(); l.deadline <= before {
			t.Fatalf("it still ends at %v although it was used", time.Duration(before))
		}
	}
}

// Of a bucket that runs out a holder takes its part, so that the next one finds something and is lent what comes.
func TestNobodyTakesTheLastTokensForSeconds(t *testing.T) {
	e := newEarlyTable(t, limit("a", ScopeTenant, "acme", "100/s", 3000))
	l := e.pass(t, Request{Tenant: "acme", Cost: 1})
	l.demand = 500 // for 3 s: half of the burst
	e.group.renew(e.at/1000, 2, []Renewal{{Limit: l.limit.uid, Tenant: "acme", Epoch: 1, Seq: 1, Want: 2600}})
	var wants []uint64
	for range 6 {
		e.pass(t, Request{Tenant: "acme", Cost: l.left})
		e.ask(l)
		for _, r := range e.send() {
			wants = append(wants, r.Want)
		}
		l.demand = 500
	}
	last := wants[len(wants)-1]
	if last > uint64(l.limit.terms.ahead) {
		t.Errorf("asked for %d, want what is lent ahead at last", wants)
	}
}

// A lease that a blanket has opened is asked for before the blanket ends, if it is used and its counter has got a
// row meanwhile; without a row the next blanket opens it.
func TestUsedLeasesOutliveTheirBlanket(t *testing.T) {
	e := newEarlyTable(t, limit("b", ScopeKey, "acme/*", "100/s", 3000))
	e.groups[testGroup].covers = e.group.Machine().(*Machine).covers
	b := e.groups[testGroup].blanketsOf(1)
	lend := func(epoch uint64) {
		g := e.group.apply(e.at/1000, appendBlanket(nil, blanketCommand{holder: 1, limit: 1, epoch: epoch})).blanket
		b.asked(epoch, &g, e.at, e.at)
	}
	lend(1)
	keys := []string{"row", "no row", "used once"}
	var leases []*lease
	for i, key := range keys {
		l := e.pass(t, Request{Tenant: "acme", Key: key, Cost: uint32(1 + boolInt(i < 2))})
		if !l.silent {
			t.Fatal(key, "was not opened by the blanket")
		}
		leases = append(leases, l)
	}
	for _, key := range []string{"row", "used once"} {
		e.group.check(e.at/1000, Request{Tenant: "acme", Key: key, Cost: 1})
	}
	e.at = leases[0].deadline - int64(500*time.Millisecond)
	e.tick(e.at)
	said := e.send()
	if len(said) != 1 || said[0].Subject != "row" || said[0].Want == 0 || leases[0].deadline < e.at+int64(time.Second) {
		t.Errorf("%+v, until %v; want the one with a row renewed", said, time.Duration(leases[0].deadline-e.at))
	}
}

// While a blanket is asked for, checks of new counters wait for it, and get no rows of their own.
func TestNewCountersWaitForTheBlanketThatIsAskedFor(t *testing.T) {
	e := newEarlyTable(t, limit("b", ScopeKey, "acme/*", "100/s", 3000))
	e.groups[testGroup].covers = e.group.Machine().(*Machine).covers
	for i := range blanketWorth {
		c := heldCheck{request: &Request{Tenant: "acme", Key: string(rune('a' + i)), Cost: 1}, decision: &Decision{}}
		e.check(&c)
	}
	select {
	case <-e.wanted:
	default:
		t.Fatal("nobody was told that a blanket is wanted")
	}
	e.send()
	asks := 0
	e.dueBlankets(e.at, func(_ *holderGroup, limit uint64, b *limitBlankets) {
		asks++
		r := Request{Tenant: "acme", Key: "new", Cost: 1}
		c := heldCheck{request: &r, decision: &Decision{}}
		if e.check(&c); c.answer != heldLacks || c.batch != b.asking {
			t.Fatalf("answer %d", c.answer)
		}
		if said := e.send(); len(said) > 0 {
			t.Errorf("%+v was asked for", said)
		}
		g := e.group.apply(e.at/1000, appendBlanket(nil, blanketCommand{holder: 1, limit: limit, epoch: 1 << 20})).blanket
		b.asked(1<<20, &g, e.at, e.at)
		select {
		case <-c.batch.done:
		default:
			t.Error("who waits is not told")
		}
		if e.check(&c); c.answer != heldSpent || !c.route.lease(0).silent {
			t.Errorf("answer %d with the blanket", c.answer)
		}
	})
	if asks != 1 {
		t.Errorf("%d blankets asked for", asks)
	}
}

// What nobody waits for is gathered for a while; what is urgent goes with the next tick.
func TestRenewalsAreGathered(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		ticks int
	}{
		{limit("a", ScopeTenant, "acme", "100/s", 3000), int(gatherFor / tickBusy)},
		{limit("a", ScopeTenant, "acme", "10000/s", 1000), 1}, // lent for 50 ms at once
	} {
		e := newEarlyTable(t, c.limit)
		g := e.groups[testGroup]
		poked := func() bool {
			select {
			case <-g.kick:
				return true
			default:
				return false
			}
		}
		l := e.pass(t, Request{Tenant: "acme", Cost: 1})
		e.tick(e.at)
		poked()
		e.pass(t, Request{Tenant: "acme", Cost: l.left})
		told := poked()
		ticks := 0
		for !told {
			e.at += int64(tickBusy)
			e.tick(e.at)
			ticks++
			told = poked()
		}
		if ticks > c.ticks || c.ticks > 1 && ticks < c.ticks {
			t.Errorf("%v: sent after %d ticks, want %d", c.limit.TokenBucket, ticks, c.ticks)
		}
	}
}
