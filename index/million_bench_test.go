package index

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// mixDocuments is enough for some segments and a head.
var mixDocuments = flag.Int("mix", 1_200_000, "documents of BenchmarkMillion")

// docMix draws documents as many producers make them: tenants of every size, a fresh digest in
// four of ten documents and digests of earlier ones beside, a fresh execution in a quarter, a
// fresh task in half of them. About 300 bytes of JSON each.
type docMix struct {
	random     *rand.Rand
	tenants    *rand.Zipf
	outputs    []string
	executions []string
	tasks      []string
	at         int64
}

func newDocMix() *docMix {
	r := rand.New(rand.NewPCG(1, 2))
	return &docMix{random: r, tenants: rand.NewZipf(r, 1.2, 3, 999), at: 1_700_000_000_000_000_000}
}

func (m *docMix) hex(bytes int) string {
	b := make([]byte, bytes)
	for i := range b {
		b[i] = byte(m.random.Uint32())
	}
	return hex.EncodeToString(b)
}

// recent picks one of the last ones, now and then any.
func (m *docMix) recent(from []string) string {
	n := len(from)
	if m.random.IntN(10) > 0 {
		n = min(n, 10_000)
	}
	return from[len(from)-1-m.random.IntN(n)]
}

func (m *docMix) next() Document {
	r := m.random
	m.at += r.Int64N(2_000_000) // a millisecond on average
	if len(m.executions) == 0 || r.IntN(4) == 0 {
		m.executions = append(m.executions, "run-"+m.hex(8))
	}
	if len(m.tasks) == 0 || r.IntN(2) == 0 {
		m.tasks = append(m.tasks, "task-"+m.hex(6))
	}
	d := Document{
		ID: "doc-" + m.hex(8), Kind: KindReceipt, Tenant: fmt.Sprintf("tenant-%03d", m.tenants.Uint64()), Region: "eu-west",
		Time: m.at - r.Int64N(20_000_000), Execution: m.executions[len(m.executions)-1], Task: m.tasks[len(m.tasks)-1],
		Runner: fmt.Sprintf("runner-%03d", r.IntN(200)), Pack: fmt.Sprintf("pack-%02d@1.%d", r.IntN(40), r.IntN(3)),
		DurationMs: uint32(r.IntN(100_000)),
		Attributes: []Attribute{{Name: "os", Value: []string{"linux", "windows"}[r.IntN(10)/9]}},
	}
	if r.IntN(10) < 4 || len(m.outputs) == 0 {
		m.outputs = append(m.outputs, m.hex(32))
		d.Digests = append(d.Digests, Digest{Algorithm: "sha256", Value: m.outputs[len(m.outputs)-1], Direction: DirectionOutput})
	}
	if len(m.outputs) > 1 && r.IntN(2) == 0 {
		d.Digests = append(d.Digests, Digest{Algorithm: "sha256", Value: m.recent(m.outputs), Direction: DirectionInput})
	}
	if r.IntN(3) == 0 {
		d.Kind, d.Runner, d.Rule, d.Decision = KindDecision, "", fmt.Sprintf("rule-%02d", r.IntN(50)), "allow"
		if r.IntN(20) == 0 {
			d.Decision, d.Reason = "deny", fmt.Sprintf("the image is signed by key %d, which rule %s does not trust", r.IntN(100), d.Rule)
		}
	} else {
		d.CostMicros, d.Currency = r.Int64N(50_000)*10, "USD"
	}
	return d
}

// quantiles reports how long calls took.
func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	for _, q := range []int{50, 95, 99} {
		b.ReportMetric(float64(took[len(took)*q/100].Nanoseconds())/1000, fmt.Sprintf("p%d-us", q))
	}
}

// mixReplica stores documents in files, and returns some of them.
func mixReplica(b *testing.B, count int) (m *Machine, sample []Document) {
	dir := b.TempDir()
	cache := pebble.NewCache(128 << 20)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, Cache: cache, Logger: quiet{}})
	if err != nil {
		b.Fatal(err)
	}
	m = NewMachine(nil, nil)
	r := raftfsm.NewReplica(db, raftfsm.NewFolder(vfs.Default, dir+"/derived"), 1, m)
	if err := r.Open(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(); err != nil {
			b.Error(err)
		}
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	source := newDocMix()
	var spent time.Duration
	index := uint64(0)
	apply := func(cmd []byte) {
		index++
		start := time.Now()
		if _, err := r.Apply(index, 1, raftfsm.EncodeEntry(1, 0, 0, []raftfsm.Command{{Data: cmd}})); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(start)
	}
	lead := func() {
		for {
			m.mu.Lock()
			next := m.nextCommands(layoutNewest)
			m.mu.Unlock()
			if next == nil {
				return
			}
			for _, c := range next {
				apply(c)
			}
		}
	}
	jsonBytes, rowBytes := 0, 0
	for n := 0; n < count; {
		cmd := commandHeader()
		for range 1000 {
			d := source.next()
			row := AppendDocument(nil, &d)
			cmd = appendCommandDocument(cmd, row)
			if rowBytes += len(row); n%97 == 0 {
				text, err := json.Marshal(d)
				if err != nil {
					b.Fatal(err)
				}
				jsonBytes += len(text)
				sample = append(sample, d)
			}
			n++
		}
		apply(cmd)
		lead()
	}
	for open := true; open; {
		start := time.Now()
		m.settle(b)
		spent += time.Since(start)
		lead()
		m.mu.Lock()
		open = m.mergeable() != nil
		m.mu.Unlock()
	}
	b.Logf("%d documents in %.1f s, sealing included; JSON %d bytes, rows %d bytes a document",
		count, spent.Seconds(), jsonBytes/len(sample), rowBytes/count)
	reportSizes(b, db, m)
	return m, sample
}

