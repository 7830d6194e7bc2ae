package api

import (
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

// accessCase says who may do one thing. The requests act on tenant acme unless they say
// otherwise.
type accessCase struct {
	what      string
	procedure string
	request   proto.Message // nil for reflection and REST without a body
	query     string        // REST only
	raw       []byte        // the body of REST that takes no message
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

var accessCases = append(withREST([]accessCase{
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
}), packageCases...)

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
