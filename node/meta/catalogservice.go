package meta

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
)

var _ pkgstore.Store = (*Service)(nil)

// catalogErrors are what the outcomes of the catalog mean, but for those of keys, which have a code.
var catalogErrors = map[catalogOutcome]error{
	catalogUnknown: pkgstore.ErrUnknown, catalogConflict: pkgstore.ErrConflict, catalogYanked: pkgstore.ErrYanked,
	catalogBlocked: pkgstore.ErrBlocked, catalogNotInstalled: pkgstore.ErrNotInstalled, catalogNoHistory: pkgstore.ErrNoHistory,
	catalogDowngrade: pkgstore.ErrDowngrade, catalogChanged: pkgstore.ErrInstallChanged, catalogConfusable: pkgstore.ErrConfusable,
	catalogUpload: pkgstore.ErrUpload, catalogFull: pkgstore.ErrFull, catalogKeyExists: pkgstore.ErrKeyExists,
	catalogNoKey: pkgstore.ErrNoKey, catalogMalformed: ErrRefused, catalogRestoring: raftfsm.ErrRestoring,
}

// changeCatalog proposes a command. All of them do the same when they are done twice, or say that it was done;
// the request id lets the group be asked again when an answer is lost.
func (s *Service) changeCatalog(ctx context.Context, command []byte) (catalogResult, error) {
	if s.groups.Level() < raftfsm.LevelCatalog {
		return catalogResult{}, fmt.Errorf("meta: catalog: %w", api.ErrLevel)
	}
	var id raftfsm.RequestID
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	r, err := s.groups.Propose(ctx, s.group, raftfsm.Command{Data: command, RequestID: id})
	if err != nil {
		return catalogResult{}, err
	}
	res, err := decodeCatalogResult(r.Data)
	if err != nil {
		return catalogResult{}, err
	}
	if res.outcome == catalogKey {
		return res, &mwpkg.Error{Code: mwpkg.Code(res.code), Detail: res.message}
	}
	if kind := catalogErrors[res.outcome]; kind != nil {
		return res, pkgstore.Refuse(kind, "%s", res.message)
	}
	return res, nil
}

// askCatalog asks the group, or with Bounded this node's replica.
func (s *Service) askCatalog(ctx context.Context, query []byte, c raftfsm.Consistency) ([]byte, error) {
	if s.groups.Level() < raftfsm.LevelCatalog {
		return nil, fmt.Errorf("meta: catalog: %w", api.ErrLevel)
	}
	a, err := s.groups.Query(ctx, s.group, query, c)
	return a.Data, err
}

// BeginUpload implements pkgstore.Store.
func (s *Service) BeginUpload(ctx context.Context, u pkgstore.Upload, mostBytes uint64) (pkgstore.Progress, error) {
	res, err := s.changeCatalog(ctx, encodeBegin(beginCommand{namespace: u.Namespace, archive: u.Archive, size: u.Size, mostBytes: mostBytes}))
	return pkgstore.Progress{Generation: res.number, Next: res.next}, err
}

// PutChunk implements pkgstore.Store.
func (s *Service) PutChunk(ctx context.Context, u pkgstore.Upload, generation uint64, chunk uint32, data []byte) (pkgstore.Progress, error) {
	res, err := s.changeCatalog(ctx, encodeChunk(opChunk, chunkCommand{namespace: u.Namespace, archive: u.Archive, generation: generation, chunk: chunk, data: data}))
	return pkgstore.Progress{Generation: res.number, Next: res.next}, err
}

// MendChunk implements pkgstore.Store.
func (s *Service) MendChunk(ctx context.Context, u pkgstore.Upload, generation uint64, chunk uint32, data []byte) (pkgstore.Progress, error) {
	res, err := s.changeCatalog(ctx, encodeChunk(opMend, chunkCommand{namespace: u.Namespace, archive: u.Archive, generation: generation, chunk: chunk, data: data}))
	return pkgstore.Progress{Generation: res.number, Next: res.next}, err
}

// DropUpload implements pkgstore.Store.
func (s *Service) DropUpload(ctx context.Context, u pkgstore.Upload, generation uint64) error {
	_, err := s.changeCatalog(ctx, encodeDrop(dropCommand{namespace: u.Namespace, archive: u.Archive, generation: generation}))
	return err
}

