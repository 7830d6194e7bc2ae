package api

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Packages is the catalog of packages; *pkgstore.Service is one. Its errors are those of pkgstore and
// *mwpkg.Error.
type Packages interface {
	BeginUpload(ctx context.Context, u pkgstore.Upload) (pkgstore.Progress, error)
	PutChunk(ctx context.Context, u pkgstore.Upload, generation uint64, chunk uint32, data []byte) (pkgstore.Progress, error)
	PublishUpload(ctx context.Context, u pkgstore.Upload, by string) (pkgstore.Package, pkgstore.Published, error)
	Publish(ctx context.Context, namespace, by string, archive []byte) (pkgstore.Package, pkgstore.Published, error)
	List(ctx context.Context, namespaces []string, f pkgstore.Filter, after string, limit int) ([]pkgstore.Package, string, error)
	Get(ctx context.Context, namespaces []string, id pkgstore.ID) (pkgstore.Package, pkgstore.Keys, error)
	Content(ctx context.Context, p *pkgstore.Package, offset uint64, most int) ([]byte, error)
	Sums(ctx context.Context, p *pkgstore.Package) ([]byte, error)
	Sign(ctx context.Context, namespaces []string, id pkgstore.ID, sig mwpkg.Signature) (pkgstore.Package, pkgstore.Published, error)
	Yank(ctx context.Context, namespaces []string, id pkgstore.ID, y pkgstore.Yank) (pkgstore.Package, error)
	Install(ctx context.Context, r pkgstore.InstallRequest) (pkgstore.Installed, error)
	Rollback(ctx context.Context, tenant, name, by string) (pkgstore.Installed, error)
	Uninstall(ctx context.Context, tenant, name string) error
	Installs(ctx context.Context, q pkgstore.InstallQuery, after string, limit int) ([]pkgstore.Install, string, error)
	Load(ctx context.Context, tenant, name, by string) (pkgstore.Package, *mwpkg.Package, error)
	AddKey(ctx context.Context, k pkgstore.Key) (pkgstore.Key, error)
	Keys(ctx context.Context, namespaces []string) ([]pkgstore.Key, error)
	RevokeKey(ctx context.Context, namespace string, id pkgstore.Digest, kind pkgstore.Revocation, reason string) (pkgstore.Key, error)
	Reach(ctx context.Context, namespaces []string, key pkgstore.Digest, tenant, after string, limit int) ([]pkgstore.Reach, string, error)
	// CursorKey authenticates the cursors of its lists; false while this node does not know it.
	CursorKey() ([]byte, bool)
}

func (s *server) packages() (Packages, error) {
	if s.deps.Packages == nil {
		return nil, ErrServiceOff
	}
	return s.deps.Packages()
}

// packageOwner is the namespace that a write is about: a tenant's, or Public for the platform.
func packageOwner(who Principal, named string) (string, *fault) {
	switch {
	case who.Tenant == AllTenants && (named == "" || named == pkgstore.Public):
		return pkgstore.Public, nil
	case named == pkgstore.Public:
		return "", refuse(reasonPlatformOnly, "public packages and keys are the platform's; leave the tenant empty to mean your own")
	}
	return oneTenant(who, named)
}

// packageView is where packages are looked for: a tenant's own and the public ones.
func packageView(who Principal, named string) ([]string, *fault) {
	owner, f := packageOwner(who, named)
	if f != nil {
		return nil, f
	}
	return pkgstore.Namespaces(owner), nil
}

// packageList is packageView; for the platform without a tenant it is everything.
func packageList(who Principal, named string) ([]string, *fault) {
	if who.Tenant == AllTenants && named == "" {
		return nil, nil
	}
	return packageView(who, named)
}

