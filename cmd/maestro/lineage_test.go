package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// sampleReport is a report of the sample content, which "maestro dev" names in its welcome.
const sampleReport = "sha256:36c2e80a66311fbf22ac4d7f07d48f367be6190afc0e615fa11c36c035277429"

// checkLineage walks in the sample content of a development region.
func checkLineage(t *testing.T) {
	t.Helper()
	out, errs, status := maestro(t, "", "lineage", "--tenant", "demo", sampleReport)
	for _, want := range []string{sampleReport + " report.xml\n└─ run-0003/test ", "\n   └─ sha256:4bd99e984dbb69d8… app\n      └─ run-0003/build ", "2 receipts, 3 digests, cost 0.00525 USD\n"} {
		if status != statusDone || !strings.Contains(out, want) {
			t.Errorf("lineage: %d, no %q in\n%s%s", status, want, out, errs)
		}
	}
	var answer struct {
		Steps    []struct{ Document struct{ ID string } }
		Stopped  string
		Complete bool
	}
	// Without a direction a path is found whichever end is named first.
	out, errs, status = maestro(t, "", "lineage", "--tenant", "demo", "1e880637fe71644d81e0382a32ff3dae45e5c316bd1de05e4fee26f2c3fe20db", "--to", sampleReport, "-o", "json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || status != statusDone || answer.Stopped != "found" || !answer.Complete || len(answer.Steps) != 2 || answer.Steps[0].Document.ID != "run-0003/build" {
		t.Errorf("path: %d %v %s %s", status, err, out, errs)
	}
	if out, errs, status := maestro(t, "", "lineage", "--tenant", "acme", sampleReport); status != statusDone || out != sampleReport+"\n0 receipts, 1 digest\n" {
		t.Errorf("lineage in another tenant: %d %s %s", status, out, errs)
	}
	if _, errs, status := maestro(t, "", "lineage", "sha256:36c2e80a"); status != statusError || !strings.Contains(errs, "digest, character 16: ") || !strings.Contains(errs, "search for digest:sha256:36c2e80a*") {
		t.Errorf("the beginning of a digest: %d %s", status, errs)
	}
}

// drawn is a graph with a cycle, a receipt found by two digests, and hostile names:
// c <- mix <- a, b; a <- make <- s; b <- make; s <- loop <- c.
func drawn() (*provenancev1.LineageRequest, *provenancev1.LineageResponse) {
	receipt := func(id string, cost int64, digests ...string) *provenancev1.Document {
		d := &provenancev1.Document{Id: id, Tenant: "acme", Time: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Task: "t"}
		if cost != 0 {
			d.Cost = &provenancev1.Cost{MicroUnits: cost, Currency: "USD"}
		}
		for _, g := range digests {
			direction, digest, _ := strings.Cut(g, " ")
			d.Digests = append(d.Digests, &provenancev1.Digest{Digest: digest, Direction: direction, Name: "n\n\"" + digest})
		}
		return d
	}
	return &provenancev1.LineageRequest{Digest: "x:cc", Direction: "up", Depth: 3}, &provenancev1.LineageResponse{
		Steps: []*provenancev1.LineageStep{
			{Document: receipt("mix", 1_500_000, "output x:cc", "input x:aa", "input x:bb", "input x:aa"), Depth: 1, Via: []string{"x:cc"}},
			{Document: receipt(`make"`, -20, "subject x:aa", "output x:bb", "input x:0123456789abcdef01"), Depth: 2, Via: []string{"x:aa", "x:bb"}},
			{Document: receipt("loop", 0, "output x:0123456789abcdef01", "input x:cc", "input x:beyond"), Depth: 3, Via: []string{"x:0123456789abcdef01"}},
		},
		Digests: []*provenancev1.LineageDigest{{Digest: "x:cc"}, {Digest: "x:aa", Depth: 1}, {Digest: "x:bb", Depth: 1}, {Digest: "x:0123456789abcdef01", Depth: 2}},
		Costs:   []*provenancev1.Cost{{MicroUnits: 5, Currency: "EUR"}, {MicroUnits: 1_499_980, Currency: "USD"}}, Stopped: "digests", DocumentsFollowed: 3,
		Shards: []*provenancev1.ShardStatus{{Shard: "index-0", State: "ok"}, {Shard: "index-1", State: "timeout", Message: "no answer in time"}},
	}
}

func TestLineageTree(t *testing.T) {
	r, result := drawn()
	const want = `x:cc n "x:cc
└─ mix  2026-01-02 03:04:05  t  1.50 USD
   ├─ x:aa n "x:aa
   │  └─ make"  2026-01-02 03:04:05  t  -0.00002 USD
   │     └─ x:0123456789abcdef… n "x:0123456789abcdef01
   │        └─ loop  2026-01-02 03:04:05  t
   │           └─ x:cc n "x:cc (elsewhere in the tree)
   └─ x:bb n "x:bb
      └─ make" (elsewhere in the tree)
3 receipts, 4 digests, cost 0.000005 EUR + 1.49998 USD; there are more than 0 digests: --max-digests, --where, --since
incomplete: index-1: timeout: no answer in time
`
	if got := string(lineageTree(r, result)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.To, result = "x:dd", &provenancev1.LineageResponse{Stopped: "depth", DocumentsFollowed: 7}
	if got := string(lineageTree(r, result)); got != "no path found from x:cc to x:dd, after 7 receipts; there may be more beyond depth 3: --depth\n" {
		t.Errorf("no path: %s", got)
	}
}

func TestLineageDot(t *testing.T) {
	const want = `digraph lineage {
  rankdir=LR;
  node [fontname="sans-serif"];
  "x:cc" [shape=note, label="x:cc n \"x:cc"];
  "x:aa" [shape=note, label="x:aa n \"x:aa"];
  "x:bb" [shape=note, label="x:bb n \"x:bb"];
  "x:0123456789abcdef01" [shape=note, label="x:0123456789abcdef… n \"x:0123456789abcdef01"];
  "receipt acme/mix" [shape=box, label="mix  2026-01-02 03:04:05  t  1.50 USD"];
  "receipt acme/mix" -> "x:cc";
  "x:aa" -> "receipt acme/mix";
  "x:bb" -> "receipt acme/mix";
  "receipt acme/make\"" [shape=box, label="make\"  2026-01-02 03:04:05  t  -0.00002 USD"];
  "receipt acme/make\"" -> "x:aa";
  "receipt acme/make\"" -> "x:bb";
  "x:0123456789abcdef01" -> "receipt acme/make\"";
  "receipt acme/loop" [shape=box, label="loop  2026-01-02 03:04:05  t"];
  "receipt acme/loop" -> "x:0123456789abcdef01";
  "x:cc" -> "receipt acme/loop";
}
`
	if got := string(lineageDot(drawn())); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
