package meta

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// The catalog's records are those of three tables, changed by commands of their own: what a command may
// do depends on more than one record. Keys have the namespace or tenant first, and a space, which no name
// has, behind it.

const (
	catalogKeyBytesMax = pkgstore.KeyBytesMax
	principalBytesMax  = 256
)

func packageKey(namespace, name, version string) string {
	return namespace + " " + name + "@" + version
}

func installKey(tenant, name string) string { return tenant + " " + name }

func trustKey(namespace string, id pkgstore.Digest) string { return namespace + " " + id.String() }

// catalogTx is one command of the catalog on its way.
type catalogTx struct {
	tx   *raftfsm.Tx
	m    *Machine
	wall int64 // the leader's clock
	// time is the group's, in microseconds, and index the log's.
	time  int64
	index uint64
}

// catalogCommand decodes a command and returns what carries it out.
func catalogCommand(b []byte) (func(*catalogTx) (catalogResult, error), error) {
	r := wire.NewReader(b)
	r.Byte(codecCatalog)
	op := r.Byte(0xff)
	var run func(*catalogTx) (catalogResult, error)
	switch op {
	case opBegin:
		c := readBegin(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.beginUpload(c) }
	case opChunk:
		c := readChunk(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.putChunk(c) }
	case opMend:
		c := readChunk(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.mendChunk(c) }
	case opDrop:
		c := readDrop(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.dropUpload(c) }
	case opSweep:
		run = (*catalogTx).sweep
	case opPublish:
		c := readPublish(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.publish(c) }
	case opYank:
		c := readYank(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.yank(c) }
	case opInstall:
		c := readInstall(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.install(c) }
	case opUninstall:
		c := readUninstall(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.uninstall(c) }
	case opAddKey:
		c := readAddKey(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.addKey(c) }
	case opRevokeKey:
		c := readRevokeKey(r)
		run = func(x *catalogTx) (catalogResult, error) { return x.revokeKey(c) }
	default:
		return nil, fmt.Errorf("%w: command %d of the catalog", errNewer, op)
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%w: command %d of the catalog", errCodec, op)
	}
	return run, nil
}

// isCatalog tells whether a command or query is one of the catalog.
func isCatalog(b []byte) bool { return len(b) > 1 && b[0] == codecCatalog }

// applyCatalog carries out one command.
func (m *Machine) applyCatalog(tx *raftfsm.Tx, e raftfsm.Entry, b []byte) ([]byte, error) {
	run, err := catalogCommand(b)
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil {
		return encodeCatalogResult(catalogResult{outcome: catalogMalformed, message: err.Error()}), nil
	}
	res, err := run(&catalogTx{tx: tx, m: m, wall: e.Wall, time: e.Time, index: e.Index})
	if err != nil {
		return nil, err
	}
	return encodeCatalogResult(res), nil
}

func (x *catalogTx) refuse(o catalogOutcome, format string, args ...any) catalogResult {
	return catalogResult{outcome: o, message: fmt.Sprintf(format, args...)}
}

// now is the region's time for what the command changes: the stamp that its record will get.
func (x *catalogTx) now() (int64, error) {
	clock, _, err := getRow(x.tx, []byte{spaceClock}, decodeClock)
	return clock.next(x.wall).wall, err
}

// write changes one record and returns it.
func (x *catalogTx) write(t table, s step, origin string, done catalogOutcome) (catalogResult, error) {
	by, full, err := x.owns(t, s)
	if err != nil || full.outcome != 0 {
		return full, err
	}
	res, changed, err := apply(x.tx, x.wall, change{table: t, actor: anyOwner, origin: origin, steps: []step{s}}, x.m.rules(t))
	switch {
	case err != nil:
		return catalogResult{}, err
	case res.outcome == outcomeFull:
		return x.refuse(catalogFull, "the catalog has as many records of this kind as it may have"), nil
	case res.outcome != outcomeDone:
		return x.refuse(catalogMalformed, "%s", res.message), nil
	}
	if by != 0 {
		namespace, _, _ := strings.Cut(s.key, " ")
		if err := x.addCount(ownedKey(t, namespace), by); err != nil {
			return catalogResult{}, err
		}
	}
	out := catalogResult{outcome: done, key: s.key}
	if len(changed) > 0 {
		out.row = appendRecord(nil, changed[0].record)
		return out, nil
	}
	return x.found(t, s.key, done)
}

