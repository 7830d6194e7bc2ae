package api

import (
	"strings"
	"testing"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
)

var (
	fromPublisher  = [5]string{low, low}
	pubForeign     = [5]string{low, low, far, far, far}
	packageUnknown = [5]string{"package_unknown", "package_unknown", "package_unknown", "package_unknown", "package_unknown"}
	someDigest     = strings.Repeat("ab", 32)
)

const somePEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEj1qAEDGIkKHIMuOBcUY4siTZhtLX
RL4Bi+9jaitOEUHjCyxE4WSHGv+iFkYfz87PsHdS0Sk/snbwhSkz0S3Wmw==
-----END PUBLIC KEY-----
`

// packageCases are the catalog's rows of accessCases. Who names another tenant is refused as everywhere; a
// private package of a tenant that is not named is not there.
var packageCases = []accessCase{
	{
		what: "begin an upload", procedure: packagesv1connect.PackagesBeginUploadProcedure,
		request: &packagesv1.BeginUploadRequest{Tenant: "acme", Archive: someDigest, Size: 1},
		own:     fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "begin a public upload", procedure: packagesv1connect.PackagesBeginUploadProcedure,
		request: &packagesv1.BeginUploadRequest{Tenant: "*", Archive: someDigest, Size: 1},
		own:     [5]string{low, low, "platform_only", "platform_only", "platform_only"},
		foreign: [5]string{low, low, "platform_only", "platform_only", "platform_only"}, platform: fromPublisher,
	},
	{
		what: "upload a chunk", procedure: packagesv1connect.PackagesUploadChunkProcedure,
		request: &packagesv1.UploadChunkRequest{Tenant: "acme", Archive: someDigest, Size: 1, Data: []byte{1}},
		own:     fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "publish", procedure: packagesv1connect.PackagesPublishProcedure,
		request: &packagesv1.PublishRequest{Tenant: "acme", Archive: someDigest, Size: 1},
		own:     fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "publish by REST", procedure: restPublish, query: "tenant=acme", raw: []byte("archive"),
		own: fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "list", procedure: packagesv1connect.PackagesListPackagesProcedure, request: &packagesv1.ListPackagesRequest{Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{what: "list by REST", procedure: restPackages, query: "tenant=acme&q=x&limit=5", own: everyRole, foreign: allForeign, platform: everyRole},
	{
		what: "get", procedure: packagesv1connect.PackagesGetPackageProcedure, request: &packagesv1.GetPackageRequest{Id: "acme/flow", Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "get what is another's", procedure: packagesv1connect.PackagesGetPackageProcedure, request: &packagesv1.GetPackageRequest{Id: "acme/flow"},
		own: everyRole, foreign: packageUnknown, platform: packageUnknown,
	},
	{what: "get by REST", procedure: restPackage, query: "tenant=acme", own: everyRole, foreign: allForeign, platform: everyRole},
	{what: "get what is another's by REST", procedure: restPackage, own: everyRole, foreign: packageUnknown, platform: packageUnknown},
	{
		what: "download", procedure: packagesv1connect.PackagesDownloadProcedure, request: &packagesv1.DownloadRequest{Id: "acme/flow", Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "download what is another's", procedure: packagesv1connect.PackagesDownloadProcedure, request: &packagesv1.DownloadRequest{Id: someDigest},
		own: everyRole, foreign: packageUnknown, platform: packageUnknown,
	},
	{what: "download by REST", procedure: restContent, query: "tenant=acme", own: everyRole, foreign: allForeign, platform: everyRole},
	{
		what: "sign", procedure: packagesv1connect.PackagesSignPackageProcedure,
		request: &packagesv1.SignPackageRequest{Id: "acme/flow", Tenant: "acme", Key: someDigest},
		own:     fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "yank", procedure: packagesv1connect.PackagesYankPackageProcedure,
		request: &packagesv1.YankPackageRequest{Id: "acme/flow", Tenant: "acme", Kind: "yanked", Reason: "r"},
		own:     fromPublisher, foreign: pubForeign, platform: fromPublisher,
	},
	{
		what: "block", procedure: restYank, request: &packagesv1.YankPackageRequest{Tenant: "acme", Kind: "blocked", Reason: "r"},
		own: fromOper, foreign: [5]string{low, low, far, far, far}, platform: fromOper,
	},
	{
		what: "install", procedure: packagesv1connect.PackagesInstallProcedure, request: &packagesv1.InstallRequest{Id: "acme/flow", Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{
		what: "install what is another's", procedure: restInstall, request: &packagesv1.InstallRequest{},
		own: fromOper, foreign: [5]string{low, low, low, "package_unknown", "package_unknown"},
		platform: [5]string{low, low, low, "tenant_missing", "tenant_missing"},
	},
	{
		what: "roll back", procedure: packagesv1connect.PackagesRollbackProcedure, request: &packagesv1.RollbackRequest{Name: "acme/flow", Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{what: "roll back by REST", procedure: restRollback, query: "tenant=acme", own: fromOper, foreign: operForeign, platform: fromOper},
	{
		what: "uninstall", procedure: packagesv1connect.PackagesUninstallProcedure, request: &packagesv1.UninstallRequest{Name: "acme/flow", Tenant: "acme"},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
	{what: "uninstall by REST", procedure: restUninstall, query: "tenant=acme", own: fromOper, foreign: operForeign, platform: fromOper},
	{
		what: "list installs", procedure: packagesv1connect.PackagesListInstallsProcedure, request: &packagesv1.ListInstallsRequest{Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{what: "list installs by REST", procedure: restInstalls, query: "tenant=acme&limit=3", own: everyRole, foreign: allForeign, platform: everyRole},
	{
		what: "load", procedure: packagesv1connect.PackagesLoadProcedure, request: &packagesv1.LoadRequest{Name: "acme/flow", Tenant: "acme"},
		own: fromRunner, foreign: runForeign, platform: fromRunner,
	},
	{
		what: "trust a key", procedure: packagesv1connect.PackagesAddKeyProcedure, request: &packagesv1.AddKeyRequest{Tenant: "acme", Pem: somePEM},
		own: adminOnly, foreign: admForeign, platform: adminOnly,
	},
	{
		what: "list keys", procedure: packagesv1connect.PackagesListKeysProcedure, request: &packagesv1.ListKeysRequest{Tenant: "acme"},
		own: everyRole, foreign: allForeign, platform: everyRole,
	},
	{
		what: "revoke a key", procedure: packagesv1connect.PackagesRevokeKeyProcedure,
		request: &packagesv1.RevokeKeyRequest{Tenant: "acme", Id: someDigest, Kind: "compromised"},
		own:     adminOnly, foreign: admForeign, platform: adminOnly,
	},
	{
		what: "revoke a key of the platform", procedure: packagesv1connect.PackagesRevokeKeyProcedure,
		request: &packagesv1.RevokeKeyRequest{Tenant: "*", Id: someDigest, Kind: "compromised"},
		own:     [5]string{low, low, low, low, "platform_only"}, foreign: [5]string{low, low, low, low, "platform_only"}, platform: adminOnly,
	},
	{
		what: "what a key has signed", procedure: packagesv1connect.PackagesReachOfKeyProcedure, request: &packagesv1.ReachOfKeyRequest{Tenant: "acme", Id: someDigest},
		own: fromOper, foreign: operForeign, platform: fromOper,
	},
}

// callPackages calls a procedure of the catalog; false for messages of others.
func callPackages(t *testing.T, e *env, c accessCase, secret string) (handled bool, err error) {
	t.Helper()
	switch m := c.request.(type) {
	case *packagesv1.BeginUploadRequest:
		err = callOne[packagesv1.BeginUploadResponse](t, e, c.procedure, secret, m)
	case *packagesv1.UploadChunkRequest:
		err = callOne[packagesv1.UploadChunkResponse](t, e, c.procedure, secret, m)
	case *packagesv1.PublishRequest:
		err = callOne[packagesv1.PublishResponse](t, e, c.procedure, secret, m)
	case *packagesv1.ListPackagesRequest:
		err = callOne[packagesv1.ListPackagesResponse](t, e, c.procedure, secret, m)
	case *packagesv1.GetPackageRequest:
		err = callOne[packagesv1.GetPackageResponse](t, e, c.procedure, secret, m)
	case *packagesv1.DownloadRequest:
		err = callOne[packagesv1.DownloadResponse](t, e, c.procedure, secret, m)
	case *packagesv1.SignPackageRequest:
		err = callOne[packagesv1.SignPackageResponse](t, e, c.procedure, secret, m)
	case *packagesv1.YankPackageRequest:
		err = callOne[packagesv1.YankPackageResponse](t, e, c.procedure, secret, m)
	case *packagesv1.InstallRequest:
		err = callOne[packagesv1.InstallResponse](t, e, c.procedure, secret, m)
	case *packagesv1.RollbackRequest:
		err = callOne[packagesv1.RollbackResponse](t, e, c.procedure, secret, m)
	case *packagesv1.UninstallRequest:
		err = callOne[packagesv1.UninstallResponse](t, e, c.procedure, secret, m)
	case *packagesv1.ListInstallsRequest:
		err = callOne[packagesv1.ListInstallsResponse](t, e, c.procedure, secret, m)
	case *packagesv1.LoadRequest:
		err = callOne[packagesv1.LoadResponse](t, e, c.procedure, secret, m)
	case *packagesv1.AddKeyRequest:
		err = callOne[packagesv1.AddKeyResponse](t, e, c.procedure, secret, m)
	case *packagesv1.ListKeysRequest:
		err = callOne[packagesv1.ListKeysResponse](t, e, c.procedure, secret, m)
	case *packagesv1.RevokeKeyRequest:
		err = callOne[packagesv1.RevokeKeyResponse](t, e, c.procedure, secret, m)
	case *packagesv1.ReachOfKeyRequest:
		err = callOne[packagesv1.ReachOfKeyResponse](t, e, c.procedure, secret, m)
	default:
		return false, nil
	}
	return true, err
}
