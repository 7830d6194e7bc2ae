package pkgstore

import (
	"context"
	"errors"
	"slices"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// dependenciesMax bounds the packages that one install brings along.
const dependenciesMax = 32

// closure is what an install brings along, collected whole and verified before anything is installed.
type closure struct {
	s *Service
	r InstallRequest
	// root is NAME@VERSION of what is to be installed.
	root string
	// seen are the contents by name, the root's among them: a tenant has one version of a name.
	seen map[string]Digest
	// packages are those that the tenant does not have, each behind those that it needs itself.
	packages []Package
	// capabilities are those of the root and of packages, each once.
	capabilities []string
}

// collect finds what a verified package needs and the tenant does not have.
func (s *Service) collect(ctx context.Context, r InstallRequest, p *Package, m *mwpkg.Manifest) (*closure, error) {
	c := &closure{s: s, r: r, root: p.ID(), seen: map[string]Digest{p.Name: p.Digest}, capabilities: CapabilitiesOf(m)}
	return c, c.need(ctx, m)
}

// need collects the dependencies of a manifest. They are named by their content, so there are no cycles.
func (c *closure) need(ctx context.Context, m *mwpkg.Manifest) error {
	for _, d := range m.Dependencies {
		digest, err := mwpkg.ParseDigest(d.Digest)
		if err != nil {
			return err
		}
		if other, ok := c.seen[d.Name]; ok && other != digest {
			return refuse(ErrDependency, "%s needs %s@%s with the content %s, and %s brings along another version of it", m.Ref(), d.Name, d.Version, digest, c.root)
		}
		if err := c.add(ctx, m.Ref(), d, digest); err != nil {
			return err
		}
	}
	return nil
}

// add collects one dependency of a package, and what it needs itself.
func (c *closure) add(ctx context.Context, of mwpkg.Ref, d mwpkg.Dependency, digest Digest) error {
	now, err := c.s.installed(ctx, c.r.Tenant, d.Name)
	switch {
	case err == nil && now.Digest != digest:
		return refuse(ErrDependency, "%s needs %s@%s, and %s@%s is installed; install that version first, or remove it", of, d.Name, d.Version, d.Name, now.Version)
	case err != nil && !errors.Is(err, ErrNotInstalled):
		return err
	}
	has := err == nil
	p, keys, err := c.s.store.Resolve(ctx, namespacesOf(c.r.Tenant), ID{Digest: &digest})
	if errors.Is(err, ErrUnknown) {
		return refuse(ErrDependency, "%s needs %s@%s with the content %s, which is not in the catalog", of, d.Name, d.Version, digest)
	}
	if err != nil {
		return err
	}
	if p.Name != d.Name || p.Version != d.Version {
		return refuse(ErrDependency, "%s needs %s@%s with the content %s, which is that of %s; its publisher must name what it is", of, d.Name, d.Version, digest, p.ID())
	}
	if _, ok := c.seen[d.Name]; ok || has {
		return nil
	}
	if c.seen[d.Name] = digest; len(c.seen)-1 > dependenciesMax {
		return refuse(ErrDependency, "%s brings along more than %d packages", c.root, dependenciesMax)
	}
	opened, err := c.s.verify(ctx, StageInstall, c.r.Tenant, c.r.By, &p, keys)
	if err != nil {
		return err
	}
	if err := c.need(ctx, opened.Manifest); err != nil {
		return err
	}
	for _, w := range CapabilitiesOf(opened.Manifest) {
		if !slices.Contains(c.capabilities, w) {
			c.capabilities = append(c.capabilities, w)
		}
	}
	c.packages = append(c.packages, p)
	return nil
}

// ids are NAME@VERSION of the packages, in the order in which they are installed.
func (c *closure) ids() (ids []string) {
	for i := range c.packages {
		ids = append(ids, c.packages[i].ID())
	}
	return ids
}

// install installs the packages. Each is expected not to be there, as when they were collected.
func (c *closure) install(ctx context.Context) error {
	for i := range c.packages {
		p, none := &c.packages[i], Digest{}
		if _, _, err := c.s.store.Install(ctx, InstallChange{Tenant: c.r.Tenant, Name: p.Name, By: c.r.By, Ref: p.ref(), Expect: &none, Locked: true}); err != nil {
			return err
		}
	}
	return nil
}
