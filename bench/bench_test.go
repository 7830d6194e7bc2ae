package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

func TestPercentileIsASample(t *testing.T) {
	var samples []time.Duration
	for i := 1; i <= 200; i++ {
		samples = append(samples, time.Duration(i))
	}
	for _, tc := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {0.5, 100}, {0.95, 190}, {0.99, 198}, {0.999, 200}, {1, 200}} {
		if got := percentile(samples, tc.q); got != tc.want {
			t.Errorf("percentile %v: got %d, want %d", tc.q, got, tc.want)
		}
	}
	if got := percentile(samples[:1], 0.99); got != 1 {
		t.Errorf("of one sample: got %d", got)
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of none: got %d", got)
	}
}

func TestClosedLoopCountsEveryCall(t *testing.T) {
	var calls atomic.Int64
	m, err := closedLoop(t.Context(), 4, 25, time.Minute, func(context.Context, int, int) error {
		calls.Add(1)
		return nil
	})
	if err != nil || len(m.samples) != 100 || calls.Load() != 100 || m.errors != 0 {
		t.Errorf("%d samples of %d calls, %d errors, err %v", len(m.samples), calls.Load(), m.errors, err)
	}
	if !slices.IsSorted(m.samples) {
		t.Error("the samples are not sorted")
	}
}

func TestALoadThatFailsIsNoFigure(t *testing.T) {
	broken := errors.New("broken")
	_, err := closedLoop(t.Context(), 1, 50, time.Minute, func(_ context.Context, _, n int) error {
		if n == 7 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// TestOpenLoopChargesForTheQueue: while the first call stalls the server, the others are due
// all the same, and wait from that moment.
func TestOpenLoopChargesForTheQueue(t *testing.T) {
	stall := make(chan struct{})
	var first sync.Once
	m, err := openLoop(t.Context(), 1000, 50*time.Millisecond, func(context.Context, int, int) error {
		first.Do(func() { time.AfterFunc(100*time.Millisecond, func() { close(stall) }) })
		<-stall
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.samples) != 50 || m.samples[0] < 50*time.Millisecond {
		t.Errorf("%d samples, the least %v; the last call was due 50 ms before the stall's end", len(m.samples), m.samples[0])
	}
}

func TestTheWorldIsWhatSearchesExpect(t *testing.T) {
	const n = 20_000
	w, again := newWorld(n), newWorld(n)
	outputs := map[string]bool{}
	tenants := map[string]int{}
	denied := 0
	for i := range n {
		d := w.document(i)
		if d.String() != again.document(i).String() {
			t.Fatalf("document %d is not the same twice", i)
		}
		if d.GetTenant() != w.tenant(i) || d.GetExecution() != w.execution(i) || d.GetDigests()[0].GetDigest() != w.output(i) {
			t.Fatalf("document %d: %v", i, d)
		}
		if !index.ValidTenant(d.GetTenant()) {
			t.Fatalf("tenant %q", d.GetTenant())
		}
		if outputs[w.output(i)] {
			t.Fatalf("document %d has the digest of another", i)
		}
		outputs[w.output(i)] = true
		tenants[d.GetTenant()]++
		if d.GetDecision() == "deny" {
			denied++
		}
	}
	if outputs[w.missing(0)] || outputs[w.missing(n-1)] {
		t.Error("a missing digest exists")
	}
	if share := float64(tenants["t-000"]) / n; share < 0.1 || share > 0.3 {
		t.Errorf("the largest tenant has %.2f of all documents", share)
	}
	if denied < n/decisionEvery/20 || denied > n/decisionEvery/5 {
		t.Errorf("%d documents are denials", denied)
	}
	if size, err := w.jsonBytes(); err != nil || size < 250 || size > 350 {
		t.Errorf("a document has %d bytes in JSON, err %v", size, err)
	}
}

func TestReportWritesALineForEachFigure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	r, err := newReport(path, options{})
	if err != nil {
		t.Fatal(err)
	}
	r.scalar("disk", 512, "bytes/document", config{"documents": 5})
	r.latency("read", measured{samples: []time.Duration{time.Millisecond, 2 * time.Millisecond}, elapsed: time.Second, cpu: time.Second}, config{"loop": "closed"})
	var table bytes.Buffer
	if err := r.close(&table); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]figure{}
	for line := range strings.Lines(string(data)) {
		var f figure
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if f.Unit == "" || f.Config["cores"] == nil || f.Config["commit"] == nil {
			t.Errorf("%s lacks something", line)
		}
		got[f.Name] = f
	}
	for name, want := range map[string]float64{
		"disk": 512, "read.p50": 1, "read.p99": 2, "read.max": 2, "read.throughput": 2, "read.server_cpu": 500_000,
	} {
		if got[name].Value != want {
			t.Errorf("%s: got %v, want %v", name, got[name].Value, want)
		}
	}
	if !strings.Contains(table.String(), "disk  512 bytes/document") {
		t.Errorf("table:\n%s", table.String())
	}
}
