package meta

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// freePace paces nothing.
type freePace struct{}

func (freePace) Enter(int) error                       { return nil }
func (freePace) Wait(ctx context.Context, _ int) error { return ctx.Err() }
func (freePace) Leave(int)                             {}

// taken are the receipts of a catalog.
type taken struct {
	mu  sync.Mutex
	all []pkgstore.Receipt
}

func (t *taken) Record(r pkgstore.Receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, r)
}

// last is the latest receipt.
func (t *taken) last() pkgstore.Receipt {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) == 0 {
		return pkgstore.Receipt{}
	}
	return t.all[len(t.all)-1]
}

// shop is a catalog over the machine, with a key of the platform and one of the tenant acme.
type shop struct {
	*pkgstore.Service
	t        testing.TB
	region   *region
	receipts *taken
	platform pkgtest.Key
	acme     pkgtest.Key
}

func newShop(t testing.TB) *shop {
	s := &shop{t: t, region: newRegion(t, regionRules), receipts: &taken{}, platform: pkgtest.NewKey(t), acme: pkgtest.NewKey(t)}
	s.open()
	s.trust(pkgstore.Public, s.platform, "*")
	s.trust("acme", s.acme, "*")
	return s
}

// open makes the service anew, as a node that starts does.
func (s *shop) open() {
	s.Service = pkgstore.NewService(pkgstore.Options{
		Store: s.region.service(), Receipts: s.receipts, Pacer: freePace{}, Clock: func() time.Time { return s.region.meta.Wall },
		CursorKey: s.region.service().CursorKey, BytesMax: 1 << 30, Metrics: prometheus.NewRegistry(),
	})
}

func (s *shop) trust(namespace string, k pkgtest.Key, publisher string) pkgstore.Key {
	s.t.Helper()
	key, err := pkgstore.NewKey(namespace, k.PEM, publisher)
	check(s.t, err)
	key, err = s.AddKey(s.t.Context(), key)
	check(s.t, err)
	return key
}

// later lets wall clock and group time pass.
func (s *shop) later(d time.Duration) {
	s.region.meta.Wall = s.region.meta.Wall.Add(d)
	s.region.meta.Time += d
}

func (s *shop) publish(namespace string, o pkgtest.Options, keys ...pkgtest.Key) (pkgstore.Package, pkgstore.Published, error) {
	s.t.Helper()
	return s.Publish(s.t.Context(), namespace, "token-1", pkgtest.Archive(s.t, o, keys...))
}

func (s *shop) mustPublish(namespace string, o pkgtest.Options, keys ...pkgtest.Key) pkgstore.Package {
	s.t.Helper()
	p, _, err := s.publish(namespace, o, keys...)
	check(s.t, err)
	return p
}

func (s *shop) installAs(tenant string, id pkgstore.ID, more ...func(*pkgstore.InstallRequest)) (pkgstore.Installed, error) {
	r := pkgstore.InstallRequest{Tenant: tenant, By: "token-2", ID: id}
	for _, f := range more {
		f(&r)
	}
	return s.Install(s.t.Context(), r)
}

func (s *shop) mustInstall(tenant string, id pkgstore.ID, more ...func(*pkgstore.InstallRequest)) pkgstore.Installed {
	s.t.Helper()
	out, err := s.installAs(tenant, id, more...)
	check(s.t, err)
	return out
}

func (s *shop) load(tenant, name string) error {
	_, _, err := s.Load(s.t.Context(), tenant, name, "runner-1")
	return err
}

func named(id string) pkgstore.ID {
	name, version, _ := strings.Cut(id, "@")
	return pkgstore.ID{Name: name, Version: version}
}

func wantCode(t testing.TB, what string, err error, code mwpkg.Code) {
	t.Helper()
	if !errors.Is(err, &mwpkg.Error{Code: code}) {
		t.Errorf("%s: error %v, want %s", what, err, code)
	}
}

func accept(r *pkgstore.InstallRequest)    { r.Accept = true }
func downgrade(r *pkgstore.InstallRequest) { r.Downgrade = true }
func locked(r *pkgstore.InstallRequest)    { r.Locked = true }
func upgrade(r *pkgstore.InstallRequest)   { r.Upgrade = true }

