package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/bench/internal/corpus"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

const (
	// diskEach is what a document may take on the disk of one replica while it is ingested, logs and
	// what compaction has yet to remove included; diskSpare is left for everything else.
	diskEach  = 700
	diskSpare = 4 << 30
	// sideDocuments is how many documents the regions beside the main one get at most: those of one
	// node and of five.
	sideDocuments = 1_000_000
	// recordEvery is how many batches are acknowledged between two records of how far an ingest is.
	recordEvery = 50
)

// growth are sizes at which an ingest stops to measure.
var growth = []int{1_000_000, 3_000_000}

// indexed is a region with a corpus in it.
type indexed struct {
	c *corpus.Corpus
	// n is how many documents it has, the first of the corpus.
	n int
	// questions are drawn anew for every n.
	questions *questions
	// grown has a line for each size.
	grown []grown
}

// grown is what a region came to at one size.
type grown struct {
	documents int
	p95       map[string]time.Duration
	bytes     diskParts
	rss       int64
}

// record says how much of the corpus a kept region has, in a file beside it.
type record struct {
	// Stored documents are acknowledged, from the first on; some of those up to Sent are too.
	Stored int `json:"stored"`
	Sent   int `json:"sent"`
}

func (b *bench) recordPath() string { return filepath.Join(b.regionDir(), "corpus.json") }

func (b *bench) readRecord() (r record, err error) {
	data, err := os.ReadFile(b.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("-region: %s: %w; remove the folder to begin anew", b.recordPath(), err)
	}
	return r, nil
}

func (b *bench) writeRecord(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return client.WriteFile(b.recordPath(), data)
}

// measureIndexLoad ingests the corpus. On the way it measures everything at smaller sizes.
func measureIndexLoad(ctx context.Context, b *bench) error {
	if b.idx != nil {
		return nil
	}
	if err := os.MkdirAll(b.regionDir(), 0o700); err != nil {
		return err
	}
	had, err := b.readRecord()
	if err != nil {
		return err
	}
	target := max(b.documents, had.Sent)
	if target > corpus.Most {
		return fmt.Errorf("-documents %d: at most %d", target, corpus.Most)
	}
	if err := needDisk(b.regionDir(), target-had.Stored); err != nil {
		return err
	}
	if err := b.up(ctx); err != nil {
		return err
	}
	idx := &indexed{c: corpus.New(), n: had.Stored}
	if had.Stored < target {
		if err := b.loadCorpus(ctx, idx, had, target); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(os.Stderr, "  %d documents are there already\n", had.Stored)
	}
	b.idx = idx
	if err := b.weigh(ctx, idx); err != nil {
		return err
	}
	return b.growthTable(idx)
}

// needDisk refuses to begin what the disk has no room for.
func needDisk(at string, documents int) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(at, &s); err != nil {
		return fmt.Errorf("free space of %s: %w", at, err)
	}
	free, need := int64(s.Bavail)*s.Bsize, 3*diskEach*int64(documents)+diskSpare
	if free < need {
		return fmt.Errorf("%s has %d GiB free, and %d documents may need %d GiB; free some, set TMPDIR or -region to another disk, or lower -documents",
			at, free>>30, documents, need>>30)
	}
	return nil
}

// loadCorpus ingests up to target, stopping at sizes of growth.
func (b *bench) loadCorpus(ctx context.Context, idx *indexed, had record, target int) error {
	var stops []int
	for _, at := range growth {
		if at > had.Stored && at < target {
			stops = append(stops, at)
		}
	}
	var took, cpu time.Duration
	from := had.Stored
	var samples []time.Duration
	for _, to := range append(stops, target) {
		m, err := b.withCPU(func() (measured, error) { return b.ingestCorpus(ctx, idx.c, idx.n, to, had.Sent, ingestWorkers) })
		if err != nil {
			return err
		}
		took, cpu, samples = took+m.elapsed, cpu+m.cpu, append(samples, m.samples...)
		if err := b.reportStage(ctx, idx, m, to); err != nil {
			return err
		}
	}
	slices.Sort(samples)
	c := with(b.corpusConfig(), "documents", target-from, "batch", ingestBatch, "workers", ingestWorkers, "loop", "closed", "replicas", 3)
	b.report.latency("index.ingest.batch", measured{samples: samples, elapsed: took}, c)
	b.report.scalar("index.ingest.documents", float64(target-from)/took.Seconds(), "documents/s", c)
	b.report.scalar("index.ingest.server_cpu", float64(cpu.Microseconds())/float64(target-from), "us/document, region", c)
	return nil
}

