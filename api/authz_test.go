package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

// TestEveryProcedureHasARow fails when a procedure is added to a proto and nobody has decided
// who may call it.
func TestEveryProcedureHasARow(t *testing.T) {
	have := map[string]bool{}
	for _, p := range procedures {
		if have[p.name] {
			t.Errorf("%s has two rows", p.name)
		}
		have[p.name] = true
		if roleRank[p.least] == 0 {
			t.Errorf("%s: %q is not a role", p.name, p.least)
		}
		if p.deadline == 0 && !p.stream {
			t.Errorf("%s has no deadline", p.name)
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), "mc.") {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if !slices.Contains(services, string(service.FullName())) {
				t.Errorf("health and reflection do not know %s", service.FullName())
			}
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				path := "/" + string(service.FullName()) + "/" + string(m.Name())
				if !have[path] {
					t.Errorf("%s has no row in procedures", path)
				}
				if !slices.ContainsFunc(accessCases, func(c accessCase) bool { return c.procedure == path }) {
					t.Errorf("%s has no row in accessCases", path)
				}
			}
		}
		return true
	})
	for _, p := range procedures {
		if !slices.ContainsFunc(accessCases, func(c accessCase) bool { return c.procedure == p.name }) {
			t.Errorf("%s has no row in accessCases", p.name)
		}
	}
}

// TestAccess walks every row with every role of the tenant, of another tenant, and of the
// platform, and with no identity at all.
func TestAccess(t *testing.T) {
	for _, c := range accessCases {
		t.Run(c.procedure+"/"+c.what, func(t *testing.T) {
			for _, side := range []struct {
				tenant string
				want   [5]string
			}{{"acme", c.own}, {"globex", c.foreign}, {AllTenants, c.platform}} {
				for i, role := range allRoles {
					e := newEnv(t, nil) // a fresh one, as some of the requests change things
					if got := reasonOfCall(t, e, c, secretOf(side.tenant, role)); got != side.want[i] {
						t.Errorf("%s of %s: reason %q, want %q", role, side.tenant, got, side.want[i])
					}
					e.close()
				}
			}
			e := newEnv(t, nil)
			if got := reasonOfCall(t, e, c, ""); got != "credentials_missing" {
				t.Errorf("nobody: reason %q", got)
			}
			if got := reasonOfCall(t, e, c, TokenPrefix+"odd"); got != low && got != "platform_only" {
				t.Errorf("an identity with an unknown role: reason %q", got)
			}
		})
	}
}

// reasonOfCall makes the request of a case and returns the reason it is refused with, or "".
func reasonOfCall(t *testing.T, e *env, c accessCase, secret string) string {
	t.Helper()
	if method, path, ok := strings.Cut(c.procedure, " "); ok {
		var sent []byte
		contentType := ""
		if c.request != nil {
			contentType = "application/json"
			var err error
			if sent, err = jsonMarshal.Marshal(c.request); err != nil {
				t.Fatal(err)
			}
		}
		if c.raw != nil {
			contentType, sent = "application/gzip", c.raw
		}
		path = strings.ReplaceAll(path, "{id}", "acme%2Fflow@0.1.0")
		res, body := e.send(t, secret, method, path+"?"+c.query, contentType, sent)
		if res.StatusCode == http.StatusOK {
			return ""
		}
		return problemOf(t, res, body).Reason
	}
	if c.request == nil {
		return reflectionReason(t, e, c.procedure, secret)
	}
	err := callDynamic(t, e, c, secret)
	if err == nil {
		return ""
	}
	return detailOf(t, err).GetReason()
}

