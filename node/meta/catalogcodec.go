package meta

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/pkgstore"
)

// Commands of the catalog: the second byte behind codecCatalog. What a build does not know stops its
// machine, as with all commands.
const (
	opBegin     = 1
	opChunk     = 2
	opDrop      = 3
	opSweep     = 4
	opPublish   = 5
	opYank      = 6
	opInstall   = 7
	opUninstall = 8
	opAddKey    = 9
	opRevokeKey = 10
	opMend      = 11
	opLast      = opMend
)

// catalogOutcome is what became of a command or a query of the catalog.
type catalogOutcome byte

const (
	catalogDone         catalogOutcome = 1
	catalogExisting     catalogOutcome = 2 // it was so already
	catalogSigned       catalogOutcome = 3 // a signature was added to what there was
	catalogUnknown      catalogOutcome = 4
	catalogConflict     catalogOutcome = 5
	catalogKey          catalogOutcome = 6 // no signature counts; the code says why
	catalogYanked       catalogOutcome = 7
	catalogBlocked      catalogOutcome = 8
	catalogNotInstalled catalogOutcome = 9
	catalogNoHistory    catalogOutcome = 10
	catalogDowngrade    catalogOutcome = 11
	catalogChanged      catalogOutcome = 12
	catalogConfusable   catalogOutcome = 13
	catalogUpload       catalogOutcome = 14
	catalogFull         catalogOutcome = 15
	catalogKeyExists    catalogOutcome = 16
	catalogNoKey        catalogOutcome = 17
	catalogMalformed    catalogOutcome = 18
	catalogRestoring    catalogOutcome = 19
	catalogOutcomeLast                 = catalogRestoring
)

// catalogResult answers a command.
type catalogResult struct {
	outcome catalogOutcome
	// number is the generation of an upload, or how many are left.
	number uint64
	// next is the chunk that an upload wants next.
	next uint32
	// code and message say why it was refused.
	code, message string
	// key and row are the record as it is now, where there is one.
	key string
	row []byte
}

type beginCommand struct {
	namespace string
	archive   pkgstore.Digest
	size      uint64
	// mostBytes bounds the archives of the catalog, as the proposing node is configured.
	mostBytes uint64
}

type chunkCommand struct {
	namespace  string
	archive    pkgstore.Digest
	generation uint64
	chunk      uint32
	data       []byte
}

type dropCommand struct {
	namespace  string
	archive    pkgstore.Digest
	generation uint64
}

// publishCommand makes a version of a package, with those of its signatures that count, or adds them to it.
type publishCommand struct {
	origin     string
	generation uint64 // of the archive's upload
	pkg        pkgstore.Package
}

type yankCommand struct {
	origin, namespace, name, version string
	yank                             pkgstore.Yank
}

// installCommand makes a version the one that a tenant uses.
type installCommand struct {
	origin, tenant, name, by string
	// ref is the version; empty for a rollback, which takes the last of the history.
	ref pkgstore.Ref
	// expect, when set, is the content digest that must be installed now; all zeros for none.
	expect *pkgstore.Digest
	// downgrade allows an older version than the installed one, locked one that was yanked.
	downgrade, locked, rollback bool
}

type uninstallCommand struct{ origin, tenant, name string }

type keyCommand struct {
	origin string
	key    pkgstore.Key
}

type revokeCommand struct {
	origin, namespace string
	key               pkgstore.Digest
	kind              pkgstore.Revocation
	reason            string
}

func catalogHeader(op byte) []byte { return []byte{codecCatalog, op} }

func encodeBegin(c beginCommand) []byte {
	b := appendArchive(catalogHeader(opBegin), c.namespace, c.archive)
	return binary.AppendUvarint(binary.AppendUvarint(b, c.size), c.mostBytes)
}

func readBegin(r *wire.Reader) (c beginCommand) {
	c.namespace, c.archive = readArchive(r)
	c.size, c.mostBytes = r.Uvarint(pkgstore.ArchiveBytesMax), r.Uvarint(math.MaxUint64)
	if c.size == 0 {
		r.Fail()
	}
	return c
}

