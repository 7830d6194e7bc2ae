package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// catchUpChecks and catchUpDocuments are what goes on meanwhile, each second: a load that
	// two cores carry easily, so that the figure is the transfer's price.
	catchUpChecks    = 200
	catchUpDocuments = 1000
	// catchUpNear is how many entries behind counts as caught up while documents still come.
	catchUpNear  = 50
	catchUpLimit = 10 * time.Minute
	// catchUpRest lies before each load, in which what ingest at full speed left to do, such as
	// sealing and compaction, comes to its end: it is not the transfer's price.
	catchUpRest = 10 * time.Second
	// catchUpWindows is how many windows of checks count as normal, before and again after: two
	// thousand samples have twenty above their p99, which a single hiccup of a disk fills.
	catchUpWindows = 2
	// catchUpPoll is how often the nodes are asked how far they are, which costs them some
	// milliseconds each.
	catchUpPoll = 500 * time.Millisecond
	// catchUpKills is how many times either side is killed in the second part.
	catchUpKills   = 10
	catchUpGapMin  = 300 * time.Millisecond
	catchUpGapSpan = 2 * time.Second
)

// measureCatchUp keeps a node away while a gigabyte is ingested, and measures how long it
// takes to catch up and what that costs the checks that go on.
func measureCatchUp(ctx context.Context, b *bench) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	checks, err := b.newClients(connections, true)
	if err != nil {
		return err
	}
	w, err := b.newWriter()
	if err != nil {
		return err
	}
	away := b.nodes()[2].ID
	c := config{"checks_per_s": catchUpChecks, "documents_per_s": catchUpDocuments, "behind_bytes": b.behindBytes}

	// Before and after, so that what else the machine does falls on all alike, and so that not
	// only an empty region counts as normal.
	var normal window
	atRest := func() error {
		time.Sleep(catchUpRest)
		m, err := w.beside(ctx, func(ctx context.Context) (measured, error) {
			return openLoop(ctx, catchUpChecks, catchUpWindows*b.window, checkOf(checks, 1))
		})
		normal.add(m, 0)
		return err
	}
	if err := atRest(); err != nil {
		return err
	}
	if err := b.fallBehind(ctx, w, away); err != nil {
		return err
	}
	time.Sleep(catchUpRest)
	if err := b.region.Release(away); err != nil {
		return err
	}
	var took time.Duration
	during, err := w.beside(ctx, func(ctx context.Context) (measured, error) {
		loop, stop := context.WithCancel(ctx)
		defer stop()
		var waited error
		go func() {
			defer stop()
			took, waited = b.awaitCaughtUp(ctx, away)
		}()
		check := checkOf(checks, 1)
		m, err := openLoop(loop, catchUpChecks, catchUpLimit, func(_ context.Context, worker, n int) error {
			return check(ctx, worker, n) // one that is under way at the end comes to its own
		})
		<-loop.Done()
		return m, errors.Join(err, waited)
	})
	if err != nil {
		return err
	}
	if err := atRest(); err != nil {
		return err
	}
	b.report.latency("catchup.check.normal", normal.measured(), c)
	b.report.scalar("catchup.time", took.Seconds(), "s from the start of the process", c)
	b.report.latency("catchup.check.during", during, c)
	b.report.scalar("catchup.check.p99_ratio", float64(percentile(during.samples, 0.99))/float64(percentile(normal.checks, 0.99)), "times the normal p99", with(c,
		"p99_ms_normal_before_after", inMilliseconds(normal.p99)))
	return nil
}

// fallBehind holds a node and ingests until the others' state has grown by behindBytes.
func (b *bench) fallBehind(ctx context.Context, w *writer, away string) error {
	if err := b.region.Hold(away); err != nil {
		return err
	}
	admin := b.nodes()[0].Admin
	state := func() (float64, error) {
		m, err := metrics(ctx, admin)
		return m["mc_state_disk_bytes"], err
	}
	before, err := state()
	if err != nil {
		return err
	}
	for {
		if err := w.write(ctx, 20); err != nil {
			return err
		}
		now, err := state()
		if err != nil || now-before >= float64(b.behindBytes) {
			return err
		}
	}
}

