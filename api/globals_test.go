package api

import (
	"testing"

	"connectrpc.com/connect"
	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

// deniedGlobally is a decision that says how much all tenants together have left.
func deniedGlobally(limiter.Request) limiter.Decision {
	return limiter.Decision{
		Reason: limiter.ReasonLimited, LimitID: "platform", Kind: limiter.KindWindow, RetryAfterMs: 1300,
		Levels: []limiter.Level{
			{LimitID: "platform", Scope: limiter.ScopeGlobal, Kind: limiter.KindWindow, Limit: 5000, Remaining: 77, Used: 4923, ResetMs: 9},
			{LimitID: "own", Scope: limiter.ScopeTenant, Kind: limiter.KindTokenBucket, Limit: 20, Remaining: 2, Used: 18, ResetMs: 8},
		},
	}
}

// An identity of one tenant learns that a global limit denies, but not how much is left of it; the
// platform learns all.
func TestGlobalLimitsAreHiddenFromTenants(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decide = deniedGlobally
	for _, c := range []struct {
		tenant           string
		limit, remaining uint32
		used             uint32
	}{{"acme", 0, 0, 0}, {AllTenants, 5000, 77, 4923}} {
		client := limiterv1connect.NewLimiterClient(e.client(secretOf(c.tenant, RoleRunner)), e.url)
		verify := func(what, id string, levels []*limiterv1.Level) {
			t.Helper()
			if id != "platform" || len(levels) != 2 {
				t.Fatalf("%s: %s as %s: levels %v", what, id, c.tenant, levels)
			}
			if l := levels[0]; l.GetLimitId() != "platform" || l.GetKind() != limiter.KindWindow || l.GetLimit() != c.limit || l.GetRemaining() != c.remaining {
				t.Errorf("%s as %s: %v, want %d of %d left", what, c.tenant, l, c.remaining, c.limit)
			}
			if l := levels[1]; l.GetLimit() != 20 || l.GetRemaining() != 2 {
				t.Errorf("%s as %s: %v", what, c.tenant, l)
			}
		}
		check, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 1}))
		if err != nil {
			t.Fatal(err)
		}
		verify("check", check.Msg.GetLimitId(), check.Msg.GetLevels())
		batch, err := client.CheckBatch(t.Context(), connect.NewRequest(&limiterv1.CheckBatchRequest{Checks: []*limiterv1.CheckRequest{{Tenant: "acme", Cost: 1}}}))
		if err != nil {
			t.Fatal(err)
		}
		verify("batch", batch.Msg.GetResults()[0].GetDecision().GetLimitId(), batch.Msg.GetResults()[0].GetDecision().GetLevels())
		peek, err := client.Peek(t.Context(), connect.NewRequest(&limiterv1.PeekRequest{Tenant: "acme", Cost: 1}))
		if err != nil {
			t.Fatal(err)
		}
		verify("peek", peek.Msg.GetDecision().GetLimitId(), peek.Msg.GetDecision().GetLevels())
		usage, err := client.Usage(t.Context(), connect.NewRequest(&limiterv1.UsageRequest{Tenant: "acme"}))
		if err != nil {
			t.Fatal(err)
		}
		if l := usage.Msg.GetLevels()[0]; l.GetUsed() != c.used || l.GetLevel().GetLimit() != c.limit || (l.GetResetMs() != 0) != (c.used != 0) {
			t.Errorf("usage as %s: %v", c.tenant, l)
		}
		answer := ask(t, e.checkStream(t, secretOf(c.tenant, RoleRunner)), &limiterv1.CheckStreamRequest{Checks: 1, Tenants: []string{"acme"}, Levels: true})
		verify("stream", answer.GetDenials()[0].GetLimitId(), answer.GetLevels()[0].GetLevels())
	}
}

// A tenant's gateway shows its clients which global limit denies, and no figures of it.
func TestEnvoyHidesGlobalLimitsFromTenants(t *testing.T) {
	e := newEnvoyEnv(t)
	e.services.decide = deniedGlobally
	r := &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{descriptor("tenant_id", "acme")}}
	got, err := askEnvoy(t, e, secretOf("acme", RoleRunner), r)
	wantResponse(t, got, err, `{
		"overallCode": "OVER_LIMIT",
		"statuses": [{"code": "OVER_LIMIT", "durationUntilReset": "1.300s", "currentLimit": {"name": "platform"}}],
		"responseHeadersToAdd": [
			{"key": "ratelimit-policy", "value": "\"own\";q=20"},
			{"key": "ratelimit", "value": "\"own\";r=2"},
			{"key": "retry-after", "value": "2"}
		]
	}`)
	got, err = askEnvoy(t, e, secretOf(AllTenants, RoleRunner), r)
	if err != nil || got.GetStatuses()[0].GetLimitRemaining() != 77 {
		t.Errorf("for the platform %v: %v", got, err)
	}
}