// SweepUploads removes uploads that nobody goes on with, some at a time, and returns how many are left.
func (s *Service) SweepUploads(ctx context.Context) (left uint64, err error) {
	res, err := s.changeCatalog(ctx, catalogHeader(opSweep))
	return res.number, err
}

// HasUploads tells whether this node's replica knows of uploads, so that a region at rest is not written to.
func (m *Machine) HasUploads() (bool, error) {
	it, err := m.store.NewIter([]byte{spaceUpload}, []byte{spaceUpload + 1})
	if err != nil {
		return false, fmt.Errorf("meta: uploads: %w", err)
	}
	found := it.First()
	return found, it.Close()
}

// Chunk implements pkgstore.Store: this node's replica is asked first.
func (s *Service) Chunk(ctx context.Context, u pkgstore.Upload, chunk uint32) ([]byte, error) {
	b, err := s.chunkAt(ctx, u, chunk, raftfsm.Bounded)
	if err != nil {
		return s.UploadedChunk(ctx, u, chunk)
	}
	return b, nil
}

// UploadedChunk implements pkgstore.Store.
func (s *Service) UploadedChunk(ctx context.Context, u pkgstore.Upload, chunk uint32) ([]byte, error) {
	return s.chunkAt(ctx, u, chunk, raftfsm.Linearizable)
}

func (s *Service) chunkAt(ctx context.Context, u pkgstore.Upload, chunk uint32, c raftfsm.Consistency) ([]byte, error) {
	b, err := s.askCatalog(ctx, encodeChunkQuery(u.Namespace, u.Archive, chunk), c)
	if err != nil {
		return nil, err
	}
	r, err := openAnswer(b)
	if err != nil {
		return nil, err
	}
	return r.Rest(), nil
}

// Publish implements pkgstore.Store.
func (s *Service) Publish(ctx context.Context, p pkgstore.Package, generation uint64) (pkgstore.Package, pkgstore.Published, error) {
	res, err := s.changeCatalog(ctx, encodePublish(publishCommand{origin: s.region, generation: generation, pkg: p}))
	if err != nil {
		return pkgstore.Package{}, 0, err
	}
	out := map[catalogOutcome]pkgstore.Published{
		catalogDone: pkgstore.PublishedNew, catalogSigned: pkgstore.PublishedSignature, catalogExisting: pkgstore.PublishedBefore,
	}[res.outcome]
	stored, err := recordOf(res, decodePackage)
	return stored, out, err
}

// recordOf is the record in a result.
func recordOf[T any](res catalogResult, decode func(record) (T, error)) (v T, err error) {
	rec, err := decodeRecord(res.key, res.row)
	if err != nil {
		return v, err
	}
	return decode(rec)
}

// Yank implements pkgstore.Store.
func (s *Service) Yank(ctx context.Context, namespace, name, version string, y pkgstore.Yank) (pkgstore.Package, error) {
	res, err := s.changeCatalog(ctx, encodeYank(yankCommand{origin: s.region, namespace: namespace, name: name, version: version, yank: y}))
	if err != nil {
		return pkgstore.Package{}, err
	}
	return recordOf(res, decodePackage)
}

// Install implements pkgstore.Store.
func (s *Service) Install(ctx context.Context, c pkgstore.InstallChange) (pkgstore.Install, bool, error) {
	res, err := s.changeCatalog(ctx, encodeInstall(installCommand{
		origin: s.region, tenant: c.Tenant, name: c.Name, by: c.By, ref: c.Ref, expect: c.Expect,
		downgrade: c.Downgrade, locked: c.Locked, rollback: c.Rollback,
	}))
	if err != nil {
		return pkgstore.Install{}, false, err
	}
	i, err := recordOf(res, decodeInstall)
	return i, res.outcome == catalogDone, err
}

// Uninstall implements pkgstore.Store.
func (s *Service) Uninstall(ctx context.Context, tenant, name string) error {
	_, err := s.changeCatalog(ctx, encodeUninstall(uninstallCommand{origin: s.region, tenant: tenant, name: name}))
	return err
}