// awaitCaughtUp waits until a node has applied about what the others have.
func (b *bench) awaitCaughtUp(ctx context.Context, node string) (time.Duration, error) {
	return until(ctx, catchUpLimit, node+" to catch up", func() bool {
		n, err := b.behind(ctx, node)
		time.Sleep(catchUpPoll)
		return err == nil && n < catchUpNear
	})
}

// measureCatchUpKills ends the receiving node, or one of those that send, ten times while a
// gigabyte is on its way; it must arrive all the same.
func measureCatchUpKills(ctx context.Context, b *bench) error {
	if err := b.up(ctx); err != nil {
		return err
	}
	w, err := b.newWriter()
	if err != nil {
		return err
	}
	away := b.nodes()[2].ID
	c := config{"behind_bytes": b.behindBytes}
	kills, rounds := 0, 0
	began := time.Now()
	for ; kills < catchUpKills && ctx.Err() == nil; rounds++ {
		if err := b.fallBehind(ctx, w, away); err != nil {
			return err
		}
		if err := b.region.Release(away); err != nil {
			return err
		}
		for kills < catchUpKills {
			time.Sleep(catchUpGapMin + time.Duration(rand.Int64N(int64(catchUpGapSpan))))
			if n, err := b.behind(ctx, away); err == nil && n < catchUpNear {
				break // it arrived: once more from the beginning
			}
			victim := away
			if kills%2 == 1 {
				victim = b.nodes()[rand.IntN(2)].ID
			}
			if b.region.Signal(victim, syscall.SIGKILL) == nil {
				kills++
			}
		}
		if _, err := b.awaitCaughtUp(ctx, away); err != nil {
			return err
		}
	}
	b.report.scalar("catchup.kills", float64(kills), "kills of either side during transfers, all completed", with(c, "rounds", rounds, "took_s", int(time.Since(began).Seconds())))
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	groups, err := b.region.CompareStates(ctx)
	if err != nil {
		return err
	}
	b.report.scalar("catchup.equal", float64(groups), "groups whose replicas have equal state hashes afterwards", c)
	return nil
}

// writer ingests documents that were never sent before.
type writer struct {
	b       *bench
	world   *world
	clients []*client.Client
}

func (b *bench) newWriter() (*writer, error) {
	clients, err := b.newClients(ingestWorkers, true)
	return &writer{b: b, world: newWorld(1 << 30), clients: clients}, err
}

func (w *writer) batch(n int) []*provenancev1.Document {
	from := int(w.b.written.Add(int64(n))) - n
	docs := make([]*provenancev1.Document, 0, n)
	for i := from; i < from+n; i++ {
		docs = append(docs, w.world.document(i))
	}
	return docs
}

// write sends a number of batches as fast as they are taken.
func (w *writer) write(ctx context.Context, batches int) error {
	_, err := closedLoop(ctx, len(w.clients), (batches+len(w.clients)-1)/len(w.clients), ingestLimit, func(ctx context.Context, worker, _ int) error {
		return send(ctx, w.clients[worker], w.batch(ingestBatch))
	})
	return err
}

// beside runs a load while documents come in steadily.
func (w *writer) beside(ctx context.Context, load func(context.Context) (measured, error)) (measured, error) {
	const batch = 100
	ingest, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := openLoop(ingest, catchUpDocuments/batch, catchUpLimit, func(_ context.Context, worker, _ int) error {
			return send(ctx, w.clients[worker%len(w.clients)], w.batch(batch))
		})
		ended <- err
	}()
	m, err := load(ctx)
	stop()
	if ingestErr := <-ended; ingestErr != nil {
		err = errors.Join(err, fmt.Errorf("ingest meanwhile: %w", ingestErr))
	}
	return m, err
}
