package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/maestro-conductor/maestro/bench/internal/corpus"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/query"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// BenchmarkShard asks one of the three shards of a region of so many documents.
var (
	shardCorpus = flag.Int("shard.documents", 10_000_000, "documents of the region of BenchmarkShard")
	shardDir    = flag.String("shard.dir", "", "where BenchmarkShard keeps its shard from run to run; a temporary folder by default")
	shardDraws  = flag.Int("shard.draws", 500, "queries of each class")
	shardPage   = flag.Int("shard.page", 27, "what a shard is asked for of a page of 50")
	shardCheck  = flag.Bool("shard.check", false, "ask for whole pages, and compare them with the truth")
)

// regionShards are the shards of a region by default.
var regionShards = []string{"index-0", "index-1", "index-2"}

// inShard tells whether a document is in the shard of BenchmarkShard.
func inShard(d *corpus.Doc) bool {
	p := corpus.Doc{N: d.N, Tenant: d.Tenant}
	q := corpus.Query{Terms: []corpus.Term{{Field: corpus.OfTenant, Value: p.Tenant}}}
	return shardOf(q.Tenant(), corpus.Hex(corpus.ID(p.N)), regionShards) == regionShards[0]
}

// aloneShard is a replica without a cluster, with its rows in files, and says how much CPU its machine took.
type aloneShard struct {
	db      *pebble.DB
	machine *index.Machine
	replica *raftfsm.Replica
	service *index.Service

	mu    sync.Mutex // of Apply
	next  uint64
	spent time.Duration // by the calling thread in Query
	calls int
}

func (s *aloneShard) Level() int { return raftfsm.LevelCurrent }

func (s *aloneShard) Propose(_ context.Context, _ raftfsm.GroupID, c raftfsm.Command) (raftfsm.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	out, err := s.replica.Apply(s.next, 1, raftfsm.EncodeEntry(1, int64(s.next), int64(s.next), []raftfsm.Command{c}))
	if err != nil {
		return raftfsm.Result{}, err
	}
	return out[0].Result, out[0].Err
}

func (s *aloneShard) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begun := threadTime()
	b, err := s.machine.Query(ctx, q)
	s.spent += threadTime() - begun
	s.calls++
	return raftfsm.Answer{Data: b}, err
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

type noPacer struct{}

func (noPacer) Enter(int) error                 { return nil }
func (noPacer) Wait(context.Context, int) error { return nil }
func (noPacer) Leave(int)                       {}

type discardLog struct{}

func (discardLog) Infof(string, ...any)      {}
func (discardLog) Errorf(string, ...any)     {}
func (discardLog) Fatalf(f string, _ ...any) { panic(f) }