// packageID reads an id: a digest, NAME@VERSION or NAME.
func packageID(text string) (pkgstore.ID, *fault) {
	if text == "" || len(text) > pkgstore.KeyBytesMax {
		return pkgstore.ID{}, refuse(reasonFieldMalformed, "id: give the digest of a package, NAME@VERSION, or NAME, of at most %d bytes", pkgstore.KeyBytesMax)
	}
	if d, err := mwpkg.ParseDigest(text); err == nil {
		return pkgstore.ID{Digest: &d}, nil
	}
	name, version, versioned := strings.Cut(text, "@")
	if f := firstFault(withinBytes("id: the name", name, pkgstore.NameBytesMax), withinBytes("id: the version", version, pkgstore.VersionBytesMax)); f != nil {
		return pkgstore.ID{}, f
	}
	err := mwpkg.CheckName(name)
	if err == nil && versioned {
		err = mwpkg.CheckVersion(version)
	}
	if err != nil {
		return pkgstore.ID{}, refuse(reasonFieldMalformed, "id: %q is no digest of a package, NAME@VERSION, or NAME: %v", shorten(text), err)
	}
	return pkgstore.ID{Name: name, Version: version}, nil
}

func digestField(field, text string) (pkgstore.Digest, *fault) {
	d, err := mwpkg.ParseDigest(text)
	if err != nil {
		return d, refuse(reasonFieldMalformed, "%s: %q is no SHA-256 in 64 lower-case hex digits", field, shorten(text))
	}
	return d, nil
}

// uploadOf names the upload that a request is about.
func uploadOf(who Principal, tenant, archive string, size uint32) (u pkgstore.Upload, f *fault) {
	if u.Namespace, f = packageOwner(who, tenant); f != nil {
		return u, f
	}
	u.Size = uint64(size)
	u.Archive, f = digestField("archive", archive)
	return u, f
}

func (s *server) beginUpload(ctx context.Context, c *call, r *packagesv1.BeginUploadRequest) (*packagesv1.BeginUploadResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	u, f := uploadOf(c.principal, r.GetTenant(), r.GetArchive(), r.GetSize())
	if f != nil {
		return nil, f
	}
	p, err := catalog.BeginUpload(ctx, u)
	if err != nil {
		return nil, err
	}
	return &packagesv1.BeginUploadResponse{Generation: p.Generation, Next: p.Next, Chunks: u.Chunks(), ChunkBytes: pkgstore.ChunkBytes}, nil
}

func (s *server) uploadChunk(ctx context.Context, c *call, r *packagesv1.UploadChunkRequest) (*packagesv1.UploadChunkResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	u, f := uploadOf(c.principal, r.GetTenant(), r.GetArchive(), r.GetSize())
	if f != nil {
		return nil, f
	}
	if n := len(r.GetData()); n == 0 || n > pkgstore.ChunkBytes {
		return nil, refuse(reasonFieldMalformed, "data: a chunk has 1 to %d bytes, not %d", pkgstore.ChunkBytes, n)
	}
	p, err := catalog.PutChunk(ctx, u, r.GetGeneration(), r.GetChunk(), r.GetData())
	if err != nil {
		return nil, err
	}
	return &packagesv1.UploadChunkResponse{Next: p.Next}, nil
}

func (s *server) publish(ctx context.Context, c *call, r *packagesv1.PublishRequest) (*packagesv1.PublishResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	u, f := uploadOf(c.principal, r.GetTenant(), r.GetArchive(), r.GetSize())
	if f != nil {
		return nil, f
	}
	p, what, err := catalog.PublishUpload(ctx, u, c.principal.ID)
	if err != nil {
		return nil, err
	}
	s.audit("a package was published", c, "package", p.ID(), "namespace", p.Namespace, "digest", p.Digest, "result", what)
	return &packagesv1.PublishResponse{Package: packageMessage(&p), Result: what.String()}, nil
}

// audit leaves a line in the log, whoever may look at it later.
func (s *server) audit(what string, c *call, attrs ...any) {
	s.log.Info("audit: "+what, append(attrs, "principal", c.principal.ID)...)
}

