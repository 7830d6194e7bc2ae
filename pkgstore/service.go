package pkgstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// opensMax bounds the archives that are in memory to be verified, besides those that callers send: each
// may be 32 MiB, and its content as much.
const opensMax = 4

// Pacer makes uploads give way to checks; *elastic.Pacer is one.
type Pacer interface {
	Enter(bytes int) error
	Wait(ctx context.Context, bytes int) error
	Leave(bytes int)
}

// Options are what a Service is made of; all count.
type Options struct {
	Store    Store
	Receipts Receipts
	Pacer    Pacer
	// Clock is the node's wall clock. It only tells early what the store decides by the region's time.
	Clock func() time.Time
	// CursorKey is the region's secret that authenticates cursors; false while this node does not know it.
	CursorKey func() ([]byte, bool)
	// BytesMax bounds the archives of the catalog.
	BytesMax uint64
	Metrics  prometheus.Registerer
}

// Service is the catalog as callers use it. Whose a namespace is, and who may call, is the caller's duty;
// a package of another namespace than those named is not there.
type Service struct {
	store    Store
	receipts Receipts
	pacer    Pacer
	clock    func() time.Time
	cursors  func() ([]byte, bool)
	bytesMax uint64
	metrics  *metrics
	opens    chan struct{}
}

// NewService makes a service.
func NewService(o Options) *Service {
	return &Service{
		store: o.Store, receipts: o.Receipts, pacer: o.Pacer, clock: o.Clock, cursors: o.CursorKey, bytesMax: o.BytesMax,
		metrics: newMetrics(o.Metrics), opens: make(chan struct{}, opensMax),
	}
}

// Namespaces are where a tenant's packages are looked for, its own first; Public has its own alone.
func Namespaces(tenant string) []string { return namespacesOf(tenant) }

// CursorKey authenticates the cursors of lists, which callers make; false while this node does not know it.
func (s *Service) CursorKey() ([]byte, bool) { return s.cursors() }

// Get finds a package and what its signatures are worth now.
func (s *Service) Get(ctx context.Context, namespaces []string, id ID) (Package, Keys, error) {
	return s.store.Resolve(ctx, namespaces, id)
}

// List is a page of packages.
func (s *Service) List(ctx context.Context, namespaces []string, f Filter, after string, limit int) ([]Package, string, error) {
	return s.store.Packages(ctx, namespaces, f, after, limit)
}

// Yank takes a version back.
func (s *Service) Yank(ctx context.Context, namespaces []string, id ID, y Yank) (Package, error) {
	p, _, err := s.store.Resolve(ctx, namespaces, id)
	if err != nil {
		return Package{}, err
	}
	return s.store.Yank(ctx, p.Namespace, p.Name, p.Version, y)
}

// Content is part of a package's archive, from an offset, at most most bytes, and the package that it is of.
// Chunks never change, so a download can go on where it was, as long as the archive is the same.
func (s *Service) Content(ctx context.Context, p *Package, offset uint64, most int) ([]byte, error) {
	if p.Yank.Kind == Blocked {
		return nil, refuse(ErrBlocked, "%s is blocked for its security: %s", p.ID(), p.Yank.Reason)
	}
	out := make([]byte, 0, min(uint64(most), p.Size-min(offset, p.Size)))
	for u := p.upload(); offset < p.Size && len(out) < cap(out); {
		chunk, err := s.store.Chunk(ctx, u, uint32(offset/ChunkBytes))
		if err != nil {
			return nil, err
		}
		within := offset % ChunkBytes
		if uint64(len(chunk)) <= within {
			return nil, refuse(ErrContent, "a chunk of %s is shorter than it was", p.ID())
		}
		part := chunk[within:]
		part = part[:min(len(part), cap(out)-len(out))]
		out = append(out, part...)
		offset += uint64(len(part))
	}
	return out, nil
}

func (p *Package) upload() Upload {
	return Upload{Namespace: p.Namespace, Archive: p.Archive, Size: p.Size}
}