// shardOptions are those of a node, with the part of the cache that one of three shards has.
func shardOptions() *pebble.Options {
	o := &pebble.Options{FormatMajorVersion: pebble.FormatNewest, CacheSize: 256 << 20 / 3, MemTableSize: 32 << 20, L0CompactionThreshold: 2, LBaseMaxBytes: 64 << 20, Logger: discardLog{}}
	for i := range o.Levels {
		o.Levels[i].BlockSize, o.Levels[i].IndexBlockSize = 32<<10, 256<<10
		if i < len(o.Levels)-1 {
			o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	return o
}

// openShard opens the shard of a folder, as it is stored.
func openShard(b *testing.B, dir string) *aloneShard {
	db, err := pebble.Open(filepath.Join(dir, "rows"), shardOptions())
	if err != nil {
		b.Fatal(err)
	}
	s := &aloneShard{db: db, machine: index.NewMachine(nil, nil)}
	s.replica = raftfsm.NewReplica(db, raftfsm.NewFolder(vfs.Default, filepath.Join(dir, "derived")), 1, s.machine)
	if err := s.replica.Open(); err != nil {
		b.Fatal(err)
	}
	s.next = s.replica.Position().Index
	s.service = index.NewService(s, []index.Shard{{Name: regionShards[0], Group: 1}}, func() ([]byte, bool) { return []byte("key"), true }, noPacer{})
	b.Cleanup(func() {
		if err := s.machine.Close(); err != nil {
			b.Error(err)
		}
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// fill stores the shard's documents.
func (s *aloneShard) fill(b *testing.B, c *corpus.Corpus, documents int) {
	ctx := context.Background()
	defer s.lead(b)()
	begun, stored := time.Now(), 0
	var batch []index.Document
	send := func() {
		if _, err := s.service.Ingest(ctx, batch, ""); err != nil {
			b.Fatal(err)
		}
		stored += len(batch)
		batch = batch[:0]
	}
	for n := range documents {
		d := c.Doc(n)
		if !inShard(&d) {
			continue
		}
		doc := documentOf(&d)
		if err := index.Normalize(&doc); err != nil {
			b.Fatal(err)
		}
		if batch = append(batch, doc); len(batch) == 1000 {
			send()
		}
	}
	send()
	b.Logf("%d documents stored in %.0f s", stored, time.Since(begun).Seconds())
}

// lead does what the leader of a group does, until stop, which waits for all segments to be as they will be.
func (s *aloneShard) lead(b *testing.B) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	proposed := make(chan struct{}, 1) // after each of its commands
	all.Go(func() {
		s.machine.Lead(ctx, func() byte { return index.LayoutAt(raftfsm.LevelCurrent) }, func(ctx context.Context, command []byte) error {
			_, err := s.Propose(ctx, 1, raftfsm.Command{Data: command})
			select {
			case proposed <- struct{}{}:
			default:
			}
			return err
		})
	})
	return func() {
		for segments, want := s.segments(b); segments != want; segments, want = s.segments(b) {
			<-proposed
		}
		cancel()
		all.Wait()
		if err := errors.Join(s.db.Flush(), s.db.Compact(context.Background(), []byte{0}, []byte{255}, true)); err != nil {
			b.Fatal(err)
		}
	}
}

// segments counts them, and tells how many there are when all is done.
func (s *aloneShard) segments(b *testing.B) (segments, want int) {
	r, err := s.service.Search(context.Background(), index.SearchRequest{Limit: 1, Explain: true})
	if err != nil {
		b.Fatal(err)
	}
	e := r.Explain.Shards[0]
	return e.Visited + e.SkippedByFilter + e.SkippedByBounds + e.NotNeeded, int(e.Documents>>20 + e.Documents>>16&15)
}

// documentOf is a document of the corpus as the index takes it.
func documentOf(d *corpus.Doc) index.Document {
	p := d.Proto()
	out := index.Document{
		ID: p.Id, Kind: p.Kind, Tenant: p.Tenant, Time: p.Time.AsTime().UnixNano(), Execution: p.Execution, Task: p.Task, Pack: p.Pack,
		Rule: p.Rule, Decision: p.Decision, Reason: p.Reason, Runner: p.Runner, CostMicros: p.GetCost().GetMicroUnits(),
		Currency: p.GetCost().GetCurrency(), DurationMs: p.DurationMs,
	}
	for _, g := range p.Digests {
		out.Digests = append(out.Digests, index.Digest{Value: g.Digest, Direction: g.Direction})
	}
	for name, value := range p.Attributes {
		out.Attributes = append(out.Attributes, index.Attribute{Name: name, Value: value})
	}
	return out
}

func nanosOfMillis(ms int64) int64 { return ms * int64(time.Millisecond) }

// ask asks a query as the API would.
func (s *aloneShard) ask(q *corpus.Query, cursor string) (got given, next string, err error) {
	ctx := context.Background()
	if q.Start != corpus.None {
		r, err := s.service.Lineage(ctx, index.LineageRequest{
			Digest: corpus.Digest(q.Start), Direction: index.LineageDown, Depth: corpus.WalkDepth, Documents: walkDocuments, Digests: walkDigests,
		})
		for _, step := range r.Steps {
			got.ids = append(got.ids, step.Document.ID)
		}
		return got, "", err
	}
	r := index.SearchRequest{Query: q.Text(), Tenant: q.Tenant(), Limit: q.Limit, Exact: q.Exact, Cursor: cursor}
	if q.To != 0 {
		r.From, r.To = nanosOfMillis(q.From), nanosOfMillis(q.To)
	}
	if q.Class == corpus.Facet {
		r.Facets, r.FacetValues = []query.Field{query.Rule}, index.FacetValuesMax
	}
	res, err := s.service.Search(ctx, r)
	got.total, got.exact, got.complete = res.Total, res.TotalExact, res.Complete
	for _, d := range res.Items {
		got.ids = append(got.ids, d.ID)
	}
	for _, f := range res.Facets {
		got.facet = map[string]int{}
		for _, v := range f.Values {
			got.facet[v.Value] = v.Count
		}
	}
	return got, res.Next, err
}

// deepCursor is where the page of q begins.
func (s *aloneShard) deepCursor(b *testing.B, q *corpus.Query) string {
	cursor := ""
	for left := q.Skip; left > 0; {
		page := *q
		page.Limit = min(left, cursorPage)
		got, next, err := s.ask(&page, cursor)
		if err != nil {
			b.Fatal(err)
		}
		if next == "" {
			b.Skipf("a shard of so few documents has no page %d of %s", corpus.PageNumber, q.Text())
		}
		left -= len(got.ids)
		cursor = next
	}
	return cursor
}

// BenchmarkShard tells the CPU that a shard takes for the queries of bench-index: that of the calling thread in
// the machine, which is what the machine does but for the collector's helpers.
func BenchmarkShard(b *testing.B) {
	dir := *shardDir
	if dir == "" {
		dir = b.TempDir()
	}
	c := corpus.New()
	done := filepath.Join(dir, "filled")
	if _, err := os.Stat(done); err != nil {
		b.Run("fill", func(b *testing.B) {
			if b.N == 1 {
				openShard(b, dir).fill(b, c, *shardCorpus)
			}
		})
		if err := os.WriteFile(done, nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s := openShard(b, dir)
	qs := drawQuestionsOf(c)
	for _, class := range corpus.Classes {
		b.Run(class, func(b *testing.B) { s.measure(b, qs, class) })
	}
}

func drawQuestionsOf(c *corpus.Corpus) *questions {
	qs := &questions{n: *shardCorpus, asked: map[string][]*corpus.Query{}, warm: map[string][]*corpus.Query{}}
	if *shardCheck {
		return drawQuestions(c, *shardCorpus, *shardDraws, 100, inShard)
	}
	for _, class := range corpus.Classes {
		qs.asked[class], qs.warm[class] = c.Draw(class, qs.n, *shardDraws, indexSeed), c.Draw(class, qs.n, 100, indexWarmSeed)
		for _, q := range slices.Concat(qs.asked[class], qs.warm[class]) {
			q.Limit = min(q.Limit, *shardPage)
		}
	}
	return qs
}

func (s *aloneShard) measure(b *testing.B, qs *questions, class string) {
	cursors := map[string]string{}
	for _, q := range slices.Concat(qs.asked[class], qs.warm[class]) {
		if _, known := cursors[key(q)]; q.Skip > 0 && !known {
			cursors[key(q)] = s.deepCursor(b, q)
		}
	}
	for _, q := range qs.warm[class] {
		if _, _, err := s.ask(q, cursors[key(q)]); err != nil {
			b.Fatal(err)
		}
	}
	var took []time.Duration
	s.spent, s.calls = 0, 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q := qs.asked[class][i%len(qs.asked[class])]
		before := s.spent
		got, _, err := s.ask(q, cursors[key(q)])
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, s.spent-before)
		if want := qs.right[q]; want != nil && i < len(qs.asked[class]) {
			if err := rightOfShard(q, want, &got); err != nil {
				b.Errorf("%s in %q: %v", q.Text(), q.Tenant(), err)
			}
		}
	}
	slices.Sort(took)
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	b.ReportMetric(micros(s.spent)/float64(len(took)), "cpu-us/op")
	b.ReportMetric(micros(percentile(took, 0.5)), "p50-us")
	b.ReportMetric(micros(percentile(took, 0.95)), "p95-us")
	b.ReportMetric(float64(s.calls)/float64(len(took)), "asked/op")
}

// rightOfShard compares what a part of the corpus can be compared in.
func rightOfShard(q *corpus.Query, want *corpus.Answer, got *given) error {
	if q.Start != corpus.None {
		return nil // a walk leaves a part of the corpus
	}
	if strings.Contains(q.Class, "page") {
		return sameDocuments(want, got)
	}
	return exactly(q, want, got)
}
