package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/limiter"
)

const restCheckPath = "/api/limiter/check"

// TestCheckREST: the answer is that of the RPC, with the levels in the headers of the IETF's draft.
func TestCheckREST(t *testing.T) {
	e := newEnv(t, nil)
	runner := secretOf("acme", RoleRunner)
	allowed := limiter.Decision{Allow: true, Version: 3, Levels: []limiter.Level{
		{LimitID: "acme-api", Scope: limiter.ScopeTenant, Kind: limiter.KindTokenBucket, Limit: 20, Remaining: 7},
		{LimitID: "watch", Scope: limiter.ScopeTenant, Kind: limiter.KindWindow, Limit: 1, Shadow: true},
	}}
	denied := deniedDecision
	denied.RetryAfterMs = 1001
	never := limiter.Decision{Reason: limiter.ReasonCostExceedsLimit, LimitID: "acme-api", Kind: limiter.KindTokenBucket, Levels: deniedDecision.Levels}
	for _, c := range []struct {
		what, query           string
		decision              limiter.Decision
		status                int
		policy, limits, after string
	}{
		{"allowed", "", allowed, 200, `"acme-api";q=20;w=1`, `"acme-api";r=7`, ""},
		{"allowed, for a gateway", "?deny=429", allowed, 200, `"acme-api";q=20;w=1`, `"acme-api";r=7`, ""},
		{"denied", "", denied, 200, `"acme-api";q=20;w=1`, `"acme-api";r=0;t=2`, "2"},
		{"denied, for a gateway", "?deny=429", denied, 429, `"acme-api";q=20;w=1`, `"acme-api";r=0;t=2`, "2"},
		{"never", "?deny=429", never, 429, `"acme-api";q=20;w=1`, `"acme-api";r=0`, ""},
		{"unlimited", "", limiter.Decision{Allow: true}, 200, "", "", ""},
	} {
		e.services.mu.Lock()
		e.services.decision, e.services.checks = c.decision, nil
		e.services.mu.Unlock()
		res, body := e.send(t, runner, http.MethodPost, restCheckPath+c.query, "application/json", []byte(`{"token":"ana","key":"runs","cost":2,"requestId":"r1"}`))
		h := res.Header
		if res.StatusCode != c.status || h.Get("RateLimit-Policy") != c.policy || h.Get("RateLimit") != c.limits || h.Get("Retry-After") != c.after ||
			h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", c.what, res.StatusCode, h)
		}
		var answer map[string]any
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		if answer["allow"] != c.decision.Allow || answer["retryAfterMs"] != float64(c.decision.RetryAfterMs) || answer["reason"] != c.decision.Reason {
			t.Errorf("%s: answer %s", c.what, body)
		}
		want := []limiter.Request{{Tenant: "acme", Token: "ana", Key: "runs", Cost: 2, RequestID: "r1"}}
		if got := e.services.checks; !slices.Equal(got, want) {
			t.Errorf("%s: the limiter was asked %+v", c.what, got)
		}
	}
}

// TestCheckRESTRefusals: each wrong request has its status and reason, and decides nothing.
func TestCheckRESTRefusals(t *testing.T) {
	e := newEnv(t, nil)
	for _, c := range []struct {
		what, method, path, contentType, body string
		status                                int
		reason                                string
	}{
		{"wrong method", http.MethodGet, restCheckPath, "", "", 405, "method_not_allowed"},
		{"no body", http.MethodPost, restCheckPath, "application/json", "", 400, "message_malformed"},
		{"no JSON", http.MethodPost, restCheckPath, "application/json", "cost=1", 400, "message_malformed"},
		{"unknown field", http.MethodPost, restCheckPath, "application/json", `{"tenent":"acme"}`, 400, "message_malformed"},
		{"binary", http.MethodPost, restCheckPath, "application/proto", "", 415, "content_type_unknown"},
		{"form", http.MethodPost, restCheckPath, "application/x-www-form-urlencoded", "cost=1", 415, "content_type_unknown"},
		{"large", http.MethodPost, restCheckPath, "application/json", `{"key":"` + strings.Repeat("k", classLimits[classCheck].body) + `"}`, 413, "body_too_large"},
		{"long key", http.MethodPost, restCheckPath, "application/json", `{"key":"` + strings.Repeat("k", MaxKeyBytes+1) + `"}`, 400, "field_too_long"},
		{"another status", http.MethodPost, restCheckPath + "?deny=403", "application/json", `{}`, 400, "parameter_malformed"},
		{"unknown parameter", http.MethodPost, restCheckPath + "?dney=429", "application/json", `{}`, 400, "parameter_malformed"},
		{"another tenant", http.MethodPost, restCheckPath, "application/json", `{"tenant":"globex"}`, 403, "tenant_foreign"},
	} {
		res, body := e.send(t, secretOf("acme", RoleRunner), c.method, c.path, c.contentType, []byte(c.body))
		if p := problemOf(t, res, body); res.StatusCode != c.status || p.Reason != c.reason {
			t.Errorf("%s: %d %s, want %d %s", c.what, res.StatusCode, p.Reason, c.status, c.reason)
		}
	}
	if len(e.services.checks) != 0 {
		t.Errorf("the limiter was asked %v", e.services.checks)
	}
}
