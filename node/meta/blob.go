package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Archives arrive in chunks, each its own command and row, under an id made of the namespace and the
// archive's SHA-256. Until a package has the archive it is an upload, which nobody sees and which
// expires; the command that publishes the package makes it a blob by moving one small row.

const (
	blobIDBytes = 16
	// uploadExpiry is how long an upload may rest, and how long readers of an archive have that no
	// package has any more; in microseconds of group time.
	uploadExpiry = 3600 * 1_000_000
	// sweepMost bounds the uploads that one sweep removes.
	sweepMost = 8
)

type blobID [blobIDBytes]byte

// blobIDOf keeps namespaces apart: who knows an archive's SHA-256 must not get at another tenant's.
func blobIDOf(namespace string, archive pkgstore.Digest) blobID {
	h := sha256.New()
	h.Write(append([]byte(namespace), 0))
	h.Write(archive[:])
	return blobID(h.Sum(nil)[:blobIDBytes])
}

// blob is an archive, or the part of it that has arrived.
type blob struct {
	namespace string
	archive   pkgstore.Digest
	size      uint64
	// generation is the log index at which it began to arrive: a later upload of the same archive is
	// another one.
	generation uint64
	// next is the chunk that is missing.
	next uint32
	// refs counts the packages that have it.
	refs uint32
	// touched is the group time of the last change, while it is an upload.
	touched int64
}

func chunksOf(size uint64) uint32 {
	return uint32((size + pkgstore.ChunkBytes - 1) / pkgstore.ChunkBytes)
}

func (b *blob) id() blobID { return blobIDOf(b.namespace, b.archive) }

func (b *blob) complete() bool { return b.next == chunksOf(b.size) }

func blobKey(space byte, id blobID) []byte { return append([]byte{space}, id[:]...) }

func chunkKey(id blobID, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(blobKey(spaceChunk, id), chunk)
}

func encodeBlob(b blob) []byte {
	row := wire.AppendString([]byte{rowVersion}, b.namespace)
	row = append(row, b.archive[:]...)
	for _, v := range [...]uint64{b.size, b.generation, uint64(b.next), uint64(b.refs), uint64(b.touched)} {
		row = binary.AppendUvarint(row, v)
	}
	return row
}

func decodeBlob(row []byte) (blob, error) {
	r := wire.NewReader(row)
	v := r.Byte(rowVersion)
	b := blob{
		namespace: r.String(nameBytesMax), archive: pkgstore.Digest(r.Fixed(len(pkgstore.Digest{}))),
		size: r.Uvarint(pkgstore.ArchiveBytesMax), generation: r.Uvarint(math.MaxUint64),
		next: uint32(r.Uvarint(math.MaxUint32)), refs: uint32(r.Uvarint(math.MaxUint32)), touched: int64(r.Uvarint(math.MaxInt64)),
	}
	if err := r.Done(); err != nil || v != rowVersion || b.next > chunksOf(b.size) {
		return blob{}, errRow("blob")
	}
	return b, nil
}

func decodeCount(row []byte) (uint64, error) {
	r := wire.NewReader(row)
	v, n := r.Byte(rowVersion), r.Uvarint(math.MaxUint64)
	if err := r.Done(); err != nil || v != rowVersion {
		return 0, errRow("count")
	}
	return n, nil
}

func encodeCount(n uint64) []byte { return binary.AppendUvarint([]byte{rowVersion}, n) }

// addBytes counts bytes of blobs that come or go.
func (x *catalogTx) addBytes(namespace string, by int64) error {
	if err := x.addCount([]byte{spaceBytes}, by); err != nil {
		return err
	}
	return x.addCount(append([]byte{spaceBytes}, namespace...), by)
}