// callDynamic calls a procedure by name, whose answer nobody looks at.
func callDynamic(t *testing.T, e *env, c accessCase, secret string) error {
	t.Helper()
	if handled, err := callPackages(t, e, c, secret); handled {
		return err
	}
	switch m := c.request.(type) {
	case *limiterv1.CheckRequest:
		return callOne[limiterv1.CheckResponse](t, e, c.procedure, secret, m)
	case *limiterv1.CheckBatchRequest:
		return callOne[limiterv1.CheckBatchResponse](t, e, c.procedure, secret, m)
	case *limiterv1.PeekRequest:
		return callOne[limiterv1.PeekResponse](t, e, c.procedure, secret, m)
	case *limiterv1.UsageRequest:
		return callOne[limiterv1.UsageResponse](t, e, c.procedure, secret, m)
	case *limiterv1.ReserveRequest:
		return callOne[limiterv1.ReserveResponse](t, e, c.procedure, secret, m)
	case *limiterv1.CommitRequest:
		return callOne[limiterv1.CommitResponse](t, e, c.procedure, secret, m)
	case *limiterv1.CancelRequest:
		return callOne[limiterv1.CancelResponse](t, e, c.procedure, secret, m)
	case *limiterv1.RefundRequest:
		return callOne[limiterv1.RefundResponse](t, e, c.procedure, secret, m)
	case *limiterv1.AcquireRequest:
		return callOne[limiterv1.AcquireResponse](t, e, c.procedure, secret, m)
	case *limiterv1.ReleaseRequest:
		return callOne[limiterv1.ReleaseResponse](t, e, c.procedure, secret, m)
	case *limiterv1.ListLimitsRequest:
		return callOne[limiterv1.ListLimitsResponse](t, e, c.procedure, secret, m)
	case *limiterv1.SetLimitsRequest:
		return callOne[limiterv1.SetLimitsResponse](t, e, c.procedure, secret, m)
	case *limiterv1.DeleteLimitsRequest:
		return callOne[limiterv1.DeleteLimitsResponse](t, e, c.procedure, secret, m)
	case *rlsv3.RateLimitRequest:
		return callOne[rlsv3.RateLimitResponse](t, e, c.procedure, secret, m)
	case *limiterv1.SetPlansRequest:
		return callOne[limiterv1.SetPlansResponse](t, e, c.procedure, secret, m)
	case *limiterv1.ListPlansRequest:
		return callOne[limiterv1.ListPlansResponse](t, e, c.procedure, secret, m)
	case *limiterv1.TopRequest:
		return callOne[limiterv1.TopResponse](t, e, c.procedure, secret, m)
	case *limiterv1.GetModeRequest:
		return callOne[limiterv1.GetModeResponse](t, e, c.procedure, secret, m)
	case *limiterv1.SetModeRequest:
		return callOne[limiterv1.SetModeResponse](t, e, c.procedure, secret, m)
	case *provenancev1.SearchRequest:
		return callOne[provenancev1.SearchResponse](t, e, c.procedure, secret, m)
	case *provenancev1.LineageRequest:
		return callOne[provenancev1.LineageResponse](t, e, c.procedure, secret, m)
	case *provenancev1.LookupRequest:
		return callOne[provenancev1.LookupResponse](t, e, c.procedure, secret, m)
	case *provenancev1.IngestRequest:
		return callOne[provenancev1.IngestResponse](t, e, c.procedure, secret, m)
	case *provenancev1.GetModeRequest:
		return callOne[provenancev1.GetModeResponse](t, e, c.procedure, secret, m)
	case *provenancev1.ListRetentionRequest:
		return callOne[provenancev1.ListRetentionResponse](t, e, c.procedure, secret, m)
	case *provenancev1.SetRetentionRequest:
		return callOne[provenancev1.SetRetentionResponse](t, e, c.procedure, secret, m)
	case *provenancev1.RemoveRetentionRequest:
		return callOne[provenancev1.RemoveRetentionResponse](t, e, c.procedure, secret, m)
	case *provenancev1.SetModeRequest:
		return callOne[provenancev1.SetModeResponse](t, e, c.procedure, secret, m)
	case *clusterv1.StatusRequest:
		return callOne[clusterv1.StatusResponse](t, e, c.procedure, secret, m)
	case *clusterv1.InitRequest:
		return callOne[clusterv1.InitResponse](t, e, c.procedure, secret, m)
	case *clusterv1.AddRequest:
		return callOne[clusterv1.AddResponse](t, e, c.procedure, secret, m)
	case *clusterv1.RemoveRequest:
		return callOne[clusterv1.RemoveResponse](t, e, c.procedure, secret, m)
	case *clusterv1.ReplaceRequest:
		return callOne[clusterv1.ReplaceResponse](t, e, c.procedure, secret, m)
	case *clusterv1.TransferRequest:
		return callOne[clusterv1.TransferResponse](t, e, c.procedure, secret, m)
	case *clusterv1.DescribeRequest:
		return callOne[clusterv1.DescribeResponse](t, e, c.procedure, secret, m)
	case *clusterv1.ExportRequest:
		return callOne[clusterv1.ExportResponse](t, e, c.procedure, secret, m)
	case *clusterv1.ImportRequest:
		return callOne[clusterv1.ImportResponse](t, e, c.procedure, secret, m)
	case *clusterv1.CreateTokenRequest:
		return callOne[clusterv1.CreateTokenResponse](t, e, c.procedure, secret, m)
	case *clusterv1.ListTokensRequest:
		return callOne[clusterv1.ListTokensResponse](t, e, c.procedure, secret, m)
	case *clusterv1.RevokeTokenRequest:
		return callOne[clusterv1.RevokeTokenResponse](t, e, c.procedure, secret, m)
	case *limiterv1.CheckStreamRequest:
		stream := limiterv1connect.NewLimiterClient(e.client(secret), e.url).CheckStream(t.Context())
		_ = stream.Send(m) // Receive tells why it failed
		answer, err := stream.Receive()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
		if err == nil {
			err = refusal(t, answer.GetRefused())
		}
		return err
	case *limiterv1.LeaseRequest:
		stream := limiterv1connect.NewLimiterClient(e.client(secret), e.url).Lease(t.Context())
		_ = stream.Send(m) // Receive tells why it failed
		answer, err := stream.Receive()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
		if err == nil {
			err = refusal(t, answer.GetRefused())
		}
		return err
	case *provenancev1.IngestStreamRequest:
		stream := provenancev1connect.NewProvenanceClient(e.client(secret), e.url).IngestStream(t.Context())
		_ = stream.Send(m) // Receive tells why it failed
		_, err := stream.Receive()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
		return err
	default:
		t.Fatalf("no way to send a %T", m)
		return nil
	}
}

