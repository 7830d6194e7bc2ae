package api

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/maestro-conductor/maestro/api/envoymap"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// newEnvoyEnv serves two domains: edge denies what no rule matches, open lets it pass.
func newEnvoyEnv(t *testing.T) *env {
	t.Helper()
	mapping, problems := envoymap.Parse([]byte(`
domains:
  - domain: edge
    unmatched: deny
    rules:
      - {match: {tenant_id: "*", api_key: "*"}, tenant: "{tenant_id}", token: "{api_key}", key: "export/{api_key}"}
      - {match: {tenant_id: "*"}, tenant: "{tenant_id}", cost: 7}
  - domain: open
    unmatched: allow
    rules: [{match: {tenant_id: acme}, tenant: acme}]
`))
	if problems != nil {
		t.Fatal(problems)
	}
	return newEnv(t, func(d *Deps) { d.Envoy = mapping })
}

// descriptor is one of the given keys and values.
func descriptor(entries ...string) *descriptorv3.RateLimitDescriptor {
	d := &descriptorv3.RateLimitDescriptor{}
	for i := 0; i+1 < len(entries); i += 2 {
		d.Entries = append(d.Entries, &descriptorv3.RateLimitDescriptor_Entry{Key: entries[i], Value: entries[i+1]})
	}
	return d
}

func askEnvoy(t *testing.T, e *env, secret string, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	t.Helper()
	res, err := connect.NewClient[rlsv3.RateLimitRequest, rlsv3.RateLimitResponse](e.client(secret), e.url+envoyShouldRateLimit, connect.WithGRPC()).
		CallUnary(t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func wantResponse(t *testing.T, got *rlsv3.RateLimitResponse, err error, want string) {
	t.Helper()
	w := &rlsv3.RateLimitResponse{}
	if err := protojson.Unmarshal([]byte(want), w); err != nil {
		t.Fatal(err)
	}
	if err != nil || !proto.Equal(got, w) {
		t.Errorf("got %v, %v\nwant %v", got, err, w)
	}
}

// One descriptor is a check with what the file makes of it, and the answer says what Envoy and its
// callers can use.
func TestEnvoyAsksOneCheck(t *testing.T) {
	e := newEnvoyEnv(t)
	e.services.decision = limiter.Decision{
		Reason: limiter.ReasonLimited, LimitID: "acme-api", Kind: limiter.KindTokenBucket, RetryAfterMs: 1300,
		Levels: []limiter.Level{
			{LimitID: "acme-api", Kind: limiter.KindTokenBucket, Limit: 20, Remaining: 2},
			{LimitID: "everyone", Kind: limiter.KindTokenBucket, Limit: 2000, Remaining: 900},
			{LimitID: "watching", Kind: limiter.KindWindow, Limit: 5, Shadow: true, WouldDeny: true},
		},
	}
	got, err := askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{
		Domain: "edge", HitsAddend: 3, Descriptors: []*descriptorv3.RateLimitDescriptor{descriptor("api_key", "k1", "tenant_id", "acme")},
	})
	wantResponse(t, got, err, `{
		"overallCode": "OVER_LIMIT",
		"statuses": [{
			"code": "OVER_LIMIT", "limitRemaining": 2, "durationUntilReset": "1.300s",
			"currentLimit": {"name": "acme-api", "requestsPerUnit": 100, "unit": "SECOND"}
		}],
		"responseHeadersToAdd": [
			{"key": "ratelimit-policy", "value": "\"acme-api\";q=20;w=1, \"everyone\";q=2000;w=2"},
			{"key": "ratelimit", "value": "\"acme-api\";r=2;t=2, \"everyone\";r=900"},
			{"key": "retry-after", "value": "2"}
		]
	}`)
	want := limiter.Request{Tenant: "acme", Token: "k1", Key: "export/k1", Cost: 3}
	if len(e.services.checks) != 1 || e.services.checks[0] != want {
		t.Errorf("checks %+v, want %+v", e.services.checks, want)
	}
}

// Descriptors of one tenant are decided together, those of another beside them. No hits at all is a
// peek, an unset number one hit, and a cost in the file goes before both.
func TestEnvoyAsksTogether(t *testing.T) {
	e := newEnvoyEnv(t)
	peek := descriptor("tenant_id", "acme", "api_key", "k2")
	peek.HitsAddend = wrapperspb.UInt64(0)
	own := descriptor("tenant_id", "acme", "api_key", "k3")
	own.HitsAddend = wrapperspb.UInt64(9)
	got, err := askEnvoy(t, e, secretOf(AllTenants, RoleRunner), &rlsv3.RateLimitRequest{
		Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{
			descriptor("tenant_id", "acme"), peek, descriptor("tenant_id", "globex", "api_key", "k1"), own,
		},
	})
	wantResponse(t, got, err, `{"overallCode": "OK", "statuses": [{"code": "OK"}, {"code": "OK"}, {"code": "OK"}, {"code": "OK"}]}`)
	want := []limiter.Part{
		{Request: limiter.Request{Tenant: "acme", Cost: 7}},
		{Request: limiter.Request{Tenant: "acme", Token: "k2", Key: "export/k2", Cost: 1}, Peek: true},
		{Request: limiter.Request{Tenant: "acme", Token: "k3", Key: "export/k3", Cost: 9}},
	}
	if len(e.services.together) != 1 || len(e.services.together[0]) != 3 {
		t.Fatalf("together %+v", e.services.together)
	}
	for i, p := range e.services.together[0] {
		if p != want[i] {
			t.Errorf("part %d is %+v, want %+v", i, p, want[i])
		}
	}
	if len(e.services.checks) != 1 || e.services.checks[0].Tenant != "globex" {
		t.Errorf("alone %+v", e.services.checks)
	}
}

// A descriptor that no rule matches, or that names what cannot be, or what the identity may not reach,
// is denied or let pass as its domain says; when it is denied, nothing is taken for the others.
func TestEnvoyDeniesWhatIsNoCheck(t *testing.T) {
	e := newEnvoyEnv(t)
	for name, d := range map[string]*descriptorv3.RateLimitDescriptor{
		"no rule":      descriptor("remote_address", "10.0.0.1"),
		"more entries": descriptor("tenant_id", "acme", "api_key", "k", "path", "/"),
		"no tenant":    descriptor("tenant_id", "ACME!"),
		"twice":        descriptor("tenant_id", "acme", "tenant_id", "globex"),
		"foreign":      descriptor("tenant_id", "globex"),
	} {
		fine := descriptor("tenant_id", "acme")
		got, err := askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{fine, d}})
		t.Log(name)
		wantResponse(t, got, err, `{"overallCode": "OVER_LIMIT", "statuses": [{"code": "UNKNOWN"}, {"code": "OVER_LIMIT"}]}`)
		if len(e.services.checks)+len(e.services.together) != 0 {
			t.Errorf("%s: something was taken", name)
		}
		got, err = askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "open", Descriptors: []*descriptorv3.RateLimitDescriptor{d}})
		wantResponse(t, got, err, `{"overallCode": "OK", "statuses": [{"code": "OK"}]}`)
	}
}

