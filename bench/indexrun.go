package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/maestro-conductor/maestro/bench/internal/corpus"
	"github.com/maestro-conductor/maestro/internal/client"
)

// reached are what searches shall reach, in milliseconds.
var reached = struct{ p95, p99, facet, lookup, degraded, beside float64 }{p95: 2, p99: 10, facet: 5, lookup: 0.8, degraded: 10, beside: 20}

// restartSeconds is what a node may take until it serves.
const restartSeconds = 3

func reachOf(class string) float64 {
	switch class {
	case corpus.Facet:
		return reached.facet
	case corpus.DigestHit, corpus.DigestMiss, corpus.Execution, corpus.TaskInTime:
		return reached.lookup
	}
	return reached.p95
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "  "+format+"\n", args...)
}

// measureIndexSearch asks queries of all classes, from one client and from four.
func measureIndexSearch(ctx context.Context, b *bench) error {
	if err := measureIndexLoad(ctx, b); err != nil {
		return err
	}
	watch := b.watchMemory()
	defer watch.stop()
	t := newTable(fmt.Sprintf("Searches over %d documents, warm", b.idx.n), headOfClasses...)
	for _, workers := range []int{1, 4} {
		results, err := b.askAll(ctx, b.idx, workers, asking{draws: b.indexDraws, warm: b.indexDraws / 2, limit: searchLimit, judge: exactly})
		if err != nil {
			return err
		}
		b.reportClasses(t, "index.search", results, func(class string) (p95, p99 float64) { return reachOf(class), reached.p99 })
	}
	for node, rss := range watch.stop() {
		b.report.scalar("index.rss."+node, float64(rss)/(1<<20), "MiB while searched", with(b.corpusConfig(), "documents", b.idx.n,
			"mapped_files_mib", format(float64(watch.mapped[node])/(1<<20))))
	}
	return b.report.print(t)
}

var headOfClasses = []string{"class", "clients", "p50 ms", "p95 ms", "p99 ms", "p95 wanted", "p99 wanted", "reached", "samples", "documents a page", "mismatches", "complete", "failed calls"}

// reportClasses reports results, and whether they reach what is wanted.
func (b *bench) reportClasses(t *table, name string, results []*asked, wanted func(class string) (p95, p99 float64)) {
	for _, r := range results {
		p95, p99 := wanted(r.class)
		at := func(q float64) float64 { return milliseconds(percentile(r.m.samples, q)) }
		verdict := "yes"
		if at(0.95) > p95 || at(0.99) > p99 || r.wrong > 0 || r.failed > 0 {
			verdict = "MISSED"
		}
		b.report.latency(fmt.Sprintf("%s.%s.c%d", name, r.class, r.workers), r.m, with(b.corpusConfig(),
			"documents", b.idx.n, "clients", r.workers, "loop", "closed", "mismatches", r.wrong, "incomplete", r.incomplete, "failed", r.failed,
			"wanted_p95_ms", p95, "wanted_p99_ms", p99, "reached", verdict == "yes"))
		t.rows = append(t.rows, []string{
			r.class, fmt.Sprint(r.workers), format(at(0.5)), format(at(0.95)), format(at(0.99)), format(p95), format(p99), verdict,
			fmt.Sprint(len(r.m.samples)), format(r.documentsEach), fmt.Sprint(r.wrong), fmt.Sprintf("%d of %d", len(r.m.samples)-r.incomplete, len(r.m.samples)), fmt.Sprint(r.failed),
		})
		if r.why != "" {
			progress("%s: the first wrong answer: %s", r.class, r.why)
		}
		if r.whyNot != "" {
			progress("%s: the first failed call: %s", r.class, r.whyNot)
		}
	}
}

// memoryWatch notes the most that each node has resident.
type memoryWatch struct {
	// most is what a node had resident at most, mapped how much of that were pages of files.
	most, mapped map[string]int64

	done chan struct{}
	end  sync.Once
	all  sync.WaitGroup
}