// refusal is the error that a message of a stream was refused with, or nil.
func refusal(t *testing.T, refused *limiterv1.RefusedChecks) error {
	t.Helper()
	if refused == nil {
		return nil
	}
	failed := connect.NewError(connect.CodeUnknown, errors.New(refused.GetMessage()))
	detail, err := connect.NewErrorDetail(refused.GetError())
	if err != nil {
		t.Fatal(err)
	}
	failed.AddDetail(detail)
	return failed
}

func callOne[Res, Req any](t *testing.T, e *env, procedure, secret string, m *Req) error {
	t.Helper()
	_, err := connect.NewClient[Req, Res](e.client(secret), e.url+procedure).CallUnary(t.Context(), connect.NewRequest(m))
	return err
}

// TestListsShowOnlyWhatTheCallerMaySee: another tenant's limits and tokens do not exist for
// an identity of one tenant.
func TestListsShowOnlyWhatTheCallerMaySee(t *testing.T) {
	e := newEnv(t, nil)
	list := func(secret, tenant string, ids ...string) (got []string) {
		c := limiterv1connect.NewLimiterClient(e.client(secret), e.url)
		res, err := c.ListLimits(t.Context(), connect.NewRequest(&limiterv1.ListLimitsRequest{Tenant: tenant, Ids: ids}))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range res.Msg.GetLimits() {
			got = append(got, l.GetId())
		}
		return got
	}
	for _, c := range []struct {
		secret, tenant string
		ids, want      []string
	}{
		{secretOf("acme", RoleOperator), "", nil, []string{"acme-api", "everyone"}},
		{secretOf("acme", RoleOperator), "acme", nil, []string{"acme-api"}},
		{secretOf("acme", RoleOperator), "*", nil, []string{"everyone"}},
		{secretOf("acme", RoleOperator), "", []string{"globex-keys", "acme-api"}, []string{"acme-api"}},
		{secretOf(AllTenants, RoleOperator), "", nil, []string{"acme-api", "everyone", "globex-keys"}},
		{secretOf(AllTenants, RoleOperator), "globex", nil, []string{"globex-keys"}},
	} {
		if got := list(c.secret, c.tenant, c.ids...); !slices.Equal(got, c.want) {
			t.Errorf("%s lists %q %v: %v, want %v", c.secret, c.tenant, c.ids, got, c.want)
		}
	}
	tokens := func(secret string) (got []string) {
		c := clusterv1connect.NewTokensClient(e.client(secret), e.url)
		res, err := c.ListTokens(t.Context(), connect.NewRequest(&clusterv1.ListTokensRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range res.Msg.GetTokens() {
			got = append(got, token.GetId())
		}
		return got
	}
	if got := tokens(secretOf("acme", RoleAdmin)); !slices.Equal(got, []string{"acme-token"}) {
		t.Errorf("acme's administrator sees the tokens %v", got)
	}
	if got := tokens(secretOf(AllTenants, RoleAdmin)); !slices.Equal(got, []string{"acme-token", "globex-token"}) {
		t.Errorf("the platform's administrator sees the tokens %v", got)
	}
}
