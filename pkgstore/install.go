package pkgstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// installTries is how often an install starts over because another change of it got in between.
const installTries = 4

// InstallRequest asks to make a package one that a tenant uses, instead of the version that it has.
type InstallRequest struct {
	Tenant, By string
	ID         ID
	// Accept takes capabilities that the installed version does not have, of what it brings along, too. A first install takes all.
	Accept bool
	// Downgrade and Locked are those of InstallChange.
	Downgrade, Locked bool
	// Upgrade wants the package to be installed already.
	Upgrade bool
	// DryRun verifies and compares, and changes nothing.
	DryRun bool
}

// Installed is what became of an install.
type Installed struct {
	Install Install
	// Package is the version.
	Package Package
	// Changed is false when it was installed already, or nothing was to be changed.
	Changed bool
	// Before is the version that was installed before; empty when none was.
	Before string
	// Added and Removed are the capabilities in which it, with Dependencies, differs from the version before; all
	// of them without one.
	Added, Removed []string
	// Dependencies were installed with it, or would be.
	Dependencies []string
}

// Install verifies a package and makes it the version that a tenant uses, with what it depends on.
func (s *Service) Install(ctx context.Context, r InstallRequest) (Installed, error) {
	out, err := s.install(ctx, r)
	if !r.DryRun {
		done := "existing"
		if out.Changed {
			done = "installed"
		}
		s.metrics.installs.WithLabelValues(resultOf(done, err)).Inc()
	}
	return out, err
}

func (s *Service) install(ctx context.Context, r InstallRequest) (Installed, error) {
	p, keys, err := s.store.Resolve(ctx, namespacesOf(r.Tenant), r.ID)
	if err != nil {
		return Installed{}, err
	}
	opened, err := s.verify(ctx, StageInstall, r.Tenant, r.By, &p, keys)
	if err != nil {
		return Installed{}, err
	}
	for try := 1; ; try++ {
		out, err := s.installOnce(ctx, r, p, opened)
		if !errors.Is(err, ErrInstallChanged) || try == installTries {
			return out, err
		}
	}
}

// installOnce installs a package that was verified over what is installed now, with what it depends on. Over an
// installed version, the capabilities of all of it have to be there before, or be accepted.
func (s *Service) installOnce(ctx context.Context, r InstallRequest, p Package, opened *mwpkg.Package) (Installed, error) {
	out := Installed{Package: p}
	now, err := s.installed(ctx, r.Tenant, p.Name)
	if err != nil && (r.Upgrade || !errors.Is(err, ErrNotInstalled)) {
		return out, err
	}
	var had []string
	if err == nil {
		out.Install, out.Before = now, now.Version
		before, err := s.content(ctx, now)
		if err != nil {
			return out, err
		}
		had = CapabilitiesOf(before.Manifest)
	}
	all, err := s.collect(ctx, r, &p, opened.Manifest)
	if err != nil {
		return out, err
	}
	out.Added, out.Removed = difference(all.capabilities, had)
	switch {
	case r.DryRun:
		out.Dependencies = all.ids()
		return out, nil
	case len(out.Added) > 0 && out.Before != "" && !r.Accept:
		return out, refuse(ErrCapabilities, "%s, with what it brings along, newly asks for %s", p.ID(), strings.Join(out.Added, ", "))
	}
	if err := all.install(ctx); err != nil {
		return out, err
	}
	out.Dependencies = all.ids()
	expect := now.Digest
	out.Install, out.Changed, err = s.store.Install(ctx, InstallChange{
		Tenant: r.Tenant, Name: p.Name, By: r.By, Ref: p.ref(), Expect: &expect, Downgrade: r.Downgrade, Locked: r.Locked,
	})
	return out, err
}

// ref pins a package.
func (p *Package) ref() Ref {
	return Ref{Version: p.Version, Namespace: p.Namespace, Digest: p.Digest}
}

// installed is what a tenant uses under a name, or ErrNotInstalled.
func (s *Service) installed(ctx context.Context, tenant, name string) (Install, error) {
	all, _, err := s.store.Installs(ctx, InstallQuery{Tenant: tenant, Name: name}, "", 1)
	if err != nil {
		return Install{}, err
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return Install{}, refuse(ErrNotInstalled, "tenant %s does not have %s installed", tenant, name)
}

// content opens what is installed without judging it.
func (s *Service) content(ctx context.Context, i Install) (*mwpkg.Package, error) {
	p, _, err := s.store.Resolve(ctx, []string{i.Namespace}, ID{Digest: &i.Digest})
	if err != nil {
		return nil, err
	}
	return s.open(ctx, &p)
}

// Rollback goes back to the version before the installed one, which is verified as any other.
func (s *Service) Rollback(ctx context.Context, tenant, name, by string) (out Installed, err error) {
	defer func() { s.metrics.installs.WithLabelValues(resultOf("installed", err)).Inc() }()
	now, err := s.installed(ctx, tenant, name)
	if err != nil {
		return Installed{}, err
	}
	if len(now.History) == 0 {
		return Installed{}, refuse(ErrNoHistory, "tenant %s has had no other version of %s", tenant, name)
	}
	back := now.History[0]
	p, keys, err := s.store.Resolve(ctx, []string{back.Namespace}, ID{Digest: &back.Digest})
	if err != nil {
		return Installed{}, err
	}
	opened, err := s.verify(ctx, StageInstall, tenant, by, &p, keys)
	if err != nil {
		return Installed{}, err
	}
	before, err := s.content(ctx, now)
	if err != nil {
		return Installed{}, err
	}
	out = Installed{Package: p, Before: now.Version}
	out.Added, out.Removed = difference(CapabilitiesOf(opened.Manifest), CapabilitiesOf(before.Manifest))
	out.Install, out.Changed, err = s.store.Install(ctx, InstallChange{Tenant: tenant, Name: name, By: by, Rollback: true, Expect: &now.Digest})
	return out, err
}

// Uninstall ends the use of a package.
func (s *Service) Uninstall(ctx context.Context, tenant, name string) error {
	return s.store.Uninstall(ctx, tenant, name)
}

// Installs is a page of what tenants use.
func (s *Service) Installs(ctx context.Context, q InstallQuery, after string, limit int) ([]Install, string, error) {
	return s.store.Installs(ctx, q, after, limit)
}

// Load verifies what a tenant has installed under a name, and opens it to be run. It is called for every run:
// what was good when it was installed may not be good now.
func (s *Service) Load(ctx context.Context, tenant, name, by string) (p Package, opened *mwpkg.Package, err error) {
	defer func() { s.metrics.loads.WithLabelValues(resultOf("loaded", err)).Inc() }()
	i, err := s.installed(ctx, tenant, name)
	if err != nil {
		return Package{}, nil, err
	}
	p, keys, err := s.store.Resolve(ctx, []string{i.Namespace}, ID{Digest: &i.Digest})
	if err != nil {
		return Package{}, nil, err
	}
	opened, err = s.verify(ctx, StageLoad, tenant, by, &p, keys)
	return p, opened, err
}

// difference is what is in now and not in before, and the other way round.
func difference(now, before []string) (added, removed []string) {
	for _, w := range now {
		if !slices.Contains(before, w) {
			added = append(added, w)
		}
	}
	for _, w := range before {
		if !slices.Contains(now, w) {
			removed = append(removed, w)
		}
	}
	return added, removed
}
