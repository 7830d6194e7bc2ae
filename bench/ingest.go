package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	ingestBatch   = 1000
	ingestWorkers = 4
	ingestLimit   = 2 * time.Hour
	// A region has settled when it takes less than settledCPU of a core over a second.
	settledCPU  = 0.25
	settleLimit = 3 * time.Minute
)

func measureIngest(ctx context.Context, b *bench) error { return b.load(ctx) }

// load ingests the documents, once a run, and reports how fast that was: several workers send
// batches, each worker the next one as soon as its last is acknowledged.
func (b *bench) load(ctx context.Context) error {
	if b.loaded {
		return nil
	}
	if err := b.up(ctx); err != nil {
		return err
	}
	w := newWorld(b.documents)
	jsonBytes, err := w.jsonBytes()
	if err != nil {
		return err
	}
	clients, err := b.newClients(ingestWorkers, true)
	if err != nil {
		return err
	}
	stopProgress, stored := showProgress(b.documents)
	defer stopProgress()
	m, err := b.withCPU(func() (measured, error) { return ingestAll(ctx, w, clients, stored) })
	if err != nil {
		return err
	}
	b.loaded = true
	c := config{
		"documents": b.documents, "json_bytes": jsonBytes, "batch": ingestBatch, "workers": ingestWorkers,
		"replicas": 3, "tenants": worldTenants, "zipf": worldZipf, "loop": "closed",
	}
	b.report.latency("ingest.batch", m, c)
	b.report.scalar("ingest.documents", float64(b.documents)/m.elapsed.Seconds(), "documents/s", c)
	b.report.scalar("ingest.server_cpu", float64(m.cpu.Microseconds())/float64(b.documents), "us/document, region", c)
	return b.settle(ctx, c)
}

// ingestAll sends all documents.
func ingestAll(ctx context.Context, w *world, clients []*client.Client, stored *atomic.Int64) (measured, error) {
	batches := (w.n + ingestBatch - 1) / ingestBatch
	perWorker := (batches + len(clients) - 1) / len(clients)
	return closedLoop(ctx, len(clients), perWorker, ingestLimit, func(ctx context.Context, worker, n int) error {
		// Workers take turns, so that documents arrive about in the order of their times.
		from := (n*len(clients) + worker) * ingestBatch
		docs := make([]*provenancev1.Document, 0, ingestBatch)
		for i := from; i < min(from+ingestBatch, w.n); i++ {
			docs = append(docs, w.document(i))
		}
		if len(docs) == 0 {
			return nil
		}
		stored.Add(int64(len(docs)))
		return send(ctx, clients[worker], docs)
	})
}

// showProgress prints how far a counter is, until stop.
func showProgress(of int) (stop func(), counter *atomic.Int64) {
	counter = &atomic.Int64{}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "  %d of %d documents sent\n", counter.Load(), of)
			}
		}
	}()
	return func() { close(done); <-ended }, counter
}

// settle waits until what follows an ingest is done, so that searches are measured on a region at rest.
// One that does not come to rest is measured all the same; the figure's config says so.
func (b *bench) settle(ctx context.Context, c config) error {
	took, settled, err := b.rest(ctx)
	if err != nil {
		return err
	}
	rss, err := b.rss()
	if err != nil {
		return err
	}
	b.report.scalar("ingest.settle", took.Seconds(), "s until idle", with(c, "settled", settled))
	b.report.scalar("ingest.rss", float64(rss)/(1<<20), "MiB, largest node", c)
	return nil
}

// rest waits until the nodes are idle, such as when segments are sealed and compacted, and says
// whether they were in time.
func (b *bench) rest(ctx context.Context) (took time.Duration, settled bool, err error) {
	began := time.Now()
	for !settled && ctx.Err() == nil && time.Since(began) < settleLimit {
		before, err := b.cpu()
		if err != nil {
			return 0, false, err
		}
		time.Sleep(time.Second)
		after, err := b.cpu()
		if err != nil {
			return 0, false, err
		}
		settled = (after - before).Seconds() < settledCPU
	}
	return time.Since(began), settled, nil
}

// measureDisk weighs the data folders with all documents in.
func measureDisk(ctx context.Context, b *bench) error {
	if err := b.load(ctx); err != nil {
		return err
	}
	use, err := b.diskUse()
	if err != nil {
		return err
	}
	c := config{"documents": b.documents, "replicas": 3, "includes": "raft logs, state, segments"}
	each := func(bytes int64) float64 { return float64(bytes) / float64(b.documents) / 3 }
	b.report.scalar("disk.written", each(use.written), "bytes/document, one replica", c)
	b.report.scalar("disk.occupied", each(use.occupied), "bytes/document, one replica, reserved blocks included", c)
	return nil
}

// send ingests one batch; every document must be new.
func send(ctx context.Context, c *client.Client, docs []*provenancev1.Document) error {
	resp, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{Documents: docs, RequestId: client.NewRequestID()}))
	if err != nil {
		return err
	}
	if n := int(resp.Msg.GetIndexed()); n != len(docs) {
		return fmt.Errorf("%d of %d documents were indexed: %v", n, len(docs), resp.Msg)
	}
	return nil
}
