package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/api/envoymap"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

// Deps are the services behind the API. One that is nil is switched off on this node: its
// procedures answer with the reason service_off.
type Deps struct {
	Authenticator Authenticator
	// Freshness guards what the Authenticator answers; nil means that it is always fresh.
	Freshness Freshness
	Checker   Checker
	Holder    Holder
	Lender    Lender
	// Envoy says what the descriptors of Envoy's rate limit service mean; nil switches that off.
	Envoy   *envoymap.Mapping
	Limits  LimitAdmin
	Index   Indexer
	Tokens  TokenAdmin
	Cluster ClusterAdmin
	Backups Backups
	// Packages gives the catalog once it stands.
	Packages func() (Packages, error)
	// Load is told of checks and searches that were answered; nil means nobody.
	Load Load

	// Region is the region of documents that name none.
	Region string
	// Serving tells the health service whether the node can serve the named service, or
	// anything at all for the empty name. nil means that it can from the start.
	Serving func(service string) bool
	// Now is the wall clock, for validity of certificates and tokens; nil means time.Now.
	Now func() time.Time
	// Logger receives refused and failed requests, and at debug level all; nil means
	// slog.Default.
	Logger *slog.Logger
	// Metrics is where the API registers what it counts; nil means nowhere.
	Metrics prometheus.Registerer
}

// server is the handler of the API port.
type server struct {
	deps    Deps
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	gates   [classes]*gate
	routes  map[string]*route // by path
	// stale is since when this node may not know of revocations, as requests have found; nil while it does.
	stale  atomic.Pointer[time.Time]
	health http.Handler
	errors *connect.ErrorWriter
}

// route is a procedure with its handler.
type route struct {
	procedure
	method  string
	path    string
	rest    bool
	handler http.Handler
	metrics *routeMetrics
	// sibling is the route of the same path with another method; nil without one.
	sibling *route
}

