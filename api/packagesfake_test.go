package api

import (
	"context"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// fakeCatalog has one private package of acme, which acme has installed; namespaces are all it looks at.
type fakeCatalog struct {
	err     error
	content []byte
	// published are the archives that came whole, and read counts reads of content.
	published [][]byte
	installs  []pkgstore.InstallRequest
	filters   []pkgstore.Filter
}

func (f *fakeCatalog) flow() pkgstore.Package {
	return pkgstore.Package{
		Namespace: "acme", Name: "acme/flow", Version: "0.1.0", Digest: pkgstore.Digest{1}, Archive: pkgstore.Digest{2}, Size: uint64(len(f.content)),
		Signatures: []pkgstore.Signature{{Namespace: "acme", Key: pkgstore.Digest{3}, At: 1}},
	}
}

func (f *fakeCatalog) find(namespaces []string) (pkgstore.Package, error) {
	if f.err != nil {
		return pkgstore.Package{}, f.err
	}
	if namespaces != nil && !slices.Contains(namespaces, "acme") {
		return pkgstore.Package{}, pkgstore.ErrUnknown
	}
	return f.flow(), nil
}

func (f *fakeCatalog) BeginUpload(_ context.Context, u pkgstore.Upload) (pkgstore.Progress, error) {
	return pkgstore.Progress{Generation: 7}, f.err
}

func (f *fakeCatalog) PutChunk(_ context.Context, _ pkgstore.Upload, _ uint64, chunk uint32, _ []byte) (pkgstore.Progress, error) {
	return pkgstore.Progress{Next: chunk + 1}, f.err
}

func (f *fakeCatalog) PublishUpload(context.Context, pkgstore.Upload, string) (pkgstore.Package, pkgstore.Published, error) {
	return f.flow(), pkgstore.PublishedBefore, f.err
}

func (f *fakeCatalog) Publish(_ context.Context, _, _ string, archive []byte) (pkgstore.Package, pkgstore.Published, error) {
	f.published = append(f.published, archive)
	if strings.HasPrefix(string(archive), "new") {
		return f.flow(), pkgstore.PublishedNew, f.err
	}
	return f.flow(), pkgstore.PublishedBefore, f.err
}

func (f *fakeCatalog) List(_ context.Context, namespaces []string, filter pkgstore.Filter, _ string, _ int) ([]pkgstore.Package, string, error) {
	f.filters = append(f.filters, filter)
	if p, err := f.find(namespaces); err == nil {
		return []pkgstore.Package{p}, "acme acme/flow@0.1.0", nil
	}
	return nil, "", f.err
}

func (f *fakeCatalog) CursorKey() ([]byte, bool) { return []byte("of the region"), true }

func (f *fakeCatalog) Get(_ context.Context, namespaces []string, _ pkgstore.ID) (pkgstore.Package, pkgstore.Keys, error) {
	p, err := f.find(namespaces)
	return p, pkgstore.Keys{{Namespace: "acme", ID: pkgstore.Digest{3}}: {Namespace: "acme", ID: pkgstore.Digest{3}, Publisher: "*"}}, err
}

func (f *fakeCatalog) Content(_ context.Context, _ *pkgstore.Package, offset uint64, most int) ([]byte, error) {
	rest := f.content[min(offset, uint64(len(f.content))):]
	return rest[:min(most, len(rest))], f.err
}

func (f *fakeCatalog) Sums(context.Context, *pkgstore.Package) ([]byte, error) {
	return []byte("sums"), f.err
}

func (f *fakeCatalog) Sign(_ context.Context, namespaces []string, _ pkgstore.ID, _ mwpkg.Signature) (pkgstore.Package, pkgstore.Published, error) {
	p, err := f.find(namespaces)
	return p, pkgstore.PublishedSignature, err
}

func (f *fakeCatalog) Yank(_ context.Context, namespaces []string, _ pkgstore.ID, y pkgstore.Yank) (pkgstore.Package, error) {
	p, err := f.find(namespaces)
	p.Yank = y
	return p, err
}

func (f *fakeCatalog) Install(_ context.Context, r pkgstore.InstallRequest) (pkgstore.Installed, error) {
	f.installs = append(f.installs, r)
	p, err := f.find([]string{r.Tenant})
	return pkgstore.Installed{Package: p, Changed: true, Install: pkgstore.Install{Tenant: r.Tenant, Name: p.Name}}, err
}

func (f *fakeCatalog) Rollback(_ context.Context, tenant, _, _ string) (pkgstore.Installed, error) {
	p, err := f.find([]string{tenant})
	return pkgstore.Installed{Package: p}, err
}

func (f *fakeCatalog) Uninstall(context.Context, string, string) error { return f.err }

func (f *fakeCatalog) Installs(context.Context, pkgstore.InstallQuery, string, int) ([]pkgstore.Install, string, error) {
	return []pkgstore.Install{{Tenant: "acme", Name: "acme/flow"}}, "", f.err
}

func (f *fakeCatalog) Load(_ context.Context, tenant, _, _ string) (pkgstore.Package, *mwpkg.Package, error) {
	p, err := f.find([]string{tenant})
	return p, &mwpkg.Package{Files: []mwpkg.File{{Path: mwpkg.ManifestPath, Data: []byte("kind: WorkflowPackage\n")}}}, err
}

func (f *fakeCatalog) AddKey(_ context.Context, k pkgstore.Key) (pkgstore.Key, error) {
	return k, f.err
}

func (f *fakeCatalog) Keys(context.Context, []string) ([]pkgstore.Key, error) {
	return []pkgstore.Key{{Namespace: "acme", ID: pkgstore.Digest{3}}}, f.err
}

func (f *fakeCatalog) RevokeKey(_ context.Context, namespace string, id pkgstore.Digest, kind pkgstore.Revocation, _ string) (pkgstore.Key, error) {
	return pkgstore.Key{Namespace: namespace, ID: id, Revoked: kind}, f.err
}

func (f *fakeCatalog) Reach(_ context.Context, namespaces []string, _ pkgstore.Digest, tenant, _ string, _ int) ([]pkgstore.Reach, string, error) {
	p, err := f.find(namespaces)
	return []pkgstore.Reach{{Package: p, Tenants: []string{tenant}}}, "", err
}