// reportStage waits for rest and measures at one size.
func (b *bench) reportStage(ctx context.Context, idx *indexed, m measured, to int) error {
	rate := float64(to-idx.n) / m.elapsed.Seconds()
	idx.n = to
	rest, settled, err := b.rest(ctx)
	if err != nil {
		return err
	}
	c := with(b.corpusConfig(), "documents", to, "settled", settled)
	b.report.scalar(fmt.Sprintf("index.ingest.to_%d", to), rate, "documents/s", c)
	b.report.scalar(fmt.Sprintf("index.ingest.settle_%d", to), rest.Seconds(), "s until idle", c)
	g := grown{documents: to, p95: map[string]time.Duration{}}
	if g.bytes, err = b.diskParts(); err != nil {
		return err
	}
	results, err := b.askAll(ctx, idx, 1, b.growthDraws())
	if err != nil {
		return err
	}
	for _, r := range results {
		g.p95[r.class] = percentile(r.m.samples, 0.95)
		if r.wrong > 0 {
			return fmt.Errorf("%d of %d answers of %s at %d documents were wrong, the first: %s", r.wrong, len(r.m.samples), r.class, to, r.why)
		}
	}
	if g.rss, err = b.rss(); err != nil {
		return err
	}
	idx.grown = append(idx.grown, g)
	return nil
}

// growthDraws bounds the searches at each size.
func (b *bench) growthDraws() asking {
	return asking{draws: min(b.indexDraws, 250), warm: 100, limit: 20 * time.Second, judge: exactly}
}

func (b *bench) corpusConfig() config {
	return config{"tenants": corpus.Tenants, "transport": "HTTP/2 and TLS on loopback, protobuf"}
}

// ingestCorpus sends documents [from, to) in batches, in order; those below sent may be there.
func (b *bench) ingestCorpus(ctx context.Context, c *corpus.Corpus, from, to, sent, workers int) (measured, error) {
	clients, err := b.newClients(workers, true)
	if err != nil {
		return measured{}, err
	}
	if err := b.writeRecord(record{Stored: from, Sent: max(to, sent)}); err != nil {
		return measured{}, err
	}
	stop, stored := showProgress(to)
	defer stop()
	stored.Store(int64(from))
	batches := (to - from + ingestBatch - 1) / ingestBatch
	acks := &acked{done: make([]bool, batches)}
	m, err := closedLoop(ctx, workers, (batches+workers-1)/workers, ingestLimit, func(ctx context.Context, worker, n int) error {
		batch := n*workers + worker
		if batch >= batches {
			return nil
		}
		first := from + batch*ingestBatch
		if err := sendCorpus(ctx, clients[worker], c, first, min(first+ingestBatch, to), sent); err != nil {
			return err
		}
		stored.Add(ingestBatch)
		if upTo, due := acks.add(batch); due {
			return b.writeRecord(record{Stored: min(from+upTo*ingestBatch, to), Sent: max(to, sent)})
		}
		return nil
	})
	if err == nil && m.errors > 0 {
		err = fmt.Errorf("%d batches were not stored", m.errors)
	}
	if err != nil {
		return m, err
	}
	return m, b.writeRecord(record{Stored: to, Sent: max(to, sent)})
}

// acked knows up to which batch all are acknowledged.
type acked struct {
	mu       sync.Mutex
	done     []bool
	upTo     int
	recorded int
}

func (a *acked) add(batch int) (upTo int, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done[batch] = true
	for a.upTo < len(a.done) && a.done[a.upTo] {
		a.upTo++
	}
	if due = a.upTo >= a.recorded+recordEvery; due {
		a.recorded = a.upTo
	}
	return a.upTo, due
}

// sendCorpus stores documents [from, to); all must be new but those below sent.
func sendCorpus(ctx context.Context, cl *client.Client, c *corpus.Corpus, from, to, sent int) error {
	docs := make([]*provenancev1.Document, 0, to-from)
	for n := from; n < to; n++ {
		d := c.Doc(n)
		docs = append(docs, d.Proto())
	}
	resp, err := cl.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{Documents: docs, RequestId: client.NewRequestID()}))
	if err != nil {
		return err
	}
	r := resp.Msg
	if int(r.GetIndexed()+r.GetExisting()) != len(docs) || r.GetExisting() > 0 && from >= sent {
		return fmt.Errorf("of %d documents %d were stored and %d there: %v", len(docs), r.GetIndexed(), r.GetExisting(), r.GetRefusals())
	}
	return nil
}

// diskParts are the bytes of one replica, the mean of all nodes.
type diskParts map[string]float64

// Parts of a node's folder.
const (
	partSegments = "segments"
	partState    = "state"
	partLogs     = "raft logs"
	partOther    = "other"
)

