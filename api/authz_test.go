package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
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

// accessCase says who may do one thing. The requests act on tenant acme unless they say
// otherwise.
type accessCase struct {
	what      string
	procedure string
	request   proto.Message // nil for reflection and REST without a body
	query     string        // REST only
	// own, foreign and platform are the reasons that roles of acme, of globex and of the
	// platform get, in the order of allRoles; "" means that it is allowed.
	own, foreign, platform [5]string
}

const (
	low = "role_insufficient"
	far = "tenant_foreign"
)

var (
	everyRole   = [5]string{}
	fromRunner  = [5]string{low}
	fromOper    = [5]string{low, low, low}
	adminOnly   = [5]string{low, low, low, low}
	noTenant    = [5]string{low, "tenant_missing", "tenant_missing", "tenant_missing", "tenant_missing"}
	allForeign  = [5]string{far, far, far, far, far}
	runForeign  = [5]string{low, far, far, far, far}
	operForeign = [5]string{low, low, low, far, far}
	admForeign  = [5]string{low, low, low, low, far}
	notPlatform = [5]string{"platform_only", "platform_only", "platform_only", "platform_only", "platform_only"}
)

func acmeLimit(selector string) *limiterv1.SetLimitsRequest {
	return &limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{{
		Id: "fresh", Scope: "tenant", Selector: selector, TokenBucket: &limiterv1.TokenBucket{Rate: "1/s", Burst: 1},
	}}}
}

