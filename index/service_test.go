package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Where a document lives is decided for ever: this table must never change.
func TestRouterGolden(t *testing.T) {
	r := newRouter([]Shard{{Name: "index-0"}, {Name: "index-1"}, {Name: "index-2"}})
	got := map[string]int{}
	counts := make([]int, 3)
	for i := range 30_000 {
		id := fmt.Sprint("doc-", i)
		n := r.shard("acme", id)
		if counts[n]++; i < 20 {
			got[id] = n
		}
	}
	b, err := os.ReadFile("testdata/router.json")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("documents moved to other shards: %v, want %v", got, want)
	}
	for n, c := range counts {
		if c < 9_500 || c > 10_500 {
			t.Errorf("shard %d has %d of 30000 documents", n, c)
		}
	}
	// A shard more takes documents from the others and moves none between them.
	wider := newRouter([]Shard{{Name: "index-0"}, {Name: "index-1"}, {Name: "index-2"}, {Name: "index-3"}})
	for i := range 1000 {
		id := fmt.Sprint("doc-", i)
		if n := wider.shard("acme", id); n != 3 && n != r.shard("acme", id) {
			t.Fatalf("%s moved from %d to %d", id, r.shard("acme", id), n)
		}
	}
}

func TestIngestAccountsForEveryDocument(t *testing.T) {
	r := newRegion(t, 3, 8)
	var docs []Document
	for i := range 50 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Time: int64(i)}))
	}
	if res := r.ingest(docs...); res.Indexed != 50 || len(res.Positions) != 3 {
		t.Errorf("first: %+v", res)
	}
	changed := normal(t, Document{ID: "7", Task: "changed"})
	res := r.ingest(docs[6], docs[8], changed, normal(t, Document{ID: "new"}))
	if res.Indexed != 1 || res.Existing != 2 || len(res.Refusals) != 1 || !slices.Equal(res.ExistingAt, []int{0, 1}) {
		t.Fatalf("again: %+v", res)
	}
	if got := res.Refusals[0]; got.Position != 2 || got.ID != "7" || got.Reason != ReasonConflict {
		t.Errorf("refusal %+v", got)
	}
	if res := r.ingest(); res.Indexed != 0 {
		t.Errorf("empty batch: %+v", res)
	}
}

// A repeated call with a request id gets the first answer.
func TestIngestRequestID(t *testing.T) {
	r := newRegion(t, 2, 8)
	docs := []Document{normal(t, Document{ID: "a"}), normal(t, Document{ID: "b"})}
	for range 2 {
		res, err := r.service.Ingest(context.Background(), docs, "mine")
		if err != nil || res.Indexed != 2 {
			t.Errorf("%+v, %v", res, err)
		}
	}
}

// A batch larger than a command is split; the documents keep their order on a shard.
func TestIngestSplitsLargeBatches(t *testing.T) {
	r := newRegion(t, 1, 1024)
	var docs []Document
	for i := range 12 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Time: int64(i), Attributes: slices.Collect(func(yield func(Attribute) bool) {
			for n := range 20 {
				if !yield(Attribute{Name: fmt.Sprint(n), Value: strings.Repeat("v", 8000)}) {
					return
				}
			}
		})}))
	}
	tally := newTally(docs)
	for _, p := range r.service.split(docs, tally)[0] {
		if len(p.command) > raftfsm.CommandBytesMax {
			t.Errorf("a command has %d bytes", len(p.command))
		}
	}
	if res := r.ingest(docs...); res.Indexed != 12 {
		t.Fatalf("%+v", res)
	}
	// Pages that would be too large are cut short and go on.
	if all, _ := r.pages(SearchRequest{Limit: PageMax}, nil); len(all) != 12 || all[0].ID != "11" {
		t.Errorf("pages: %v", idsOf(all))
	}
	var more []Document
	for i := range 30 {
		d := docs[0]
		d.ID = fmt.Sprint("more-", i)
		more = append(more, d)
	}
	r.ingest(more...)
	page := r.search(SearchRequest{Limit: PageMax})
	if len(page.Items) >= 42 || page.Next == "" {
		t.Errorf("a page of %d documents of 160 KB", len(page.Items))
	}
	if all, _ := r.pages(SearchRequest{Limit: PageMax}, nil); len(all) != 42 {
		t.Errorf("%d documents, want 42", len(all))
	}
}