// partOf is the part that a file belongs to, by its path in the node's folder.
func partOf(path string) string {
	switch {
	case strings.Contains(path, "/derived/"):
		return partSegments
	case strings.HasPrefix(path, "state/"):
		return partState
	case strings.HasPrefix(path, "raft/"):
		return partLogs
	}
	return partOther
}

func (p diskParts) sum() (total float64) {
	for v := range maps.Values(p) {
		total += v
	}
	return total
}

// diskParts weighs the nodes' folders by what is written in them.
func (b *bench) diskParts() (diskParts, error) {
	parts := diskParts{}
	nodes := b.nodes()
	for _, n := range nodes {
		err := filepath.WalkDir(n.Data, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			use, err := blocksOf(d)
			parts[partOf(strings.TrimPrefix(path, n.Data+"/"))] += float64(use.written) / float64(len(nodes))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("disk of %s: %w", n.ID, err)
		}
	}
	return parts, nil
}

// reclaimWait is how long a region that rests takes to give back what it kept for a while: logs, for nodes that are
// started again, and what moves and merges have replaced.
const reclaimWait = 100 * time.Second

// weigh reports bytes a document of one replica, at once and after a rest.
func (b *bench) weigh(ctx context.Context, idx *indexed) error {
	parts, err := b.diskParts()
	if err != nil {
		return err
	}
	b.report.scalar("index.disk.at_once", parts.sum()/float64(idx.n), "bytes/document, one replica", with(b.corpusConfig(), "documents", idx.n))
	progress("resting for %v before the disks are weighed", reclaimWait)
	select {
	case <-time.After(reclaimWait):
	case <-ctx.Done():
		return ctx.Err()
	}
	if parts, err = b.diskParts(); err != nil {
		return err
	}
	digests, ids := idx.c.Entropy(idx.n)
	each := func(v float64) float64 { return v / float64(idx.n) }
	c := with(b.corpusConfig(), "documents", idx.n)
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		b.report.scalar("index.disk."+strings.ReplaceAll(part, " ", "_"), each(parts[part]), "bytes/document, one replica", c)
	}
	b.report.scalar("index.disk", each(parts.sum()), "bytes/document, one replica", with(c,
		"entropy_digests", format(digests), "entropy_ids", format(ids), "without_entropy", format(each(parts.sum())-digests-ids)))
	return nil
}

// growthTable prints how latency and size grow with the documents.
func (b *bench) growthTable(idx *indexed) error {
	if len(idx.grown) == 0 {
		return nil
	}
	t := newTable("Growth: p95 with one client, in ms", "class")
	for _, g := range idx.grown {
		t.head = append(t.head, fmt.Sprintf("%d documents", g.documents))
	}
	for _, class := range corpus.Classes {
		row := []string{class}
		for _, g := range idx.grown {
			if d, ok := g.p95[class]; ok {
				row = append(row, format(milliseconds(d)))
			} else {
				row = append(row, "not available")
			}
		}
		t.rows = append(t.rows, row)
	}
	bytes, rss := []string{"bytes/document, one replica"}, []string{"resident MiB, largest node"}
	for _, g := range idx.grown {
		bytes = append(bytes, format(g.bytes.sum()/float64(g.documents)))
		rss = append(rss, format(float64(g.rss)/(1<<20)))
	}
	t.rows = append(t.rows, bytes, rss)
	return b.report.print(t)
}

// another ends the region and starts one of other nodes in a folder of its own.
func (b *bench) another(ctx context.Context, name string, nodes int) error {
	if err := b.stop(); err != nil {
		return err
	}
	b.idx, b.regionFolder = nil, filepath.Join(b.dir, name)
	if err := needDisk(b.dir, min(b.documents, sideDocuments)*nodes/3); err != nil {
		return err
	}
	var err error
	b.region, err = devregion.Start(ctx, devregion.Options{Dir: b.regionFolder, Binary: b.binary, Nodes: nodes, NoSeed: true})
	return err
}

// measureIndexSingle ingests into a region of one node: what replication costs.
func measureIndexSingle(ctx context.Context, b *bench) error {
	if err := b.another(ctx, "single", 1); err != nil {
		return err
	}
	n := min(b.documents, sideDocuments)
	m, err := b.withCPU(func() (measured, error) { return b.ingestCorpus(ctx, corpus.New(), 0, n, 0, ingestWorkers) })
	if err != nil {
		return err
	}
	c := with(b.corpusConfig(), "documents", n, "batch", ingestBatch, "workers", ingestWorkers, "loop", "closed", "replicas", 1)
	b.report.scalar("index.single.ingest", float64(n)/m.elapsed.Seconds(), "documents/s", c)
	b.report.scalar("index.single.server_cpu", float64(m.cpu.Microseconds())/float64(n), "us/document, region", c)
	return b.stop()
}
