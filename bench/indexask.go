package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/bench/internal/corpus"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	indexSeed     = 20260101
	indexWarmSeed = 20260102
	// Bounds of a walk: those that callers may ask for at most.
	walkDocuments = 10_000
	walkDigests   = 50_000
	// cursorPage is how many documents a page has on the way to a deep one.
	cursorPage = 995
)

// asker asks a query of one class.
type asker func(ctx context.Context, c *client.Client, q *corpus.Query, cursor string) (given, error)

// askers are how classes are asked; others are searched.
var askers = map[string]asker{
	corpus.Descendants: askWalk,
}

func askerOf(class string) asker {
	if ask, special := askers[class]; special {
		return ask
	}
	return askSearch
}

// given is what came back.
type given struct {
	total    int
	exact    bool
	ids      []string
	digests  int
	facet    map[string]int
	complete bool
	down     []string // shards that did not answer
}

func askSearch(ctx context.Context, c *client.Client, q *corpus.Query, cursor string) (given, error) {
	r := &provenancev1.SearchRequest{Query: q.Text(), Tenant: q.Tenant(), Limit: uint32(q.Limit), Exact: q.Exact, Cursor: cursor}
	if q.To != 0 {
		r.From, r.To = timestamppb.New(time.UnixMilli(q.From)), timestamppb.New(time.UnixMilli(q.To))
	}
	if q.Class == corpus.Facet {
		r.Facets, r.FacetValues = []string{"rule"}, index.FacetValuesMax
	}
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(r))
	if err != nil {
		return given{}, err
	}
	m := resp.Msg
	g := given{total: int(m.GetTotal().GetValue()), exact: m.GetTotal().GetRelation() == "eq", complete: m.GetComplete(), down: downShards(m.GetShards())}
	for _, d := range m.GetItems() {
		g.ids = append(g.ids, d.GetId())
	}
	for _, f := range m.GetFacets() {
		g.facet = map[string]int{}
		for _, v := range f.GetValues() {
			g.facet[v.GetValue()] = int(v.GetCount())
		}
	}
	return g, nil
}

func askWalk(ctx context.Context, c *client.Client, q *corpus.Query, _ string) (given, error) {
	resp, err := c.Provenance().Lineage(ctx, connect.NewRequest(&provenancev1.LineageRequest{
		Digest: corpus.Digest(q.Start), Direction: "down", Depth: corpus.WalkDepth, MaxDocuments: walkDocuments, MaxDigests: walkDigests,
	}))
	if err != nil {
		return given{}, err
	}
	m := resp.Msg
	g := given{total: int(m.GetDocumentsFollowed()), exact: true, digests: int(m.GetDigestsReached()), complete: m.GetComplete(), down: downShards(m.GetShards())}
	for _, s := range m.GetSteps() {
		g.ids = append(g.ids, s.GetDocument().GetId())
	}
	return g, nil
}

func downShards(all []*provenancev1.ShardStatus) (down []string) {
	for _, s := range all {
		if s.GetState() != "ok" {
			down = append(down, s.GetShard())
		}
	}
	return down
}

// judge says what is wrong with an answer; nil is right.
type judge func(q *corpus.Query, want *corpus.Answer, got *given) error

var (
	errIncomplete = errors.New("it says that it is not complete")
	errDiffers    = errors.New("it differs from the truth")
)

// exactly wants the whole answer.
func exactly(q *corpus.Query, want *corpus.Answer, got *given) error {
	if !got.complete || len(got.down) > 0 {
		return fmt.Errorf("%w: %v did not answer", errIncomplete, got.down)
	}
	if q.Class != corpus.Page200 { // pages after the first count what is left as they like
		total, exact := want.Total, true
		if !q.Exact && q.Class != corpus.Facet && q.Start == corpus.None && total > index.TotalMax {
			total, exact = index.TotalMax, false
		}
		if got.total != total || got.exact != exact {
			return fmt.Errorf("%w: total %d (exact %v), want %d (exact %v)", errDiffers, got.total, got.exact, total, exact)
		}
	}
	return sameDocuments(want, got)
}

