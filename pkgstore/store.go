package pkgstore

import "context"

// Store keeps the catalog's records in one replicated state machine; node/meta is one. Every command may be
// repeated, and judges keys, versions and yanks itself, at the moment at which it takes effect; queries are
// linearizable, but for Chunk, whose answers never change. Refusals are the errors of this package and
// *mwpkg.Error for signatures that do not count.
type Store interface {
	// BeginUpload makes room for an archive, or finds how far it has come; ErrFull beyond so many bytes.
	BeginUpload(ctx context.Context, u Upload, mostBytes uint64) (Progress, error)
	// PutChunk stores the next chunk.
	PutChunk(ctx context.Context, u Upload, generation uint64, chunk uint32, data []byte) (Progress, error)
	// MendChunk stores a chunk, the next or an earlier one, in the place of what is there, published or not. Only
	// who has seen the whole archive and its SHA-256 may call it.
	MendChunk(ctx context.Context, u Upload, generation uint64, chunk uint32, data []byte) (Progress, error)
	// DropUpload forgets an upload, unless it was published.
	DropUpload(ctx context.Context, u Upload, generation uint64) error
	// Chunk reads a part of an archive, as this node's replica has it: who reads it compares SHA-256 with a record.
	Chunk(ctx context.Context, u Upload, chunk uint32) ([]byte, error)
	// UploadedChunk reads a part of an archive as it is now, linearizable: of an upload that was dropped and begun
	// anew, a replica may still have the former bytes.
	UploadedChunk(ctx context.Context, u Upload, chunk uint32) ([]byte, error)
	// Publish makes p, which has one signature, of an upload.
	Publish(ctx context.Context, p Package, generation uint64) (Package, Published, error)
	Yank(ctx context.Context, namespace, name, version string, y Yank) (Package, error)
	// Install changes what a tenant uses; false when it was so already.
	Install(ctx context.Context, c InstallChange) (Install, bool, error)
	Uninstall(ctx context.Context, tenant, name string) error
	AddKey(ctx context.Context, k Key) (Key, error)
	RevokeKey(ctx context.Context, namespace string, id Digest, kind Revocation, reason string) (Key, error)
	// Packages lists packages of some namespaces, or of all without any, behind a key; next is the key
	// behind which more follow, or empty.
	Packages(ctx context.Context, namespaces []string, f Filter, after string, limit int) (all []Package, next string, err error)
	Installs(ctx context.Context, q InstallQuery, after string, limit int) (all []Install, next string, err error)
	// Resolve finds a package in the first namespace that has it, and the keys that judge its signatures.
	Resolve(ctx context.Context, namespaces []string, id ID) (Package, Keys, error)
	// Keys are the trust keys of some namespaces, or of all without any.
	Keys(ctx context.Context, namespaces []string) (Keys, error)
}

// Upload names an archive on its way to a namespace.
type Upload struct {
	Namespace string
	Archive   Digest
	Size      uint64
}

// Chunks is how many chunks the archive has.
func (u Upload) Chunks() uint32 { return uint32((u.Size + ChunkBytes - 1) / ChunkBytes) }

// Progress is how far an upload has come.
type Progress struct {
	// Generation tells it from an earlier upload of the same archive.
	Generation uint64
	// Next is the chunk that is missing; all are there when it is the number of chunks.
	Next uint32
}

// Published is what became of a package that was published.
type Published byte

// What became of it.
const (
	PublishedNew       Published = 1
	PublishedSignature Published = 2 // it was there, and got a further signature
	PublishedBefore    Published = 3 // it was there as it is
)

var publishedNames = [...]string{"", "created", "signed", "existing"}

func (p Published) String() string { return publishedNames[p] }

// InstallChange makes a version the one that a tenant uses.
type InstallChange struct {
	Tenant, Name, By string
	// Ref is the version; not for a rollback, which takes the one before.
	Ref Ref
	// Expect, when set, is the content that must be installed now: all zeros for none.
	Expect *Digest
	// Downgrade allows a version older than the installed one; Locked one that was yanked, since a lock file
	// names its content.
	Downgrade, Locked, Rollback bool
}

// InstallQuery keeps some installs of a list; empty fields keep all.
type InstallQuery struct {
	Tenant, Name string
	Ref          *Ref
}

// ID names a package: by its content, by name and version, or by name alone, which is its latest version that was
// not taken back.
type ID struct {
	Digest        *Digest
	Name, Version string
}
