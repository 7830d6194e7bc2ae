package meta

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func needs(name, version string, p pkgstore.Package) *mwpkg.Dependency {
	return &mwpkg.Dependency{Name: name, Version: version, Digest: "sha256:" + p.Digest.String()}
}

func (s *shop) wantNotInstalled(names ...string) {
	s.t.Helper()
	for _, name := range names {
		wantError(s.t, "load of "+name, s.load("acme", name), pkgstore.ErrNotInstalled)
	}
}

// An upgrade cannot get at more by way of what it depends on, at any depth, without being told to.
func TestDependenciesPassTheGateOfCapabilities(t *testing.T) {
	s := newShop(t)
	deep := s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "deep", Version: "1.0.0", Egress: "deep.example:443"}, s.platform)
	s.mustPublish("acme", pkgtest.Options{}, s.acme)
	s.mustInstall("acme", named("acme/flow@0.1.0"))
	lib := s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib", Version: "1.0.0", Dependency: needs("deep", "1.0.0", deep)}, s.platform)
	s.mustPublish("acme", pkgtest.Options{Version: "0.2.0", Dependency: needs("lib", "1.0.0", lib)}, s.acme)
	added, brought := []string{"network:deep.example:443"}, []string{"deep@1.0.0", "lib@1.0.0"}
	out := s.mustInstall("acme", named("acme/flow@0.2.0"), func(r *pkgstore.InstallRequest) { r.DryRun = true })
	if !slices.Equal(out.Added, added) || !slices.Equal(out.Dependencies, brought) {
		t.Errorf("dry run: %v, %v", out.Added, out.Dependencies)
	}
	_, err := s.installAs("acme", named("acme/flow@0.2.0"))
	wantError(t, "upgrade", err, pkgstore.ErrCapabilities)
	s.wantNotInstalled("lib", "deep")
	out = s.mustInstall("acme", named("acme/flow@0.2.0"), accept)
	if !slices.Equal(out.Added, added) || !slices.Equal(out.Dependencies, brought) || out.Install.Version != "0.2.0" {
		t.Errorf("upgrade that is accepted: %+v", out)
	}
}

// A dependency is what its declaration says, not only what its digest is.
func TestDependenciesAreWhatTheyAreCalled(t *testing.T) {
	s := newShop(t)
	other := s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "other", Version: "1.0.0"}, s.platform)
	for version, d := range map[string]*mwpkg.Dependency{"0.1.0": needs("lib", "1.0.0", other), "0.2.0": needs("other", "1.0.1", other)} {
		s.mustPublish("acme", pkgtest.Options{Version: version, Dependency: d}, s.acme)
		_, err := s.installAs("acme", named("acme/flow@"+version))
		wantError(t, version, err, pkgstore.ErrDependency)
		s.wantNotInstalled("other", "lib", "acme/flow")
	}
}

// The bound of what an install brings along is that of all of it, and nothing is installed beyond it.
func TestDependenciesHaveOneBound(t *testing.T) {
	s := newShop(t)
	chain := func(name string, n int) (last pkgstore.Package) {
		for i := range n {
			o := pkgtest.Options{Name: fmt.Sprint(name, i), Version: "1.0.0"}
			if i > 0 {
				o.Dependency = needs(last.Name, last.Version, last)
			}
			last = s.mustPublish(pkgstore.Public, o, s.platform)
		}
		return last
	}
	last := chain("x", 34)
	_, err := s.installAs("acme", named(last.ID()))
	wantError(t, "33 dependencies", err, pkgstore.ErrDependency)
	if err != nil && !strings.Contains(err.Error(), "more than 32") {
		t.Errorf("33 dependencies: %v", err)
	}
	s.wantNotInstalled("x0", "x32")
	if out := s.mustInstall("acme", named("x32@1.0.0")); len(out.Dependencies) != 32 || out.Dependencies[0] != "x0@1.0.0" {
		t.Errorf("32 dependencies: %v", out.Dependencies)
	}
}
