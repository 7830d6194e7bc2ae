package limiter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// blanketLimit fills in some two seconds, so that a blanket lasts as long as a lease.
func blanketLimit() Limit { return limit("b", ScopeKey, "acme/*", "2000/s", blanketBurstMin+3000) }

func (g *machineGroup) blanket(now int64, h Holder, epoch uint64) blanketGrant {
	return g.apply(now, appendBlanket(nil, blanketCommand{holder: h, limit: 1, epoch: epoch})).blanket
}

// A blanket is the same as a lease of its tokens of every counter: whatever is asked afterwards, by whom and
// when, a group with blankets answers as one in which each counter was leased by a command of its own.
func TestBlanketsAreLeasesOfEveryCounter(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		random := rand.New(rand.NewPCG(seed, 5))
		one, many := newMachineGroup(t, blanketLimit()), newMachineGroup(t, blanketLimit())
		keys := make([]string, 12)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		type open struct {
			h     Holder
			epoch uint64
		}
		var opened []open
		seqs, epoch, now := map[string]uint64{}, uint64(0), int64(2_000_000)
		touched := map[string]bool{}
		for range 150 {
			now += int64(random.IntN(400_000))
			switch k := random.IntN(8); {
			case k == 0:
				epoch++
				h := Holder(1 + random.IntN(3))
				g := one.blanket(now, h, epoch)
				if g.tokens == 0 {
					continue
				}
				opened = append(opened, open{h, epoch})
				for _, key := range keys {
					if touched[key] { // it has a row, which the blanket does not concern
						continue
					}
					grant := many.renew(now, h, []Renewal{{Limit: 1, Tenant: "acme", Subject: key, Epoch: epoch, Seq: 1, Want: uint64(g.tokens)}})
					if grant[0].Granted != uint64(g.tokens) || grant[0].TTL != g.ttl {
						t.Fatalf("seed %d: %+v, want %+v", seed, grant, g)
					}
				}
			case k < 4 && len(opened) > 0:
				o, key := opened[random.IntN(len(opened))], keys[random.IntN(len(keys))]
				name := fmt.Sprint(o, key)
				if seqs[name] == 0 {
					seqs[name] = 1
				}
				seqs[name]++
				r := []Renewal{{Limit: 1, Tenant: "acme", Subject: key, Epoch: o.epoch, Seq: seqs[name], Spent: random.Uint64N(6), Returned: random.Uint64N(4), Want: random.Uint64N(200)}}
				a, b := one.renew(now, o.h, r), many.renew(now, o.h, r)
				if a[0].Refused && b[0].Refused {
					continue // the leases' group remembers those that have ended
				}
				if !reflect.DeepEqual(a, b) {
					t.Fatalf("seed %d at %d: renewal %+v: %+v with a blanket, %+v with leases", seed, now, r, a, b)
				}
				touched[key] = touched[key] || !a[0].Refused
			default:
				q := Request{Tenant: "acme", Key: keys[random.IntN(len(keys))], Cost: random.Uint32N(4500)}
				a, lentA := one.check(now, q)
				b, lentB := many.check(now, q)
				slices.SortFunc(holdersOf(lentA), compareHolders)
				slices.SortFunc(holdersOf(lentB), compareHolders)
				if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(lentA, lentB) {
					t.Fatalf("seed %d at %d: check %+v: %v %v with a blanket, %v %v with leases", seed, now, q, a, lentA, b, lentB)
				}
				touched[q.Key] = touched[q.Key] || a.Allow && q.Cost > 0
			}
			if random.IntN(20) == 0 {
				one.Restart()
			}
		}
		if len(opened) < 5 {
			t.Errorf("seed %d: %d blankets", seed, len(opened))
		}
	}
}

func holdersOf(all []Recall) []Holder {
	if len(all) == 0 {
		return nil
	}
	return all[0].Holders
}

func compareHolders(a, b Holder) int { return int(int64(a) - int64(b)) }