func (b *bench) watchMemory() *memoryWatch {
	w := &memoryWatch{most: map[string]int64{}, mapped: map[string]int64{}, done: make(chan struct{})}
	w.all.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, n := range b.nodes() {
				rss, err := rssOf(n.PID)
				if err != nil || rss <= w.most[n.ID] { // a node that is down has none
					continue
				}
				w.most[n.ID] = rss
				w.mapped[n.ID], _ = statusOf(n.PID, "RssFile")
			}
			select {
			case <-w.done:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *memoryWatch) stop() map[string]int64 {
	w.end.Do(func() { close(w.done) })
	w.all.Wait()
	return w.most
}

// degraded bounds what is asked of a region with something broken.
func (b *bench) degraded(judge judge) asking {
	return asking{draws: min(b.indexDraws, 200), warm: 20, limit: 10 * time.Second, judge: judge, fails: true}
}

func degradedReach(string) (p95, p99 float64) {
	return reached.degraded, max(reached.degraded, reached.p99)
}

// measureIndexKill holds one node down: the others have everything, so every answer must be whole.
func measureIndexKill(ctx context.Context, b *bench) error {
	if err := measureIndexLoad(ctx, b); err != nil {
		return err
	}
	victim := b.nodes()[1].ID
	killed := time.Now()
	if err := b.region.Hold(victim); err != nil {
		return err
	}
	clients, err := b.newClients(1, false)
	if err != nil {
		return err
	}
	gap, incomplete, err := probeAfter(ctx, clients[0], killed)
	if err != nil {
		return err
	}
	b.report.scalar("index.kill.until_complete", gap.Seconds(), "s from the kill to the last answer that was late or not complete",
		with(b.corpusConfig(), "documents", b.idx.n, "incomplete", incomplete, "late_ms", milliseconds(killLate)))
	results, err := b.askAll(ctx, b.idx, 1, b.degraded(exactly))
	if err != nil {
		return err
	}
	t := newTable(fmt.Sprintf("One of three nodes killed, %d documents", b.idx.n), headOfClasses...)
	b.reportClasses(t, "index.kill", results, degradedReach)
	if err := b.report.print(t); err != nil {
		return err
	}
	if err := b.region.Release(victim); err != nil {
		return err
	}
	return b.whole(ctx)
}

const (
	killWatch = 6 * time.Second
	killLate  = 100 * time.Millisecond
)

// probeAfter searches again and again after a kill, and returns how long after it the last answer came that took longer
// than killLate or was not complete, and how many said that they were not.
func probeAfter(ctx context.Context, c *client.Client, killed time.Time) (gap time.Duration, incomplete int, err error) {
	probe := &corpus.Query{Limit: 1, Start: corpus.None}
	for time.Since(killed) < killWatch || gap > time.Since(killed)-killWatch {
		asked := time.Now()
		got, err := inTime(ctx, func(ctx context.Context) (given, error) { return askSearch(ctx, c, probe, "") })
		if ctx.Err() != nil || time.Since(killed) > time.Minute {
			return 0, 0, fmt.Errorf("no complete answers a minute after the kill: %w", errors.Join(err, ctx.Err()))
		}
		if err != nil || !got.complete {
			incomplete++
		}
		if err != nil || !got.complete || time.Since(asked) > killLate {
			gap = time.Since(killed)
		}
		time.Sleep(probePause)
	}
	return gap, incomplete, nil
}

// measureIndexRestart kills every node once.
func measureIndexRestart(ctx context.Context, b *bench) error {
	if err := measureIndexLoad(ctx, b); err != nil {
		return err
	}
	progress("wanted: %d s", restartSeconds)
	return b.restartNodes(ctx, "index.restart", b.idx.n)
}

const (
	besideRate    = 20_000 // documents a second
	besideWindow  = 8 * time.Second
	besideWorkers = 8
	// besideMost is more documents than can come in that time.
	besideMost = 2_000_000
)

// listClasses are asked while documents come in.
var listClasses = []string{corpus.TenantNew, corpus.TenantDeny, corpus.Hour, corpus.RareRare, corpus.Execution}

// measureIndexBeside asks for lists while documents come in at a fixed rate. What is right changes with every document
// then, so answers are checked for their order here, and all classes for all they must be afterwards.
func measureIndexBeside(ctx context.Context, b *bench) error {
	if err := measureIndexLoad(ctx, b); err != nil {
		return err
	}
	window := besideWindow
	if b.quick {
		window = 2 * time.Second
	}
	in, err := b.startIngesting()
	if err != nil {
		return err
	}
	qs := drawQuestions(b.idx.c, b.idx.n, 10*b.indexDraws, 0, nil)
	clients, err := b.newClients(1, true)
	if err != nil {
		return err
	}
	began := time.Now()
	in.start(ctx)
	var results []*asked
	for _, class := range listClasses {
		r := &asked{class: class, workers: 1}
		results = append(results, r)
		if err := r.run(ctx, clients, qs, asking{draws: 10 * b.indexDraws, limit: window, judge: inOrder}); err != nil {
			_, stopped := in.stop()
			return fmt.Errorf("%s: %w (%w)", class, err, stopped)
		}
	}
	took := time.Since(began)
	stored := in.stored.Load()
	n, err := in.stop()
	if err != nil {
		return err
	}
	rate := float64(stored) / took.Seconds()
	t := newTable(fmt.Sprintf("Lists during ingest of %.0f documents/s (%d wanted), after %d documents", rate, besideRate, b.idx.n), headOfClasses...)
	b.reportClasses(t, "index.beside", results, func(string) (p95, p99 float64) { return reached.beside, reached.beside })
	b.report.scalar("index.beside.ingest", rate, "documents/s", with(b.corpusConfig(), "offered", besideRate, "workers", besideWorkers, "documents", b.idx.n))
	if err := b.report.print(t); err != nil {
		return err
	}
	b.idx.n = n
	if _, _, err := b.rest(ctx); err != nil {
		return err
	}
	after, err := b.askAll(ctx, b.idx, 1, asking{draws: min(b.indexDraws, 200), limit: searchLimit, judge: exactly})
	if err != nil {
		return err
	}
	wrong := 0
	for _, r := range after {
		if wrong += r.wrong; r.why != "" {
			progress("%s: the first wrong answer: %s", r.class, r.why)
		}
	}
	b.report.scalar("index.beside.mismatches", float64(wrong), "wrong answers afterwards", with(b.corpusConfig(), "documents", n))
	return nil
}

// inOrder wants a whole answer without a document twice.
func inOrder(_ *corpus.Query, _ *corpus.Answer, got *given) error {
	if !got.complete {
		return errIncomplete
	}
	seen := map[string]bool{}
	for _, id := range got.ids {
		if seen[id] {
			return fmt.Errorf("%w: %s comes twice", errDiffers, id)
		}
		seen[id] = true
	}
	return nil
}

// trickle ingests at a fixed rate, or as fast as the region can when that is less.
type trickle struct {
	b      *bench
	from   int
	next   atomic.Int64 // batch
	stored atomic.Int64
	ended  atomic.Bool
	all    sync.WaitGroup
	send   func(ctx context.Context, worker, from, to int) error
	mu     sync.Mutex
	failed error
}

func (b *bench) startIngesting() (*trickle, error) {
	clients, err := b.newClients(besideWorkers, true)
	if err != nil {
		return nil, err
	}
	t := &trickle{b: b, from: b.idx.n}
	t.send = func(ctx context.Context, worker, from, to int) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return sendCorpus(ctx, clients[worker], b.idx.c, from, to, t.from)
	}
	// A run that is ended meanwhile sends again what may be there.
	return t, b.writeRecord(record{Stored: t.from, Sent: t.from + besideMost})
}

