package meta

import (
	"fmt"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
)

// wantFull wants the refusal that names a bound.
func wantFull(t *testing.T, what string, err error, bound int) {
	t.Helper()
	wantError(t, what, err, pkgstore.ErrFull)
	if err != nil && !strings.Contains(err.Error(), fmt.Sprint(bound)) {
		t.Errorf("%s: the bound %d is not in %q", what, bound, err)
	}
}

// owned is how many records of a table the row beside them counts.
func (s *shop) owned(table table, namespace string) uint64 {
	s.t.Helper()
	n, _, err := getRow(s.region.meta.Machine().(*Machine).store, ownedKey(table, namespace), decodeCount)
	check(s.t, err)
	return n
}

func (s *shop) overwriteOwned(table table, namespace string, n uint64) {
	s.region.meta.Overwrite(ownedKey(table, namespace), encodeCount(n))
}

// A tenant cannot fill the keys of a region: others and the platform go on.
func TestKeysOfOneTenantAreBounded(t *testing.T) {
	s := newShop(t)
	add := func(namespace string) error {
		key, err := pkgstore.NewKey(namespace, pkgtest.NewKey(t).PEM, "*")
		check(t, err)
		_, err = s.AddKey(t.Context(), key)
		return err
	}
	first := s.trust("mallory", pkgtest.NewKey(t), "*")
	for range pkgstore.KeysOfOneMax - 1 {
		check(t, add("mallory"))
	}
	wantFull(t, "one key more", add("mallory"), pkgstore.KeysOfOneMax)
	_, err := s.RevokeKey(t.Context(), "mallory", first.ID, pkgstore.Compromised, "lost")
	check(t, err)
	wantFull(t, "one more after a revocation", add("mallory"), pkgstore.KeysOfOneMax)
	check(t, add("acme"))
	for range pkgstore.KeysOfOneMax + 1 {
		check(t, add(pkgstore.Public))
	}
}

// Nor the packages and installs; what changes a record, or removes one, is no further one.
func TestPackagesAndInstallsOfOneTenantAreBounded(t *testing.T) {
	s := newShop(t)
	s.mustPublish("acme", pkgtest.Options{}, s.acme)
	s.mustPublish("acme", pkgtest.Options{Version: "0.2.0"}, s.acme)
	s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib"}, s.platform)
	s.mustInstall("acme", named("acme/flow@0.1.0"))
	s.mustInstall("acme", named("acme/flow@0.2.0"))
	if p, i := s.owned(tablePackages, "acme"), s.owned(tableInstalls, "acme"); p != 2 || i != 1 {
		t.Errorf("%d packages and %d installs are counted", p, i)
	}
	s.overwriteOwned(tablePackages, "acme", pkgstore.PackagesOfOneMax)
	s.overwriteOwned(tableInstalls, "acme", pkgstore.InstallsOfOneMax)
	_, _, err := s.publish("acme", pkgtest.Options{Version: "0.3.0"}, s.acme)
	wantFull(t, "one version more", err, pkgstore.PackagesOfOneMax)
	s.wantNoUploads()
	_, err = s.Yank(t.Context(), []string{"acme"}, named("acme/flow@0.1.0"), pkgstore.Yank{Kind: pkgstore.Deprecated, Reason: "old"})
	check(t, err)
	s.mustPublish(pkgstore.Public, pkgtest.Options{Name: "lib", Version: "0.2.0"}, s.platform)
	_, err = s.installAs("acme", named("lib"))
	wantFull(t, "one install more", err, pkgstore.InstallsOfOneMax)
	s.mustInstall("acme", named("acme/flow@0.1.0"), downgrade)
	s.mustInstall("globex", named("lib"))
	check(t, s.Uninstall(t.Context(), "acme", "acme/flow"))
	s.mustInstall("acme", named("lib"))
	_, err = s.installAs("acme", named("acme/flow@0.2.0"))
	wantFull(t, "one install more again", err, pkgstore.InstallsOfOneMax)
}

// A restored region counts as the old one did.
func TestRestoredCountsOfTenants(t *testing.T) {
	old := newShop(t)
	old.mustPublish("acme", pkgtest.Options{}, old.acme)
	old.mustInstall("acme", named("acme/flow"))
	fresh := &shop{t: t, region: newRegion(t, regionRules), receipts: &taken{}, acme: old.acme, platform: old.platform}
	fresh.open()
	check(t, fresh.region.meta.Restore(old.region.meta.Backup(3)...))
	for _, table := range catalogTables {
		if was, is := old.owned(table, "acme"), fresh.owned(table, "acme"); was != 1 || is != 1 {
			t.Errorf("table %d: %d was counted, %d is", table, was, is)
		}
	}
}
