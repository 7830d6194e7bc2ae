package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// benchDocument is a receipt such as a build makes: an input that many share, an output of
// its own, and an execution of twenty tasks.
func benchDocument(n int) Document {
	digest := func(kind string, n int) string {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
		return hex.EncodeToString(sum[:])
	}
	return Document{
		ID:        "receipt-" + digest("id", n)[:16],
		Kind:      KindReceipt,
		Tenant:    fmt.Sprintf("tenant-%d", n%20),
		Region:    "us-west",
		Time:      1_700_000_000_000_000_000 + int64(n)*1_000_000 - int64(n%7)*3_000_000,
		Execution: "run-" + digest("run", n/20)[:16],
		Task:      fmt.Sprintf("task-%d", n%20),
		Pack:      fmt.Sprintf("pack-%d", n%50),
		Decision:  []string{"allow", "allow", "allow", "deny"}[n%4],
		Runner:    fmt.Sprintf("runner-%d", n%100),
		Digests: []Digest{
			{Algorithm: "sha256", Value: digest("base", n%1000), Direction: DirectionInput},
			{Algorithm: "sha256", Value: digest("in", n/3), Direction: DirectionInput},
			{Algorithm: "sha256", Value: digest("out", n), Direction: DirectionOutput},
		},
		CostMicros: int64(n%5000) * 100, Currency: "USD",
		DurationMs: uint32(n % 60_000),
		Attributes: []Attribute{{Name: "branch", Value: fmt.Sprintf("b%d", n%30)}, {Name: "commit", Value: digest("c", n/100)[:40]}},
	}
}

func benchCommands(from, count, each int) [][]byte {
	var cmds [][]byte
	for n := from; n < from+count; {
		cmd := commandHeader()
		for range each {
			d := benchDocument(n)
			cmd = appendCommandDocument(cmd, AppendDocument(nil, &d))
			n++
		}
		cmds = append(cmds, cmd)
	}
	return cmds
}

