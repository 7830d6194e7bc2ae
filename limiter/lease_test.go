package limiter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

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
	if c, ok := m.Machine().(*Machine).cached(m.rowKey()); !ok || len(c.accounts) != 1 {
		t.Errorf("accounts %+v are remembered, want one", c.accounts)
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
	r := Request{Tenant: "acme", Cost: 50}
	if res := m.ask(appendCheck(nil, r)); res.outcome != outcomeDecided || res.decision.Allow {
		t.Errorf("a check that does not ask: %+v", res)
	}
	want := []Recall{{Limit: m.uid, Holders: []Holder{7, 8}}}
	res := m.ask(appendRecallingCheck(nil, r, holdID{}))
	if res.outcome != outcomeScarce || res.decision.Allow || res.decision.RetryAfterMs == 0 || fmt.Sprint(res.recalls) != fmt.Sprint(want) {
		t.Errorf("scarce check: %+v", res)
	}
	res = m.ask(appendRecallingBatch(nil, []Request{{Tenant: "acme", Cost: 5}, r}))
	if len(res.batch) != 2 || !res.batch[0].decision.Allow || fmt.Sprint(res.batch[1].recalls) != fmt.Sprint(want) {
		t.Errorf("scarce batch: %+v", res)
	}
	m.renew(2, 7, Renewal{Epoch: 1, Seq: 2, Spent: 60})
	if res := m.ask(appendRecallingCheck(nil, r, holdID{})); fmt.Sprint(res.recalls) != fmt.Sprint([]Recall{{Limit: m.uid, Holders: []Holder{8}}}) || res.decision.RetryAfterMs != 151 {
		t.Errorf("what is spent cannot come back, and 15 tokens flow back beside what is lent: %+v", res)
	}
	m.renew(3, 8, Renewal{Epoch: 1, Seq: 2, Spent: 30})
	if res := m.ask(appendRecallingCheck(nil, r, holdID{})); res.outcome != outcomeDecided {
		t.Errorf("what is spent cannot come back: %+v", res)
	}
}
