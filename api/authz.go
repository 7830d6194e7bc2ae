package api

import (
	"time"

	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

// roleRank orders the roles: each may do what the ones below it may.
var roleRank = map[string]int{RoleReader: 1, RoleRunner: 2, RolePublisher: 3, RoleOperator: 4, RoleAdmin: 5}

// class is whose room in the queue a procedure takes.
type class uint8

const (
	classCheck class = iota
	classSearch
	classLookup
	classIngest
	classStream
	classAdmin
	classBackup
	classBatch
	classCheckStream
	classLease
	classPackage
	classPackageRead
	classCheckAnswer // of no procedure
	classes
)

// cutOff says whether a node answers although it may not know of revocations.
type cutOff uint8

const (
	_ cutOff = iota // nobody
	// cutOffCertificate lets the administrator's certificate in, which cannot be revoked: an
	// operator must be able to look at such a node.
	cutOffCertificate
	// cutOffAll is for what tells and changes nothing that an identity could lose.
	cutOffAll
	// cutOffLeases is for checks: those that the node's leases decide go on.
	cutOffLeases
)

// procedure is one row of the table: what a route is called and who may call it.
type procedure struct {
	// name is the RPC's path, or method and path of a REST route.
	name string
	// least is the lowest role that may call it.
	least string
	// platform is true when only identities of the platform (AllTenants) may.
	platform bool
	// write is true when it can change something, and so can have an unknown outcome.
	write bool
	// cutOff is who may call it on a node that is cut off from the group meta.
	cutOff cutOff
	// stream is true for an RPC that is not one request and one answer.
	stream bool
	class  class
	// deadline is what it gets when the client sets none; on a stream, each message.
	deadline time.Duration
}

const (
	restCheck         = "POST /api/limiter/check"
	restReserve       = "POST /api/limiter/reserve"
	restCommit        = "POST /api/limiter/commit"
	restCancel        = "POST /api/limiter/cancel"
	restRefund        = "POST /api/limiter/refund"
	restAcquire       = "POST /api/limiter/acquire"
	restRelease       = "POST /api/limiter/release"
	restPeek          = "POST /api/limiter/peek"
	restUsage         = "POST /api/limiter/usage"
	restSearch        = "GET /api/provenance/search"
	restLookup        = "POST /api/provenance/lookup"
	restLineage       = "GET /api/provenance/lineage"
	restIngest        = "POST /api/provenance/ingest"
	restRetention     = "GET /api/provenance/retention"
	restRetentionSet  = "POST /api/provenance/retention/set"
	reflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

	restPublish   = "POST /api/packages"
	restPackages  = "GET /api/packages"
	restPackage   = "GET /api/packages/{id}"
	restContent   = "GET /api/packages/{id}/content"
	restInstall   = "POST /api/packages/{id}/install"
	restUninstall = "POST /api/packages/{id}/uninstall"
	restRollback  = "POST /api/packages/{id}/rollback"
	restYank      = "POST /api/packages/{id}/yank"
	restInstalls  = "GET /api/package-installs"

	restRetentionRemove = "POST /api/provenance/retention/remove"

	envoyService         = "envoy.service.ratelimit.v3.RateLimitService"
	envoyShouldRateLimit = "/" + envoyService + "/ShouldRateLimit"
)

// procedures is the table of everything that needs an identity; a route without a row does
// not exist. Only the health service is open to all.
//
// A role reaches the identity's own tenant. Beyond that: an identity of the platform reaches
// every tenant with its role, and only its administrators change limits.
var procedures = []procedure{
	{name: limiterv1connect.LimiterCheckProcedure, least: RoleRunner, cutOff: cutOffLeases, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restCheck, least: RoleRunner, cutOff: cutOffLeases, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterCheckBatchProcedure, least: RoleRunner, cutOff: cutOffLeases, write: true, class: classBatch, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterCheckStreamProcedure, least: RoleRunner, cutOff: cutOffLeases, write: true, stream: true, class: classCheckStream, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterLeaseProcedure, least: RoleRunner, write: true, stream: true, class: classLease, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterPeekProcedure, least: RoleRunner, class: classCheck, deadline: DeadlineCheck},
	{name: restPeek, least: RoleRunner, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterUsageProcedure, least: RoleRunner, class: classCheck, deadline: DeadlineCheck},
	{name: restUsage, least: RoleRunner, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterReserveProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restReserve, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterCommitProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restCommit, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterCancelProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restCancel, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterRefundProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restRefund, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterAcquireProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restAcquire, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterReleaseProcedure, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: restRelease, least: RoleRunner, write: true, class: classCheck, deadline: DeadlineCheck},
	{name: limiterv1connect.LimiterListLimitsProcedure, least: RoleOperator, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterSetLimitsProcedure, least: RoleOperator, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterDeleteLimitsProcedure, least: RoleOperator, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterSetPlansProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterListPlansProcedure, least: RoleOperator, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterTopProcedure, least: RoleOperator, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterGetModeProcedure, least: RoleOperator, class: classAdmin, deadline: DeadlineAdmin},
	{name: limiterv1connect.LimiterSetModeProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: envoyShouldRateLimit, least: RoleRunner, cutOff: cutOffLeases, write: true, class: classCheck, deadline: DeadlineCheck},

	{name: provenancev1connect.ProvenanceSearchProcedure, least: RoleReader, class: classSearch, deadline: DeadlineSearch},
	{name: restSearch, least: RoleReader, class: classSearch, deadline: DeadlineSearch},
	{name: provenancev1connect.ProvenanceLookupProcedure, least: RoleReader, class: classLookup, deadline: DeadlineSearch},
	{name: restLookup, least: RoleReader, class: classLookup, deadline: DeadlineSearch},
	{name: provenancev1connect.ProvenanceLineageProcedure, least: RoleReader, class: classSearch, deadline: DeadlineSearch},
	{name: restLineage, least: RoleReader, class: classSearch, deadline: DeadlineSearch},
	{name: provenancev1connect.ProvenanceIngestProcedure, least: RoleRunner, write: true, class: classIngest, deadline: DeadlineIngest},
	{name: provenancev1connect.ProvenanceGetModeProcedure, least: RoleReader, class: classAdmin, deadline: DeadlineAdmin},
	{name: provenancev1connect.ProvenanceSetModeProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: provenancev1connect.ProvenanceListRetentionProcedure, least: RoleReader, class: classAdmin, deadline: DeadlineAdmin},
	{name: restRetention, least: RoleReader, class: classAdmin, deadline: DeadlineAdmin},
	{name: provenancev1connect.ProvenanceSetRetentionProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: restRetentionSet, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: provenancev1connect.ProvenanceRemoveRetentionProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: restRetentionRemove, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: restIngest, least: RoleRunner, write: true, class: classIngest, deadline: DeadlineIngest},
	{name: provenancev1connect.ProvenanceIngestStreamProcedure, least: RoleRunner, write: true, stream: true, class: classStream, deadline: DeadlineIngest},

	{name: clusterv1connect.ClusterStatusProcedure, least: RoleOperator, cutOff: cutOffCertificate, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.ClusterInitProcedure, least: RoleAdmin, cutOff: cutOffAll, platform: true, write: true, class: classAdmin, deadline: MaxDeadline},
	{name: clusterv1connect.ClusterAddProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.ClusterRemoveProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.ClusterReplaceProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.ClusterTransferProcedure, least: RoleAdmin, platform: true, write: true, class: classAdmin, deadline: DeadlineAdmin},

	{name: clusterv1connect.TokensCreateTokenProcedure, least: RoleAdmin, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.TokensListTokensProcedure, least: RoleAdmin, class: classAdmin, deadline: DeadlineAdmin},
	{name: clusterv1connect.TokensRevokeTokenProcedure, least: RoleAdmin, write: true, class: classAdmin, deadline: DeadlineAdmin},

	{name: clusterv1connect.BackupsDescribeProcedure, least: RoleAdmin, platform: true, class: classBackup, deadline: DeadlineAdmin},
	{name: clusterv1connect.BackupsExportProcedure, least: RoleAdmin, platform: true, class: classBackup, deadline: DeadlineAdmin},
	{name: clusterv1connect.BackupsImportProcedure, least: RoleAdmin, platform: true, write: true, class: classBackup, deadline: MaxDeadline},

	{name: packagesv1connect.PackagesBeginUploadProcedure, least: RolePublisher, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesUploadChunkProcedure, least: RolePublisher, write: true, class: classPackage, deadline: DeadlineIngest},
	{name: packagesv1connect.PackagesPublishProcedure, least: RolePublisher, write: true, class: classPackage, deadline: MaxDeadline},
	{name: restPublish, least: RolePublisher, write: true, class: classPackage, deadline: MaxDeadline},
	{name: packagesv1connect.PackagesListPackagesProcedure, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: restPackages, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesGetPackageProcedure, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: restPackage, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesDownloadProcedure, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: restContent, least: RoleReader, class: classPackageRead, deadline: MaxDeadline},
	{name: packagesv1connect.PackagesSignPackageProcedure, least: RolePublisher, write: true, class: classPackage, deadline: MaxDeadline},
	{name: packagesv1connect.PackagesYankPackageProcedure, least: RolePublisher, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: restYank, least: RolePublisher, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesInstallProcedure, least: RoleOperator, write: true, class: classPackage, deadline: DeadlineIngest},
	{name: restInstall, least: RoleOperator, write: true, class: classPackage, deadline: DeadlineIngest},
	{name: packagesv1connect.PackagesRollbackProcedure, least: RoleOperator, write: true, class: classPackage, deadline: DeadlineIngest},
	{name: restRollback, least: RoleOperator, write: true, class: classPackage, deadline: DeadlineIngest},
	{name: packagesv1connect.PackagesUninstallProcedure, least: RoleOperator, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: restUninstall, least: RoleOperator, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesListInstallsProcedure, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: restInstalls, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesLoadProcedure, least: RoleRunner, class: classPackage, deadline: DeadlineIngest},
	{name: packagesv1connect.PackagesAddKeyProcedure, least: RoleAdmin, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesListKeysProcedure, least: RoleReader, class: classPackageRead, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesRevokeKeyProcedure, least: RoleAdmin, write: true, class: classAdmin, deadline: DeadlineAdmin},
	{name: packagesv1connect.PackagesReachOfKeyProcedure, least: RoleOperator, class: classPackageRead, deadline: DeadlineAdmin},

	{name: reflectionV1, least: RoleReader, cutOff: cutOffAll, stream: true, class: classAdmin},
	{name: reflectionV1Alpha, least: RoleReader, cutOff: cutOffAll, stream: true, class: classAdmin},
}

// authorize checks the row of p; what tenant the request reaches is the handler's question.
func (p *procedure) authorize(who Principal) *fault {
	if p.platform && who.Tenant != AllTenants {
		return refuse(reasonPlatformOnly, "")
	}
	if roleRank[who.Role] < roleRank[p.least] { // a role this build does not know ranks below all
		return refuse(reasonRoleInsufficient, "the identity has the role %q; this needs %s", who.Role, p.least)
	}
	return nil
}

// oneTenant is the tenant that a request acts on: the one it names, or the identity's own.
func oneTenant(who Principal, named string) (string, *fault) {
	switch {
	case named == "" && who.Tenant == AllTenants:
		return "", refuse(reasonTenantMissing, "")
	case named == "":
		return who.Tenant, nil
	}
	return named, mayReach(who, named)
}

// anyTenant is like oneTenant, but empty, meaning every tenant, for an identity of the
// platform that names none.
func anyTenant(who Principal, named string) (string, *fault) {
	if named == "" && who.Tenant == AllTenants {
		return "", nil
	}
	return oneTenant(who, named)
}

func mayReach(who Principal, tenant string) *fault {
	switch {
	case !limiter.ValidName(tenant):
		return refuse(reasonTenantMalformed, "%q cannot name a tenant", tenant)
	case who.Tenant != AllTenants && who.Tenant != tenant:
		return refuse(reasonTenantForeign, "the identity belongs to tenant %s and cannot reach tenant %s", who.Tenant, tenant)
	}
	return nil
}
