package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/bench/internal/workflows"
	"github.com/maestro-conductor/maestro/index/ingest"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// realData is the folder of recorded data, or the test is skipped.
func realData(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MAESTRO_PROVENANCE_DATA")
	if dir == "" {
		t.Skip("MAESTRO_PROVENANCE_DATA names no folder with wfinstances/, attestations/ and cloudtrail/")
	}
	return dir
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Skipf("no files %s: %v", pattern, err)
	}
	return found
}

// realRegion is a region of three nodes and a client of it.
func realRegion(t *testing.T) *client.Client {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "maestro")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/maestro-conductor/maestro/cmd/maestro").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	r, err := devregion.Start(t.Context(), devregion.Options{Dir: t.TempDir(), Binary: binary, NoSeed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := r.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func store(t *testing.T, c *client.Client, docs []*provenancev1.Document) {
	t.Helper()
	for batch := range slices.Chunk(docs, 200) {
		resp, err := c.Provenance().Ingest(patiently(t), connect.NewRequest(&provenancev1.IngestRequest{Documents: batch}))
		if err != nil {
			t.Fatal(err)
		}
		if int(resp.Msg.GetIndexed()) != len(batch) {
			t.Fatalf("%d of %d documents were stored: %v", resp.Msg.GetIndexed(), len(batch), resp.Msg.GetRefusals())
		}
	}
}

// TestLineageOfRecordedWorkflows: walks over the API reach the tasks and files that a search through the
// workflows themselves reaches, at the same depths.
func TestLineageOfRecordedWorkflows(t *testing.T) {
	paths := files(t, filepath.Join(realData(t), "wfinstances", "*.json"))
	c := realRegion(t)
	g := newRawGraph()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		in, err := workflows.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		execution := strings.TrimSuffix(filepath.Base(path), ".json")
		docs, err := in.Receipts("lab", execution)
		if err != nil {
			t.Fatal(err)
		}
		store(t, c, docs)
		g.add(in, execution)
	}
	starts := g.starts(60)
	compared, largest := 0, 0
	for _, start := range starts {
		for _, direction := range []string{"down", "up"} {
			resp, err := c.Provenance().Lineage(patiently(t), connect.NewRequest(&provenancev1.LineageRequest{
				Digest: start, Direction: direction, Depth: 100, MaxDocuments: walkDocuments, MaxDigests: walkDigests, RequireComplete: true,
			}))
			if err != nil {
				t.Fatal(err)
			}
			if resp.Msg.GetStopped() == "bytes" { // longer than an answer may be
				continue
			}
			tasks, digests := g.walk(start, direction == "down")
			gotTasks, gotDigests := map[string]uint32{}, map[string]uint32{}
			for _, s := range resp.Msg.GetSteps() {
				gotTasks[s.GetDocument().GetId()] = s.GetDepth()
			}
			for _, d := range resp.Msg.GetDigests() {
				gotDigests[d.GetDigest()] = d.GetDepth()
			}
			if fmt.Sprint(gotTasks) != fmt.Sprint(tasks) || fmt.Sprint(gotDigests) != fmt.Sprint(digests) {
				t.Errorf("%s of %s: %d tasks and %d digests, want %d and %d, or at other depths (%s)", direction, start,
					len(gotTasks), len(gotDigests), len(tasks), len(digests), resp.Msg.GetStopped())
			}
			compared++
			largest = max(largest, len(tasks))
		}
	}
	if compared < len(starts) || largest < 10 {
		t.Errorf("only %d walks were compared, the largest with %d tasks", compared, largest)
	}
	t.Logf("%d workflows, %d tasks, %d files; %d walks are equal, the largest has %d tasks", len(paths), len(g.takes), len(g.takers)+len(g.makers), compared, largest)
}

// rawGraph is files and tasks of recorded workflows, as they say it themselves.
type rawGraph struct {
	takes, makes   map[string][]string // of a task
	takers, makers map[string][]string // of a digest
}

func newRawGraph() *rawGraph {
	return &rawGraph{map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}}
}

func (g *rawGraph) add(in *workflows.Instance, execution string) {
	digests := in.Digests()
	for _, t := range in.Workflow.Specification.Tasks {
		id := execution + "/" + t.ID
		for _, f := range t.Inputs {
			g.takes[id] = append(g.takes[id], digests[f])
			g.takers[digests[f]] = append(g.takers[digests[f]], id)
		}
		for _, f := range t.Outputs {
			g.makes[id] = append(g.makes[id], digests[f])
			g.makers[digests[f]] = append(g.makers[digests[f]], id)
		}
	}
}

// starts are digests all over the workflows, the most taken ones among them.
func (g *rawGraph) starts(n int) []string {
	var all []string
	for d := range g.takers {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(g.takers[b]), len(g.takers[a])), cmp.Compare(a, b))
	})
	out := slices.Clone(all[:min(n/3, len(all))])
	for i := len(out); i < len(all) && len(out) < n; i += max(1, len(all)/n) {
		out = append(out, all[i])
	}
	return out
}

func (g *rawGraph) walk(start string, down bool) (tasks, digests map[string]uint32) {
	next, result := g.takers, g.makes
	if !down {
		next, result = g.makers, g.takes
	}
	tasks, digests = map[string]uint32{}, map[string]uint32{start: 0}
	level := []string{start}
	for depth := uint32(1); len(level) > 0; depth++ {
		var reached []string
		for _, d := range level {
			for _, task := range next[d] {
				if _, known := tasks[task]; known {
					continue
				}
				tasks[task] = depth
				for _, r := range result[task] {
					if _, known := digests[r]; !known {
						digests[r] = depth
						reached = append(reached, r)
					}
				}
			}
		}
		level = reached
	}
	return tasks, digests
}

