package corpus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

const sample = 20_000

func TestDocumentsHaveTheirShape(t *testing.T) {
	c, other := New(), New()
	digests, executions, tasks, ids := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	tenants, kindsSeen := map[string]int{}, map[string]int{}
	bytes, denials, lateOnes := 0, 0, 0
	newest := time.Time{}
	for n := range sample {
		doc := c.Doc(n)
		p := doc.Proto()
		if again := other.Doc(n); again != doc {
			t.Fatalf("document %d is not the same twice", n)
		}
		data, err := protojson.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var compact map[string]any // protojson adds spaces at random
		if err := json.Unmarshal(data, &compact); err != nil {
			t.Fatal(err)
		}
		data, _ = json.Marshal(compact)
		bytes += len(data)
		executions[p.GetExecution()], tasks[p.GetTask()], ids[p.GetId()] = true, true, true
		for _, g := range p.GetDigests() {
			digests[g.GetDigest()] = true
		}
		tenants[p.GetTenant()]++
		kindsSeen[p.GetKind()]++
		if p.GetDecision() == "deny" {
			denials++
		}
		if !index.ValidTenant(p.GetTenant()) {
			t.Fatalf("tenant %q", p.GetTenant())
		}
		if p.GetTime().AsTime().Before(newest.Add(-2 * jitter)) {
			lateOnes++
		}
		if at := p.GetTime().AsTime(); at.After(newest) {
			newest = at
		}
	}
	if len(ids) != sample {
		t.Errorf("%d ids of %d documents", len(ids), sample)
	}
	share := func(n int) float64 { return float64(n) / sample }
	for _, tc := range []struct {
		what        string
		got         float64
		least, most float64
	}{
		{"fresh digests", share(len(digests)), 0.39, 0.42},
		{"fresh executions", share(len(executions)), 0.25, 0.2501},
		{"fresh tasks", share(len(tasks)), 0.5, 0.5001},
		{"receipts", share(kindsSeen["receipt"]), 0.5, 0.5},
		{"denials", share(denials), 0.02, 0.03},
		{"late documents", share(lateOnes), 0.01, 0.03},
		{"the largest tenant", share(tenants["t-0000"]), 0.1, 0.3},
		{"bytes of JSON", float64(bytes) / sample, 280, 380},
	} {
		if tc.got < tc.least || tc.got > tc.most {
			t.Errorf("%s: %v, want %v to %v", tc.what, tc.got, tc.least, tc.most)
		}
	}
	randomDigests, randomIDs := c.Entropy(sample)
	if want := 32 * share(len(digests)); randomDigests < want-0.1 || randomDigests > want+0.1 {
		t.Errorf("entropy of digests %v, want %v", randomDigests, want)
	}
	if randomIDs < 13.9 || randomIDs > 14.1 {
		t.Errorf("entropy of ids %v", randomIDs)
	}
}

// TestTruthAgreesWithEachDocumentAsked: what is found by maps and orders is what comes of asking
// every document, as clients see it, about every condition.
func TestTruthAgreesWithEachDocumentAsked(t *testing.T) {
	const n = 11_001
	c := New()
	var docs []*provenancev1.Document
	for i := range n {
		d := c.Doc(i)
		docs = append(docs, d.Proto())
	}
	slices.SortFunc(docs, newestFirst)
	truth := c.NewTruth(n, nil)
	for _, class := range Classes {
		queries := c.Draw(class, n, 30, 7)
		found := 0
		for i, a := range truth.Answers(queries) {
			q := queries[i]
			want := naive(docs, q)
			if a.Total != want.Total || !slices.Equal(a.IDs, want.IDs) || a.Digests != want.Digests || fmt.Sprint(a.Facet) != fmt.Sprint(want.Facet) {
				t.Fatalf("%s %+v: got %+v, want %+v", class, *q, *a, want)
			}
			found += a.Total
		}
		if (found == 0) != (class == DigestMiss || class == DenseDense) {
			t.Errorf("%s: %d documents found in all", class, found)
		}
		if again := c.Draw(class, n, 30, 7); fmt.Sprint(again[29].key()) != fmt.Sprint(queries[29].key()) {
			t.Errorf("%s: the same seed draws others", class)
		}
	}
}