var accessCases = withREST([]accessCase{
	{
		what: "check", procedure: limiterv1connect.LimiterCheckProcedure, request: &limiterv1.CheckRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "check without a tenant", procedure: limiterv1connect.LimiterCheckProcedure, request: &limiterv1.CheckRequest{},
		own: fromRunner, foreign: fromRunner, platform: noTenant,
	},
	{
		what: "check by REST", procedure: restCheck, request: &limiterv1.CheckRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "check a batch", procedure: limiterv1connect.LimiterCheckBatchProcedure,
		request: &limiterv1.CheckBatchRequest{Checks: []*limiterv1.CheckRequest{{Tenant: "acme"}, {Tenant: "acme", Key: "lost"}}},
		own:     fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "stream checks", procedure: limiterv1connect.LimiterCheckStreamProcedure,
		request: &limiterv1.CheckStreamRequest{Checks: 1, Tenants: []string{"acme"}},
		own:     fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "stream checks without a tenant", procedure: limiterv1connect.LimiterCheckStreamProcedure, request: &limiterv1.CheckStreamRequest{Checks: 1},
		own: fromRunner, foreign: fromRunner, platform: noTenant,
	},
	{
		what: "lease", procedure: limiterv1connect.LimiterLeaseProcedure, request: &limiterv1.LeaseRequest{Holder: 7, Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "peek", procedure: limiterv1connect.LimiterPeekProcedure, request: &limiterv1.PeekRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "usage", procedure: limiterv1connect.LimiterUsageProcedure, request: &limiterv1.UsageRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "reserve", procedure: limiterv1connect.LimiterReserveProcedure, request: &limiterv1.ReserveRequest{Tenant: "acme", Cost: 1},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "commit", procedure: limiterv1connect.LimiterCommitProcedure, request: &limiterv1.CommitRequest{Tenant: "acme", Id: "reservation"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "cancel", procedure: limiterv1connect.LimiterCancelProcedure, request: &limiterv1.CancelRequest{Tenant: "acme", Id: "reservation"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "refund", procedure: limiterv1connect.LimiterRefundProcedure, request: &limiterv1.RefundRequest{Tenant: "acme", RequestId: "r"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "acquire", procedure: limiterv1connect.LimiterAcquireProcedure, request: &limiterv1.AcquireRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "release", procedure: limiterv1connect.LimiterReleaseProcedure, request: &limiterv1.ReleaseRequest{Tenant: "acme", Id: "slot"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "renew", procedure: limiterv1connect.LimiterAcquireProcedure, request: &limiterv1.AcquireRequest{Tenant: "acme", Id: "slot"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "commit what is acme's for oneself", procedure: limiterv1connect.LimiterCommitProcedure, request: &limiterv1.CommitRequest{Id: "reservation"},
		own: fromRunner, foreign: [5]string{low, "reservation_unknown", "reservation_unknown", "reservation_unknown", "reservation_unknown"}, platform: noTenant,
	},
	{
		what: "renew what is acme's for oneself", procedure: limiterv1connect.LimiterAcquireProcedure, request: &limiterv1.AcquireRequest{Id: "slot"},
		own: fromRunner, foreign: [5]string{low, "slot_unknown", "slot_unknown", "slot_unknown", "slot_unknown"}, platform: noTenant,
	},
	{
		what: "refund what is acme's for oneself", procedure: limiterv1connect.LimiterRefundProcedure, request: &limiterv1.RefundRequest{RequestId: "r"},
		own: fromRunner, foreign: [5]string{low, "request_unknown", "request_unknown", "request_unknown", "request_unknown"}, platform: noTenant,
	},
	{
		what: "list the limits of acme", procedure: limiterv1connect.LimiterListLimitsProcedure, request: &limiterv1.ListLimitsRequest{Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{
		what: "list limits", procedure: limiterv1connect.LimiterListLimitsProcedure, request: &limiterv1.ListLimitsRequest{},
		own: fromOper, foreign: fromOper, platform: fromOper,
	},
	{
		what: "limit acme", procedure: limiterv1connect.LimiterSetLimitsProcedure, request: acmeLimit("acme"),
		own: fromOper, foreign: operForeign, platform: adminOnly,
	},
	{
		what: "ban acme", procedure: limiterv1connect.LimiterSetLimitsProcedure, request: &limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{{
			Id: "ban", Scope: "tenant", Selector: "acme", Access: "banned",
		}}},
		own: [5]string{low, low, low, "platform_only", "platform_only"}, foreign: [5]string{low, low, low, "tenant_foreign", "tenant_foreign"}, platform: [5]string{low, low, low, low, ""},
	},
	{
		what: "limit every tenant", procedure: limiterv1connect.LimiterSetLimitsProcedure, request: acmeLimit("*"),
		own: operForeign, foreign: operForeign, platform: adminOnly,
	},
	{
		what: "delete a limit of acme", procedure: limiterv1connect.LimiterDeleteLimitsProcedure, request: &limiterv1.DeleteLimitsRequest{Ids: []string{"acme-api"}},
		own: fromOper, foreign: [5]string{low, low, low, "limit_unknown", "limit_unknown"}, platform: adminOnly,
	},
	{
		what: "delete a limit of every tenant", procedure: limiterv1connect.LimiterDeleteLimitsProcedure, request: &limiterv1.DeleteLimitsRequest{Ids: []string{"everyone"}},
		own: [5]string{low, low, low, "limit_unknown", "limit_unknown"}, foreign: [5]string{low, low, low, "limit_unknown", "limit_unknown"}, platform: adminOnly,
	},
	{
		// What an identity may not reach is unmatched, which is no error: see TestEnvoyDeniesWhatIsNoCheck.
		what: "ask for Envoy", procedure: envoyShouldRateLimit, request: &rlsv3.RateLimitRequest{},
		own: [5]string{low, "service_off", "service_off", "service_off", "service_off"}, foreign: [5]string{low, "service_off", "service_off", "service_off", "service_off"},
		platform: [5]string{low, "service_off", "service_off", "service_off", "service_off"},
	},
	{
		what: "limit a plan", procedure: limiterv1connect.LimiterSetLimitsProcedure, request: acmeLimit("plan:gold"),
		own: [5]string{low, low, low, "platform_only", "platform_only"}, foreign: [5]string{low, low, low, "platform_only", "platform_only"}, platform: adminOnly,
	},
	{
		what: "put acme on a plan", procedure: limiterv1connect.LimiterSetPlansProcedure,
		request: &limiterv1.SetPlansRequest{Assignments: []*limiterv1.PlanAssignment{{Tenant: "acme", Plan: "gold"}}},
		own:     notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "see the plan of acme", procedure: limiterv1connect.LimiterListPlansProcedure, request: &limiterv1.ListPlansRequest{Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{
		what: "see plans", procedure: limiterv1connect.LimiterListPlansProcedure, request: &limiterv1.ListPlansRequest{},
		own: fromOper, foreign: fromOper, platform: fromOper,
	},
	{
		what: "see the busiest keys of acme", procedure: limiterv1connect.LimiterTopProcedure, request: &limiterv1.TopRequest{Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{
		what: "see the busiest keys", procedure: limiterv1connect.LimiterTopProcedure, request: &limiterv1.TopRequest{},
		own: fromOper, foreign: fromOper, platform: fromOper,
	},
	{
		what: "see the mode of the limits", procedure: limiterv1connect.LimiterGetModeProcedure, request: &limiterv1.GetModeRequest{},
		own: fromOper, foreign: fromOper, platform: fromOper,
	},
	{
		what: "set the mode of the limits", procedure: limiterv1connect.LimiterSetModeProcedure, request: &limiterv1.SetModeRequest{Mode: "off"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "search acme", procedure: provenancev1connect.ProvenanceSearchProcedure, request: &provenancev1.SearchRequest{Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "search", procedure: provenancev1connect.ProvenanceSearchProcedure, request: &provenancev1.SearchRequest{},
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "search acme", procedure: restSearch, query: "tenant=acme",
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "search", procedure: restSearch, query: "q=kind:event",
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "lineage in acme", procedure: provenancev1connect.ProvenanceLineageProcedure, request: &provenancev1.LineageRequest{Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "lineage", procedure: provenancev1connect.ProvenanceLineageProcedure, request: &provenancev1.LineageRequest{},
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "lineage in acme", procedure: restLineage, query: "tenant=acme",
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "lineage", procedure: restLineage, query: "digest=sha256:00",
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "lookup in acme", procedure: provenancev1connect.ProvenanceLookupProcedure, request: &provenancev1.LookupRequest{Tenant: "acme", Digests: []string{"x"}},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "lookup", procedure: provenancev1connect.ProvenanceLookupProcedure, request: &provenancev1.LookupRequest{Digests: []string{"x"}},
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "ingest for acme", procedure: provenancev1connect.ProvenanceIngestProcedure, request: &provenancev1.IngestRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "see the mode of the index", procedure: provenancev1connect.ProvenanceGetModeProcedure, request: &provenancev1.GetModeRequest{},
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "set the mode of the index", procedure: provenancev1connect.ProvenanceSetModeProcedure, request: &provenancev1.SetModeRequest{Mode: "read-only"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "see the rules of retention", procedure: provenancev1connect.ProvenanceListRetentionProcedure, request: &provenancev1.ListRetentionRequest{},
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "see the rules of retention", procedure: restRetention,
		own: everyRole, foreign: everyRole, platform: everyRole,
	},
	{
		what: "set a rule of retention", procedure: provenancev1connect.ProvenanceSetRetentionProcedure,
		request: &provenancev1.SetRetentionRequest{Rules: []*provenancev1.RetentionRule{{Tenant: "acme", Hold: true}}},
		own:     notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "remove a rule of retention", procedure: provenancev1connect.ProvenanceRemoveRetentionProcedure,
		request: &provenancev1.RemoveRetentionRequest{Names: []string{"acme/hold"}},
		own:     notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "ingest for acme", procedure: restIngest, request: &provenancev1.IngestRequest{Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "stream for acme", procedure: provenancev1connect.ProvenanceIngestStreamProcedure,
		request: &provenancev1.IngestStreamRequest{Batch: &provenancev1.IngestRequest{Tenant: "acme"}},
		own:     fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "see the region's status", procedure: clusterv1connect.ClusterStatusProcedure, request: &clusterv1.StatusRequest{},
		own: fromOper, foreign: fromOper, platform: fromOper,
	},
	{
		what: "start the region", procedure: clusterv1connect.ClusterInitProcedure, request: &clusterv1.InitRequest{},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "add a node", procedure: clusterv1connect.ClusterAddProcedure, request: &clusterv1.AddRequest{Name: "d", ClusterAddress: "d:7401"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "remove a node", procedure: clusterv1connect.ClusterRemoveProcedure, request: &clusterv1.RemoveRequest{Name: "d"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "replace a node", procedure: clusterv1connect.ClusterReplaceProcedure, request: &clusterv1.ReplaceRequest{OldName: "a", NewName: "d"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "transfer a leadership", procedure: clusterv1connect.ClusterTransferProcedure, request: &clusterv1.TransferRequest{Group: "meta", Node: "a"},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "describe a backup", procedure: clusterv1connect.BackupsDescribeProcedure, request: &clusterv1.DescribeRequest{},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "read a group", procedure: clusterv1connect.BackupsExportProcedure, request: &clusterv1.ExportRequest{Group: "meta", Reading: make([]byte, 16)},
		own: notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "restore a group", procedure: clusterv1connect.BackupsImportProcedure,
		request: &clusterv1.ImportRequest{Group: "meta", Backup: make([]byte, 16), Step: clusterv1.ImportStep_IMPORT_STEP_BEGIN},
		own:     notPlatform, foreign: notPlatform, platform: adminOnly,
	},
	{
		what: "make a token for acme", procedure: clusterv1connect.TokensCreateTokenProcedure, request: &clusterv1.CreateTokenRequest{Tenant: "acme", Role: RoleReader},
		own: adminOnly, foreign: admForeign, platform: adminOnly,
	},
	{
		what: "make a token of the platform", procedure: clusterv1connect.TokensCreateTokenProcedure, request: &clusterv1.CreateTokenRequest{Tenant: "*", Role: RoleReader},
		own: [5]string{low, low, low, low, "tenant_malformed"}, foreign: [5]string{low, low, low, low, "tenant_malformed"}, platform: adminOnly,
	},
	{
		what: "make a token without a tenant", procedure: clusterv1connect.TokensCreateTokenProcedure, request: &clusterv1.CreateTokenRequest{Role: RoleReader},
		own: adminOnly, foreign: adminOnly, platform: [5]string{low, low, low, low, "tenant_missing"},
	},
	{
		what: "list the tokens of acme", procedure: clusterv1connect.TokensListTokensProcedure, request: &clusterv1.ListTokensRequest{Tenant: "acme"},
		own: adminOnly, foreign: admForeign, platform: adminOnly,
	},
	{
		what: "list tokens", procedure: clusterv1connect.TokensListTokensProcedure, request: &clusterv1.ListTokensRequest{},
		own: adminOnly, foreign: adminOnly, platform: adminOnly,
	},
	{
		what: "revoke a token of acme", procedure: clusterv1connect.TokensRevokeTokenProcedure, request: &clusterv1.RevokeTokenRequest{Id: "acme-token"},
		own: adminOnly, foreign: [5]string{low, low, low, low, "token_id_unknown"}, platform: adminOnly,
	},
	{what: "reflect", procedure: reflectionV1, own: everyRole, foreign: everyRole, platform: everyRole},
	{what: "reflect", procedure: reflectionV1Alpha, own: everyRole, foreign: everyRole, platform: everyRole},
})

// restOfRPC are the REST routes that are an RPC with JSON.
var restOfRPC = map[string]string{
	limiterv1connect.LimiterReserveProcedure: restReserve, limiterv1connect.LimiterCommitProcedure: restCommit,
	limiterv1connect.LimiterCancelProcedure: restCancel, limiterv1connect.LimiterRefundProcedure: restRefund,
	limiterv1connect.LimiterAcquireProcedure: restAcquire, limiterv1connect.LimiterReleaseProcedure: restRelease,
	limiterv1connect.LimiterPeekProcedure: restPeek, limiterv1connect.LimiterUsageProcedure: restUsage,
	provenancev1connect.ProvenanceLookupProcedure:       restLookup,
	provenancev1connect.ProvenanceSetRetentionProcedure: restRetentionSet, provenancev1connect.ProvenanceRemoveRetentionProcedure: restRetentionRemove,
}

// withREST adds the cases of those RPCs once more by REST.
func withREST(cases []accessCase) []accessCase {
	for _, c := range cases {
		if route := restOfRPC[c.procedure]; route != "" {
			c.procedure = route
			cases = append(cases, c)
		}
	}
	return cases
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