// archive reads an archive whole by one of the store's reads. release must be called when it is done with.
func (s *Service) archive(ctx context.Context, u Upload, read func(context.Context, Upload, uint32) ([]byte, error)) (data []byte, release func(), err error) {
	select {
	case s.opens <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	release = func() { <-s.opens }
	data = make([]byte, 0, u.Size)
	for i := range u.Chunks() {
		chunk, err := read(ctx, u, i)
		if err != nil {
			release()
			return nil, nil, err
		}
		data = append(data, chunk...)
	}
	return data, release, nil
}

// open reads and opens a package that the catalog has, and makes sure that it is what was published.
// Signatures are another matter.
func (s *Service) open(ctx context.Context, p *Package) (*mwpkg.Package, error) {
	data, release, err := s.archive(ctx, p.upload(), s.store.Chunk)
	if err != nil {
		return nil, err
	}
	defer release()
	if sha256.Sum256(data) != p.Archive {
		return nil, refuse(ErrContent, "the archive of %s is not the one that was published", p.ID())
	}
	opened, err := mwpkg.Open(data)
	if err != nil {
		return nil, refuse(ErrContent, "the archive of %s cannot be opened any more: %v", p.ID(), err)
	}
	if opened.Digest != p.Digest || opened.Manifest.Ref().String() != p.ID() {
		return nil, refuse(ErrContent, "the content of %s is not the one that was published", p.ID())
	}
	return opened, nil
}

// verify opens a package of the catalog, judges it by the keys of this moment, and leaves a receipt.
func (s *Service) verify(ctx context.Context, stage Stage, tenant, by string, p *Package, keys Keys) (*mwpkg.Package, error) {
	began := s.clock()
	opened, key, err := s.judge(ctx, p, keys)
	s.note(stage, began)
	if err != nil && !refused(err) {
		return nil, err // it was not verified
	}
	r := Receipt{Stage: stage, Tenant: tenant, Package: p.ID(), Digest: p.Digest, Archive: p.Archive, Key: key, By: by}
	s.record(r, err)
	return opened, err
}

func (s *Service) judge(ctx context.Context, p *Package, keys Keys) (*mwpkg.Package, Digest, error) {
	if p.Yank.Kind == Blocked {
		return nil, Digest{}, refuse(ErrBlocked, "%s is blocked for its security: %s", p.ID(), p.Yank.Reason)
	}
	if _, err := keys.JudgeSignatures(p); err != nil {
		return nil, Digest{}, err // before 32 MiB are read
	}
	opened, err := s.open(ctx, p)
	if err != nil {
		return nil, Digest{}, err
	}
	var last error
	for _, sig := range p.Signatures {
		key, err := keys.Judge(p.Namespace, p.Name, sig.Key, sig.At)
		if err == nil {
			err = key.check(p.Name, opened.Sums(), mwpkg.Signature{KeyID: sig.Key, Value: sig.Bytes}, sig.At)
		}
		if err == nil {
			return opened, key.ID, nil
		}
		last = err
	}
	return nil, Digest{}, last
}

// refused tells whether an error says that a package is not good, rather than that nobody knows.
func refused(err error) bool {
	var e *mwpkg.Error
	var r *refusal
	return errors.As(err, &e) || errors.As(err, &r)
}

// record leaves a receipt.
func (s *Service) record(r Receipt, err error) {
	r.At = s.clock().UnixNano()
	if r.Tenant == Public {
		r.Tenant = PlatformTenant
	}
	if err != nil {
		r.Reason, r.Message = Reason(err), err.Error()
	}
	s.receipts.Record(r)
}

// Reason is the code of a refusal.
func Reason(err error) string {
	var e *mwpkg.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	for kind, name := range reasonNames {
		if errors.Is(err, kind) {
			return name
		}
	}
	return "refused"
}

var reasonNames = map[error]string{
	ErrUnknown: "package_unknown", ErrConflict: "version_conflict", ErrYanked: "version_yanked", ErrBlocked: "version_blocked",
	ErrContent: "content_damaged", ErrConfusable: "name_confusable", ErrCapabilities: "capabilities_new", ErrDowngrade: "version_older",
}