func (s *server) listPackages(ctx context.Context, c *call, r *packagesv1.ListPackagesRequest) (*packagesv1.ListPackagesResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	namespaces, f := packageList(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	if f = firstFault(withinBytes("q", r.GetQ(), pkgstore.TextBytesMax), withinBytes("capability", r.GetCapability(), pkgstore.CapabilityBytesMax),
		withinBytes("name", r.GetName(), pkgstore.NameBytesMax)); f != nil {
		return nil, f
	}
	filter := pkgstore.Filter{Text: r.GetQ(), Capability: r.GetCapability(), Name: r.GetName()}
	if r.GetSigner() != "" {
		signer, f := digestField("signer", r.GetSigner())
		if f != nil {
			return nil, f
		}
		filter.Signer = &signer
	}
	page, err := s.packagePage(catalog, r.GetLimit(), r.GetCursor(), namespaces, "packages", r.GetQ(), r.GetCapability(), r.GetName(), r.GetSigner())
	if err != nil {
		return nil, err
	}
	all, next, err := catalog.List(ctx, namespaces, filter, page.after, page.limit)
	if err != nil {
		return nil, err
	}
	res := &packagesv1.ListPackagesResponse{Next: page.next(next), Packages: make([]*packagesv1.Package, len(all))}
	for i := range all {
		res.Packages[i] = packageMessage(&all[i])
	}
	return res, nil
}

// find is the package of an id in a view.
func (s *server) find(ctx context.Context, c *call, id, tenant string) (Packages, pkgstore.Package, pkgstore.Keys, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, pkgstore.Package{}, nil, err
	}
	namespaces, f := packageView(c.principal, tenant)
	if f != nil {
		return nil, pkgstore.Package{}, nil, f
	}
	named, f := packageID(id)
	if f != nil {
		return nil, pkgstore.Package{}, nil, f
	}
	p, keys, err := catalog.Get(ctx, namespaces, named)
	return catalog, p, keys, err
}

