package index

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/index/query"
)

// A digest is found in every spelling, as a field and as a word, whole and by its beginning.
func TestDigestsInEverySpelling(t *testing.T) {
	r := newRegion(t, 2, 8)
	d := sha(0xAB, DirectionOutput)
	raw, err := hex.DecodeString(d.Value)
	if err != nil {
		t.Fatal(err)
	}
	r.ingest(normal(t, Document{ID: "it", Digests: []Digest{d}}), normal(t, Document{ID: "other", Digests: []Digest{sha(0xAC, DirectionOutput)}}))
	std, url := base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)
	for _, text := range []string{
		d.Value, strings.ToUpper(d.Value), "sha256:" + d.Value, "SHA256:" + strings.ToUpper(d.Value), "SHA-256:" + d.Value, "sha_256:" + d.Value,
		"sha256:" + std, "sha256:" + url, "sha256-" + std, d.Value[:8] + "*", "sha256:" + d.Value[:8] + "*", "SHA-256:" + strings.ToUpper(d.Value[:8]) + "*",
	} {
		for _, q := range []string{text, "digest:" + text, "output:" + text, `digest:"` + strings.TrimSuffix(text, "*") + `"` + text[len(strings.TrimSuffix(text, "*")):]} {
			if got := r.ids(q); !slices.Equal(got, []string{"it"}) {
				t.Errorf("%s finds %v", q, got)
			}
		}
		if got := r.ids("input:" + text); len(got) != 0 {
			t.Errorf("input:%s finds %v", text, got)
		}
	}
}

// Whoever means ill, or mistypes, gets an error that says where and how to mend it; nothing
// gets more work done than the limits allow.
func TestBadQueries(t *testing.T) {
	r := newRegion(t, 2, 256)
	var docs []Document
	for i := range 3 * PrefixTermsMax {
		docs = append(docs, normal(t, Document{ID: fmt.Sprintf("x%06d", i), Execution: fmt.Sprint("run-", i), Reason: fmt.Sprint("because", i)}))
	}
	r.ingest(docs...)
	for _, c := range []struct {
		query    string
		position int
		words    string // of the message or suggestion
	}{
		{"knid:event", 0, "did you mean kind:"},
		{"kind:event AND", 14, "a term is missing"},
		{"kind:event)", 10, "closes nothing"},
		{"(kind:event", 0, "not closed"},
		{`reason:"quota`, 7, "not closed"},
		{"task:a*b", 6, "only possible at the end"},
		{"cost:cheap", 5, "not an amount"},
		{"cost:[2 TO 1]", 5, "exchange its ends"},
		{"time:yesterday", 5, "2023-07-10"},
		{"time:[2026-01-02 TO 2026-01-01]", 5, "exchange its ends"},
		{"task:[a TO b]", 5, "only time and cost"},
		{strings.TrimSpace(strings.Repeat("a OR ", 999) + "a"), 5 * query.TermsMax, "more than 256 terms"},
		{strings.Repeat("(", 1000) + "a", query.DepthMax + 1, "nest deeper"},
		{strings.Repeat("a", query.TextBytesMax+1), 0, "more than 8192"},
		{"kind:event \xff", 0, "UTF-8"},
		{"kind:receipt id:x*", 13, "more than 1000 terms"},
		{"execution:*", 0, "more than 1000 terms"},
		{"reason:because*", 0, "of the value before the *"},
		{"x*", 0, "more than 1000 terms"},
		{"NOT (NOT id:*)", 9, "more than 1000 terms"},
		{"digest:sha256:abcd", 0, "sha256"},
		{"digest:5891b522", 0, "put * behind"},
		{"digest:nonsense", 0, "not a digest"},
		{"digest:xyz*", 0, "beginning of a digest is hex"},
		{"attr.:x", 0, "no name"},
	} {
		_, err := r.service.Search(context.Background(), SearchRequest{Query: c.query, Limit: 1})
		var bad *QueryError
		if !errors.As(err, &bad) {
			t.Errorf("%.40q: error %v", c.query, err)
			continue
		}
		if bad.Position != c.position || !strings.Contains(bad.Message+"; "+bad.Suggestion, c.words) {
			t.Errorf("%.40q: position %d, %q, %q; want position %d, %q", c.query, bad.Position, bad.Message, bad.Suggestion, c.position, c.words)
		}
	}
	for q, want := range map[string]int{
		"": len(docs), "*": len(docs), "* AND *": len(docs), "NOT *": 0, "-(*)": 0, "kind:*": len(docs), "x0000*": 100, "id:x000001": 1,
		strings.Repeat("NOT ", query.DepthMax) + "id:x000001": 1, strings.TrimSpace(strings.Repeat("id:x000001 OR ", 255) + "id:x000002"): 2,
	} {
		if got := r.search(SearchRequest{Query: q, Limit: 1, Exact: true}).Total; got != want {
			t.Errorf("%.40q finds %d, want %d", q, got, want)
		}
	}
}

// A cursor goes on where it came from, and nowhere else.
func TestForgedAndStaleCursors(t *testing.T) {
	r := newRegion(t, 2, 8)
	for i := range 20 {
		r.ingest(normal(t, Document{ID: fmt.Sprint(i), Time: int64(i + 1)}))
	}
	req := SearchRequest{Query: "kind:receipt", Tenant: "acme", Limit: 3}
	next := r.search(req).Next
	for name, c := range map[string]struct {
		change func(*SearchRequest)
		reason string
	}{
		"no cursor at all":  {func(q *SearchRequest) { q.Cursor = "nonsense" }, CursorMalformed},
		"cut":               {func(q *SearchRequest) { q.Cursor = next[:8] }, CursorMalformed},
		"a bit changed":     {func(q *SearchRequest) { q.Cursor = "B" + next[1:] }, CursorForged},
		"another query":     {func(q *SearchRequest) { q.Query = "kind:event" }, CursorForeign},
		"another tenant":    {func(q *SearchRequest) { q.Tenant = "beta" }, CursorForeign},
		"another order":     {func(q *SearchRequest) { q.Order = OrderOldest }, CursorForeign},
		"by cost":           {func(q *SearchRequest) { q.Order = OrderCost }, CursorForeign},
		"another condition": {func(q *SearchRequest) { q.From = 1 }, CursorForeign},
	} {
		again := req
		again.Cursor = next
		c.change(&again)
		var bad *CursorError
		if _, err := r.service.Search(context.Background(), again); !errors.As(err, &bad) || bad.Reason != c.reason {
			t.Errorf("%s: error %v, want reason %s", name, err, c.reason)
		}
	}
	// The region was restored from a backup that has fewer documents.
	small := newRegion(t, 2, 8)
	small.ingest(normal(t, Document{ID: "1", Time: 2}))
	req.Cursor = next
	var bad *CursorError
	if _, err := small.service.Search(context.Background(), req); !errors.As(err, &bad) || bad.Reason != CursorStale {
		t.Errorf("after a restore: error %v, want reason %s", err, CursorStale)
	}
}