func TestTruthOfAPart(t *testing.T) {
	const n = 4000
	c := New()
	part := c.NewTruth(n, func(d *Doc) bool { return d.N%3 != 0 })
	queries := c.Draw(TenantNew, n, 20, 1)
	whole := c.NewTruth(n, nil).Answers(queries)
	for i, a := range part.Answers(queries) {
		if a.Total >= whole[i].Total && whole[i].Total > 10 || a.Total == 0 && whole[i].Total > 50 {
			t.Errorf("query %d: %d of %d documents", i, a.Total, whole[i].Total)
		}
		for _, id := range a.IDs {
			if a.Total < PageItems && !slices.Contains(whole[i].IDs, id) && whole[i].Total <= PageItems {
				t.Errorf("query %d: %x is no answer", i, id)
			}
		}
	}
}

func newestFirst(a, b *provenancev1.Document) int {
	return cmp.Or(b.GetTime().AsTime().Compare(a.GetTime().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
}

func naive(docs []*provenancev1.Document, q *Query) Answer {
	if q.Start != None {
		return naiveWalk(docs, Digest(q.Start))
	}
	var a Answer
	conditions, tenant := q.Conditions(), q.Tenant()
	for _, d := range docs {
		at := d.GetTime().AsTime().UnixMilli()
		if tenant != "" && d.GetTenant() != tenant || q.To != 0 && (at < q.From || at >= q.To) ||
			slices.ContainsFunc(conditions, func(c Condition) bool { return !holds(d, c) }) {
			continue
		}
		if a.Total >= q.Skip && len(a.IDs) < q.Limit {
			a.IDs = append(a.IDs, number(d))
		}
		if a.Total++; q.Class == Facet {
			if a.Facet == nil {
				a.Facet = map[string]int{}
			}
			a.Facet[d.GetRule()]++
		}
	}
	return a
}

func number(d *provenancev1.Document) (id uint64) {
	_, _ = fmt.Sscanf(d.GetId(), "%x", &id)
	return id
}

func holds(d *provenancev1.Document, c Condition) bool {
	switch c.Field {
	case "digest":
		return slices.ContainsFunc(d.GetDigests(), func(g *provenancev1.Digest) bool {
			return g.GetDigest() == c.Value || c.Prefix && strings.HasPrefix(g.GetDigest(), "sha256:"+c.Value)
		})
	case "attr.zone":
		return d.GetAttributes()["zone"] == c.Value
	}
	get, ok := map[string]func() string{
		"kind": d.GetKind, "decision": d.GetDecision, "rule": d.GetRule, "pack": d.GetPack, "runner": d.GetRunner,
		"execution": d.GetExecution, "task": d.GetTask,
	}[c.Field]
	return ok && get() == c.Value
}

func naiveWalk(docs []*provenancev1.Document, start string) Answer {
	var a Answer
	depth := map[string]int{start: 0}
	followed := map[string]bool{}
	for level := range WalkDepth {
		for _, d := range docs {
			if d.GetKind() != "receipt" || followed[d.GetId()] {
				continue
			}
			reached := func(direction string) bool {
				return slices.ContainsFunc(d.GetDigests(), func(g *provenancev1.Digest) bool {
					at, ok := depth[g.GetDigest()]
					return g.GetDirection() == direction && ok && at == level
				})
			}
			if !reached("input") {
				continue
			}
			followed[d.GetId()] = true
			a.IDs = append(a.IDs, number(d))
			for _, g := range d.GetDigests() {
				if _, ok := depth[g.GetDigest()]; !ok && g.GetDirection() == "output" {
					depth[g.GetDigest()] = level + 1
				}
			}
		}
	}
	a.Total, a.Digests = len(a.IDs), len(depth)-1
	return a
}