// encodeChunk encodes opChunk or opMend.
func encodeChunk(op byte, c chunkCommand) []byte {
	b := make([]byte, 0, len(c.data)+128)
	b = appendArchive(append(b, catalogHeader(op)...), c.namespace, c.archive)
	b = binary.AppendUvarint(binary.AppendUvarint(b, c.generation), uint64(c.chunk))
	return append(b, c.data...)
}

func readChunk(r *wire.Reader) (c chunkCommand) {
	c.namespace, c.archive = readArchive(r)
	c.generation, c.chunk = r.Uvarint(math.MaxUint64), uint32(r.Uvarint(math.MaxUint32))
	c.data = r.Rest()
	return c
}

func encodeDrop(c dropCommand) []byte {
	return binary.AppendUvarint(appendArchive(catalogHeader(opDrop), c.namespace, c.archive), c.generation)
}

func readDrop(r *wire.Reader) (c dropCommand) {
	c.namespace, c.archive = readArchive(r)
	c.generation = r.Uvarint(math.MaxUint64)
	return c
}

func encodePublish(c publishCommand) []byte {
	b := wire.AppendString(catalogHeader(opPublish), c.origin)
	b = binary.AppendUvarint(b, c.generation)
	b = appendTexts(b, c.pkg.Namespace, c.pkg.Name, c.pkg.Version)
	return wire.AppendString(b, c.pkg.AppendValue(nil))
}

func readPublish(r *wire.Reader) (c publishCommand) {
	c.origin, c.generation = r.String(nameBytesMax), r.Uvarint(math.MaxUint64)
	c.pkg.Namespace, c.pkg.Name, c.pkg.Version = readName(r), r.String(pkgstore.NameBytesMax), r.String(pkgstore.VersionBytesMax)
	if strings.ContainsAny(c.pkg.Name, " @\x00") || strings.ContainsAny(c.pkg.Version, " @\x00") {
		r.Fail() // they are parts of keys
	}
	if c.pkg.DecodeValue(r.Bytes(rowValueBytesMax)) != nil || len(c.pkg.Signatures) == 0 || c.pkg.Name == "" || c.pkg.Version == "" {
		r.Fail()
	}
	return c
}

func encodeYank(c yankCommand) []byte {
	b := appendTexts(catalogHeader(opYank), c.origin, c.namespace, c.name, c.version)
	return wire.AppendString(append(b, byte(c.yank.Kind)), c.yank.Reason)
}

func readYank(r *wire.Reader) (c yankCommand) {
	c.origin, c.namespace = r.String(nameBytesMax), readName(r)
	c.name, c.version = r.String(pkgstore.NameBytesMax), r.String(pkgstore.VersionBytesMax)
	c.yank = pkgstore.Yank{Kind: pkgstore.YankKind(r.Byte(byte(pkgstore.Blocked))), Reason: r.String(pkgstore.TextBytesMax)}
	return c
}

const (
	installDowngrade = 1 << iota
	installLocked
	installRollback
	installExpects
	installFlags = 1<<iota - 1
)

func encodeInstall(c installCommand) []byte {
	var flags byte
	for flag, set := range map[byte]bool{ // any order: the bits are added up
		installDowngrade: c.downgrade, installLocked: c.locked, installRollback: c.rollback, installExpects: c.expect != nil,
	} {
		if set {
			flags |= flag
		}
	}
	b := appendTexts(catalogHeader(opInstall), c.origin, c.tenant, c.name, c.by)
	b = append(b, flags)
	if c.expect != nil {
		b = append(b, c.expect[:]...)
	}
	return append(appendTexts(b, c.ref.Version, c.ref.Namespace), c.ref.Digest[:]...)
}

