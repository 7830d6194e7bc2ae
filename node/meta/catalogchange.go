package meta

import (
	"fmt"
	"slices"

	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// publish makes a version of a package of an archive that has arrived, or adds signatures to it. Keys,
// version and archive are looked at here, where nothing can come in between: of two publishers one comes
// first, and no key signs anything after the command that revoked it.
func (x *catalogTx) publish(c publishCommand) (catalogResult, error) {
	p := c.pkg
	now, err := x.now()
	if err != nil {
		return catalogResult{}, err
	}
	p.Published, p.Yank = now, pkgstore.Yank{}
	keys, err := keysFor(x.tx, &p)
	if err != nil {
		return catalogResult{}, err
	}
	if err := keepGood(&p, keys, now); err != nil {
		return x.refuseKey(err)
	}
	key := packageKey(p.Namespace, p.Name, p.Version)
	old, exists, err := getPackage(x.tx, p.Namespace, p.Name, p.Version)
	if err != nil {
		return catalogResult{}, err
	}
	done := catalogDone
	if exists {
		if old.Digest != p.Digest {
			return x.refuse(catalogConflict, "%s exists with the content %s; a version never changes, so publish another one", p.ID(), old.Digest), nil
		}
		signed := withSignatures(old, p)
		if len(signed.Signatures) == len(old.Signatures) {
			return x.found(tablePackages, key, catalogExisting)
		}
		if len(signed.Signatures) > pkgstore.SignaturesMax {
			return x.refuse(catalogFull, "%s may have %d signatures", p.ID(), pkgstore.SignaturesMax), nil
		}
		p, done = signed, catalogSigned
	} else if other, err := x.confusable(&p); err != nil || other != "" {
		return x.refuse(catalogConfusable, "%s reads like %s, which is another package", p.Name, other), err
	}
	b, space, err := x.findBlob(blobIDOf(p.Namespace, p.Archive))
	switch {
	case err != nil:
		return catalogResult{}, err
	case space == 0 || b.generation != c.generation || !b.complete() || b.size != p.Size:
		return x.refuse(catalogUpload, "the archive is not there, or not whole; upload it again"), nil
	}
	res, err := x.write(tablePackages, step{kind: kindPut, key: key, owner: p.Namespace, value: p.AppendValue(nil)}, c.origin, done)
	if err != nil || res.outcome != done {
		return res, err
	}
	return res, x.published(&p, &old, exists, b, space)
}

// keepGood keeps the signatures that count now, as seen now; without any the error says why the last does not.
func keepGood(p *pkgstore.Package, keys pkgstore.Keys, now int64) (err error) {
	all := p.Signatures
	p.Signatures = nil
	for _, s := range all {
		key, judged := keys.Judge(p.Namespace, p.Name, s.Key, now)
		if judged != nil {
			err = judged
			continue
		}
		s.Namespace, s.At = key.Namespace, now
		p.Signatures = append(p.Signatures, s)
	}
	if len(p.Signatures) > 0 {
		return nil
	}
	return err
}

// withSignatures is a package with those of another archive of the same content that it does not have.
func withSignatures(p, other pkgstore.Package) pkgstore.Package {
	p.Signatures = slices.Clone(p.Signatures)
	for _, s := range other.Signatures {
		if !slices.ContainsFunc(p.Signatures, func(has pkgstore.Signature) bool { return has.Key == s.Key }) {
			p.Signatures = append(p.Signatures, s)
		}
	}
	p.Archive, p.Size = other.Archive, other.Size
	return p
}

// published keeps what stands beside the record of a package.
func (x *catalogTx) published(p, old *pkgstore.Package, existed bool, b blob, space byte) error {
	if !existed || !sameArchive(p, old) {
		if err := x.take(b, space); err != nil {
			return err
		}
	}
	if existed {
		if sameArchive(p, old) {
			return nil
		}
		return x.release(old.Namespace, old.Archive)
	}
	err := x.tx.Set(digestKey(p.Digest, p.Namespace), []byte(p.ID()))
	if err == nil {
		err = x.tx.Set(foldedKey(p.Namespace, p.Name), []byte(p.Name))
	}
	if err != nil {
		return fmt.Errorf("meta: publish %s: %w", p.ID(), err)
	}
	return nil
}

func digestKey(d pkgstore.Digest, namespace string) []byte {
	return append(append([]byte{spaceDigest}, d[:]...), namespace...)
}

func foldedKey(namespace, name string) []byte {
	k := append(append([]byte{spaceFolded}, namespace...), 0)
	return append(k, pkgstore.FoldName(name)...)
}

// confusable is the package of the namespace that reads like p and is another one, or empty.
func (x *catalogTx) confusable(p *pkgstore.Package) (string, error) {
	first, ok, err := getRow(x.tx, foldedKey(p.Namespace, p.Name), func(b []byte) (string, error) { return string(b), nil })
	if err != nil || !ok || first == p.Name {
		return "", err
	}
	return first, nil
}

// yank takes a version back, or lifts what was not a block.
func (x *catalogTx) yank(c yankCommand) (catalogResult, error) {
	p, ok, err := getPackage(x.tx, c.namespace, c.name, c.version)
	switch {
	case err != nil:
		return catalogResult{}, err
	case !ok:
		return x.refuse(catalogUnknown, "there is no package %s@%s", c.name, c.version), nil
	case p.Yank.Kind == pkgstore.Blocked && c.yank.Kind != pkgstore.Blocked:
		return x.refuse(catalogBlocked, "%s is blocked for its security, which is for good", p.ID()), nil
	case p.Yank.Kind == c.yank.Kind:
		return x.found(tablePackages, packageKey(c.namespace, c.name, c.version), catalogExisting)
	}
	if p.Yank = c.yank; c.yank.Kind == pkgstore.YankNone {
		p.Yank = pkgstore.Yank{}
	} else if p.Yank.At, err = x.now(); err != nil {
		return catalogResult{}, err
	}
	return x.write(tablePackages, step{kind: kindPut, key: packageKey(c.namespace, c.name, c.version), owner: c.namespace, value: p.AppendValue(nil)}, c.origin, catalogDone)
}

// install makes a version the one that a tenant uses. Signatures and yanks are looked at here too, so
// that nothing is installed after the command that revoked its key.
func (x *catalogTx) install(c installCommand) (catalogResult, error) {
	old, installed, err := getInstall(x.tx, c.tenant, c.name)
	if err != nil {
		return catalogResult{}, err
	}
	var now pkgstore.Digest
	if installed {
		now = old.Digest
	}
	switch {
	case c.rollback && !installed:
		return x.refuse(catalogNotInstalled, "tenant %s does not have %s installed", c.tenant, c.name), nil
	case c.expect != nil && *c.expect != now:
		return x.refuse(catalogChanged, "%s was changed for tenant %s meanwhile; look at it again", c.name, c.tenant), nil
	case c.rollback && len(old.History) == 0:
		return x.refuse(catalogNoHistory, "tenant %s has had no other version of %s", c.tenant, c.name), nil
	case c.rollback:
		c.ref = old.History[0]
	}
	if c.ref.Namespace != pkgstore.Public && c.ref.Namespace != c.tenant {
		return x.refuse(catalogUnknown, "there is no package %s@%s", c.name, c.ref.Version), nil
	}
	if res, err := x.installable(c, installed && old.Ref == c.ref); err != nil || res.outcome != 0 {
		return res, err
	}
	switch {
	case installed && old.Ref == c.ref:
		return x.found(tableInstalls, installKey(c.tenant, c.name), catalogExisting)
	case installed && !c.downgrade && !c.rollback && mwpkg.CompareVersions(c.ref.Version, old.Version) < 0:
		return x.refuse(catalogDowngrade, "version %s of %s is older than %s, which is installed", c.ref.Version, c.name, old.Version), nil
	}
	next := pkgstore.Install{Ref: c.ref, By: c.by}
	if next.At, err = x.now(); err != nil {
		return catalogResult{}, err
	}
	if c.rollback {
		next.History = old.History[1:]
	} else if installed {
		next.History = append([]pkgstore.Ref{old.Ref}, old.History...)
		next.History = next.History[:min(len(next.History), pkgstore.HistoryMax)]
	}
	return x.write(tableInstalls, step{kind: kindPut, key: installKey(c.tenant, c.name), owner: c.tenant, value: next.AppendValue(nil)}, c.origin, catalogDone)
}

// installable refuses what may not be installed: with outcome 0 it may.
func (x *catalogTx) installable(c installCommand, again bool) (catalogResult, error) {
	p, ok, err := getPackage(x.tx, c.ref.Namespace, c.name, c.ref.Version)
	switch {
	case err != nil:
		return catalogResult{}, err
	case !ok || p.Digest != c.ref.Digest:
		return x.refuse(catalogUnknown, "there is no package %s@%s with the content %s", c.name, c.ref.Version, c.ref.Digest), nil
	case p.Yank.Kind == pkgstore.Blocked:
		return x.refuse(catalogBlocked, "%s is blocked for its security: %s", p.ID(), p.Yank.Reason), nil
	case p.Yank.Kind == pkgstore.Yanked && !c.locked && !again:
		return x.refuse(catalogYanked, "%s was yanked: %s", p.ID(), p.Yank.Reason), nil
	}
	keys, err := keysFor(x.tx, &p)
	if err != nil {
		return catalogResult{}, err
	}
	if _, err := keys.JudgeSignatures(&p); err != nil {
		return x.refuseKey(err)
	}
	return catalogResult{}, nil
}

// uninstall ends the use of a package. That there is none is no error.
func (x *catalogTx) uninstall(c uninstallCommand) (catalogResult, error) {
	_, ok, err := getInstall(x.tx, c.tenant, c.name)
	if err != nil || !ok {
		return x.refuse(catalogNotInstalled, "tenant %s does not have %s installed", c.tenant, c.name), err
	}
	return x.write(tableInstalls, step{kind: kindDelete, key: installKey(c.tenant, c.name)}, c.origin, catalogDone)
}

// addKey trusts a key. One that is there stays as it is: what it may do does not change behind the back of
// what it has signed.
func (x *catalogTx) addKey(c keyCommand) (catalogResult, error) {
	old, exists, err := getTrust(x.tx, c.key.Namespace, c.key.ID)
	if err != nil {
		return catalogResult{}, err
	}
	key := trustKey(c.key.Namespace, c.key.ID)
	if exists {
		if old.Revoked == pkgstore.NotRevoked && old.Publisher == c.key.Publisher && old.NotBefore == c.key.NotBefore && old.NotAfter == c.key.NotAfter {
			return x.found(tableKeys, key, catalogExisting)
		}
		state := "with another publisher or validity"
		if old.Revoked != pkgstore.NotRevoked {
			state = "and is revoked, which is for good"
		}
		return x.refuse(catalogKeyExists, "key %s is there %s; make a new key", c.key.ID, state), nil
	}
	if c.key.Added, err = x.now(); err != nil {
		return catalogResult{}, err
	}
	c.key.Revoked, c.key.RevokedAt, c.key.Reason = pkgstore.NotRevoked, 0, ""
	return x.write(tableKeys, step{kind: kindPut, key: key, owner: c.key.Namespace, value: c.key.AppendValue(nil)}, c.origin, catalogDone)
}

// revokeKey ends the trust in a key, or makes a revocation a stronger one. The record is sealed, so that
// no later command can take that away.
func (x *catalogTx) revokeKey(c revokeCommand) (catalogResult, error) {
	k, ok, err := getTrust(x.tx, c.namespace, c.key)
	key := trustKey(c.namespace, c.key)
	switch {
	case err != nil:
		return catalogResult{}, err
	case !ok:
		return x.refuse(catalogNoKey, "there is no trust key %s", c.key), nil
	case k.Revoked >= c.kind:
		return x.found(tableKeys, key, catalogExisting)
	}
	if k.RevokedAt, err = x.now(); err != nil {
		return catalogResult{}, err
	}
	k.Revoked, k.Reason = c.kind, c.reason
	return x.writeSealed(tableKeys, step{kind: kindPut, key: key, owner: c.namespace, value: k.AppendValue(nil)}, c.origin)
}

// writeSealed changes a record and seals it, as one change.
func (x *catalogTx) writeSealed(t table, s step, origin string) (catalogResult, error) {
	count, _, err := getRow(x.tx, []byte{spaceTable, byte(t)}, decodeCounters)
	if err != nil {
		return catalogResult{}, err
	}
	before, _, err := getRecord(x.tx, t, s.key)
	if err != nil {
		return catalogResult{}, err
	}
	after := before
	after.value, after.sealed = s.value, true
	w := writer{tx: x.tx, table: t, rules: x.m.rules(t), count: count}
	o, err := w.write(x.wall, plan{origin: origin, before: []record{before}, after: []record{after}})
	switch {
	case err != nil:
		return catalogResult{}, err
	case o != outcomeDone:
		return x.refuse(catalogFull, "the table has no version numbers left"), nil
	}
	return catalogResult{outcome: catalogDone, key: s.key, row: appendRecord(nil, w.changed[0].record)}, nil
}