// What is wrong in Envoy's configuration, and what the region cannot do now, are errors with a reason,
// so that the filter's failure mode decides.
func TestEnvoyErrors(t *testing.T) {
	e := newEnvoyEnv(t)
	ask := func(d *descriptorv3.RateLimitDescriptor) error {
		_, err := askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*descriptorv3.RateLimitDescriptor{d}})
		return err
	}
	negative, override, many := descriptor("tenant_id", "acme"), descriptor("tenant_id", "acme"), descriptor("tenant_id", "acme")
	negative.IsNegativeHits = true
	override.Limit = &descriptorv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 5}
	many.HitsAddend = wrapperspb.UInt64(1 << 32)
	for _, d := range []*descriptorv3.RateLimitDescriptor{negative, override, many} {
		wantReason(t, ask(d), connect.CodeInvalidArgument, "field_malformed")
	}
	_, err := askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "elsewhere", Descriptors: []*descriptorv3.RateLimitDescriptor{descriptor("tenant_id", "acme")}})
	wantReason(t, err, connect.CodeNotFound, "envoy_domain_unknown")
	_, err = askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "edge"})
	wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	_, err = askEnvoy(t, e, secretOf("acme", RoleRunner), &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: make([]*descriptorv3.RateLimitDescriptor, limiter.TogetherMax+1)})
	wantReason(t, err, connect.CodeInvalidArgument, "batch_too_large")
	e.services.err = &raftfsm.Error{Op: "propose", Group: "limiter-0", Err: raftfsm.ErrNoLeader}
	wantReason(t, ask(descriptor("tenant_id", "acme")), connect.CodeUnavailable, "no_leader")
	if len(e.services.checks) != 1 {
		t.Errorf("checks %+v", e.services.checks)
	}
}

// The units of limits, where Envoy has them.
func TestEnvoyUnits(t *testing.T) {
	for _, c := range []struct {
		limit limiter.Limit
		kind  string
		want  string
	}{
		{limiter.Limit{TokenBucket: limiter.TokenBucket{Rate: "5/100ms", Burst: 9}}, limiter.KindTokenBucket, "50 SECOND 0"},
		{limiter.Limit{TokenBucket: limiter.TokenBucket{Rate: "1000/30s", Burst: 9}}, limiter.KindTokenBucket, "1000 SECOND 30"},
		{limiter.Limit{Window: limiter.Window{Limit: 8, Length: "60m"}}, limiter.KindWindow, "8 HOUR 0"},
		{limiter.Limit{Window: limiter.Window{Limit: 8, Length: "2d"}}, limiter.KindWindow, "8 DAY 2"},
		{limiter.Limit{Window: limiter.Window{Limit: 8, Length: "1500ms"}}, limiter.KindWindow, "3 UNKNOWN 0"},
		{limiter.Limit{Calendar: limiter.Calendar{Limit: 8, Period: limiter.PeriodMonth}}, limiter.KindCalendar, "8 MONTH 0"},
	} {
		to := &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: 3}
		envoyUnit(to, c.limit, c.kind)
		if got := fmt.Sprintf("%d %v %d", to.GetRequestsPerUnit(), to.GetUnit(), to.GetUnitMultiplier().GetValue()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.limit, got, c.want)
		}
	}
}