// AddKey implements pkgstore.Store.
func (s *Service) AddKey(ctx context.Context, k pkgstore.Key) (pkgstore.Key, error) {
	res, err := s.changeCatalog(ctx, encodeAddKey(keyCommand{origin: s.region, key: k}))
	if err != nil {
		return pkgstore.Key{}, err
	}
	return recordOf(res, decodeTrust)
}

// RevokeKey implements pkgstore.Store.
func (s *Service) RevokeKey(ctx context.Context, namespace string, id pkgstore.Digest, kind pkgstore.Revocation, reason string) (pkgstore.Key, error) {
	res, err := s.changeCatalog(ctx, encodeRevokeKey(revokeCommand{origin: s.region, namespace: namespace, key: id, kind: kind, reason: reason}))
	if err != nil {
		return pkgstore.Key{}, err
	}
	return recordOf(res, decodeTrust)
}

// Packages implements pkgstore.Store.
func (s *Service) Packages(ctx context.Context, namespaces []string, f pkgstore.Filter, after string, limit int) (all []pkgstore.Package, next string, err error) {
	return pageOf(after, limit, func(after string, limit int) ([]byte, error) {
		return s.askCatalog(ctx, encodePackagesQuery(packagesQuery{namespaces: namespaces, after: after, limit: limit, filter: f}), raftfsm.Linearizable)
	}, decodePackage)
}

// Installs implements pkgstore.Store.
func (s *Service) Installs(ctx context.Context, q pkgstore.InstallQuery, after string, limit int) (all []pkgstore.Install, next string, err error) {
	return pageOf(after, limit, func(after string, limit int) ([]byte, error) {
		return s.askCatalog(ctx, encodeInstallsQuery(installsQuery{tenant: q.Tenant, name: q.Name, ref: q.Ref, after: after, limit: limit}), raftfsm.Linearizable)
	}, decodeInstall)
}

// pageOf asks until a page is full or nothing follows.
func pageOf[T any](after string, limit int, ask func(after string, limit int) ([]byte, error), decode func(record) (T, error)) (all []T, next string, err error) {
	for next = after; ; {
		b, err := ask(next, limit-len(all))
		if err != nil {
			return nil, "", err
		}
		p, err := decodeCatalogPage(b)
		if err != nil {
			return nil, "", err
		}
		for _, rec := range p.records {
			v, err := decode(rec)
			if err != nil {
				return nil, "", err
			}
			all = append(all, v)
		}
		if next = p.next; next == "" || len(all) == limit {
			return all, next, nil
		}
	}
}

// Resolve implements pkgstore.Store.
func (s *Service) Resolve(ctx context.Context, namespaces []string, id pkgstore.ID) (pkgstore.Package, pkgstore.Keys, error) {
	b, err := s.askCatalog(ctx, encodeResolveQuery(resolveQuery{namespaces: namespaces, digest: id.Digest, name: id.Name, version: id.Version}), raftfsm.Linearizable)
	if err != nil {
		return pkgstore.Package{}, nil, err
	}
	p, err := decodeCatalogPage(b)
	if err != nil {
		return pkgstore.Package{}, nil, err
	}
	if len(p.records) == 0 {
		return pkgstore.Package{}, nil, fmt.Errorf("%w: answer of the catalog", errCodec)
	}
	pkg, err := decodePackage(p.records[0])
	if err != nil {
		return pkgstore.Package{}, nil, err
	}
	keys, err := keysOf(p.records[1:])
	return pkg, keys, err
}

func keysOf(records []record) (pkgstore.Keys, error) {
	keys := pkgstore.Keys{}
	for _, rec := range records {
		k, err := decodeTrust(rec)
		if err != nil {
			return nil, err
		}
		keys[pkgstore.KeyName{Namespace: k.Namespace, ID: k.ID}] = k
	}
	return keys, nil
}

// Keys implements pkgstore.Store.
func (s *Service) Keys(ctx context.Context, namespaces []string) (pkgstore.Keys, error) {
	b, err := s.askCatalog(ctx, encodeKeysQuery(namespaces), raftfsm.Linearizable)
	if err != nil {
		return nil, err
	}
	p, err := decodeCatalogPage(b)
	if err != nil {
		return nil, err
	}
	return keysOf(p.records)
}
