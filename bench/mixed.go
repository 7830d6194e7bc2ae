package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// mixedRounds is how many windows of each kind there are. They take turns, so that what
	// else the machine does falls on all kinds alike.
	mixedRounds = 4
	// mixedPart of the checks' closed-loop throughput is the rate of the open loop: a load that
	// leaves the machine most of its time for ingest.
	mixedPart = 0.25
	// mixedWorkers finds that throughput.
	mixedWorkers = 64
	// mixedRest lies before each window without ingest, in which what the last ingest left to
	// do, such as sealing and compaction, comes to its end.
	mixedRest = 2 * time.Second
	// mixedWorld is more documents than the windows can take.
	mixedWorld = 10_000_000
)

// window is what one kind of window came to, over all rounds.
type window struct {
	checks    []time.Duration
	errors    int
	documents int64
	elapsed   time.Duration
	p99       []time.Duration // of the checks of each round
}

func (w *window) add(m measured, documents int64) {
	w.checks = append(w.checks, m.samples...)
	w.errors += m.errors
	w.documents += documents
	w.elapsed += m.elapsed
	w.p99 = append(w.p99, percentile(m.samples, 0.99))
}

func (w *window) measured() measured {
	slices.Sort(w.checks)
	return measured{samples: w.checks, errors: w.errors, elapsed: w.elapsed}
}

// measureMixed compares checks at a moderate rate without and with ingest at full speed
// beside them, and ingest without and with the checks.
func measureMixed(ctx context.Context, b *bench) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	checkers, err := b.newClients(connections, true)
	if err != nil {
		return err
	}
	ingesters, err := b.newClients(ingestWorkers, true)
	if err != nil {
		return err
	}
	check := checkOf(checkers, 1)
	fastest, err := b.warm(ctx, mixedWorkers, check)
	if err != nil {
		return err
	}
	rate := mixedPart * fastest.throughput()
	// Behind the documents of the other steps: an id must not come twice.
	in := &ingestor{world: newWorld(b.documents + mixedWorld), clients: ingesters, next: int64(b.documents)}
	var alone, beside, ingest window
	for range mixedRounds {
		time.Sleep(mixedRest)
		m, err := openLoop(ctx, rate, b.window, check)
		if err != nil {
			return fmt.Errorf("checks alone: %w", err)
		}
		alone.add(m, 0)
		var n int64
		m, n, err = in.beside(ctx, func() (measured, error) { return openLoop(ctx, rate, b.window, check) })
		if err != nil {
			return fmt.Errorf("checks beside ingest: %w", err)
		}
		beside.add(m, n)
		m, n, err = in.beside(ctx, func() (measured, error) { time.Sleep(b.window); return measured{elapsed: b.window}, nil })
		if err != nil {
			return fmt.Errorf("ingest alone: %w", err)
		}
		ingest.add(m, n)
	}
	c := config{
		"call": "Check cost=1, one matching limit", "loop": "open", "offered_per_s": int(rate), "connections": len(checkers),
		"ingest_workers": ingestWorkers, "ingest_batch": ingestBatch, "rounds": mixedRounds,
	}
	b.report.latency("mixed.check.alone", alone.measured(), c)
	b.report.latency("mixed.check.beside_ingest", beside.measured(), c)
	over := func(q float64) float64 {
		return float64(percentile(beside.checks, q)) / float64(max(1, percentile(alone.checks, q)))
	}
	b.report.scalar("mixed.check.p50_ratio", over(0.5), "times the p50 alone", c)
	b.report.scalar("mixed.check.p99_ratio", over(0.99), "times the p99 alone", with(c,
		"p99_ms_of_rounds_alone", inMilliseconds(alone.p99), "p99_ms_of_rounds_beside", inMilliseconds(beside.p99)))
	b.report.scalar("mixed.ingest.beside_checks", float64(beside.documents)/beside.elapsed.Seconds(), "documents/s", c)
	b.report.scalar("mixed.ingest.alone", float64(ingest.documents)/ingest.elapsed.Seconds(), "documents/s", c)
	return nil
}

func inMilliseconds(all []time.Duration) []string {
	var out []string
	for _, d := range all {
		out = append(out, format(milliseconds(d)))
	}
	return out
}

// ingestor sends batches of documents that nobody has sent before.
type ingestor struct {
	world   *world
	clients []*client.Client
	next    int64 // number of the next document
}

// beside runs a load while workers ingest as fast as batches are acknowledged, and returns
// how many documents were meanwhile.
func (in *ingestor) beside(ctx context.Context, load func() (measured, error)) (measured, int64, error) {
	var (
		stored atomic.Int64
		ended  atomic.Bool
		all    sync.WaitGroup
		failed = make([]error, len(in.clients))
	)
	for w, c := range in.clients {
		all.Go(func() {
			for !ended.Load() && ctx.Err() == nil && failed[w] == nil {
				from := int(atomic.AddInt64(&in.next, ingestBatch)) - ingestBatch
				docs := make([]*provenancev1.Document, 0, ingestBatch)
				for i := range ingestBatch {
					docs = append(docs, in.world.document(from+i))
				}
				failed[w] = bounded(ctx, w, 0, func(ctx context.Context, _, _ int) error { return send(ctx, c, docs) })
				stored.Add(ingestBatch)
			}
		})
	}
	m, err := load()
	n := stored.Load() // what is acknowledged after the window does not count
	ended.Store(true)
	all.Wait()
	return m, n, errors.Join(append(failed, err)...)
}
