package limiter

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// threeLevels has a limit of each scope.
func threeLevels(tb testing.TB) *machineGroup {
	return newMachineGroup(tb,
		limit("tenant", ScopeTenant, "acme", "4000000000/s", 4_000_000_000),
		limit("token", ScopeToken, "acme/*", "4000000000/s", 4_000_000_000),
		limit("key", ScopeKey, "acme/*", "1000000/s", 4_000_000_000),
	)
}

// heldTable is a table with so many keys of which tokens are held for an hour.
func heldTable(tb testing.TB, g *machineGroup, keys int) (*holderTable, []Request) {
	system, err := clock.System()
	if err != nil {
		tb.Fatal(err)
	}
	t := newHolderTable(1, 2, clock.NewFast(system).Steady, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: g.published()})
	all := make([]Request, keys)
	for i := range all {
		all[i] = Request{Tenant: "acme", Token: "ana-7", Key: fmt.Sprintf("route-%07d", i), Cost: 1}
		t.check(&heldCheck{request: &all[i], decision: &Decision{}})
	}
	for {
		b, renewals := t.prepare(t.groups[testGroup], t.now())
		if b == nil {
			break
		}
		grants := make([]Grant, len(renewals))
		for i := range grants {
			grants[i] = Grant{Granted: 4_000_000_000, TTL: time.Hour, Remaining: 5}
		}
		t.answer(b, grants, t.now())
		t.groups[testGroup].queue.finish(b)
	}
	return t, all
}

// holdingService has one key of three levels of which tokens are held.
func holdingService(tb testing.TB) (*Service, Request) {
	g := threeLevels(tb)
	t, all := heldTable(tb, g, 1)
	s := g.service()
	s.leases = &Leases{table: t}
	s.leases.active.Store(true)
	return s, all[0]
}

// One check of three levels whose tokens this node holds.
func BenchmarkCheckOnLeases(b *testing.B) {
	s, r := holdingService(b)
	ctx := b.Context()
	var d Decision
	b.ReportAllocs()
	for b.Loop() {
		if err := s.CheckInto(ctx, r, &d); err != nil || d.Source != SourceLease || len(d.Levels) != 3 {
			b.Fatal(d, err)
		}
	}
}

// A check on leases makes no garbage.
func TestChecksOnLeasesAllocateNothing(t *testing.T) {
	s, r := holdingService(t)
	var d Decision
	if n := testing.AllocsPerRun(100, func() {
		if err := s.CheckInto(t.Context(), r, &d); err != nil || d.Source != SourceLease {
			t.Fatal(d, err)
		}
	}); n > 0 && !raceDetector {
		t.Errorf("%v allocations a check", n)
	}
}

// One check of three levels that is denied by tokens that come later.
func BenchmarkDenyAhead(b *testing.B) {
	t, all := heldTable(b, threeLevels(b), 1)
	for i := range t.shards {
		for class := range t.shards[i].leases {
			for _, l := range t.shards[i].leases[class].slots {
				if l != nil && l.limit.ID == "key" {
					l.left = 0
					for range blocksMax {
						l.expect(25, sentRenewal{limit: l.limit}, Grant{Coming: 25, Delay: 30 * time.Minute, Span: time.Minute}, t.now())
					}
				}
			}
		}
	}
	var d Decision
	b.ReportAllocs()
	for b.Loop() {
		c := heldCheck{request: &all[0], decision: &d}
		if t.check(&c); c.answer != heldDenied || d.Source != SourceLease {
			b.Fatal(c.answer, d)
		}
	}
}

// A batch of 1,000 checks over 100,000 keys, one operation a check.
func BenchmarkBatchOnLeases(b *testing.B) {
	t, held := heldTable(b, threeLevels(b), 100_000)
	// Requests come fresh from the wire, in another order than the keys were made.
	all := make([]Request, len(held))
	for i := range all {
		all[i] = held[i*7919%len(held)]
		all[i].Key = strings.Clone(all[i].Key)
	}
	const size = 1000
	batch, checks := make([]heldCheck, size), make([]*heldCheck, size)
	decisions := make([]Decision, size)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%size != 0 {
			continue
		}
		for i := range batch {
			batch[i] = heldCheck{request: &all[(n+i)%len(all)], decision: &decisions[i]}
			checks[i] = &batch[i]
		}
		t.checkMany(checks)
		if batch[0].answer != heldSpent {
			b.Fatal(batch[0].answer)
		}
	}
}

// Batches of 1,000 checks by Zipf's law over a million keys and a thousand tenants, at three nodes whose group is
// one machine without a log; with blankets, and without. One operation is a check.
func BenchmarkZipfBatches(b *testing.B) {
	b.Run("blankets", func(b *testing.B) { zipfBatches(b, raftfsm.LevelBlankets) })
	b.Run("none", func(b *testing.B) { zipfBatches(b, raftfsm.LevelBlankets-1) })
}

func zipfBatches(b *testing.B, level int) {
	const keys, size, nodes = 1_000_000, 1000, 3
	r := startRegionWith(b, cacheCounters, nodes, limit("key", ScopeKey, "*/key-*", "100/s", 3_000), limit("tenant", ScopeTenant, "*", "100000/s", 100_000))
	defer func() {
		for _, n := range r.nodes {
			n.leases.Close(b.Context())
		}
	}()
	r.mu.Lock()
	r.level = level
	r.mu.Unlock()
	all := make([]Request, keys)
	for k := range all {
		all[k] = Request{Tenant: fmt.Sprint("zipf-", k%1000), Key: fmt.Sprint("key-", k), Cost: 1, Brief: true}
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	batch, out := make([]Request, size), make([]Outcome, size)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; b.Loop(); n++ {
		if n%size != 0 {
			continue
		}
		for i := range batch {
			batch[i] = all[zipf.Uint64()]
		}
		if err := r.nodes[n/size%nodes].CheckBatchInto(b.Context(), batch, out); err != nil {
			b.Fatal(err)
		}
	}
	var renewals, adopted uint64
	for _, n := range r.nodes {
		sum, _ := n.leases.table.sum()
		renewals, adopted = renewals+sum.renewals, adopted+sum.adopted
	}
	b.ReportMetric(float64(renewals)/float64(b.N), "renewals/op")
	b.ReportMetric(float64(adopted)/float64(b.N), "blanket-leases/op")
	b.ReportMetric(float64(r.count())/float64(b.N), "commands/op")
	b.ReportMetric(float64(r.counters())/float64(b.N), "rows/op")
}

// What a key costs in memory that has a lease of its own: 260 bytes, and more under the race detector.
func TestMemoryOfAKey(t *testing.T) {
	const keys = 100_000
	var before, after runtime.MemStats
	all := make([]Request, keys)
	for i := range all {
		all[i].Key = fmt.Sprintf("route-%07d", i)
	}
	group := threeLevels(t)
	runtime.GC()
	runtime.ReadMemStats(&before)
	table, _ := heldTable(t, group, keys)
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / keys
	runtime.KeepAlive(table)
	runtime.KeepAlive(all)
	runtime.KeepAlive(group)
	t.Logf("%.0f bytes a key", each)
	if each > 400 {
		t.Errorf("a key takes %.0f bytes, want at most 400", each)
	}
}
