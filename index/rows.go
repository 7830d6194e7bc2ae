package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Sealed documents are replicated as their segment: a directory row, and its bytes in pieces.
const (
	tablePiece   = 'c' // first document, number of documents, number of the piece -> bytes
	tableLayout  = 'l' // -> version of what the state consists of
	tableSealing = 'p' // -> how far the writing of a segment has come
	tableSegment = 's' // first document -> segmentRow
)

// pieceBytes is how large the pieces of a segment are: as Pebble's blocks, so that a read of a block of
// the segment takes one or two.
const pieceBytes = 32 << 10

// Layouts of the state. A shard goes from one to a later one, never back.
const (
	// layoutSegments is the layout in which sealed documents are segments, and ids have no rows.
	layoutSegments = 1
	// layoutBatches is the layout in which documents that are not sealed are stored as their commands.
	layoutBatches = 2
	// layoutRetention is that in which documents may be disposed of, and their arrival is marked.
	layoutRetention = 2
	// layoutRandomTexts is the layout in which segments of heads are of the version that has random texts
	// beside their documents.
	layoutRandomTexts = 3
	layoutNewest      = 3
)

// formatOf is the version of the format that segments of heads have in a layout.
func formatOf(layout byte) byte {
	if layout >= layoutRandomTexts {
		return segment.Version
	}
	return segment.VersionTables
}

// newestFormat is the newest of the versions that segments have. What is made of segments of the state has it, so
// that it depends on the state alone.
func newestFormat(segments []segmentSource) byte {
	newest := byte(0)
	for _, s := range segments {
		newest = max(newest, s.Version())
	}
	return newest
}

// LayoutAt is the newest layout that builds of a level of the protocol know; 0 is the first.
func LayoutAt(level int) byte {
	switch {
	case level >= raftfsm.LevelRandomTexts:
		return layoutRandomTexts
	case level >= raftfsm.LevelBatches:
		return layoutBatches
	case level >= raftfsm.LevelSegments:
		return layoutSegments
	}
	return 0
}

// segmentRowMax bounds how long a row is.
const segmentRowMax = 1 << 12

// segmentRow says what a segment of the state is.
type segmentRow struct {
	docs   uint32 // numbers, gaps included
	size   uint64 // 0 when no document is left
	digest uint64 // segment.Digest
	// generation tells what is left of a segment from what was there before.
	generation byte
	// object is what a cold segment is called in the store, and kept which of its pieces the rows have.
	object, kept string
}

const (
	segmentRowVersion   = 1
	segmentRowRetention = 2 // one of which documents were disposed of
	segmentRowCold      = 3
	// objectNameMax bounds the names of objects, keptMax what says which pieces are kept.
	objectNameMax = 300
	keptMax       = 3000
	// generationMax is how far generations go; then they begin at 1 again.
	generationMax = 2
)

// next is the generation of what replaces the segment.
func (r segmentRow) next() byte { return r.generation%generationMax + 1 }

// tag tells the pieces of segments with the same first document apart.
func (r segmentRow) tag() uint32 { return r.docs | uint32(r.generation)<<24 }

func segmentKey(first uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableSegment}, first)
}

func (r segmentRow) encode() []byte {
	version := byte(segmentRowVersion)
	switch {
	case r.object != "":
		version = segmentRowCold
	case r.generation > 0:
		version = segmentRowRetention
	}
	b := binary.BigEndian.AppendUint32([]byte{version}, r.docs)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.size), r.digest)
	if version >= segmentRowRetention {
		b = append(b, r.generation)
	}
	if version == segmentRowCold {
		b = wire.AppendString(wire.AppendString(b, r.object), r.kept)
	}
	return b
}

func decodeSegmentRow(b []byte) (segmentRow, error) {
	if !(len(b) == 21 && b[0] == segmentRowVersion || len(b) == 22 && b[0] == segmentRowRetention || len(b) > 22 && b[0] == segmentRowCold) {
		return segmentRow{}, errors.New("index: the row of a segment is damaged, or newer than this build")
	}
	r := segmentRow{docs: binary.BigEndian.Uint32(b[1:]), size: binary.BigEndian.Uint64(b[5:]), digest: binary.BigEndian.Uint64(b[13:])}
	if b[0] >= segmentRowRetention {
		r.generation = b[21]
	}
	if b[0] == segmentRowCold {
		rest := wire.NewReader(b[22:])
		r.object, r.kept = rest.String(objectNameMax), rest.String(keptMax)
		if rest.Done() != nil || objectstore.CheckName(r.object) != nil || r.size == 0 {
			return segmentRow{}, errors.New("index: the row of a cold segment is damaged")
		}
		if _, err := r.runs(); err != nil {
			return segmentRow{}, err
		}
	}
	if r.docs == 0 || r.docs > segment.DocumentsMax || (r.size == 0) && b[0] == segmentRowVersion || r.generation > generationMax {
		return segmentRow{}, errors.New("index: the row of a segment is damaged")
	}
	return r, nil
}