func (t *trickle) start(ctx context.Context) {
	began := time.Now()
	for worker := range besideWorkers {
		t.all.Go(func() {
			for !t.ended.Load() && ctx.Err() == nil {
				batch := int(t.next.Add(1)) - 1
				time.Sleep(time.Until(began.Add(time.Duration(batch) * ingestBatch * time.Second / besideRate)))
				first := t.from + batch*ingestBatch
				if err := t.send(ctx, worker, first, first+ingestBatch); err != nil {
					t.mu.Lock()
					t.failed = err
					t.mu.Unlock()
					return
				}
				t.stored.Add(ingestBatch)
			}
		})
	}
}

// stop returns how many documents of the corpus there are now.
func (t *trickle) stop() (int, error) {
	t.ended.Store(true)
	t.all.Wait()
	n := t.from + int(t.next.Load())*ingestBatch
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return 0, t.failed
	}
	return n, t.b.writeRecord(record{Stored: n, Sent: n})
}

// shardOf is where a document is, by rendezvous hash as docs/FORMAT.md has it.
func shardOf(tenant, id string, shards []string) string {
	h := xxhash.Sum64String(tenant + "\x00" + id)
	best, most := "", uint64(0)
	for _, s := range shards {
		x := h ^ xxhash.Sum64String(s)
		x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
		x = (x ^ x>>27) * 0x94D049BB133111EB
		if x ^= x >> 31; x > most || best == "" {
			best, most = s, x
		}
	}
	return best
}

