package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// searchWarm is how many unmeasured searches of a kind precede the measured ones.
	searchWarm = 20
	// searchLimit bounds the time for one kind; a slow kind gets fewer samples, which its
	// config tells.
	searchLimit = 2 * time.Minute
	pageDepth   = 20
	pageItems   = 50
	cursorsKept = 10
	drawsSeed   = 1
)

// kindOfSearch is one row: draw makes a request about document i, and good judges its answer,
// because a fast wrong answer is no figure.
type kindOfSearch struct {
	name string
	draw func(w *world, i int) *provenancev1.SearchRequest
	good func(r *provenancev1.SearchResponse) bool
}

func some(r *provenancev1.SearchResponse) bool { return len(r.GetItems()) > 0 }

func none(r *provenancev1.SearchResponse) bool {
	return len(r.GetItems()) == 0 && r.GetTotal().GetValue() == 0
}

func anyAnswer(*provenancev1.SearchResponse) bool { return true }

func queried(format string, args ...any) *provenancev1.SearchRequest {
	return &provenancev1.SearchRequest{Query: fmt.Sprintf(format, args...)}
}

var kindsOfSearch = []kindOfSearch{
	{"digest_hit", func(w *world, i int) *provenancev1.SearchRequest { return queried("digest:%s", w.output(i)) }, some},
	{"digest_miss", func(w *world, i int) *provenancev1.SearchRequest { return queried("digest:%s", w.missing(i)) }, none},
	{"execution", func(w *world, i int) *provenancev1.SearchRequest { return queried("execution:%s", w.execution(i)) }, some},
	{"tenant_newest_50", func(w *world, i int) *provenancev1.SearchRequest {
		return &provenancev1.SearchRequest{Tenant: w.tenant(i)}
	}, some},
	{"tenant_and_deny_and_rule", func(w *world, i int) *provenancev1.SearchRequest {
		return &provenancev1.SearchRequest{Tenant: w.tenant(i), Query: "decision:deny AND rule:" + w.rule(i)}
	}, anyAnswer},
	{"rare_and_rare", func(w *world, i int) *provenancev1.SearchRequest {
		i -= i % decisionEvery // a receipt: it names its runner
		return queried("execution:%s AND runner:%s", w.execution(i), w.runner(i))
	}, some},
	{"dense_and_dense_empty", func(*world, int) *provenancev1.SearchRequest {
		return queried("attr.os:linux AND attr.os:windows")
	}, none},
	{"hour_in_the_middle", func(w *world, i int) *provenancev1.SearchRequest {
		from := w.time(w.n/4 + i/2)
		return &provenancev1.SearchRequest{From: timestamppb.New(from), To: timestamppb.New(from.Add(time.Hour))}
	}, some},
	{"exact_count_tenant", func(w *world, i int) *provenancev1.SearchRequest {
		return &provenancev1.SearchRequest{Tenant: w.tenant(i), Query: "kind:receipt", Exact: true, Limit: 1}
	}, anyAnswer},
	{"exact_count_dense", func(*world, int) *provenancev1.SearchRequest {
		return &provenancev1.SearchRequest{Query: "kind:receipt", Exact: true, Limit: 1}
	}, some},
}

// measureSearch draws searches of every kind over the documents, newest first, 50 a page
// unless the kind says otherwise, from one client and from four at once.
func measureSearch(ctx context.Context, b *bench) error {
	if err := b.load(ctx); err != nil {
		return err
	}
	w := newWorld(b.documents)
	kinds := kindsOfSearch
	deep, err := b.deepPages(ctx, w)
	if err != nil {
		return err
	}
	kinds = append(kinds[:len(kinds):len(kinds)], deep)
	for _, kind := range kinds {
		for _, workers := range []int{1, 4} {
			if err := b.searches(ctx, w, kind, workers); err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
		}
	}
	return nil
}

func (b *bench) searches(ctx context.Context, w *world, kind kindOfSearch, workers int) error {
	clients, err := b.newClients(workers, true)
	if err != nil {
		return err
	}
	draws := make([]*rand.Rand, workers)
	for i := range draws {
		draws[i] = rand.New(rand.NewPCG(drawsSeed, uint64(i)))
	}
	op := func(ctx context.Context, worker, _ int) error {
		r, err := search(ctx, clients[worker], kind.draw(w, draws[worker].IntN(w.n)))
		if err == nil && !kind.good(r) {
			err = fmt.Errorf("a wrong answer: %d items, total %v", len(r.GetItems()), r.GetTotal())
		}
		return err
	}
	if _, err := closedLoop(ctx, workers, searchWarm, searchLimit, op); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	m, err := b.withCPU(func() (measured, error) { return closedLoop(ctx, workers, b.draws, searchLimit, op) })
	if err != nil {
		return err
	}
	b.report.latency(fmt.Sprintf("search.%s.c%d", kind.name, workers), m,
		config{"documents": b.documents, "clients": workers, "loop": "closed"})
	return nil
}

// search must be answered by all shards.
func search(ctx context.Context, c *client.Client, r *provenancev1.SearchRequest) (*provenancev1.SearchResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r.RequireComplete = true
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// deepPages is the kind that asks for page 20 of receipts by cursors that were fetched before:
// of different tenants, those with enough documents.
func (b *bench) deepPages(ctx context.Context, w *world) (kindOfSearch, error) {
	clients, err := b.newClients(1, false)
	if err != nil {
		return kindOfSearch{}, err
	}
	var ready []*provenancev1.SearchRequest
	tried := map[string]bool{}
	for i := 0; i < w.n && len(ready) < cursorsKept && len(tried) < worldTenants; i += docsPerRun {
		tenant := w.tenant(i)
		if tried[tenant] {
			continue
		}
		tried[tenant] = true
		cursor := ""
		for page := 1; page < pageDepth; page++ {
			r, err := search(ctx, clients[0], deepRequest(tenant, cursor))
			if err != nil {
				return kindOfSearch{}, fmt.Errorf("page %d of tenant %s: %w", page, tenant, err)
			}
			if cursor = r.GetNext(); cursor == "" {
				break
			}
		}
		if cursor != "" {
			ready = append(ready, deepRequest(tenant, cursor))
		}
	}
	if len(ready) == 0 {
		return kindOfSearch{}, fmt.Errorf("no tenant has %d pages; ingest more documents", pageDepth)
	}
	return kindOfSearch{"page_20", func(_ *world, i int) *provenancev1.SearchRequest {
		r := ready[i%len(ready)]
		return deepRequest(r.GetTenant(), r.GetCursor())
	}, some}, nil
}

func deepRequest(tenant, cursor string) *provenancev1.SearchRequest {
	return &provenancev1.SearchRequest{Tenant: tenant, Query: "kind:receipt", Limit: pageItems, Cursor: cursor}
}
