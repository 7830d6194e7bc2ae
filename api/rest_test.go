package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

func problemOf(t testing.TB, res *http.Response, body []byte) problem {
	t.Helper()
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q of %s", got, body)
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if p.Status != res.StatusCode || p.Type != problemTypeBase+p.Reason || p.Title == "" || p.Detail == "" || p.Hint == "" || p.Outcome != "definite" {
		t.Errorf("problem %+v with status %d", p, res.StatusCode)
	}
	return p
}

var foundPage = index.SearchResult{
	Items: []index.Document{{
		ID: "d1", Kind: index.KindReceipt, Tenant: "acme", Region: "eu", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano(),
		Execution: "e1", Digests: []index.Digest{{Algorithm: "sha256", Value: strings.Repeat("ab", 32), Direction: index.DirectionOutput, Name: "out"}},
		CostMicros: 1500000, Currency: "USD", DurationMs: 12, Attributes: []index.Attribute{{Name: "a", Value: "b"}},
	}},
	Next: "cursor-2", Total: 10000, Complete: false,
	Shards: []index.ShardState{{Shard: "index-0", State: "ok", Applied: 7}, {Shard: "index-1", State: "timeout", Message: "no answer in time"}},
}

// TestSearchREST: the parameters reach the index as the RPC's fields would, and the answer
// has the documented names.
func TestSearchREST(t *testing.T) {
	e := newEnv(t, nil)
	e.services.found = foundPage
	res, body := e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/search?"+url.Values{
		"q": {"kind:receipt AND attr.a:b"}, "pack": {"p"}, "digest": {"sha256:ab"}, "from": {"2026-01-01"}, "to": {"2026-02-01T00:00:00+01:00"},
		"limit": {"10"}, "cursor": {"cursor-1"}, "exact": {"true"}, "follow": {"true"}, "require": {"complete"},
	}.Encode(), "", nil)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	want := index.SearchRequest{
		Query: "kind:receipt AND attr.a:b", Tenant: "acme", Pack: "p", Digest: "sha256:ab",
		From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), To: time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC).UnixNano(),
		Limit: 10, Cursor: "cursor-1", Exact: true, Follow: true, RequireComplete: true,
	}
	if got := e.services.lastSearch(); !reflect.DeepEqual(got, want) {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
	var answer struct {
		Items []struct {
			ID, Kind, Tenant, Time string
			Digests                []struct{ Digest, Direction, Name string }
			Cost                   struct {
				MicroUnits string
				Currency   string
			}
			DurationMs int
			Attributes map[string]string
			Task       *string
		}
		Next  string
		Total struct {
			Value    int
			Relation string
		}
		Complete *bool
		Shards   []struct{ Shard, State, AppliedIndex, Message string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	item := answer.Items[0]
	if item.ID != "d1" || item.Time != "2026-01-02T03:04:05.000000006Z" || item.Digests[0].Digest != "sha256:"+strings.Repeat("ab", 32) ||
		item.Cost.MicroUnits != "1500000" || item.DurationMs != 12 || item.Attributes["a"] != "b" || item.Task == nil {
		t.Errorf("item %+v", item)
	}
	if answer.Next != "cursor-2" || answer.Total.Value != 10000 || answer.Total.Relation != "gte" || answer.Complete == nil || *answer.Complete ||
		len(answer.Shards) != 2 || answer.Shards[1].State != "timeout" {
		t.Errorf("answer %s", body)
	}
}

// TestSearchRESTDefaults: nothing is required; an empty page still has its lists.
func TestSearchRESTDefaults(t *testing.T) {
	e := newEnv(t, nil)
	e.services.found = index.SearchResult{TotalExact: true, Complete: true}
	res, body := e.send(t, secretOf(AllTenants, RoleReader), http.MethodGet, "/api/provenance/search", "", nil)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	if got, want := e.services.lastSearch(), (index.SearchRequest{Limit: DefaultPage}); !reflect.DeepEqual(got, want) {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"items", "shards"} {
		if list, ok := answer[name].([]any); !ok || len(list) != 0 {
			t.Errorf("%q is not an empty list in %s", name, body)
		}
	}
	if answer["next"] != "" || answer["complete"] != true {
		t.Errorf("answer %s", body)
	}
}

// TestRESTRefusals: each wrong request gets its status and reason as problem+json.
func TestRESTRefusals(t *testing.T) {
	e := newEnv(t, nil)
	reader := secretOf("acme", RoleReader)
	for _, c := range []struct {
		what, method, path string
		status             int
		reason             string
	}{
		{"unknown path", http.MethodGet, "/api/provenance/find", 404, "route_unknown"},
		{"root", http.MethodGet, "/", 404, "route_unknown"},
		{"path with a slash too many", http.MethodGet, "/api/provenance/search/", 404, "route_unknown"},
		{"wrong method", http.MethodPost, "/api/provenance/search", 405, "method_not_allowed"},
		{"GET of an RPC", http.MethodGet, "/mc.limiter.v1.Limiter/Check", 405, "method_not_allowed"},
		{"unknown parameter", http.MethodGet, "/api/provenance/search?query=x", 400, "parameter_malformed"},
		{"repeated parameter", http.MethodGet, "/api/provenance/search?q=a&q=b", 400, "parameter_malformed"},
		{"semicolon", http.MethodGet, "/api/provenance/search?q=a;b", 400, "parameter_malformed"},
		{"bad escape", http.MethodGet, "/api/provenance/search?q=%zz", 400, "parameter_malformed"},
		{"not UTF-8", http.MethodGet, "/api/provenance/search?q=%ff", 400, "parameter_malformed"},
		{"page of 0", http.MethodGet, "/api/provenance/search?limit=0", 400, "parameter_malformed"},
		{"page too large", http.MethodGet, "/api/provenance/search?limit=1001", 400, "parameter_malformed"},
		{"limit of words", http.MethodGet, "/api/provenance/search?limit=ten", 400, "parameter_malformed"},
		{"time of words", http.MethodGet, "/api/provenance/search?from=yesterday", 400, "parameter_malformed"},
		{"time before 1970", http.MethodGet, "/api/provenance/search?to=1969-12-31", 400, "field_malformed"},
		{"follow of words", http.MethodGet, "/api/provenance/search?follow=on", 400, "parameter_malformed"},
		{"require of words", http.MethodGet, "/api/provenance/search?require=all", 400, "parameter_malformed"},
		{"exact of words", http.MethodGet, "/api/provenance/search?exact=yes", 400, "parameter_malformed"},
		{"long query", http.MethodGet, "/api/provenance/search?q=" + strings.Repeat("a", MaxQueryBytes+1), 400, "field_too_long"},
		{"another tenant", http.MethodGet, "/api/provenance/search?tenant=globex", 403, "tenant_foreign"},
		{"no tenant at all", http.MethodGet, "/api/provenance/search?tenant=UPPER", 400, "tenant_malformed"},
	} {
		res, body := e.send(t, reader, c.method, c.path, "", nil)
		p := problemOf(t, res, body)
		if res.StatusCode != c.status || p.Reason != c.reason {
			t.Errorf("%s: %d %s, want %d %s", c.what, res.StatusCode, p.Reason, c.status, c.reason)
		}
		if c.status == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow header", c.what)
		}
	}
	res, body := e.send(t, "", http.MethodGet, "/api/provenance/search", "", nil)
	if p := problemOf(t, res, body); res.StatusCode != 401 || p.Reason != "credentials_missing" || res.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("nobody: %d %+v", res.StatusCode, p)
	}
}