// When a shard fails, the error says how much is decided, and sending again completes it.
func TestIngestPartialFailure(t *testing.T) {
	r := newRegion(t, 3, 8)
	var docs []Document
	for i := range 30 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i)}))
	}
	r.fail = func(g raftfsm.GroupID, _ bool) error {
		if g == 1 {
			return errDown
		}
		return nil
	}
	res, err := r.service.Ingest(context.Background(), docs, "")
	var partial *IngestError
	if !errors.As(err, &partial) || !errors.Is(err, errDown) || partial.Stored != res.Indexed || partial.Stored+partial.Unknown != 30 {
		t.Fatalf("%+v, %v", res, err)
	}
	if raftfsm.OutcomeOf(err) != raftfsm.OutcomeUnknown {
		t.Errorf("outcome of %v is definite", err)
	}
	r.fail = nil
	if again := r.ingest(docs...); again.Existing != partial.Stored || again.Indexed != partial.Unknown {
		t.Errorf("again: %+v after %+v", again, partial)
	}
}

func TestSearchSaysWhichShardIsMissing(t *testing.T) {
	r := newRegion(t, 3, 8)
	for i := range 30 {
		r.ingest(normal(t, Document{ID: fmt.Sprint(i)}))
	}
	for state, cause := range map[string]error{ShardTimeout: context.DeadlineExceeded, ShardUnreachable: raftfsm.ErrNoLeader, ShardError: errDown} {
		r.fail = func(g raftfsm.GroupID, _ bool) error {
			if g == 1 {
				return cause
			}
			return nil
		}
		res := r.search(SearchRequest{Limit: PageMax})
		if res.Complete || res.TotalExact || len(res.Items) == 0 || len(res.Items) == 30 || len(res.Shards) != 3 {
			t.Errorf("%s: %d items, complete %v, exact %v", state, len(res.Items), res.Complete, res.TotalExact)
		}
		if s := res.Shards[1]; s.State != state || s.Message == "" || res.Shards[0].State != ShardOK {
			t.Errorf("%s: %+v", state, res.Shards)
		}
		_, err := r.service.Search(context.Background(), SearchRequest{Limit: 1, RequireComplete: true})
		if !errors.Is(err, ErrIncomplete) || !errors.Is(err, cause) {
			t.Errorf("%s required: %v", state, err)
		}
	}
	r.fail = func(raftfsm.GroupID, bool) error { return raftfsm.ErrNoLeader }
	var all *ShardsError
	if _, err := r.service.Search(context.Background(), SearchRequest{Limit: 1}); !errors.As(err, &all) || len(all.Shards) != 3 {
		t.Errorf("no shard: %v", err)
	}
}

// A search that follows fails while a shard is missing, and goes on at the same cursor after it.
func TestFollowMissesNoShard(t *testing.T) {
	r := newRegion(t, 2, 8)
	req := SearchRequest{Limit: PageMax, Follow: true}
	req.Cursor = r.search(req).Next
	for i := range 30 {
		r.ingest(normal(t, Document{ID: fmt.Sprint(i)}))
	}
	r.fail = func(g raftfsm.GroupID, _ bool) error {
		if g == 1 {
			return raftfsm.ErrNoLeader
		}
		return nil
	}
	if res, err := r.service.Search(context.Background(), req); !errors.Is(err, ErrIncomplete) || res.Next != "" {
		t.Errorf("with a shard missing: %+v, %v", res, err)
	}
	r.fail = nil
	res := r.search(req)
	if len(res.Items) != 30 || res.Total != 30 {
		t.Errorf("afterwards: %d items of %d", len(res.Items), res.Total)
	}
	req.Cursor = res.Next
	if res := r.search(req); len(res.Items) != 0 || res.Total != 0 || res.Next == "" {
		t.Errorf("with nothing new: %+v", res)
	}
	// A region restored from an older backup has fewer documents than the cursor counts.
	older := newRegion(t, 2, 8)
	var why *CursorError
	if _, err := older.service.Search(context.Background(), req); !errors.As(err, &why) || why.Reason != CursorStale {
		t.Errorf("in a region with fewer documents: %v", err)
	}
}

