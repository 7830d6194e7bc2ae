package limiter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// applier is a replica on the disk, with Pebble set up as a node does.
type applier struct {
	tb      testing.TB
	machine *Machine
	replica *raftfsm.Replica
	index   uint64
}

func newApplier(tb testing.TB) *applier {
	cache := pebble.NewCache(256 << 20)
	defer cache.Unref()
	o := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, Cache: cache, Logger: quiet{},
		MemTableSize: 32 << 20, MemTableStopWritesThreshold: 4, L0CompactionThreshold: 2, L0StopWritesThreshold: 1000, LBaseMaxBytes: 64 << 20,
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize, o.Levels[i].IndexBlockSize = 32<<10, 256<<10
		if i < len(o.Levels)-1 {
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	db, err := pebble.Open(tb.TempDir(), o)
	if err != nil {
		tb.Fatal(err)
	}
	m := NewMachine()
	a := &applier{tb: tb, machine: m, replica: raftfsm.NewReplica(db, nil, testGroup, m)}
	if err := a.replica.Open(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(m.Close(), db.Close()); err != nil {
			tb.Error(err)
		}
	})
	change := Change{To: 1, Puts: []Limit{limit("key", ScopeKey, "*/key-*", "100/s", 3000)}}
	a.apply(0, appendConfigure(nil, configureCommand{Change: change, last: true}))
	return a
}

func (a *applier) apply(at time.Duration, cmd []byte) []byte {
	a.index++
	e := raftfsm.EncodeEntry(1, at.Microseconds(), 0, []raftfsm.Command{{Data: cmd}})
	out, err := a.replica.Apply(a.index, 1, e)
	if err != nil {
		a.tb.Fatal(err)
	}
	return out[0].Data
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// reportCPU reports what an operation takes of all threads of this process until the result is called: a
// figure that what else runs on the machine disturbs less.
func reportCPU(b *testing.B) func() {
	now := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := now()
	return func() { b.ReportMetric(float64(now()-began)/float64(b.N), "cpu-ns/op") }
}

// coldLeases are commands that open a lease of every one of so many keys, of a thousand tenants, in no
// order. Another holder is another node, for which the counters have rows already.
func coldLeases(keys int, h Holder) [][]byte {
	var cmds [][]byte
	order := rand.New(rand.NewPCG(uint64(h), 2)).Perm(keys)
	for len(order) > 0 {
		c := leaseCommand{holder: h}
		for _, k := range order[:min(leaseCommandMax, len(order))] {
			c.renewals = append(c.renewals, Renewal{
				Limit: 1, Tenant: fmt.Sprint("tenant-", k%1000), Subject: fmt.Sprint("key-", k), Epoch: 1_000_000 + uint64(k), Seq: 1, Want: 93,
			})
		}
		order = order[len(c.renewals):]
		cmds = append(cmds, appendLease(nil, c))
	}
	return cmds
}

// One renewal of a counter that nobody has touched before, and then one of the same counters, most of
// which are in no cache, for another holder. Run with -benchtime 1000000x: the more keys, the dearer.
func BenchmarkColdLeases(b *testing.B) {
	for _, bench := range []struct {
		name  string
		known bool
	}{{"new", false}, {"known", true}} {
		b.Run(bench.name, func(b *testing.B) {
			a := newApplier(b)
			if bench.known {
				for _, c := range coldLeases(b.N, 1) {
					a.apply(0, c)
				}
			}
			cmds := coldLeases(b.N, 2)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			b.ReportAllocs()
			b.ResetTimer()
			used := reportCPU(b)
			for _, c := range cmds {
				a.apply(time.Second, c)
			}
			used()
			b.StopTimer()
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(b.N), "heap-B/key")
			runtime.KeepAlive(cmds)
		})
	}
}

// One check of a batch on counters that are in use: a few thousand keys by Zipf's law, of which three
// nodes hold leases, each with a tenant above it. Most are denied, and the rest take something.
func BenchmarkHotBatch(b *testing.B) {
	const keys = 5000
	a := newApplier(b)
	change := Change{From: 1, To: 2, Puts: []Limit{limit("tenant", ScopeTenant, "tenant-*", "100000/s", 100_000)}}
	a.apply(0, appendConfigure(nil, configureCommand{Change: change, last: true}))
	for h := range Holder(3) {
		for _, c := range coldLeases(keys, h+1) {
			a.apply(0, c)
		}
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	var cmds [][]byte
	for range 100 {
		var batch []Request
		for range batchCommandMax {
			k := zipf.Uint64()
			batch = append(batch, Request{Tenant: fmt.Sprint("tenant-", k%1000), Key: fmt.Sprint("key-", k), Cost: 1})
		}
		cmds = append(cmds, appendRecallingBatch(nil, batch))
	}
	b.ReportAllocs()
	b.ResetTimer()
	defer reportCPU(b)()
	for i := 0; i < b.N; i += batchCommandMax {
		a.apply(time.Duration(i)*5*time.Microsecond, cmds[i/batchCommandMax%len(cmds)])
	}
}

// Opening a group that has a million counters, all of which it looks at.
func BenchmarkLoad(b *testing.B) {
	a := newApplier(b)
	for _, c := range coldLeases(1_000_000, 1) {
		a.apply(0, c)
	}
	b.ResetTimer()
	defer reportCPU(b)()
	for range b.N {
		if err := a.replica.Open(); err != nil {
			b.Fatal(err)
		}
	}
	if a.machine.known.full || a.machine.known.n < 950_000 {
		b.Fatalf("%d rows are known", a.machine.known.n)
	}
}