// measureIndexQuorum takes the quorum of one shard away: of five nodes, each group on three, two are killed that
// share this shard and no other, nor meta. Answers must be what the other shards have, and say which is missing.
func measureIndexQuorum(ctx context.Context, b *bench) error {
	if err := b.another(ctx, "five", 5); err != nil {
		return err
	}
	n := min(b.documents, sideDocuments)
	idx := &indexed{c: corpus.New()}
	if _, err := b.ingestCorpus(ctx, idx.c, 0, n, 0, ingestWorkers); err != nil {
		return err
	}
	idx.n, b.idx = n, idx
	if _, _, err := b.rest(ctx); err != nil {
		return err
	}
	victims, missing, shards, err := b.onePairOfOneShard(ctx)
	if err != nil {
		return err
	}
	progress("%v are killed; %s has no quorum", victims, missing)
	for _, v := range victims {
		if err := b.region.Hold(v); err != nil {
			return err
		}
	}
	time.Sleep(5 * time.Second) // others elect leaders
	a := b.degraded(func(q *corpus.Query, want *corpus.Answer, got *given) error {
		return withoutShard(q, want, got, missing)
	})
	a.draws, a.limit = min(b.indexDraws, 100), 6*time.Second
	a.keep = func(d *corpus.Doc) bool {
		p := d.Proto()
		return shardOf(p.GetTenant(), p.GetId(), shards) != missing
	}
	results, err := b.askAll(ctx, idx, 1, a)
	if err != nil {
		return err
	}
	t := newTable(fmt.Sprintf("%s without quorum (two of five nodes killed), %d documents", missing, n), headOfClasses...)
	b.reportClasses(t, "index.quorum", results, degradedReach)
	if err := b.report.print(t); err != nil {
		return err
	}
	return b.stop()
}

// withoutShard wants what the other shards have, and that the answer says so.
func withoutShard(q *corpus.Query, want *corpus.Answer, got *given, missing string) error {
	if got.complete || !slices.Equal(got.down, []string{missing}) {
		return fmt.Errorf("%w: complete %v, without %v, but %s is missing", errDiffers, got.complete, got.down, missing)
	}
	if q.Class != corpus.Page200 && q.Start == corpus.None {
		total := want.Total
		if !q.Exact {
			total = min(total, 10_000)
		}
		if got.total != total || got.exact {
			return fmt.Errorf("%w: total %d (exact %v), want at least %d", errDiffers, got.total, got.exact, total)
		}
	}
	return sameDocuments(want, got)
}

// onePairOfOneShard finds two nodes that make a majority of one shard and of no other, nor of meta.
func (b *bench) onePairOfOneShard(ctx context.Context) (pair []string, shard string, shards []string, err error) {
	clients, err := b.newClients(1, false)
	if err != nil {
		return nil, "", nil, err
	}
	groups, err := status(ctx, clients[0])
	if err != nil {
		return nil, "", nil, err
	}
	for _, g := range groups {
		if strings.HasPrefix(g.GetName(), "index-") {
			shards = append(shards, g.GetName())
		}
	}
	nodes := b.nodes()
	for i := range nodes {
		for k := range i {
			both := []string{nodes[k].ID, nodes[i].ID}
			var lost []string
			for _, g := range groups {
				held := 0
				for _, v := range g.GetVoters() {
					if slices.Contains(both, v) {
						held++
					}
				}
				if 2*(len(g.GetVoters())-held) <= len(g.GetVoters()) && !strings.HasPrefix(g.GetName(), "limiter-") {
					lost = append(lost, g.GetName())
				}
			}
			if len(lost) == 1 && lost[0] != "meta" {
				return both, lost[0], shards, nil
			}
		}
	}
	return nil, "", nil, fmt.Errorf("no two nodes share exactly one shard: %v", groups)
}
