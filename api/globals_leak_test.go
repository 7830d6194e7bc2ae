package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// Figures of a global limit that occur nowhere else in an answer: its limit, what remains and is used of it, when
// nothing will be, and its length, in milliseconds and, as headers have it, seconds.
var globalFigures = []string{"710003", "710007", "710011", "710013", "43201"}

// decidedGlobally allows or denies by a global limit with those figures.
func decidedGlobally(allow bool) func(limiter.Request) limiter.Decision {
	return func(limiter.Request) limiter.Decision {
		d := limiter.Decision{
			Allow: allow,
			Levels: []limiter.Level{
				{LimitID: "platform", Scope: limiter.ScopeGlobal, Kind: limiter.KindWindow, Limit: 710003, Remaining: 710007, Used: 710011, ResetMs: 710013},
				{LimitID: "own", Scope: limiter.ScopeTenant, Kind: limiter.KindTokenBucket, Limit: 20, Remaining: 2, Used: 18, ResetMs: 8},
			},
		}
		if !allow {
			d.Reason, d.LimitID, d.Kind, d.RetryAfterMs = limiter.ReasonLimited, "platform", limiter.KindWindow, 1300
		}
		return d
	}
}

// TestTenantsLearnOnlyWhetherGlobalLimitsBind in every answer of the limiter: each procedure is here, or in the list
// of those that tell of no limit's state. What the platform sees of them shows that the figures would be there.
func TestTenantsLearnOnlyWhetherGlobalLimitsBind(t *testing.T) {
	e := newEnvoyEnv(t)
	e.services.limits = []limiter.Limit{
		{ID: "platform", Scope: limiter.ScopeGlobal, Selector: "*", Window: limiter.Window{Limit: 710003, Length: "43201s"}},
		{ID: "own", Scope: limiter.ScopeTenant, Selector: "acme", TokenBucket: limiter.TokenBucket{Rate: "1/s", Burst: 20}},
	}
	post := func(path, body string) func(t *testing.T, secret string) string {
		return func(t *testing.T, secret string) string {
			t.Helper()
			res, sent := e.send(t, secret, http.MethodPost, path, "application/json", []byte(body))
			if res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %s", path, res.StatusCode, sent)
			}
			headers := ""
			for name, values := range res.Header { // any order
				if name != "Date" {
					headers += fmt.Sprintln(name, values)
				}
			}
			return headers + string(sent)
		}
	}
	const rpc = "/mc.limiter.v1.Limiter/"
	told := map[string]func(t *testing.T, secret string) string{
		rpc + "Check":      post(rpc+"Check", `{"tenant":"acme","cost":1}`),
		rpc + "CheckBatch": post(rpc+"CheckBatch", `{"checks":[{"tenant":"acme","cost":1}]}`),
		rpc + "Peek":       post(rpc+"Peek", `{"tenant":"acme","cost":1}`),
		rpc + "Usage":      post(rpc+"Usage", `{"tenant":"acme"}`),
		rpc + "Reserve":    post(rpc+"Reserve", `{"tenant":"acme","cost":1}`),
		rpc + "Acquire":    post(rpc+"Acquire", `{"tenant":"acme"}`),
		rpc + "ListLimits": post(rpc+"ListLimits", `{}`),
		restCheck:          post("/api/limiter/check", `{"tenant":"acme","cost":1}`),
		restReserve:        post("/api/limiter/reserve", `{"tenant":"acme","cost":1}`),
		restAcquire:        post("/api/limiter/acquire", `{"tenant":"acme"}`),
		restPeek:           post("/api/limiter/peek", `{"tenant":"acme","cost":1}`),
		restUsage:          post("/api/limiter/usage", `{"tenant":"acme"}`),
		rpc + "CheckStream": func(t *testing.T, secret string) string {
			return protojson.Format(ask(t, e.checkStream(t, secret), &limiterv1.CheckStreamRequest{Checks: 1, Tenants: []string{"acme"}, Levels: true}))
		},
		envoyShouldRateLimit: func(t *testing.T, secret string) string {
			got, err := askEnvoy(t, e, secret, &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{descriptor("tenant_id", "acme")}})
			if err != nil {
				t.Fatal(err)
			}
			return protojson.Format(got)
		},
	}
	// These tell of reservations and slots by their id, of limits' ids, of the tenant's own limits and plans, or of the
	// mode. Lease lends nothing while there are global limits, see the limiter's tests of Lend.
	silent := []string{
		rpc + "Lease", rpc + "Commit", rpc + "Cancel", rpc + "Refund", rpc + "Release", rpc + "SetLimits", rpc + "DeleteLimits",
		rpc + "SetPlans", rpc + "ListPlans", rpc + "Top", rpc + "GetMode", rpc + "SetMode", restCommit, restCancel, restRefund, restRelease,
	}
	for _, row := range e.handler.routes { // any order
		name := row.name
		if !strings.Contains(strings.ToLower(name), "limit") {
			continue
		}
		if told[name] == nil && !slices.Contains(silent, name) {
			t.Errorf("%s is not looked at here", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		for _, allow := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", allow), func(t *testing.T) {
				e.services.decide = decidedGlobally(allow)
				seen := told[name](t, secretOf(AllTenants, RoleOperator))
				if !slices.ContainsFunc(globalFigures, func(f string) bool { return strings.Contains(seen, f) }) {
					t.Errorf("the platform learns nothing: %s", seen)
				}
				said := told[name](t, secretOf("acme", RoleOperator))
				for _, figure := range globalFigures {
					if strings.Contains(said, figure) {
						t.Errorf("a tenant learns %s: %s", figure, said)
					}
				}
				if !allow && name != rpc+"ListLimits" && !strings.Contains(said, "platform") {
					t.Errorf("a tenant does not learn that it binds: %s", said)
				}
			})
		}
	}
}