func sameDocuments(want *corpus.Answer, got *given) error {
	if !slices.EqualFunc(want.IDs, got.ids, func(w uint64, g string) bool { return corpus.Hex(w) == g }) {
		return fmt.Errorf("%w: %d documents, want %d, or others", errDiffers, len(got.ids), len(want.IDs))
	}
	if want.Digests != got.digests {
		return fmt.Errorf("%w: %d digests, want %d", errDiffers, got.digests, want.Digests)
	}
	if !maps.Equal(want.Facet, got.facet) {
		return fmt.Errorf("%w: facets %v, want %v", errDiffers, got.facet, want.Facet)
	}
	return nil
}

// questions are drawn queries with their answers.
type questions struct {
	n     int // documents when they were drawn
	draws int
	asked map[string][]*corpus.Query
	warm  map[string][]*corpus.Query
	right map[*corpus.Query]*corpus.Answer
}

// drawQuestions draws queries of every class over n documents and answers them from those that keep keeps.
func drawQuestions(c *corpus.Corpus, n, draws, warm int, keep func(d *corpus.Doc) bool) *questions {
	qs := &questions{n: n, draws: draws, asked: map[string][]*corpus.Query{}, warm: map[string][]*corpus.Query{}, right: map[*corpus.Query]*corpus.Answer{}}
	var all []*corpus.Query
	for _, class := range corpus.Classes {
		qs.asked[class] = c.Draw(class, n, draws, indexSeed)
		qs.warm[class] = c.Draw(class, n, warm, indexWarmSeed)
		all = append(all, qs.asked[class]...)
	}
	for i, a := range c.NewTruth(n, keep).Answers(all) {
		qs.right[all[i]] = a
	}
	return qs
}

// asking bounds a pass over all classes.
type asking struct {
	// draws are queries of a class that every client asks, warm those of other draws that it asks before.
	draws, warm int
	// limit bounds the time for a class; a slow one has fewer samples.
	limit time.Duration
	judge judge
	keep  func(d *corpus.Doc) bool
	// fails takes calls that fail for answers; else they end the run.
	fails bool
	// cpu is the processor time of the nodes so far; nil when nobody looks at it.
	cpu func() (time.Duration, error)
}

// asked is what a class came to.
type asked struct {
	class         string
	workers       int
	m             measured
	wrong         int // answers that are not right
	incomplete    int // answers that say that something is missing
	failed        int // calls without an answer
	why, whyNot   string
	documentsEach float64 // that came back on a page
}