func readInstall(r *wire.Reader) (c installCommand) {
	c.origin, c.tenant, c.name, c.by = r.String(nameBytesMax), readName(r), r.String(pkgstore.NameBytesMax), r.String(principalBytesMax)
	flags := r.Byte(installFlags)
	c.downgrade, c.locked, c.rollback = flags&installDowngrade != 0, flags&installLocked != 0, flags&installRollback != 0
	if flags&installExpects != 0 {
		d := pkgstore.Digest(r.Fixed(len(pkgstore.Digest{})))
		c.expect = &d
	}
	c.ref.Version, c.ref.Namespace = r.String(pkgstore.VersionBytesMax), r.String(nameBytesMax)
	c.ref.Digest = pkgstore.Digest(r.Fixed(len(c.ref.Digest)))
	return c
}

func encodeUninstall(c uninstallCommand) []byte {
	return appendTexts(catalogHeader(opUninstall), c.origin, c.tenant, c.name)
}

func readUninstall(r *wire.Reader) uninstallCommand {
	return uninstallCommand{origin: r.String(nameBytesMax), tenant: readName(r), name: r.String(pkgstore.NameBytesMax)}
}

func encodeAddKey(c keyCommand) []byte {
	b := appendArchive(wire.AppendString(catalogHeader(opAddKey), c.origin), c.key.Namespace, c.key.ID)
	return wire.AppendString(b, c.key.AppendValue(nil))
}

func readAddKey(r *wire.Reader) (c keyCommand) {
	c.origin = r.String(nameBytesMax)
	c.key.Namespace, c.key.ID = readArchive(r)
	if c.key.DecodeValue(r.Bytes(valueBytesMax)) != nil {
		r.Fail()
	}
	return c
}

func encodeRevokeKey(c revokeCommand) []byte {
	b := appendArchive(wire.AppendString(catalogHeader(opRevokeKey), c.origin), c.namespace, c.key)
	return wire.AppendString(append(b, byte(c.kind)), c.reason)
}

func readRevokeKey(r *wire.Reader) (c revokeCommand) {
	c.origin = r.String(nameBytesMax)
	c.namespace, c.key = readArchive(r)
	c.kind, c.reason = pkgstore.Revocation(r.Byte(byte(pkgstore.Compromised))), r.String(pkgstore.TextBytesMax)
	if c.kind == pkgstore.NotRevoked {
		r.Fail()
	}
	return c
}

// appendArchive appends a namespace and a digest.
func appendArchive(b []byte, namespace string, d pkgstore.Digest) []byte {
	return append(wire.AppendString(b, namespace), d[:]...)
}

func readArchive(r *wire.Reader) (namespace string, d pkgstore.Digest) {
	namespace = readName(r)
	return namespace, pkgstore.Digest(r.Fixed(len(d)))
}

// readName reads a namespace or tenant: rows are ordered by it, so it must not have what separates it.
func readName(r *wire.Reader) string {
	s := r.String(nameBytesMax)
	if s == "" {
		r.Fail()
	}
	for i := range len(s) {
		if s[i] <= ' ' {
			r.Fail()
		}
	}
	return s
}

func appendTexts(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = wire.AppendString(b, s)
	}
	return b
}

func encodeCatalogResult(res catalogResult) []byte {
	b := []byte{codecFirst, byte(res.outcome)}
	b = binary.AppendUvarint(binary.AppendUvarint(b, res.number), uint64(res.next))
	b = appendTexts(b, res.code, res.message, res.key)
	return append(b, res.row...)
}

func decodeCatalogResult(b []byte) (catalogResult, error) {
	r := wire.NewReader(b)
	v := r.Byte(codecFirst)
	res := catalogResult{outcome: catalogOutcome(r.Byte(byte(catalogOutcomeLast)))}
	res.number, res.next = r.Uvarint(math.MaxUint64), uint32(r.Uvarint(math.MaxUint32))
	res.code, res.message, res.key = r.String(nameBytesMax), r.String(valueBytesMax), r.String(catalogKeyBytesMax)
	res.row = r.Rest()
	if err := r.Done(); err != nil || v != codecFirst || res.outcome == 0 {
		return catalogResult{}, fmt.Errorf("%w: result of the catalog", errCodec)
	}
	return res, nil
}
