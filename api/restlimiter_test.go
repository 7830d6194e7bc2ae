package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/limiter"
)

// TestHoldsREST: what is reserved, taken and held goes by REST with the fields of the RPCs, denials are answers, and
// another tenant finds nothing of it.
func TestHoldsREST(t *testing.T) {
	e, _ := realLimiter(t,
		limiter.Limit{ID: "tokens", Scope: limiter.ScopeTenant, Selector: "*", Window: limiter.Window{Limit: 100, Length: "1h"}},
		limiter.Limit{ID: "runs", Scope: limiter.ScopeKey, Selector: "*/build", Concurrency: limiter.Concurrency{Limit: 2, TTL: "30s"}})
	post := func(tenant, call, body string) (*http.Response, map[string]any) {
		t.Helper()
		res, sent := e.send(t, secretOf(tenant, RoleRunner), http.MethodPost, "/api/limiter/"+call, "application/json", []byte(body))
		var answer map[string]any
		if err := json.Unmarshal(sent, &answer); err != nil {
			t.Fatalf("%s: %q: %v", call, sent, err)
		}
		return res, answer
	}
	want := func(call, body string, fields ...any) map[string]any {
		t.Helper()
		res, answer := post("acme", call, body)
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v: %v", call, res.StatusCode, res.Header, answer)
		}
		for i := 0; i < len(fields); i += 2 {
			at := any(answer)
			for _, name := range strings.Split(fields[i].(string), ".") {
				at = at.(map[string]any)[name]
			}
			if fmt.Sprint(at) != fmt.Sprint(fields[i+1]) {
				t.Errorf("%s: %s is %v, want %v", call, fields[i], at, fields[i+1])
			}
		}
		return answer
	}
	foreign := func(call, body, reason string) {
		t.Helper()
		if res, answer := post("globex", call, body); res.StatusCode != http.StatusNotFound || answer["reason"] != reason || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s by another tenant: %d %v, want %s", call, res.StatusCode, answer, reason)
		}
	}

	id := want("reserve", `{"cost": 60, "ttlMs": 5000}`, "decision.allow", true, "expiresInMs", 5000)["id"]
	named := fmt.Sprintf(`{"id": %q, "actual": 50}`, id)
	foreign("commit", named, "reservation_unknown")
	want("commit", named, "settlement.actual", 50, "settlement.refunded", 10)
	id = want("reserve", `{"cost": 40}`, "decision.allow", true)["id"]
	want("cancel", fmt.Sprintf(`{"id": %q}`, id), "settlement.refunded", 40)

	want("check", `{"cost": 5, "requestId": "r"}`, "allow", true)
	foreign("refund", `{"requestId": "r"}`, "request_unknown")
	want("refund", `{"requestId": "r"}`, "refunded", 5)
	want("peek", `{"cost": 50}`, "decision.allow", true)
	want("peek", `{"cost": 51}`, "decision.allow", false, "decision.limitId", "tokens")
	level := want("usage", `{}`)["levels"].([]any)[0].(map[string]any)
	if level["used"] != 50.0 {
		t.Errorf("usage of %v, want 50", level)
	}

	slot := want("acquire", `{"key": "build", "weight": 2, "requestId": "a"}`, "decision.allow", true, "expiresInMs", 30000)["id"]
	if again := want("acquire", `{"key": "build", "weight": 2, "requestId": "a"}`)["id"]; again != slot {
		t.Errorf("the retry got %v, want %v", again, slot)
	}
	for _, status := range []int{http.StatusOK, http.StatusTooManyRequests} {
		query := map[int]string{http.StatusOK: "", http.StatusTooManyRequests: "?deny=429"}[status]
		res, answer := post("acme", "acquire"+query, `{"key": "build", "weight": 1}`)
		if res.StatusCode != status || answer["decision"].(map[string]any)["allow"] != false || res.Header.Get("Retry-After") == "" {
			t.Errorf("no slot is free: %d, Retry-After %q, %v; want %d", res.StatusCode, res.Header.Get("Retry-After"), answer, status)
		}
	}
	want("acquire", fmt.Sprintf(`{"id": %q}`, slot), "id", slot)
	want("release", fmt.Sprintf(`{"id": %q}`, slot), "released", true)
	want("release", fmt.Sprintf(`{"id": %q}`, slot), "released", false)
	foreign("acquire", fmt.Sprintf(`{"id": %q}`, slot), "slot_unknown")
}

// TestHoldsRESTRefusals: what is wrong with a request has its status and reason.
func TestHoldsRESTRefusals(t *testing.T) {
	e := newEnv(t, nil)
	for _, route := range restOfRPC { // any order
		method, path, _ := strings.Cut(route, " ")
		at := slices.IndexFunc(procedures, func(p procedure) bool { return p.name == route })
		most, platform, who := classLimits[procedures[at].class].body, procedures[at].platform, secretOf("acme", RoleRunner)
		if platform {
			who = secretOf(AllTenants, RoleAdmin)
		}
		for _, c := range []struct {
			what, method, query, contentType, body string
			status                                 int
			reason                                 string
		}{
			{"wrong method", http.MethodGet, "", "", "", 405, "method_not_allowed"},
			{"no body", method, "", "application/json", "", 400, "message_malformed"},
			{"unknown field", method, "", "application/json", `{"tenent": "acme"}`, 400, "message_malformed"},
			{"form", method, "", "application/x-www-form-urlencoded", "cost=1", 415, "content_type_unknown"},
			{"large", method, "", "application/json", `{"tenant": "` + strings.Repeat("t", most) + `"}`, 413, "body_too_large"},
			{"unknown parameter", method, "?dney=429", "application/json", `{}`, 400, "parameter_malformed"},
			{"another tenant", method, "", "application/json", `{"tenant": "globex"}`, 403, "tenant_foreign"},
		} {
			if platform && c.reason == "tenant_foreign" {
				continue // it reaches all
			}
			res, body := e.send(t, who, c.method, path+c.query, c.contentType, []byte(c.body))
			if p := problemOf(t, res, body); res.StatusCode != c.status || p.Reason != c.reason {
				t.Errorf("%s, %s: %d %s, want %d %s", path, c.what, res.StatusCode, p.Reason, c.status, c.reason)
			}
		}
	}
	res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, "/api/limiter/release?deny=429", "application/json", []byte(`{"id": "slot"}`))
	if p := problemOf(t, res, body); p.Reason != "parameter_malformed" {
		t.Errorf("what denies nothing, with deny=429: %d %s", res.StatusCode, p.Reason)
	}
}