// A package is published, found, installed, upgraded, rolled back and loaded; every verification leaves a
// receipt, and a restart of the machine forgets nothing.
func TestLifeOfAPackage(t *testing.T) {
	s := newShop(t)
	p := s.mustPublish("acme", pkgtest.Options{Title: "Restore drill"}, s.acme)
	if p.Namespace != "acme" || p.ID() != "acme/flow@0.1.0" || len(p.Signatures) != 1 || p.Signatures[0].Key != s.acme.ID || p.Stamp.Version != 1 || p.Stamp.Origin != "us-west" || p.Stamp.Wall == 0 {
		t.Fatalf("published as %+v", p)
	}
	if r := s.receipts.last(); r.Stage != pkgstore.StagePublish || r.Reason != "" || r.Tenant != "acme" || r.Package != p.ID() || r.Digest != p.Digest || r.Key != s.acme.ID {
		t.Errorf("receipt of publishing %+v", r)
	}
	next := s.mustPublish("acme", pkgtest.Options{Version: "0.2.0", Egress: "db.example.com:5432"}, s.acme)
	for q, want := range map[string]int{"drill": 1, "RESTORE acme": 1, "": 2, "nothing": 0} {
		all, _, err := s.List(t.Context(), pkgstore.Namespaces("acme"), pkgstore.Filter{Text: q}, "", 10)
		if err != nil || len(all) != want {
			t.Errorf("search for %q finds %d, %v; want %d", q, len(all), err, want)
		}
	}
	all, _, err := s.List(t.Context(), nil, pkgstore.Filter{Capability: "network", Signer: &s.acme.ID}, "", 10)
	if err != nil || len(all) != 1 || all[0].Version != "0.2.0" {
		t.Errorf("packages with network: %v, %v", all, err)
	}
	if out := s.mustInstall("acme", named("acme/flow@0.1.0")); !out.Changed || out.Before != "" || out.Install.By != "token-2" {
		t.Errorf("first install: %+v", out)
	}
	if out := s.mustInstall("acme", named("acme/flow@0.1.0")); out.Changed {
		t.Errorf("install again: %+v", out)
	}
	check(t, s.load("acme", "acme/flow"))
	if r := s.receipts.last(); r.Stage != pkgstore.StageLoad || r.By != "runner-1" || r.Reason != "" {
		t.Errorf("receipt of loading %+v", r)
	}
	_, err = s.installAs("acme", named("acme/flow"), upgrade)
	wantError(t, "upgrade that asks for more", err, pkgstore.ErrCapabilities)
	out := s.mustInstall("acme", named("acme/flow"), upgrade, accept)
	if out.Before != "0.1.0" || len(out.Added) != 1 || out.Added[0] != "network:db.example.com:5432" || out.Install.Digest != next.Digest {
		t.Errorf("upgrade: %+v", out)
	}
	s.region.meta.Restart()
	s.open()
	back, err := s.Rollback(t.Context(), "acme", "acme/flow", "token-3")
	if err != nil || back.Before != "0.2.0" || back.Install.Digest != p.Digest || len(back.Removed) != 1 {
		t.Errorf("rollback: %+v, %v", back, err)
	}
	_, err = s.Rollback(t.Context(), "acme", "acme/flow", "token-3")
	wantError(t, "rollback without history", err, pkgstore.ErrNoHistory)
	data, err := s.Content(t.Context(), &p, 0, 1<<20)
	if err != nil || uint64(len(data)) != p.Size {
		t.Errorf("content of %d bytes, %v", len(data), err)
	}
	check(t, s.Uninstall(t.Context(), "acme", "acme/flow"))
	wantError(t, "load after uninstall", s.load("acme", "acme/flow"), pkgstore.ErrNotInstalled)
	wantError(t, "uninstall twice", s.Uninstall(t.Context(), "acme", "acme/flow"), pkgstore.ErrNotInstalled)
}

// What a package depends on is installed with it, by its content; another installed version stands in the way.
func TestDependenciesAreInstalled(t *testing.T) {
	s := newShop(t)
	dep := s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib", Version: "1.0.0"}, s.platform)
	needs := &mwpkg.Dependency{Name: "lib", Version: "1.0.0", Digest: "sha256:" + dep.Digest.String()}
	s.mustPublish("acme", pkgtest.Options{Dependency: needs}, s.acme)
	if out := s.mustInstall("acme", named("acme/flow")); len(out.Dependencies) != 1 || out.Dependencies[0] != "lib@1.0.0" {
		t.Errorf("dependencies %v", out.Dependencies)
	}
	check(t, s.load("acme", "lib"))
	s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib", Version: "2.0.0"}, s.platform)
	s.mustInstall("acme", named("lib@2.0.0"))
	s.mustPublish("acme", pkgtest.Options{Version: "0.2.0", Dependency: needs}, s.acme)
	_, err := s.installAs("acme", named("acme/flow@0.2.0"))
	wantError(t, "another version of a dependency", err, pkgstore.ErrDependency)
}