// askAll asks queries of all classes, one class after the other.
func (b *bench) askAll(ctx context.Context, idx *indexed, workers int, a asking) ([]*asked, error) {
	if qs := idx.questions; qs == nil || qs.n != idx.n || qs.draws < a.draws || a.keep != nil {
		began := time.Now()
		idx.questions = drawQuestions(idx.c, idx.n, a.draws, a.warm, a.keep)
		progress("%d answers found by looking at %d documents in %.1f s", len(idx.questions.right), idx.n, time.Since(began).Seconds())
	}
	clients, err := b.newClients(workers, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	if !a.fails { // some of the nodes are down otherwise
		a.cpu = b.cpu
	}
	var out []*asked
	for _, class := range corpus.Classes {
		r := &asked{class: class, workers: workers}
		out = append(out, r)
		if err := r.run(ctx, clients, idx.questions, a); err != nil {
			return out, fmt.Errorf("%s: %w", class, err)
		}
		progress("%-26s %d client(s): p50 %s p95 %s p99 %s ms, %d samples, %d wrong, %d incomplete, %d failed", class, workers,
			format(milliseconds(percentile(r.m.samples, 0.5))), format(milliseconds(percentile(r.m.samples, 0.95))),
			format(milliseconds(percentile(r.m.samples, 0.99))), len(r.m.samples), r.wrong, r.incomplete, r.failed)
	}
	return out, nil
}

// run asks the queries of one class: every client all of them, each from another place on.
func (r *asked) run(ctx context.Context, clients []*client.Client, qs *questions, a asking) error {
	queries := qs.asked[r.class][:min(a.draws, len(qs.asked[r.class]))]
	cursors, err := cursorsFor(ctx, clients[0], r.class, slices.Concat(queries, qs.warm[r.class]))
	if err != nil {
		return err
	}
	ask := askerOf(r.class)
	if warm := qs.warm[r.class][:min(a.warm, len(qs.warm[r.class]))]; len(warm) > 0 {
		for began, i := time.Now(), 0; i < len(warm) && time.Since(began) < a.limit/4; i++ {
			if _, err := inTime(ctx, func(ctx context.Context) (given, error) {
				return ask(ctx, clients[i%len(clients)], warm[i], cursors[key(warm[i])])
			}); err != nil && !a.fails {
				return fmt.Errorf("warm up: %w", err)
			}
		}
	}
	if r.m.cpu, err = a.cpuSince(0); err != nil {
		return err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for w, c := range clients {
		all.Go(func() {
			for i := 0; i < len(queries) && time.Since(began) < a.limit && ctx.Err() == nil; i++ {
				q := queries[(i+w*len(queries)/len(clients))%len(queries)]
				asked := time.Now()
				got, err := inTime(ctx, func(ctx context.Context) (given, error) { return ask(ctx, c, q, cursors[key(q)]) })
				took := time.Since(asked)
				mu.Lock()
				r.note(q, qs.right[q], &got, took, err, a.judge)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	r.m.elapsed = time.Since(began)
	if r.m.cpu, err = a.cpuSince(r.m.cpu); err != nil {
		return err
	}
	slices.Sort(r.m.samples)
	if r.failed > 0 && !a.fails || len(r.m.samples) == 0 {
		return fmt.Errorf("%d calls failed, the first with: %s", r.failed, r.whyNot)
	}
	return ctx.Err()
}

// cpuSince is what the nodes took since they had taken so much.
func (a *asking) cpuSince(before time.Duration) (time.Duration, error) {
	if a.cpu == nil {
		return 0, nil
	}
	now, err := a.cpu()
	return now - before, err
}

func (r *asked) note(q *corpus.Query, want *corpus.Answer, got *given, took time.Duration, err error, judge judge) {
	if err != nil {
		if r.failed++; r.whyNot == "" {
			r.whyNot = err.Error()
		}
		return
	}
	r.m.samples = append(r.m.samples, took)
	r.documentsEach += (float64(len(got.ids)) - r.documentsEach) / float64(len(r.m.samples))
	if !got.complete {
		r.incomplete++
	}
	if err := judge(q, want, got); err != nil {
		if r.wrong++; r.why == "" {
			r.why = fmt.Sprintf("%s in %s [%d, %d): %v", q.Text(), q.Tenant(), q.From, q.To, err)
		}
	}
}

// inTime bounds the time of a call.
func inTime(ctx context.Context, call func(ctx context.Context) (given, error)) (given, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}

// key tells queries of the class of deep pages apart; other queries have none.
func key(q *corpus.Query) string {
	if q.Skip == 0 {
		return ""
	}
	return q.Tenant() + " " + q.Text() + " " + strconv.Itoa(q.Skip)
}

// cursorsFor fetches what comes before deep pages, once for each search.
func cursorsFor(ctx context.Context, c *client.Client, class string, queries []*corpus.Query) (map[string]string, error) {
	out := map[string]string{}
	if class != corpus.Page200 {
		return out, nil
	}
	for _, q := range queries {
		if _, ok := out[key(q)]; ok {
			continue
		}
		cursor := ""
		for left := q.Skip; left > 0; {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			resp, err := c.Provenance().Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{
				Query: q.Text(), Tenant: q.Tenant(), Limit: uint32(min(left, cursorPage)), Cursor: cursor,
				RequireComplete: true, // a page without a shard's documents would put the next one elsewhere
			}))
			cancel()
			if err != nil {
				return nil, fmt.Errorf("pages before: %w", err)
			}
			if left -= len(resp.Msg.GetItems()); resp.Msg.GetNext() == "" {
				return nil, fmt.Errorf("%s in %q has no page %d, as it must", q.Text(), q.Tenant(), corpus.PageNumber)
			}
			cursor = resp.Msg.GetNext()
		}
		out[key(q)] = cursor
	}
	return out, nil
}