// NewHandler joins the services to the routes of the API port.
func NewHandler(d Deps) http.Handler {
	s := &server{deps: d, now: d.Now, log: d.Logger, gates: newGates(), routes: map[string]*route{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.deps.Load == nil {
		s.deps.Load = noLoad{}
	}
	s.metrics = newMetrics(d.Metrics)
	s.errors = connect.NewErrorWriter(options(MaxBodyBytes)...)
	_, s.health = grpchealth.NewHandler(healthChecker{s}, connect.WithReadMaxBytes(maxHealthBytes))
	handlers := s.handlers()
	for _, p := range procedures {
		rt := &route{procedure: p, method: http.MethodPost, path: p.name, handler: handlers[p.name]}
		if method, path, ok := strings.Cut(p.name, " "); ok {
			rt.method, rt.path, rt.rest = method, path, true
		}
		if rt.handler == nil {
			panic(fmt.Sprintf("api: the procedure %s has no handler", p.name))
		}
		rt.metrics = s.metrics.route(p.name)
		rt.sibling = s.routes[rt.path]
		s.routes[rt.path] = rt
	}
	return s
}

// routeOf is the route of a request, and what its path names. With another method than the request's it is
// one of those that the path has; without any it is nil.
func (s *server) routeOf(r *http.Request) (rt *route, id string) {
	if rt = s.routes[r.URL.Path]; rt == nil {
		var template string
		template, id = templateOf(r.URL.EscapedPath())
		if rt = s.routes[template]; rt == nil {
			return nil, ""
		}
	}
	for with := rt; with != nil; with = with.sibling {
		if with.method == r.Method {
			return with, id
		}
	}
	return rt, id
}

// methods are those of a route's path, as the Allow header lists them.
func (rt *route) methods() string {
	all := rt.method
	for with := rt.sibling; with != nil; with = with.sibling {
		all += ", " + with.method
	}
	return all
}

// compressMinBytes is how long an answer is at least that is compressed. A page of fifty documents is below:
// on a line of a gigabit it is there in a quarter of a millisecond, and to compress and expand it takes longer.
const compressMinBytes = 32 << 10

// options are those of a procedure whose messages have at most so many bytes.
func options(most int) []connect.HandlerOption {
	return append(codecs(), compression(most), connect.WithCompressMinBytes(compressMinBytes))
}

// optionsOf are those of a procedure by its name.
func optionsOf(name string) []connect.HandlerOption {
	i := slices.IndexFunc(procedures, func(p procedure) bool { return p.name == name })
	return options(classLimits[procedures[i].class].body)
}

// handlers are what runs behind the rows of the table procedures.
func (s *server) handlers() map[string]http.Handler {
	reflector := grpcreflect.NewStaticReflector(services...)
	_, v1 := grpcreflect.NewHandlerV1(reflector, connect.WithReadMaxBytes(MaxBodyBytes))
	_, v1Alpha := grpcreflect.NewHandlerV1Alpha(reflector, connect.WithReadMaxBytes(MaxBodyBytes))
	return map[string]http.Handler{
		limiterv1connect.LimiterCheckProcedure: unary(s, limiterv1connect.LimiterCheckProcedure, s.check),
		restCheck:                              http.HandlerFunc(s.checkREST),
		restReserve:                            restOf(s, s.reserve),
		restCommit:                             restOf(s, s.commit),
		restCancel:                             restOf(s, s.cancel),
		restRefund:                             restOf(s, s.refund),
		restAcquire:                            restOf(s, s.acquire),
		restRelease:                            restOf(s, s.release),
		restPeek:                               restOf(s, s.peek),
		restUsage:                              restOf(s, s.usage),
		limiterv1connect.LimiterCheckBatchProcedure: unary(s, limiterv1connect.LimiterCheckBatchProcedure, s.checkBatch),
		limiterv1connect.LimiterCheckStreamProcedure: connect.NewBidiStreamHandler(
			limiterv1connect.LimiterCheckStreamProcedure, s.checkStream, optionsOf(limiterv1connect.LimiterCheckStreamProcedure)...),
		limiterv1connect.LimiterLeaseProcedure: connect.NewBidiStreamHandler(
			limiterv1connect.LimiterLeaseProcedure, s.leaseStream, optionsOf(limiterv1connect.LimiterLeaseProcedure)...),
		limiterv1connect.LimiterPeekProcedure:         unary(s, limiterv1connect.LimiterPeekProcedure, s.peek),
		limiterv1connect.LimiterUsageProcedure:        unary(s, limiterv1connect.LimiterUsageProcedure, s.usage),
		limiterv1connect.LimiterReserveProcedure:      unary(s, limiterv1connect.LimiterReserveProcedure, s.reserve),
		limiterv1connect.LimiterCommitProcedure:       unary(s, limiterv1connect.LimiterCommitProcedure, s.commit),
		limiterv1connect.LimiterCancelProcedure:       unary(s, limiterv1connect.LimiterCancelProcedure, s.cancel),
		limiterv1connect.LimiterRefundProcedure:       unary(s, limiterv1connect.LimiterRefundProcedure, s.refund),
		limiterv1connect.LimiterAcquireProcedure:      unary(s, limiterv1connect.LimiterAcquireProcedure, s.acquire),
		limiterv1connect.LimiterReleaseProcedure:      unary(s, limiterv1connect.LimiterReleaseProcedure, s.release),
		limiterv1connect.LimiterListLimitsProcedure:   unary(s, limiterv1connect.LimiterListLimitsProcedure, s.listLimits),
		limiterv1connect.LimiterSetLimitsProcedure:    unary(s, limiterv1connect.LimiterSetLimitsProcedure, s.setLimits),
		limiterv1connect.LimiterDeleteLimitsProcedure: unary(s, limiterv1connect.LimiterDeleteLimitsProcedure, s.deleteLimits),
		limiterv1connect.LimiterSetPlansProcedure:     unary(s, limiterv1connect.LimiterSetPlansProcedure, s.setPlans),
		limiterv1connect.LimiterListPlansProcedure:    unary(s, limiterv1connect.LimiterListPlansProcedure, s.listPlans),
		limiterv1connect.LimiterTopProcedure:          unary(s, limiterv1connect.LimiterTopProcedure, s.top),
		limiterv1connect.LimiterGetModeProcedure:      unary(s, limiterv1connect.LimiterGetModeProcedure, s.getMode),
		limiterv1connect.LimiterSetModeProcedure:      unary(s, limiterv1connect.LimiterSetModeProcedure, s.setMode),
		envoyShouldRateLimit:                          unary(s, envoyShouldRateLimit, s.shouldRateLimit),

		provenancev1connect.ProvenanceSearchProcedure: unary(s, provenancev1connect.ProvenanceSearchProcedure, s.search),
		restSearch: restGET(s, parseSearch, s.search),
		provenancev1connect.ProvenanceLineageProcedure: unary(s, provenancev1connect.ProvenanceLineageProcedure, s.lineage),
		restLineage: restGET(s, parseLineage, s.lineage),
		provenancev1connect.ProvenanceLookupProcedure: unary(s, provenancev1connect.ProvenanceLookupProcedure, s.lookup),
		restLookup: restOf(s, s.lookup),
		provenancev1connect.ProvenanceIngestProcedure:          unary(s, provenancev1connect.ProvenanceIngestProcedure, s.ingest),
		provenancev1connect.ProvenanceGetModeProcedure:         unary(s, provenancev1connect.ProvenanceGetModeProcedure, s.getIndexMode),
		provenancev1connect.ProvenanceSetModeProcedure:         unary(s, provenancev1connect.ProvenanceSetModeProcedure, s.setIndexMode),
		provenancev1connect.ProvenanceListRetentionProcedure:   unary(s, provenancev1connect.ProvenanceListRetentionProcedure, s.listRetention),
		provenancev1connect.ProvenanceSetRetentionProcedure:    unary(s, provenancev1connect.ProvenanceSetRetentionProcedure, s.setRetention),
		provenancev1connect.ProvenanceRemoveRetentionProcedure: unary(s, provenancev1connect.ProvenanceRemoveRetentionProcedure, s.removeRetention),
		restRetention:       restGET(s, parseRetention, s.listRetention),
		restRetentionSet:    restOf(s, s.setRetention),
		restRetentionRemove: restOf(s, s.removeRetention),
		restIngest:          http.HandlerFunc(s.ingestREST),
		provenancev1connect.ProvenanceIngestStreamProcedure: connect.NewBidiStreamHandler(
			provenancev1connect.ProvenanceIngestStreamProcedure, s.ingestStream, optionsOf(provenancev1connect.ProvenanceIngestStreamProcedure)...),

		clusterv1connect.ClusterStatusProcedure: unary(s, clusterv1connect.ClusterStatusProcedure, s.status),
		clusterv1connect.ClusterInitProcedure:   unary(s, clusterv1connect.ClusterInitProcedure, s.initRegion),

		clusterv1connect.ClusterAddProcedure:      unary(s, clusterv1connect.ClusterAddProcedure, s.addNode),
		clusterv1connect.ClusterRemoveProcedure:   unary(s, clusterv1connect.ClusterRemoveProcedure, s.removeNode),
		clusterv1connect.ClusterReplaceProcedure:  unary(s, clusterv1connect.ClusterReplaceProcedure, s.replaceNode),
		clusterv1connect.ClusterTransferProcedure: unary(s, clusterv1connect.ClusterTransferProcedure, s.transfer),

		clusterv1connect.TokensCreateTokenProcedure: unary(s, clusterv1connect.TokensCreateTokenProcedure, s.createToken),
		clusterv1connect.TokensListTokensProcedure:  unary(s, clusterv1connect.TokensListTokensProcedure, s.listTokens),
		clusterv1connect.TokensRevokeTokenProcedure: unary(s, clusterv1connect.TokensRevokeTokenProcedure, s.revokeToken),

		clusterv1connect.BackupsDescribeProcedure: unary(s, clusterv1connect.BackupsDescribeProcedure, s.describeBackup),
		clusterv1connect.BackupsExportProcedure:   unary(s, clusterv1connect.BackupsExportProcedure, s.exportGroup),
		clusterv1connect.BackupsImportProcedure:   unary(s, clusterv1connect.BackupsImportProcedure, s.importGroup),

		packagesv1connect.PackagesBeginUploadProcedure:  unary(s, packagesv1connect.PackagesBeginUploadProcedure, s.beginUpload),
		packagesv1connect.PackagesUploadChunkProcedure:  unary(s, packagesv1connect.PackagesUploadChunkProcedure, s.uploadChunk),
		packagesv1connect.PackagesPublishProcedure:      unary(s, packagesv1connect.PackagesPublishProcedure, s.publish),
		packagesv1connect.PackagesListPackagesProcedure: unary(s, packagesv1connect.PackagesListPackagesProcedure, s.listPackages),
		packagesv1connect.PackagesGetPackageProcedure:   unary(s, packagesv1connect.PackagesGetPackageProcedure, s.getPackage),
		packagesv1connect.PackagesDownloadProcedure:     unary(s, packagesv1connect.PackagesDownloadProcedure, s.download),
		packagesv1connect.PackagesSignPackageProcedure:  unary(s, packagesv1connect.PackagesSignPackageProcedure, s.signPackage),
		packagesv1connect.PackagesYankPackageProcedure:  unary(s, packagesv1connect.PackagesYankPackageProcedure, s.yankPackage),
		packagesv1connect.PackagesInstallProcedure:      unary(s, packagesv1connect.PackagesInstallProcedure, s.install),
		packagesv1connect.PackagesRollbackProcedure:     unary(s, packagesv1connect.PackagesRollbackProcedure, s.rollback),
		packagesv1connect.PackagesUninstallProcedure:    unary(s, packagesv1connect.PackagesUninstallProcedure, s.uninstall),
		packagesv1connect.PackagesListInstallsProcedure: unary(s, packagesv1connect.PackagesListInstallsProcedure, s.listInstalls),
		packagesv1connect.PackagesLoadProcedure:         unary(s, packagesv1connect.PackagesLoadProcedure, s.load),
		packagesv1connect.PackagesAddKeyProcedure:       unary(s, packagesv1connect.PackagesAddKeyProcedure, s.addKey),
		packagesv1connect.PackagesListKeysProcedure:     unary(s, packagesv1connect.PackagesListKeysProcedure, s.listKeys),
		packagesv1connect.PackagesRevokeKeyProcedure:    unary(s, packagesv1connect.PackagesRevokeKeyProcedure, s.revokeKey),
		packagesv1connect.PackagesReachOfKeyProcedure:   unary(s, packagesv1connect.PackagesReachOfKeyProcedure, s.reachOfKey),

		restPublish:   http.HandlerFunc(s.publishREST),
		restPackages:  restGET(s, parsePackages, s.listPackages),
		restPackage:   restPackageOf(s, func(r *packagesv1.GetPackageRequest, id, tenant string) { r.Id, r.Tenant = id, tenant }, s.getPackage),
		restContent:   http.HandlerFunc(s.contentREST),
		restInstall:   restPackageOf(s, func(r *packagesv1.InstallRequest, id, tenant string) { r.Id = id; set(&r.Tenant, tenant) }, s.install),
		restUninstall: restPackageOf(s, func(r *packagesv1.UninstallRequest, id, tenant string) { r.Name = id; set(&r.Tenant, tenant) }, s.uninstall),
		restRollback:  restPackageOf(s, func(r *packagesv1.RollbackRequest, id, tenant string) { r.Name = id; set(&r.Tenant, tenant) }, s.rollback),
		restYank:      restPackageOf(s, func(r *packagesv1.YankPackageRequest, id, tenant string) { r.Id = id; set(&r.Tenant, tenant) }, s.yankPackage),
		restInstalls:  restGET(s, parseInstalls, s.listInstalls),

		reflectionV1:      v1,
		reflectionV1Alpha: v1Alpha,
	}
}