// pieces is how many rows the bytes take.
func (r segmentRow) pieces() uint32 { return uint32((r.size + pieceBytes - 1) / pieceBytes) }

// pieceKey is the key of a piece of the segment with the tag.
func pieceKey(first uint64, tag, n uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{tablePiece}, first)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, tag), n)
}

// rowReaderAt reads a segment from its pieces.
type rowReaderAt struct {
	row   segmentRow
	first uint64
	read  func(key []byte, use func([]byte) error) error
}

// ReadAt implements io.ReaderAt.
func (r rowReaderAt) ReadAt(b []byte, at int64) (int, error) {
	done := 0
	for done < len(b) {
		pos := uint64(at) + uint64(done)
		if pos >= r.row.size {
			return done, io.EOF
		}
		err := r.piece(uint32(pos/pieceBytes), func(v []byte) error {
			done += copy(b[done:], v[pos%pieceBytes:])
			return nil
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// lend calls use with bytes of the segment, which Pebble has checked: without a copy when they are of one
// piece, as of most blocks they are.
func (r rowReaderAt) lend(at int64, size int, use func([]byte) error) error {
	pos, from := uint64(at)/pieceBytes, int(uint64(at)%pieceBytes)
	if from+size > pieceBytes {
		buf := lendBuffers.Get().(*[]byte)
		defer lendBuffers.Put(buf)
		*buf = slices.Grow((*buf)[:0], size)[:size]
		if _, err := r.ReadAt(*buf, at); err != nil {
			return err
		}
		return use(*buf)
	}
	return r.piece(uint32(pos), func(v []byte) error {
		if from+size > len(v) {
			return io.EOF
		}
		return use(v[from : from+size])
	})
}

// lendBuffers are for blocks of more than one piece.
var lendBuffers = sync.Pool{New: func() any { return new([]byte) }}

// piece calls use with a whole piece.
func (r rowReaderAt) piece(n uint32, use func([]byte) error) error {
	want := min(pieceBytes, int(r.row.size-uint64(n)*pieceBytes))
	err := r.read(pieceKey(r.first, r.row.tag(), n), func(v []byte) error {
		if len(v) != want {
			return fmt.Errorf("%w: piece %d has %d bytes, not %d", segment.ErrCorrupt, n, len(v), want)
		}
		return use(v)
	})
	switch {
	case errors.Is(err, raftfsm.ErrNotFound):
		err = fmt.Errorf("%w: piece %d is not there", segment.ErrCorrupt, n)
	case errors.Is(err, raftfsm.ErrCorrupt):
		err = fmt.Errorf("%w: piece %d: %w", segment.ErrCorrupt, n, err)
	}
	return err
}

// segmentData is where the bytes of an open segment are: first in a file of this node, then in rows
// of the state, when the log has come to that.
type segmentData struct {
	mu   sync.RWMutex
	r    io.ReaderAt
	next io.ReaderAt // where the bytes are about to be; nil unless they are
	file io.Closer   // nil for rows
	size int64
}

// Size is how many bytes there are.
func (d *segmentData) Size() int64 { return d.size }

// ReadAt implements io.ReaderAt.
func (d *segmentData) ReadAt(b []byte, at int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, err := d.r.ReadAt(b, at)
	if errors.Is(err, segment.ErrCorrupt) && d.next != nil {
		return d.next.ReadAt(b, at) // the rows were just removed
	}
	return n, err
}

// Checks implements segment.Lender: Pebble checks rows, nobody else a file.
func (d *segmentData) Checks() bool {
	_, rows := d.reader().(rowReaderAt)
	return rows
}

// Lend implements segment.Lender for rows, as far as they are there.
func (d *segmentData) Lend(at int64, n int, use func([]byte) error) error {
	if rows, ok := d.reader().(rowReaderAt); ok {
		used := false
		err := rows.lend(at, n, func(b []byte) error {
			used = true
			return use(b)
		})
		if used || !errors.Is(err, segment.ErrCorrupt) {
			return err
		}
	}
	b := make([]byte, n) // the segment has become a cold one
	if _, err := d.ReadAt(b, at); err != nil {
		return err
	}
	return use(b)
}

// Reread implements segment.Rereader for what is in an object store.
func (d *segmentData) Reread(at int64, n int) bool {
	cold, ok := d.reader().(*coldReaderAt)
	return ok && cold.reread(at, n)
}

// prepare says where the bytes will be.
func (d *segmentData) prepare(r io.ReaderAt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = r
}

func (d *segmentData) reader() io.ReaderAt {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.r
}

// move goes on with the same bytes elsewhere.
func (d *segmentData) move(r io.ReaderAt) error {
	d.mu.Lock()
	file := d.file
	d.r, d.next, d.file = r, nil, nil
	d.mu.Unlock()
	if file == nil {
		return nil
	}
	return file.Close()
}

// Close closes the file if it is one.
func (d *segmentData) Close() error {
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}

// openRows opens the segments of the state, which follow each other from document 0 on. Those that are damaged are
// noted; the caller holds mu, or is alone.
func (m *Machine) openRows(count uint64) (open []segmentSource, end uint64, err error) {
	it, err := m.store.NewIter([]byte{tableSegment}, []byte{tableSegment + 1})
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err = errors.Join(err, it.Close()); err != nil {
			err = errors.Join(err, releaseAll(open))
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return open, 0, err
		}
		row, err := decodeSegmentRow(v)
		if err == nil && (string(it.Key()) != string(segmentKey(end)) || end+uint64(row.docs) > count) {
			err = fmt.Errorf("index: the state has a segment %x in the place of document %d of %d", it.Key(), end, count)
		}
		if err != nil {
			return open, 0, err
		}
		if row.size == 0 {
			end += uint64(row.docs)
			continue
		}
		s, err := m.openRow(end, row, m.store.Read)
		if err == nil && s.Digest() != row.digest {
			err = errors.Join(fmt.Errorf("%w: it has another digest", segment.ErrCorrupt), s.release())
		}
		if errors.Is(err, segment.ErrCorrupt) {
			m.doubt(end, row, true)
			end += uint64(row.docs)
			continue
		}
		if err != nil {
			return open, 0, fmt.Errorf("index: the segment of the documents from %d on: %w", end, err)
		}
		s.stored = true
		open = append(open, segmentSource{s})
		end += uint64(row.docs)
	}
	return open, end, it.Error()
}

// openRow opens a segment of the state, whose rows are read through read.
func (m *Machine) openRow(first uint64, row segmentRow, read func(key []byte, use func([]byte) error) error) (*sealed, error) {
	r, err := m.readerOf(first, row, read)
	if err != nil {
		return nil, err
	}
	s, err := m.openData(&segmentData{r: r, size: int64(row.size)}, first, int(row.docs))
	if err == nil {
		s.cold.Store(row.object != "")
	}
	return s, err
}

// noteDeleted says where rows were, perhaps in an earlier process, of documents that are in segments of the state, which
// have numbers below end, and of segments that others have replaced or of which nothing is left.
func (m *Machine) noteDeleted(segments []segmentSource, end uint64) {
	if end == 0 || len(m.unsound) > 0 {
		return
	}
	m.store.Deleted(documentKey(0), documentKey(end))
	m.store.Deleted(batchKey(0), batchKey(end))
	next := uint64(0)
	for _, s := range segments {
		if !s.stored {
			break
		}
		if s.Base() > next {
			m.store.Deleted(pieceKey(next, 0, 0), pieceKey(s.Base(), 0, 0))
		}
		next = s.Base() + s.width
		if s.cold.Load() {
			m.noteDeletedOfCold(s.Base())
		}
		if int(s.width) > m.headDocuments {
			m.store.Deleted(pieceKey(s.Base()+1, 0, 0), pieceKey(next, 0, 0))
		}
	}
	if next < end {
		m.store.Deleted(pieceKey(next, 0, 0), pieceKey(end, 0, 0))
	}
}

// noteDeletedOfCold says which pieces of a cold segment were rows.
func (m *Machine) noteDeletedOfCold(first uint64) {
	row, err := m.rowOf(first)
	if err != nil {
		return // it was read a moment ago
	}
	runs, err := row.runs()
	if err != nil {
		return
	}
	at := uint32(0)
	for _, r := range append(runs, pieceRun{row.pieces(), row.pieces()}) {
		if at < r.from {
			m.store.Deleted(pieceKey(first, row.tag(), at), pieceKey(first, row.tag(), r.from))
		}
		at = r.to
	}
}

// readLayout reads what the state consists of.
func readLayout(get func([]byte) ([]byte, error)) (byte, error) {
	v, err := get([]byte{tableLayout})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v) != 1 || v[0] == 0 || v[0] > layoutNewest {
		return 0, fmt.Errorf("index: the state has layout %x, this build knows those up to %d", v, layoutNewest)
	}
	return v[0], nil
}

// setLayout changes the layout. From layoutSegments on new documents get no rows of ids, and those that are
// there are removed: who has an id is known from heads and segments.
func setLayout(tx *raftfsm.Tx, from, to byte) error {
	if err := tx.Set([]byte{tableLayout}, []byte{to}); err != nil || from >= layoutSegments {
		return err
	}
	return tx.DeleteRange([]byte{tableID}, []byte{tableID + 1})
}