func TestSearchTotals(t *testing.T) {
	r := newRegion(t, 2, 4096)
	var docs []Document
	for i := range TotalMax + 1 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Time: int64(i), Task: fmt.Sprint(i % 2)}))
	}
	r.ingest(docs...)
	for _, c := range []struct {
		req   SearchRequest
		total int
		exact bool
	}{
		{SearchRequest{}, TotalMax, false},
		{SearchRequest{Exact: true}, TotalMax + 1, true},
		{SearchRequest{Query: "task:1"}, TotalMax / 2, true},
		{SearchRequest{Query: "-id:5"}, TotalMax, true},
	} {
		c.req.Limit = 3
		if res := r.search(c.req); res.Total != c.total || res.TotalExact != c.exact || len(res.Items) != 3 {
			t.Errorf("%+v: %d %v", c.req, res.Total, res.TotalExact)
		}
	}
}

// What other tenants have neither shows in a prefix search nor makes it fail.
func TestPrefixesOfOtherTenants(t *testing.T) {
	r := newRegion(t, 2, 8)
	for i := range 5 {
		docs := manyTasks(t, i*500, 500)
		for n := range docs {
			docs[n].Tenant = "beta"
		}
		r.ingest(docs...)
	}
	own := manyTasks(t, 0, 3)
	for n := range own {
		own[n].Tenant = "gamma"
	}
	r.ingest(own...)
	for tenant, want := range map[string]int{"gamma": 3, "delta": 0} {
		res, err := r.service.Search(context.Background(), SearchRequest{Query: "task:t*", Tenant: tenant, Limit: 10})
		if err != nil || res.Total != want {
			t.Errorf("tenant %s: %d documents, %v; want %d", tenant, res.Total, err, want)
		}
	}
	if _, err := r.service.Search(context.Background(), SearchRequest{Query: "task:t*", Tenant: "beta", Limit: 10}); !errors.Is(err, ErrQuery) {
		t.Errorf("a tenant with too many terms of its own: %v", err)
	}
}