// uploads visits the rows of uploads until f says stop.
func (x *catalogTx) uploads(f func(blob) (goOn bool, err error)) error {
	it, err := x.tx.NewIter([]byte{spaceUpload}, []byte{spaceUpload + 1})
	if err != nil {
		return fmt.Errorf("meta: uploads: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return errors.Join(fmt.Errorf("meta: uploads: %w", err), it.Close())
		}
		b, err := decodeBlob(v)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if goOn, err := f(b); err != nil || !goOn {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// findBlob finds an archive, first as a blob of a package, then as an upload.
func (x *catalogTx) findBlob(id blobID) (b blob, space byte, err error) {
	for _, space := range [...]byte{spaceBlob, spaceUpload} {
		b, ok, err := getRow(x.tx, blobKey(space, id), decodeBlob)
		if err != nil || ok {
			return b, space, err
		}
	}
	return blob{}, 0, nil
}

func (x *catalogTx) setBlob(space byte, b blob) error {
	if err := x.tx.Set(blobKey(space, b.id()), encodeBlob(b)); err != nil {
		return fmt.Errorf("meta: blob %s: %w", b.archive, err)
	}
	return nil
}

// beginUpload makes room for an archive, or finds how far it has come.
func (x *catalogTx) beginUpload(c beginCommand) (catalogResult, error) {
	id := blobIDOf(c.namespace, c.archive)
	b, space, err := x.findBlob(id)
	if err != nil {
		return catalogResult{}, err
	}
	if space != 0 && b.size != c.size {
		return x.refuse(catalogUpload, "an archive with this SHA-256 has %d bytes here, not %d", b.size, c.size), nil
	}
	if space == spaceUpload {
		b.touched = x.time
		return b.arrived(), x.setBlob(space, b)
	}
	if space != 0 {
		return b.arrived(), nil
	}
	if full, err := x.full(c); err != nil || full.outcome != 0 {
		return full, err
	}
	b = blob{namespace: c.namespace, archive: c.archive, size: c.size, generation: x.index, touched: x.time}
	return b.arrived(), x.setBlob(spaceUpload, b)
}

// full says why there is no room for another upload, if there is none. The bounds are those of the node
// that asks, and uploads count as if they were whole.
func (x *catalogTx) full(c beginCommand) (catalogResult, error) {
	count, countOne := 0, 0
	var size, sizeOne uint64
	err := x.uploads(func(b blob) (bool, error) {
		count, size = count+1, size+b.size
		if b.namespace == c.namespace {
			countOne, sizeOne = countOne+1, sizeOne+b.size
		}
		return true, nil
	})
	if err != nil {
		return catalogResult{}, err
	}
	all, _, err := getRow(x.tx, []byte{spaceBytes}, decodeCount)
	if err != nil {
		return catalogResult{}, err
	}
	one, _, err := getRow(x.tx, append([]byte{spaceBytes}, c.namespace...), decodeCount)
	if err != nil {
		return catalogResult{}, err
	}
	switch {
	case count >= pkgstore.UploadsMax:
		return x.refuse(catalogFull, "%d archives are on their way already, the most there may be", count), nil
	case countOne >= pkgstore.UploadsOfOneMax && c.namespace != pkgstore.Public:
		return x.refuse(catalogFull, "%d archives of tenant %s are on their way already, the most there may be", countOne, c.namespace), nil
	case all+size+c.size > c.mostBytes:
		return x.refuse(catalogFull, "the catalog has %d bytes of archives and may have %d; packages.bytes_max sets it", all+size, c.mostBytes), nil
	case c.namespace != pkgstore.Public && one+sizeOne+c.size > c.mostBytes/2:
		return x.refuse(catalogFull, "tenant %s has %d bytes of archives and may have %d, half of the catalog", c.namespace, one+sizeOne, c.mostBytes/2), nil
	}
	return catalogResult{}, nil
}

// arrived says how far an archive has come.
func (b *blob) arrived() catalogResult {
	return catalogResult{outcome: catalogDone, number: b.generation, next: b.next}
}

// putChunk takes the next chunk of an upload. One that is there is not looked at again: the archive's
// SHA-256 is compared before it is published.
func (x *catalogTx) putChunk(c chunkCommand) (catalogResult, error) {
	b, space, err := x.findBlob(blobIDOf(c.namespace, c.archive))
	switch {
	case err != nil:
		return catalogResult{}, err
	case space == spaceBlob:
		return b.arrived(), nil // another has published it meanwhile
	case space == 0 || b.generation != c.generation:
		return x.refuse(catalogUpload, "the upload is not known any more; begin it again"), nil
	case c.chunk < b.next:
		return b.arrived(), nil
	case c.chunk > b.next:
		r := x.refuse(catalogUpload, "the upload goes on at chunk %d, not %d", b.next, c.chunk)
		r.next = b.next
		return r, nil
	}
	return x.setChunk(b, space, c)
}

// mendChunk stores a chunk in the place of what is there. The node that asks has the whole archive and has
// compared its SHA-256; who sends chunk by chunk cannot ask for it.
func (x *catalogTx) mendChunk(c chunkCommand) (catalogResult, error) {
	b, space, err := x.findBlob(blobIDOf(c.namespace, c.archive))
	switch {
	case err != nil:
		return catalogResult{}, err
	case space == 0 || b.generation != c.generation || c.chunk > b.next:
		return x.refuse(catalogUpload, "the upload is not known any more; begin it again"), nil
	}
	return x.setChunk(b, space, c)
}

// setChunk stores the next chunk, or an earlier one again.
func (x *catalogTx) setChunk(b blob, space byte, c chunkCommand) (catalogResult, error) {
	if c.chunk >= chunksOf(b.size) {
		return x.refuse(catalogUpload, "the archive has %d chunks, and no chunk %d", chunksOf(b.size), c.chunk), nil
	}
	want := min(pkgstore.ChunkBytes, b.size-uint64(c.chunk)*pkgstore.ChunkBytes)
	if uint64(len(c.data)) != want {
		return x.refuse(catalogUpload, "chunk %d has %d bytes and must have %d", c.chunk, len(c.data), want), nil
	}
	if err := x.tx.Set(chunkKey(b.id(), c.chunk), c.data); err != nil {
		return catalogResult{}, fmt.Errorf("meta: chunk of %s: %w", c.archive, err)
	}
	if space == spaceUpload {
		b.next, b.touched = max(b.next, c.chunk+1), x.time
	}
	return b.arrived(), x.setBlob(space, b)
}

// dropUpload removes an upload that will not be published.
func (x *catalogTx) dropUpload(c dropCommand) (catalogResult, error) {
	id := blobIDOf(c.namespace, c.archive)
	b, ok, err := getRow(x.tx, blobKey(spaceUpload, id), decodeBlob)
	if err == nil && ok && b.generation == c.generation {
		err = x.remove(b)
	}
	return catalogResult{outcome: catalogDone}, err
}

// remove removes an upload and its chunks.
func (x *catalogTx) remove(b blob) error {
	id := b.id()
	err := x.tx.Delete(blobKey(spaceUpload, id))
	if err == nil {
		err = x.tx.DeleteRange(chunkKey(id, 0), chunkKey(id, math.MaxUint32))
	}
	if err != nil {
		return fmt.Errorf("meta: remove upload %s: %w", b.archive, err)
	}
	return nil
}

// sweep removes uploads that have expired; the number says how many are left.
func (x *catalogTx) sweep() (catalogResult, error) {
	var expired []blob
	left := uint64(0)
	err := x.uploads(func(b blob) (bool, error) {
		if x.time-b.touched >= uploadExpiry && len(expired) < sweepMost {
			expired = append(expired, b)
		} else {
			left++
		}
		return true, nil
	})
	for _, b := range expired {
		err = errors.Join(err, x.remove(b))
	}
	return catalogResult{outcome: catalogDone, number: left}, err
}

// take gives a package an archive: an upload becomes a blob.
func (x *catalogTx) take(b blob, space byte) error {
	if space == spaceUpload {
		if err := x.tx.Delete(blobKey(spaceUpload, b.id())); err != nil {
			return fmt.Errorf("meta: blob %s: %w", b.archive, err)
		}
		if err := x.addBytes(b.namespace, int64(b.size)); err != nil {
			return err
		}
		b.touched = 0
	}
	b.refs++
	return x.setBlob(spaceBlob, b)
}

// release takes an archive from a package. Without any it is an upload again, and expires as one.
func (x *catalogTx) release(namespace string, archive pkgstore.Digest) error {
	id := blobIDOf(namespace, archive)
	b, ok, err := getRow(x.tx, blobKey(spaceBlob, id), decodeBlob)
	if err != nil || !ok {
		return err
	}
	if b.refs--; b.refs > 0 {
		return x.setBlob(spaceBlob, b)
	}
	if err := x.tx.Delete(blobKey(spaceBlob, id)); err != nil {
		return fmt.Errorf("meta: blob %s: %w", archive, err)
	}
	if err := x.addBytes(namespace, -int64(b.size)); err != nil {
		return err
	}
	b.touched = x.time
	return x.setBlob(spaceUpload, b)
}

// restorableBlob checks a row of an archive in a backup. Of chunks only those are taken whose blob is
// there: the ranges of a backup have blobs first.
func restorableBlob(tx *raftfsm.Tx, row raftfsm.Row) (keep bool, err error) {
	k := row.Key
	switch {
	case k[0] == spaceBlob && len(k) == 1+blobIDBytes:
		b, err := decodeBlob(row.Value)
		if id := b.id(); err == nil && (!bytes.Equal(id[:], k[1:]) || !b.complete()) {
			err = errRow("blob")
		}
		return true, err
	case k[0] == spaceChunk && len(k) == 1+blobIDBytes+4 && len(row.Value) > 0 && len(row.Value) <= pkgstore.ChunkBytes:
		_, ok, err := getRow(tx, blobKey(spaceBlob, blobID(k[1:1+blobIDBytes])), decodeBlob)
		return ok, err
	case k[0] == spaceBytes && len(k) <= 1+nameBytesMax:
		_, err := decodeCount(row.Value)
		return true, err
	}
	return false, errors.New("it is no part of an archive")
}