// found answers with a record as it is.
func (x *catalogTx) found(t table, key string, o catalogOutcome) (catalogResult, error) {
	row, err := x.tx.Get(recordKey(t, key))
	if err != nil {
		return catalogResult{}, fmt.Errorf("meta: record %s: %w", key, err)
	}
	return catalogResult{outcome: o, key: key, row: row}, nil
}

// getPackage, getInstall and getTrust read records that are not deleted.
func getPackage(g getter, namespace, name, version string) (p pkgstore.Package, ok bool, err error) {
	rec, found, err := getRecord(g, tablePackages, packageKey(namespace, name, version))
	if err != nil || !found || rec.deleted {
		return p, false, err
	}
	p, err = decodePackage(rec)
	return p, err == nil, err
}

func getInstall(g getter, tenant, name string) (i pkgstore.Install, ok bool, err error) {
	rec, found, err := getRecord(g, tableInstalls, installKey(tenant, name))
	if err != nil || !found || rec.deleted {
		return i, false, err
	}
	i, err = decodeInstall(rec)
	return i, err == nil, err
}

func getTrust(g getter, namespace string, id pkgstore.Digest) (k pkgstore.Key, ok bool, err error) {
	rec, found, err := getRecord(g, tableKeys, trustKey(namespace, id))
	if err != nil || !found || rec.deleted {
		return k, false, err
	}
	k, err = decodeTrust(rec)
	return k, err == nil, err
}

func stampOf(rec record) pkgstore.Stamp {
	return pkgstore.Stamp{Origin: rec.origin, Version: rec.version, Wall: rec.stamp.wall}
}

func decodePackage(rec record) (p pkgstore.Package, err error) {
	namespace, id, _ := strings.Cut(rec.key, " ")
	name, version, ok := strings.Cut(id, "@")
	if err := p.DecodeValue(rec.value); err != nil || !ok {
		return p, errRow("package " + rec.key)
	}
	p.Namespace, p.Name, p.Version, p.Stamp = namespace, name, version, stampOf(rec)
	return p, nil
}

func decodeInstall(rec record) (i pkgstore.Install, err error) {
	tenant, name, ok := strings.Cut(rec.key, " ")
	if err := i.DecodeValue(rec.value); err != nil || !ok {
		return i, errRow("install " + rec.key)
	}
	i.Tenant, i.Name, i.Stamp = tenant, name, stampOf(rec)
	return i, nil
}

func decodeTrust(rec record) (k pkgstore.Key, err error) {
	namespace, id, _ := strings.Cut(rec.key, " ")
	var parseErr error
	k.ID, parseErr = mwpkg.ParseDigest(id)
	if err := k.DecodeValue(rec.value); err != nil || parseErr != nil || (k.Revoked != pkgstore.NotRevoked) != rec.sealed {
		return k, errRow("trust key " + rec.key)
	}
	k.Namespace, k.Stamp = namespace, stampOf(rec)
	return k, nil
}

func validPackage(key string, value []byte) error {
	_, err := decodePackage(record{key: key, value: value})
	return err
}

func validInstall(key string, value []byte) error {
	_, err := decodeInstall(record{key: key, value: value})
	return err
}

// validTrust cannot see the seal yet.
func validTrust(key string, value []byte) error {
	var k pkgstore.Key
	return errors.Join(k.DecodeValue(value))
}

// keysFor are the trust keys that judge a package's signatures.
func keysFor(g getter, p *pkgstore.Package) (pkgstore.Keys, error) {
	all := pkgstore.Keys{}
	for _, s := range p.Signatures {
		for _, ns := range [...]string{pkgstore.Public, p.Namespace} {
			k, ok, err := getTrust(g, ns, s.Key)
			if err != nil {
				return nil, err
			}
			if ok {
				all[pkgstore.KeyName{Namespace: ns, ID: s.Key}] = k
			}
		}
	}
	return all, nil
}

// refuseKey says why no signature counts.
func (x *catalogTx) refuseKey(err error) (catalogResult, error) {
	var e *mwpkg.Error
	if !errors.As(err, &e) {
		return catalogResult{}, err
	}
	res := x.refuse(catalogKey, "%s: %s", e.Subject, e.Detail)
	res.code = string(e.Code)
	return res, nil
}

// sameArchive tells whether two rows of a package are of one archive.
func sameArchive(a, b *pkgstore.Package) bool { return bytes.Equal(a.Archive[:], b.Archive[:]) }