func TestSearchRefusesMistakes(t *testing.T) {
	r := newRegion(t, 2, 8)
	for i := range 1 + 2*PrefixTermsMax + 500 {
		if i%500 == 0 {
			r.ingest(manyTasks(t, i, 500)...)
		}
	}
	for _, c := range []struct {
		req     SearchRequest
		is      error
		message string
	}{
		{SearchRequest{Limit: 0}, ErrCondition, "limit 0 is not between 1 and 1000"},
		{SearchRequest{Limit: PageMax + 1}, ErrCondition, "limit 1001"},
		{SearchRequest{Limit: 1, From: 2, To: 1}, ErrCondition, "ends before it begins"},
		{SearchRequest{Limit: 1, Digest: "zz"}, ErrCondition, "not a digest"},
		{SearchRequest{Limit: 1, Query: "knid:x"}, ErrQuery, "did you mean kind:?"},
		{SearchRequest{Limit: 1, Query: "a digest:12zz"}, ErrQuery, "character 3"},
		{SearchRequest{Limit: 1, Query: "digest:xyz*"}, ErrQuery, "hex"},
		{SearchRequest{Limit: 1, Query: "a OR task:t*"}, ErrQuery, "character 6: task:t* stands for more than 1000 terms"},
		{SearchRequest{Limit: 1, Query: "task:" + strings.Repeat("x", 300) + "*"}, ErrQuery, "shorten it"},
		{SearchRequest{Limit: 1, Cursor: "nonsense"}, ErrCursor, "not a cursor"},
	} {
		_, err := r.service.Search(context.Background(), c.req)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	next := r.search(SearchRequest{Limit: 1, Tenant: "acme"}).Next
	if _, err := r.service.Search(context.Background(), SearchRequest{Limit: 1, Tenant: "beta", Cursor: next}); !errors.Is(err, ErrCursor) {
		t.Errorf("a cursor of another tenant: %v", err)
	}
	unready := NewService(r, r.shards, func() ([]byte, bool) { return nil, false }, unpaced{})
	if _, err := unready.Search(context.Background(), SearchRequest{Limit: 1}); !errors.Is(err, ErrNotReady) {
		t.Errorf("without a key: %v", err)
	}
}

func manyTasks(t *testing.T, from, count int) []Document {
	docs := make([]Document, count)
	for i := range docs {
		docs[i] = normal(t, Document{ID: fmt.Sprint("m", from+i), Task: fmt.Sprint("t", from+i)})
	}
	return docs
}

// What a document is found by.
func TestSearchFields(t *testing.T) {
	r := newRegion(t, 2, 2)
	long := strings.Repeat("é", 300)
	r.ingest(
		normal(t, Document{
			ID: "one", Kind: KindDecision, Region: "us-west", Execution: "run 1", Pack: "p@1", Rule: "r", Decision: "deny",
			Reason: "Quota exceeded: ÄRGER of limit_7.", Runner: "pool/a", Digests: []Digest{sha(0xAB, DirectionOutput)},
			CostMicros: 250_000, Currency: "EUR", Attributes: []Attribute{{Name: "empty"}, {Name: "long", Value: long}},
		}),
		normal(t, Document{ID: "two", Digests: []Digest{{Algorithm: "gitcommit", Value: strings.Repeat("cd", 20), Direction: DirectionInput}}, Attributes: []Attribute{{Name: "long", Value: long + "x"}}}),
	)
	hexAB := sha(0xAB, "").Value
	for q, want := range map[string][]string{
		"":                           {"one", "two"},
		"one":                        {"one"},
		"kind:decision":              {"one"},
		"region:us-west":             {"one"},
		`execution:"run 1"`:          {"one"},
		"pack:p@1 rule:r":            {"one"},
		"decision:deny runner:pool*": {"one"},
		"decision:Deny":              {},
		"quota":                      {"one"},
		"reason:EXCEEDED":            {"one"},
		"reason:ärger":               {"one"},
		"limit_7":                    {"one"},
		`"exceeded limit_7"`:         {"one"},
		"reason:limit":               {},
		"reason:limit*":              {"one"},
		"currency:EUR cost:0.25":     {"one"},
		"cost:<0.25":                 {},
		"attr.long:" + long:          {"one"},
		"attr.long:" + long + "x":    {"two"},
		"attr.long:éé*":              {"one", "two"},
		`attr.empty:""`:              {"one"},
		"digest:sha256:" + hexAB:     {"one"},
		"digest:SHA256:" + strings.ToUpper(hexAB): {"one"},
		"output:" + hexAB:                         {"one"},
		"input:" + hexAB:                          {},
		hexAB:                                     {"one"},
		"sha256:ab*":                              {"one"},
		"digest:sha1:ab*":                         {},
		"AB*":                                     {"one"},
		strings.Repeat("cd", 20):                  {"two"},
		"digest:" + strings.Repeat("cd", 20):      {"two"},
		"gitcommit:cdcd*":                         {"two"},
		"NOT one":                                 {"two"},
		"NOT *":                                   {},
	} {
		if got := r.ids(q); !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s finds %v, want %v", q, got, want)
		}
	}
	if got := r.search(SearchRequest{Limit: 5, Pack: "p@1", Digest: strings.ToUpper(hexAB)}).Items; len(got) != 1 {
		t.Errorf("pack and digest find %v", idsOf(got))
	}
}