func (s *server) getPackage(ctx context.Context, c *call, r *packagesv1.GetPackageRequest) (*packagesv1.GetPackageResponse, error) {
	catalog, p, keys, err := s.find(ctx, c, r.GetId(), r.GetTenant())
	if err != nil {
		return nil, err
	}
	res := &packagesv1.GetPackageResponse{Package: packageMessage(&p), Usable: p.Yank.Kind < pkgstore.Yanked}
	if !res.Usable {
		res.Problem = "it is " + p.Yank.Kind.String() + ": " + p.Yank.Reason
	}
	if _, err := keys.JudgeSignatures(&p); err != nil {
		res.Usable, res.Problem = false, err.Error()
	}
	for i, sig := range p.Signatures {
		if _, err := keys.Judge(p.Namespace, p.Name, sig.Key, sig.At); err != nil {
			res.Package.Signatures[i].Problem = err.Error()
		} else {
			res.Package.Signatures[i].Counts = true
		}
	}
	if r.GetSums() {
		if res.Sums, err = catalog.Sums(ctx, &p); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// downloadMost bounds the answer of one Download.
const downloadMost = 1 << 20

func (s *server) download(ctx context.Context, c *call, r *packagesv1.DownloadRequest) (*packagesv1.DownloadResponse, error) {
	catalog, p, _, err := s.find(ctx, c, r.GetId(), r.GetTenant())
	if err != nil {
		return nil, err
	}
	if a := r.GetArchive(); a != "" && a != p.Archive.String() {
		return nil, refuse(reasonArchiveChanged, "%s has got another signature, so that its file is %s now", p.ID(), p.Archive)
	}
	most := int(r.GetLimit())
	if most == 0 || most > downloadMost {
		most = downloadMost
	}
	data, err := catalog.Content(ctx, &p, uint64(r.GetOffset()), most)
	if err != nil {
		return nil, err
	}
	return &packagesv1.DownloadResponse{
		Data: data, Archive: p.Archive.String(), Size: uint32(p.Size), Name: p.Name, Version: p.Version, Digest: p.Digest.String(),
	}, nil
}

func (s *server) signPackage(ctx context.Context, c *call, r *packagesv1.SignPackageRequest) (*packagesv1.SignPackageResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	owner, f := packageOwner(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	id, f := packageID(r.GetId())
	if f != nil {
		return nil, f
	}
	key, f := digestField("key", r.GetKey())
	if f != nil {
		return nil, f
	}
	p, what, err := catalog.Sign(ctx, []string{owner}, id, mwpkg.Signature{KeyID: key, Value: r.GetSignature()})
	if err != nil {
		return nil, err
	}
	s.audit("a package was signed", c, "package", p.ID(), "namespace", p.Namespace, "key", key)
	return &packagesv1.SignPackageResponse{Package: packageMessage(&p), Result: what.String()}, nil
}

// yankPackage lets publishers take back what they have published; blocking it for all who run it takes an operator.
func (s *server) yankPackage(ctx context.Context, c *call, r *packagesv1.YankPackageRequest) (*packagesv1.YankPackageResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	owner, f := packageOwner(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	id, f := packageID(r.GetId())
	if f = firstFault(f, withinBytes("reason", r.GetReason(), pkgstore.TextBytesMax)); f != nil {
		return nil, f
	}
	kind, ok := pkgstore.ParseYank(r.GetKind())
	switch {
	case !ok:
		return nil, refuse(reasonFieldMalformed, "kind: %q is none; use deprecated, yanked, blocked, or leave it empty to lift one of the first two", r.GetKind())
	case kind == pkgstore.Blocked && roleRank[c.principal.Role] < roleRank[RoleOperator]:
		return nil, refuse(reasonRoleInsufficient, "the identity has the role %q; blocking a version needs operator", c.principal.Role)
	case kind != pkgstore.YankNone && r.GetReason() == "":
		return nil, refuse(reasonFieldMalformed, "reason: say why, for those who use the version")
	}
	p, err := catalog.Yank(ctx, []string{owner}, id, pkgstore.Yank{Kind: kind, Reason: r.GetReason()})
	if err != nil {
		return nil, err
	}
	s.audit("a version was taken back, or that was lifted", c, "package", p.ID(), "namespace", p.Namespace, "kind", kind)
	return &packagesv1.YankPackageResponse{Package: packageMessage(&p)}, nil
}

func packageMessage(p *pkgstore.Package) *packagesv1.Package {
	m := &packagesv1.Package{
		Name: p.Name, Version: p.Version, Tenant: p.Namespace, Digest: p.Digest.String(), Archive: p.Archive.String(), Size: uint32(p.Size),
		Title: p.Title, Description: p.Description, Capabilities: p.Capabilities, Publisher: p.Publisher, Published: stampMessage(p.Published),
		Yank: p.Yank.Kind.String(), YankReason: p.Yank.Reason, Yanked: stampMessage(p.Yank.At), Record: uint32(p.Stamp.Version), Origin: p.Stamp.Origin,
	}
	for _, sig := range p.Signatures {
		m.Signatures = append(m.Signatures, &packagesv1.Signature{Key: sig.Key.String(), Seen: stampMessage(sig.At)})
	}
	return m
}

// stampMessage is a moment in nanoseconds since 1970, of which 0 means none.
func stampMessage(nanos int64) *timestamppb.Timestamp {
	if nanos == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, nanos))
}

func keyMessage(k *pkgstore.Key) *packagesv1.TrustKey {
	return &packagesv1.TrustKey{
		Id: hex.EncodeToString(k.ID[:]), Tenant: k.Namespace, Publisher: k.Publisher, Comment: k.Comment,
		Pem:       string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.SPKI})),
		NotBefore: stampMessage(k.NotBefore), NotAfter: stampMessage(k.NotAfter), Added: stampMessage(k.Added),
		Revoked: k.Revoked.String(), RevokedAt: stampMessage(k.RevokedAt), RevokedReason: k.Reason,
	}
}
