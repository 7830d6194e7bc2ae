package api

import (
	"context"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func (s *server) install(ctx context.Context, c *call, r *packagesv1.InstallRequest) (*packagesv1.InstallResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	tenant, f := oneTenant(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	id, f := packageID(r.GetId())
	if f != nil {
		return nil, f
	}
	out, err := catalog.Install(ctx, pkgstore.InstallRequest{
		Tenant: tenant, By: c.principal.ID, ID: id, Accept: r.GetAcceptCapabilities(), Downgrade: r.GetAllowDowngrade(),
		Locked: r.GetLocked(), Upgrade: r.GetUpgrade(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	if out.Changed {
		s.audit("a package was installed", c, "package", out.Package.ID(), "tenant", tenant, "digest", out.Package.Digest, "before", out.Before)
	}
	res := &packagesv1.InstallResponse{
		Install: installMessage(&out.Install), Changed: out.Changed, Before: out.Before,
		AddedCapabilities: out.Added, RemovedCapabilities: out.Removed, Dependencies: out.Dependencies,
	}
	if r.GetDryRun() {
		p := &out.Package
		res.Install = &packagesv1.InstalledPackage{Tenant: tenant, Name: p.Name, Version: p.Version, Digest: p.Digest.String(), Source: p.Namespace}
	}
	if y := out.Package.Yank; y.Kind != pkgstore.YankNone {
		res.Warning = "this version is " + y.Kind.String() + ": " + y.Reason
	}
	return res, nil
}

func (s *server) rollback(ctx context.Context, c *call, r *packagesv1.RollbackRequest) (*packagesv1.RollbackResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	tenant, f := oneTenant(c.principal, r.GetTenant())
	if f = firstFault(f, withinBytes("name", r.GetName(), pkgstore.NameBytesMax)); f != nil {
		return nil, f
	}
	out, err := catalog.Rollback(ctx, tenant, r.GetName(), c.principal.ID)
	if err != nil {
		return nil, err
	}
	s.audit("a package was rolled back", c, "package", out.Package.ID(), "tenant", tenant, "before", out.Before)
	return &packagesv1.RollbackResponse{
		Install: installMessage(&out.Install), Before: out.Before, AddedCapabilities: out.Added, RemovedCapabilities: out.Removed,
	}, nil
}

func (s *server) uninstall(ctx context.Context, c *call, r *packagesv1.UninstallRequest) (*packagesv1.UninstallResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	tenant, f := oneTenant(c.principal, r.GetTenant())
	if f = firstFault(f, withinBytes("name", r.GetName(), pkgstore.NameBytesMax)); f != nil {
		return nil, f
	}
	if err := catalog.Uninstall(ctx, tenant, r.GetName()); err != nil {
		return nil, err
	}
	s.audit("a package was uninstalled", c, "package", r.GetName(), "tenant", tenant)
	return &packagesv1.UninstallResponse{}, nil
}

func (s *server) listInstalls(ctx context.Context, c *call, r *packagesv1.ListInstallsRequest) (*packagesv1.ListInstallsResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	tenant, f := anyTenant(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	if f = withinBytes("name", r.GetName(), pkgstore.NameBytesMax); f != nil {
		return nil, f
	}
	page, err := s.packagePage(catalog, r.GetLimit(), r.GetCursor(), nil, "installs", tenant, r.GetName())
	if err != nil {
		return nil, err
	}
	all, next, err := catalog.Installs(ctx, pkgstore.InstallQuery{Tenant: tenant, Name: r.GetName()}, page.after, page.limit)
	if err != nil {
		return nil, err
	}
	res := &packagesv1.ListInstallsResponse{Next: page.next(next), Installs: make([]*packagesv1.InstalledPackage, len(all))}
	for i := range all {
		res.Installs[i] = installMessage(&all[i])
	}
	return res, nil
}

func (s *server) load(ctx context.Context, c *call, r *packagesv1.LoadRequest) (*packagesv1.LoadResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	tenant, f := oneTenant(c.principal, r.GetTenant())
	if f = firstFault(f, withinBytes("name", r.GetName(), pkgstore.NameBytesMax)); f != nil {
		return nil, f
	}
	p, opened, err := catalog.Load(ctx, tenant, r.GetName(), c.principal.ID)
	if err != nil {
		return nil, err
	}
	res := &packagesv1.LoadResponse{Package: packageMessage(&p)}
	for _, file := range opened.Files {
		if file.Path == mwpkg.ManifestPath {
			res.Manifest = string(file.Data)
		}
	}
	return res, nil
}

func installMessage(i *pkgstore.Install) *packagesv1.InstalledPackage {
	m := &packagesv1.InstalledPackage{
		Tenant: i.Tenant, Name: i.Name, Version: i.Version, Digest: i.Digest.String(), Source: i.Namespace, By: i.By, Installed: stampMessage(i.At),
	}
	for _, h := range i.History {
		m.History = append(m.History, h.Version)
	}
	return m
}

func (s *server) addKey(ctx context.Context, c *call, r *packagesv1.AddKeyRequest) (*packagesv1.AddKeyResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	owner, f := packageOwner(c.principal, r.GetTenant())
	if f = firstFault(f, withinBytes("pem", r.GetPem(), maxKeyBytes)); f != nil {
		return nil, f
	}
	k, err := pkgstore.NewKey(owner, []byte(r.GetPem()), r.GetPublisher())
	if err != nil {
		return nil, err
	}
	k.Comment = r.GetComment()
	for field, at := range map[string]*int64{"notBefore": &k.NotBefore, "notAfter": &k.NotAfter} {
		t := r.GetNotBefore()
		if field == "notAfter" {
			t = r.GetNotAfter()
		}
		if t == nil {
			continue
		}
		nanos, ok := nanosOf(t)
		if !ok {
			return nil, refuse(reasonFieldMalformed, "%s: the time is not between the years 1970 and 2261", field)
		}
		*at = nanos
	}
	if k, err = catalog.AddKey(ctx, k); err != nil {
		return nil, err
	}
	s.audit("a trust key was added", c, "key", k.ID, "namespace", k.Namespace, "publisher", k.Publisher)
	return &packagesv1.AddKeyResponse{Key: keyMessage(&k)}, nil
}

// maxKeyBytes bounds a public key in PEM.
const maxKeyBytes = 4 << 10

func (s *server) listKeys(ctx context.Context, c *call, r *packagesv1.ListKeysRequest) (*packagesv1.ListKeysResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	namespaces, f := packageList(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	keys, err := catalog.Keys(ctx, namespaces)
	if err != nil {
		return nil, err
	}
	res := &packagesv1.ListKeysResponse{Keys: make([]*packagesv1.TrustKey, len(keys))}
	for i := range keys {
		res.Keys[i] = keyMessage(&keys[i])
	}
	return res, nil
}

func (s *server) revokeKey(ctx context.Context, c *call, r *packagesv1.RevokeKeyRequest) (*packagesv1.RevokeKeyResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	owner, f := packageOwner(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	id, f := digestField("id", r.GetId())
	if f != nil {
		return nil, f
	}
	kind, ok := pkgstore.ParseRevocation(r.GetKind())
	if !ok || kind == pkgstore.NotRevoked {
		return nil, refuse(reasonFieldMalformed, "kind: %q is none; use superseded or compromised", r.GetKind())
	}
	k, err := catalog.RevokeKey(ctx, owner, id, kind, r.GetReason())
	if err != nil {
		return nil, err
	}
	s.audit("a trust key was revoked", c, "key", k.ID, "namespace", k.Namespace, "kind", k.Revoked)
	return &packagesv1.RevokeKeyResponse{Key: keyMessage(&k)}, nil
}

func (s *server) reachOfKey(ctx context.Context, c *call, r *packagesv1.ReachOfKeyRequest) (*packagesv1.ReachOfKeyResponse, error) {
	catalog, err := s.packages()
	if err != nil {
		return nil, err
	}
	namespaces, f := packageList(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	named := r.GetTenant()
	if named == pkgstore.Public {
		named = "" // whoever has installed what is public
	}
	tenant, f := anyTenant(c.principal, named)
	if f != nil {
		return nil, f
	}
	id, f := digestField("id", r.GetId())
	if f != nil {
		return nil, f
	}
	page, err := s.packagePage(catalog, r.GetLimit(), r.GetCursor(), namespaces, "reach", tenant, id.String())
	if err != nil {
		return nil, err
	}
	all, next, err := catalog.Reach(ctx, namespaces, id, tenant, page.after, page.limit)
	if err != nil {
		return nil, err
	}
	res := &packagesv1.ReachOfKeyResponse{Next: page.next(next)}
	for i := range all {
		res.Packages = append(res.Packages, &packagesv1.SignedPackage{Package: packageMessage(&all[i].Package), Usable: all[i].Usable, Tenants: all[i].Tenants})
	}
	return res, nil
}
