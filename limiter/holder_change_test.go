package limiter

import (
	"testing"
	"time"
)

// A change that shortens the life of leases does not end what was promised before: the answer that
// would say so may be lost, and the holder goes on spending.
func TestShorterLeasesKeepWhatWasPromised(t *testing.T) {
	g := newMachineGroup(t, limit("a", ScopeTenant, "acme", "10/s", 100))
	uid := g.published().Load().byID["a"].uid
	renew := func(now int64, r Renewal) Grant {
		r.Limit, r.Tenant = uid, "acme"
		return g.renew(now, 1, []Renewal{r})[0]
	}
	first := renew(2_000_000, Renewal{Epoch: 1, Seq: 1, Want: 40})
	if first.TTL != 20*time.Second {
		t.Fatalf("a lease of %v, want 20 s", first.TTL)
	}
	g.configure(3_000_000, limit("a", ScopeTenant, "acme", "1000/s", 40))
	second := renew(4_000_000, Renewal{Epoch: 1, Seq: 2, Want: 40})
	if end := 4*time.Second + second.TTL; second.Refused || end != 22*time.Second {
		t.Errorf("%+v: it ends at %v, want 22 s as promised", second, end)
	}
	if d, _ := g.check(21_000_000, Request{Tenant: "acme", Cost: 1}); d.Allow {
		t.Error("passed while all tokens of the smaller limit were lent")
	}
	if d, _ := g.check(23_000_000, Request{Tenant: "acme", Cost: 1}); !d.Allow {
		t.Errorf("denied after the lease had ended: %+v", d)
	}
}

// A holder that opens epoch after epoch takes one place among the accounts, and ended ones stay ended.
func TestEpochsOfAHolderTakeOnePlace(t *testing.T) {
	g := newMachineGroup(t, limit("a", ScopeTenant, "acme", "1000/s", 100))
	uid := g.published().Load().byID["a"].uid
	now := int64(2_000_000)
	for epoch := uint64(1); epoch <= 3*accountsMax; epoch++ {
		r := Renewal{Limit: uid, Tenant: "acme", Epoch: epoch, Seq: 1, Want: 1}
		if got := g.renew(now, 1, []Renewal{r})[0]; got.Refused {
			t.Fatalf("epoch %d was refused", epoch)
		}
		now += 250_000 // longer than the lease
	}
	if got := g.renew(now, 1, []Renewal{{Limit: uid, Tenant: "acme", Epoch: 2, Seq: 1, Want: 1}})[0]; !got.Refused {
		t.Error("an ended epoch was opened again")
	}
}

// With one holder and no other traffic a denied request passes when the advice says, and is denied a
// millisecond earlier, whatever the holder has left.
func TestAdviceToHolders(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		s := newSim(t, seed, simPlan{limits: []Limit{limit("a", ScopeTenant, "acme", "40/s", 50)}, holders: 1, lasts: time.Hour}, flawNone)
		h := s.holders[0]
		play := func(until int64) {
			s.plan.lasts = time.Duration(until - s.now)
			s.run()
			s.now = until
		}
		for range 60 {
			h.ask(Request{Tenant: "acme", Cost: 1 + s.random.Uint32N(5)}, 1)
			play(s.now + int64(s.between(0, 20*time.Millisecond)))
		}
		play(s.now + int64(50*time.Millisecond))
		r := Request{Tenant: "acme", Key: "other", Cost: 30} // of which no denial is remembered
		h.ask(r, 1)
		play(s.now + int64(50*time.Millisecond))
		if len(s.advice) == 0 {
			t.Fatalf("seed %d: nothing was denied", seed)
		}
		last := s.advice[len(s.advice)-1]
		passes := last.at + int64(last.ms)*int64(time.Millisecond)
		play(passes - int64(20*time.Millisecond))
		before := s.stats
		h.ask(r, 1)
		play(passes + int64(10*time.Millisecond))
		if s.stats.cached != before.cached+1 {
			t.Errorf("seed %d: asked before its time, it was not denied from memory", seed)
		}
		before = s.stats
		h.ask(r, 1)
		play(s.now + int64(50*time.Millisecond))
		if s.stats.allowed != before.allowed+1 {
			t.Errorf("seed %d: denied after the advice of %d ms", seed, last.ms)
		}
	}
}