// TestRecordedEventsAndAttestations: every search finds what looking at each record finds, in the same order, page after
// page, and counts it right.
func TestRecordedEventsAndAttestations(t *testing.T) {
	dir := realData(t)
	trails := files(t, filepath.Join(dir, "cloudtrail", "*.json"))
	statements := files(t, filepath.Join(dir, "attestations", "*"))
	c := realRegion(t)
	text, err := os.ReadFile(filepath.Join("..", "docs", "examples", "cloudtrail.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := ingest.ParseMapping(text)
	if err != nil {
		t.Fatal(err)
	}
	events := &client.Ingester{Client: c, Timeout: 2 * time.Minute, Read: ingest.Options{Format: ingest.FormatJSON, Mapping: mapping}}
	addFiles(t, events, trails)
	attested := &client.Ingester{Client: c, Timeout: 2 * time.Minute, Read: ingest.Options{Format: ingest.FormatInToto, Tenant: "lab"}}
	addFiles(t, attested, statements)
	if n := events.Counts(); n.Refused > 0 || n.Indexed == 0 {
		t.Errorf("events: %+v", n)
	}

	// Events against the records themselves.
	raw := rawEvents(t, trails)
	if n := int(events.Counts().Indexed); n != len(raw) {
		t.Errorf("%d events were stored of %d", n, len(raw))
	}
	queries := map[string]func(rawEvent) bool{"kind:event": func(rawEvent) bool { return true }}
	for _, e := range raw {
		queries[fmt.Sprintf("kind:event AND attr.eventName:%q", e.Name)] = func(o rawEvent) bool { return o.Name == e.Name }
		queries[fmt.Sprintf("kind:event AND region:%q AND NOT attr.eventSource:%q", e.Region, e.Source)] = func(o rawEvent) bool {
			return o.Region == e.Region && o.Source != e.Source
		}
	}
	for query, matches := range queries {
		var want []string
		for _, e := range raw {
			if matches(e) {
				want = append(want, e.ID)
			}
		}
		compare(t, c, query, want)
	}

	// Attestations against what an export has, document by document.
	all := pages(t, c, "kind:receipt", 1000)
	if len(all) == 0 || len(all) > int(attested.Counts().Indexed) {
		t.Fatalf("%d receipts of %+v", len(all), attested.Counts())
	}
	digests := map[string]bool{}
	for _, d := range all {
		for _, g := range d.GetDigests() {
			digests[g.GetDigest()] = true
		}
	}
	for digest := range digests {
		for _, field := range []string{"digest", "output", "input"} {
			var want []string
			for _, d := range all {
				if slices.ContainsFunc(d.GetDigests(), func(g *provenancev1.Digest) bool {
					return g.GetDigest() == digest && (field == "digest" || g.GetDirection() == field)
				}) {
					want = append(want, d.GetId())
				}
			}
			compare(t, c, "kind:receipt AND "+field+":"+digest, want)
		}
	}
	t.Logf("%d events with %d queries, %d receipts with %d digests; attestations %+v", len(raw), len(queries), len(all), len(digests), attested.Counts())
}

func addFiles(t *testing.T, in *client.Ingester, paths []string) {
	t.Helper()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Add(patiently(t), path, bytes.NewReader(data), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Flush(patiently(t)); err != nil {
		t.Fatal(err)
	}
}

type rawEvent struct {
	ID     string    `json:"eventID"`
	Name   string    `json:"eventName"`
	Source string    `json:"eventSource"`
	Region string    `json:"awsRegion"`
	Time   time.Time `json:"eventTime"`
}

// rawEvents are the records of files, each once, newest first, then by id.
func rawEvents(t *testing.T, paths []string) []rawEvent {
	t.Helper()
	seen := map[string]bool{}
	var out []rawEvent
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Records []rawEvent }
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		for _, e := range file.Records {
			if !seen[e.ID] {
				seen[e.ID] = true
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b rawEvent) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.ID, b.ID)) })
	return out
}

// pages are all documents of a search, by pages of a size.
func pages(t *testing.T, c *client.Client, query string, size uint32) (out []*provenancev1.Document) {
	t.Helper()
	r := &provenancev1.SearchRequest{Query: query, Limit: size, Exact: true, RequireComplete: true}
	for {
		resp, err := c.Provenance().Search(patiently(t), connect.NewRequest(r))
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		out = append(out, resp.Msg.GetItems()...)
		if r.Cursor == "" && resp.Msg.GetNext() == "" && int(resp.Msg.GetTotal().GetValue()) != len(out) {
			t.Errorf("%s: total %v of %d documents", query, resp.Msg.GetTotal(), len(out))
		}
		if r.Cursor = resp.Msg.GetNext(); r.Cursor == "" {
			return out
		}
	}
}

// compare wants the same documents in the same order, from one page and from small ones, and their count.
func compare(t *testing.T, c *client.Client, query string, want []string) {
	t.Helper()
	for _, size := range []uint32{1000, uint32(max(7, len(want)/6))} {
		var got []string
		for _, d := range pages(t, c, query, size) {
			got = append(got, d.GetId())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s in pages of %d: %d documents, want %d, or in another order", query, size, len(got), len(want))
		}
	}
	resp, err := c.Provenance().Search(patiently(t), connect.NewRequest(&provenancev1.SearchRequest{Query: query, Limit: 1, Exact: true}))
	if err != nil {
		t.Fatal(err)
	}
	if n := resp.Msg.GetTotal(); int(n.GetValue()) != len(want) || n.GetRelation() != "eq" {
		t.Errorf("%s: total %v, want %d", query, n, len(want))
	}
}