// TestRESTFailures: what the services fail with looks as in the table.
func TestRESTFailures(t *testing.T) {
	e := newEnv(t, nil)
	for _, c := range []struct {
		err    error
		status int
		reason string
		after  string
	}{
		{&index.CursorError{Reason: index.CursorForged, Message: "it was not made by this region"}, 400, "cursor_malformed", ""},
		{index.ErrIncomplete, 503, "incomplete", "1"},
		{index.ErrNotReady, 503, "not_ready", "1"},
	} {
		e.services.mu.Lock()
		e.services.err = c.err
		e.services.mu.Unlock()
		res, body := e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/search?cursor=abc", "", nil)
		p := problemOf(t, res, body)
		if res.StatusCode != c.status || p.Reason != c.reason || res.Header.Get("Retry-After") != c.after {
			t.Errorf("%v: %d %+v, Retry-After %q", c.err, res.StatusCode, p, res.Header.Get("Retry-After"))
		}
	}
}

// TestRangeEndsAt1970: the index takes 0 for no bound, so the first moment needs another value.
func TestRangeEndsAt1970(t *testing.T) {
	e := newEnv(t, nil)
	e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/search?to=1970-01-01", "", nil)
	if got := e.services.lastSearch(); got.To != -1 {
		t.Errorf("to = %d finds everything", got.To)
	}
}

func FuzzParseSearch(f *testing.F) {
	for _, seed := range []string{
		"", "q=kind:event&limit=10", "from=2026-01-01&to=2026-01-01T00:00:00Z", "exact=true&cursor=abc", "tenant=acme&tenant=b",
		"q=%ff", "limit=4294967296", "a;b", "to=0000-01-01", "digest=sha256:00&pack=p",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		req, fault := parseSearch(raw)
		if (req == nil) == (fault == nil) {
			t.Fatalf("%q: a request and a fault, or neither", raw)
		}
		if fault != nil {
			if fault.code == 0 || fault.message == "" {
				t.Fatalf("%q: a fault without a code or message", raw)
			}
			return
		}
		// What is accepted marshals, as it must for the same request over RPC.
		if _, err := jsonMarshal.Marshal(req); err != nil && req.GetFrom().CheckValid() == nil && req.GetTo().CheckValid() == nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if _, fault := searchRequest(Principal{Tenant: "acme", Role: RoleReader}, req); fault != nil && fault.message == "" {
			t.Fatalf("%q: a fault without a message", raw)
		}
	})
}