// An epoch is opened once, and only for limits that are nothing but a bucket with tokens to spare.
func TestWhoGetsBlankets(t *testing.T) {
	g := newMachineGroup(t, blanketLimit())
	first := g.blanket(2_000_000, 7, 3)
	if first.tokens != chunkMax-1 && first.tokens != chunkMax || first.ttl <= 0 {
		t.Fatal(first)
	}
	again := g.blanket(3_000_000, 7, 3)
	if again.tokens != first.tokens || again.ttl != first.ttl-time.Second {
		t.Error("the same epoch again:", again)
	}
	if old := g.blanket(3_000_000, 7, 2); old.tokens != 0 {
		t.Error("an older epoch:", old)
	}
	for holder := Holder(8); holder < 8+2*blanketsMax; holder++ {
		g.blanket(3_000_000, holder, 1)
	}
	m := g.Machine().(*Machine)
	if n := len(m.set.blankets[1]); n != blanketsMax {
		t.Errorf("%d blankets", n)
	}
	if d, _ := g.check(3_000_000, Request{Tenant: "acme", Key: "k", Cost: 4_000}); d.Allow {
		t.Error("what blankets have lent was lent once more")
	}
	g.blanket(30_000_000, 99, 1) // all have ended and what they lent has flowed back
	if n := len(m.set.blankets[1]); n != 1 {
		t.Errorf("%d blankets later", n)
	}
	small := limit("b", ScopeKey, "acme/*", "1000/s", blanketBurstMin-1)
	with := blanketLimit()
	with.Window = Window{5000, "1m"}
	global := limit("b", ScopeGlobal, "*", "1000/s", blanketBurstMin)
	for _, l := range []Limit{small, with, global} {
		if other := newMachineGroup(t, l).blanket(2_000_000, 1, 1); other.tokens != 0 {
			t.Errorf("%+v: %+v", l, other)
		}
	}
	g.configure(31_000_000) // no limits
	if len(m.set.blankets) != 0 {
		t.Error("blankets outlive their limit:", m.set.blankets)
	}
	if _, err := m.store.Get(blanketKey(1, 99, 1)); err == nil {
		t.Error("its row is still there")
	}
}

// A node asks for a blanket once many counters are new, and opens leases by it without a message. What they have
// left does not deny others, and what was spent counts.
func TestLeasesOpenedByABlanket(t *testing.T) {
	const burst = 4024
	r := startRegion(t, 2, limit("b", ScopeKey, "acme/*", "10/s", burst))
	defer r.close()
	key, m := "", r.Machine().(*Machine)
	for i := 0; ; i++ {
		before, _ := r.nodes[0].leases.table.sum()
		key = fmt.Sprint("k", i)
		if d := r.nodes[0].ask(t, Request{Tenant: "acme", Key: key, Cost: 1}); !d.Allow || d.Source != SourceLease {
			t.Fatal(d)
		}
		if after, _ := r.nodes[0].leases.table.sum(); after.adopted > before.adopted {
			break
		}
	}
	if _, err := m.store.Get(appendCounterKey(nil, 1, "acme", key)); !errors.Is(err, raftfsm.ErrNotFound) {
		t.Error("the counter has a row:", err)
	}
	if d := r.nodes[1].ask(t, Request{Tenant: "acme", Key: key, Cost: burst - 1}); !d.Allow {
		t.Error("what a blanket withheld was not given back:", d)
	}
	if d := r.nodes[0].ask(t, Request{Tenant: "acme", Key: key, Cost: burst / 10}); d.Allow {
		t.Error("more than the burst has passed")
	}
}

// When a blanket ends between the debits of a run and its reading of the clock, all that was taken goes back to
// what ends, and nothing of it to what the next blanket opens.
func TestARunThatOutlivesItsBlanket(t *testing.T) {
	g := newMachineGroup(t, blanketLimit())
	now, pause := int64(1), int64(0)
	clock := func() int64 {
		now, pause = now+pause, 0
		return now
	}
	table := newHolderTable(1, 1, clock, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: g.published()})
	table.groups[testGroup].covers = func(uint64, Holder, uint64, []byte) bool { return true }
	blankets := table.groups[testGroup].blanketsOf(1)
	second := int64(time.Second)
	lend := func(epoch uint64) {
		blankets.asked(epoch, &blanketGrant{tokens: 8, ttl: time.Second}, now, now)
	}
	request := Request{Tenant: "acme", Key: "k", Cost: 1}
	run := func() (passed int) {
		checks := make([]*heldCheck, 3)
		for i := range checks {
			checks[i] = &heldCheck{request: &request, decision: &Decision{}}
		}
		table.checkMany(checks)
		for _, c := range checks {
			passed += boolInt(c.answer == heldSpent)
		}
		return passed
	}
	lend(1)
	if n := run(); n != 3 {
		t.Fatalf("%d of 3 passed", n)
	}
	lend(2)
	blankets.held.deadline += second // so that it lasts when the first one has ended
	pause = second
	passed := run()
	for n := run(); n > 0; n = run() {
		passed += n
	}
	if passed > 8 {
		t.Errorf("%d checks passed by a blanket of 8 tokens", passed)
	}
	tenant := table.shardOf(hashString(table.seed, "acme")).tenants["acme"]
	if l := tenant.shard.anyLease(tenant, 1, "k"); l.unspent()+l.spent() != l.granted {
		t.Errorf("%d of %d tokens are left and %d spent", l.unspent(), l.granted, int64(l.spent()))
	}
}