// reportSizes logs the bytes a document of everything that is kept.
func reportSizes(b *testing.B, db *pebble.DB, m *Machine) {
	if err := db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := db.Compact(context.Background(), []byte{0}, []byte{255}, true); err != nil {
		b.Fatal(err)
	}
	metrics := db.Metrics()
	total := int64(0)
	for _, l := range metrics.Levels {
		total += l.TablesSize
	}
	b.Logf("Pebble, compacted: %.1f bytes a document", float64(total)/float64(m.docs))
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := map[byte]string{
		'n': "numbers", 'o': "ordinals", 'r': "rest", 't': "terms and short postings", 'p': "long postings", 'f': "filter", 'i': "first terms", 'z': "bounds",
		'v': "random texts", 's': "where they are",
	}
	var bytes, memory int64
	docs, kinds := 0, map[byte]int64{}
	for _, s := range m.segments {
		docs += s.Len()
		bytes += s.file.Size()
		memory += int64(s.MemoryBytes())
		for kind, size := range s.SizeByKind() {
			kinds[kind] += size
		}
	}
	b.Logf("%d segments of %d documents: %.1f bytes a document, %.2f in memory", len(m.segments), docs, float64(bytes)/float64(docs), float64(memory)/float64(docs))
	for kind, size := range kinds {
		b.Logf("  %.2f %s", float64(size)/float64(docs), names[kind])
	}
}

// restart reports how long it takes to load what is stored.
func restart(b *testing.B, m *Machine) {
	start := time.Now()
	if err := m.Load(m.store); err != nil {
		b.Fatal(err)
	}
	b.Logf("loaded in %.3f s", time.Since(start).Seconds())
}

// BenchmarkMillion asks a shard of 1,200,000 documents, or of -mix, in process.
func BenchmarkMillion(b *testing.B) {
	m, sample := mixReplica(b, *mixDocuments)
	restart(b, m)
	random := rand.New(rand.NewPCG(3, 4))
	pick := func() *Document { return &sample[random.IntN(len(sample))] }
	withDigest := func() Digest {
		for {
			if d := pick(); len(d.Digests) > 0 {
				return d.Digests[0]
			}
		}
	}
	hour := int64(time.Hour)
	for _, class := range []struct {
		name string
		draw func() shardQuery
	}{
		{"digestHit", func() shardQuery { return shardQuery{text: "digest:sha256:" + withDigest().Value} }},
		{"digestMiss", func() shardQuery { return shardQuery{text: fmt.Sprintf("digest:sha256:%064x", random.Uint64())} }},
		{"execution", func() shardQuery { return shardQuery{text: "execution:" + pick().Execution} }},
		{"taskInRange", func() shardQuery {
			d := pick()
			return shardQuery{text: "task:" + d.Task, conditions: conditions{from: d.Time - hour, to: d.Time + hour}}
		}},
		{"id", func() shardQuery { return shardQuery{text: "id:" + pick().ID} }},
		{"tenantNewest", func() shardQuery { return shardQuery{conditions: conditions{tenant: pick().Tenant}} }},
		{"tenantDenyRule", func() shardQuery {
			return shardQuery{text: fmt.Sprintf("decision:deny AND rule:rule-%02d", random.IntN(50)), conditions: conditions{tenant: pick().Tenant}}
		}},
		{"rareAndRare", func() shardQuery {
			d := pick()
			return shardQuery{text: "execution:" + d.Execution + " AND task:" + pick().Task}
		}},
		{"denseAndDenseEmpty", func() shardQuery { return shardQuery{text: "kind:receipt AND decision:allow"} }},
		{"minuteInHistory", func() shardQuery {
			d := pick()
			return shardQuery{conditions: conditions{from: d.Time, to: d.Time + int64(time.Minute)}}
		}},
		{"exactCount", func() shardQuery {
			return shardQuery{text: "decision:deny", conditions: conditions{tenant: pick().Tenant}, exact: true}
		}},
		{"costRange", func() shardQuery { return shardQuery{text: "cost:>0.4999"} }},
		{"digestPrefix", func() shardQuery { return shardQuery{text: "digest:" + withDigest().Value[:8] + "*"} }},
		{"deepPage", func() shardQuery {
			d := pick()
			bound := m.docs - 100_000
			return shardQuery{text: "kind:receipt", bound: &bound, after: &position{time: d.Time, id: d.ID, tenant: d.Tenant}}
		}},
	} {
		b.Run(class.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				q := class.draw()
				q.limit = 50
				enc := q.encode()
				start := time.Now()
				if _, err := m.Query(context.Background(), enc); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			quantiles(b, took)
		})
	}
}