// benchReplica is a replica on a store with memory in proportion to the load, as a node's is.
func benchReplica(b *testing.B) (*raftfsm.Replica, *Machine) {
	cache := pebble.NewCache(128 << 20)
	defer cache.Unref()
	o := &pebble.Options{FS: vfs.NewMem(), FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, Cache: cache, Logger: quiet{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy, o.Levels[i].BlockSize = bloom.FilterPolicy(10), 16<<10
	}
	db, err := pebble.Open("", o)
	if err != nil {
		b.Fatal(err)
	}
	m := NewMachine(nil, nil)
	r := raftfsm.NewReplica(db, raftfsm.NewFolder(o.FS, "derived"), 1, m)
	if err := r.Open(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(m.Close(), db.Close()); err != nil {
			b.Error(err)
		}
	})
	return r, m
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func benchApply(b *testing.B, r *raftfsm.Replica, cmds [][]byte) {
	for i, c := range cmds {
		if _, err := r.Apply(uint64(i+1), 1, raftfsm.EncodeEntry(1, 0, 0, []raftfsm.Command{{Data: c}})); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApplyIngest is one replica's work for a document from its entry on: heads, segments, their moves and merges.
func BenchmarkApplyIngest(b *testing.B) {
	r, m := benchReplica(b)
	if _, err := r.Apply(1, 1, raftfsm.EncodeEntry(1, 0, 0, []raftfsm.Command{{Data: encodeLayout(layoutNewest)}})); err != nil {
		b.Fatal(err)
	}
	docs := make([]Document, b.N)
	for n := range docs {
		docs[n] = smallDocument(n)
	}
	entries, bytes := benchEntries(b, docs)
	docs = nil
	b.ReportAllocs()
	b.ResetTimer()
	began := processorTime(b)
	index := uint64(1)
	apply := func(data []byte) {
		index++
		if _, err := r.Apply(index, 1, data); err != nil {
			b.Fatal(err)
		}
	}
	for _, e := range entries {
		apply(e)
		for _, c := range m.due() {
			apply(raftfsm.EncodeEntry(1, 0, 0, []raftfsm.Command{{Data: c}}))
		}
	}
	m.settle(b)
	b.ReportMetric(float64((processorTime(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/doc")
	b.ReportMetric(float64(bytes)/float64(b.N), "B/doc")
}

// due is what the leader would propose now.
func (m *Machine) due() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nextCommands(layoutNewest)
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchEntries are the log entries of an ingest at full speed.
func benchEntries(b *testing.B, docs []Document) (entries [][]byte, bytes int) {
	const batch, perEntry = 333, 8
	s := &Service{shards: []Shard{{Name: "index-0"}}, router: newRouter([]Shard{{Name: "index-0"}}), groups: benchLevel{}}
	var waiting []raftfsm.Command
	for chunk := range slices.Chunk(docs, batch) {
		for i, p := range s.split(chunk, newTally(chunk))[0] {
			bytes += len(p.command)
			waiting = append(waiting, raftfsm.Command{Data: p.command, RequestID: raftfsm.NewRequestID(chunk[0].ID, strconv.Itoa(i))})
			if len(waiting) == perEntry {
				entries = append(entries, raftfsm.EncodeEntry(1, 0, 0, waiting))
				waiting = waiting[:0]
			}
		}
	}
	return append(entries, raftfsm.EncodeEntry(1, 0, 0, waiting)), bytes
}

type benchLevel struct{ Groups }

func (benchLevel) Level() int { return raftfsm.LevelCurrent }

// smallDocument has the shape of those of make bench-index.
func smallDocument(n int) Document {
	hash := func(kind string, n int) string {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
		return hex.EncodeToString(sum[:])
	}
	e, place := n/4, n%4
	zipf := int(math.Exp(float64(e*7919%1000) / 1000 * math.Log(1000)))
	d := Document{
		ID: hash("id", n)[:16], Tenant: fmt.Sprintf("t-%04d", zipf), Time: 1_767_225_600_000_000_000 + int64(n)*777_600_000 + int64(n*7919%60_000)*1_000_000,
		Execution: hash("execution", e)[:16], Task: hash("task", n/2)[:16], DurationMs: uint32(n * 7919 % 100_000),
	}
	artifact := func(direction string, n int) {
		d.Digests = append(d.Digests, Digest{Algorithm: "sha256", Value: hash("digest", n), Direction: direction})
	}
	switch place {
	case 0, 2:
		d.Kind, d.Pack, d.Runner = KindReceipt, fmt.Sprintf("pack-%04d@1.%d", n*31%2000, n%7), fmt.Sprintf("runner-%04d", n*37%4096)
		artifact(DirectionInput, max(0, 2*e-n*31%4096))
		if place == 0 || e%5 < 3 {
			artifact(DirectionOutput, 2*e+place/2)
		}
		d.CostMicros, d.Currency = int64(1+n*31%50_000), "EUR"
	case 1:
		d.Kind, d.Rule, d.Decision = KindDecision, fmt.Sprintf("rule-%02d", n*31%40), "allow"
		artifact(DirectionSubject, 2*e)
		if n*31%1000 < 100 {
			d.Decision, d.Reason = "deny", "over the budget of "+d.Rule
		}
		d.Attributes = []Attribute{{Name: "zone", Value: "zone-" + strconv.Itoa(n*31%4)}}
	default:
		d.Kind, d.Attributes = KindEvent, []Attribute{{Name: "zone", Value: "zone-" + strconv.Itoa(n*31%4)}}
	}
	return d
}

func BenchmarkSearch(b *testing.B) {
	const docs = 200_000
	r, m := benchReplica(b)
	benchApply(b, r, benchCommands(0, docs, 1000))
	m.settle(b)
	one := benchDocument(12345)
	at := benchDocument(100_000).Time
	for _, bench := range []struct {
		name string
		q    shardQuery
	}{
		{"everything", shardQuery{}},
		{"digest", shardQuery{text: "digest:sha256:" + one.Digests[2].Value}},
		{"execution", shardQuery{text: "execution:" + one.Execution}},
		{"term", shardQuery{text: "decision:deny"}},
		{"tenantAnd", shardQuery{text: "decision:deny AND task:task-7 AND pack:pack-7", conditions: conditions{tenant: "tenant-7"}}},
		{"denseAndEmpty", shardQuery{text: "decision:deny AND task:task-1"}},
		{"timeRange", shardQuery{text: "decision:deny", conditions: conditions{from: at, to: at + 10_000_000_000}}},
		{"cost", shardQuery{text: "cost:>0.49"}},
		{"prefix", shardQuery{text: "pack:pack-1*"}},
		{"digestPrefix", shardQuery{text: "digest:" + one.Digests[2].Value[:10] + "*"}},
		{"exactTotal", shardQuery{text: "decision:allow", exact: true}},
		{"missing", shardQuery{text: "execution:run-none"}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			bench.q.limit = 50
			enc := bench.q.encode()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Query(context.Background(), enc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// direct is a region of one shard whose machine is asked without a cluster.
type direct struct {
	Groups
	m *Machine
}

func (d direct) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	b, err := d.m.Query(ctx, q)
	return raftfsm.Answer{Data: b}, err
}

// BenchmarkLineage walks in a tree: three receipts use each output, beside a digest that many use.
func BenchmarkLineage(b *testing.B) {
	const docs = 200_000
	r, m := benchReplica(b)
	made := func(n int) Document {
		d := benchDocument(n)
		d.Tenant = "acme"
		d.Digests[1].Value = benchDocument((n - 1) / 3).Digests[2].Value
		return d
	}
	var cmds [][]byte
	for n := 0; n < docs; {
		cmd := commandHeader()
		for range 1000 {
			d := made(n)
			cmd = appendCommandDocument(cmd, AppendDocument(nil, &d))
			n++
		}
		cmds = append(cmds, cmd)
	}
	benchApply(b, r, cmds)
	m.settle(b)
	s := NewService(direct{m: m}, []Shard{{Name: "index-0"}}, nil, unpaced{})
	digest := func(n, which int) string { return "sha256:" + made(n).Digests[which].Value }
	for _, bench := range []struct {
		name  string
		r     LineageRequest
		steps int
	}{
		{"down/5", LineageRequest{Digest: digest(100, 2), Direction: LineageDown, Depth: 5}, 363},
		{"up/5", LineageRequest{Digest: digest(150_000, 2), Direction: LineageUp, Depth: 5}, 5},
		{"path/10", LineageRequest{Digest: digest(150_000, 2), Direction: LineageUp, Depth: 20, To: digest(0, 2)}, 11},
		{"hub/1000", LineageRequest{Digest: digest(7, 0), Direction: LineageDown, Depth: 1}, 200},
		{"unknown", LineageRequest{Digest: "sha256:" + hex.EncodeToString(make([]byte, 32)), Direction: LineageUp, Depth: 5}, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			bench.r.Tenant, bench.r.Documents, bench.r.Digests = "acme", 1000, 10_000
			b.ReportAllocs()
			for b.Loop() {
				if res, err := s.Lineage(context.Background(), bench.r); err != nil || len(res.Steps) != bench.steps {
					b.Fatalf("%d steps, %v", len(res.Steps), err)
				}
			}
		})
	}
}

// BenchmarkLoad is a restart: segments are opened, the rest is indexed again.
func BenchmarkLoad(b *testing.B) {
	const docs = 200_000
	r, m := benchReplica(b)
	benchApply(b, r, benchCommands(0, docs, 1000))
	m.settle(b)
	for b.Loop() {
		if err := r.Open(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSeal turns a full head into a segment.
func BenchmarkSeal(b *testing.B) {
	h := newHead(0)
	for n := range headDocumentsMax {
		d := benchDocument(n)
		h.add([]Document{d}, [][]byte{AppendDocument(nil, &d)})
	}
	_, m := benchReplica(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.sealHead(h); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*headDocumentsMax), "ns/doc")
}
