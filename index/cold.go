package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/objectstore"
)

// A cold segment has its bytes in an object store. Its rows keep the pieces by which it is opened, ids are looked up and
// tenants told apart, so that nothing that entries do needs the store; the rest is read of the object when a search
// wants it.

// awayPause is how long background work waits for a store that cannot be read.
const awayPause = 5 * time.Second

// coldGroups are the groups of terms of which a cold segment keeps everything in its rows.
const coldGroups = groupID + groupTenant

// pieceRun is pieces that follow each other, from from on and before to.
type pieceRun struct{ from, to uint32 }

// encodeRuns is how a row says which pieces are kept.
func encodeRuns(runs []pieceRun) string {
	var b []byte
	at := uint32(0)
	for _, r := range runs {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.from-at)), uint64(r.to-r.from))
		at = r.to
	}
	return string(b)
}

// runs are the pieces of the segment that its rows have; all of them, unless it is cold.
func (r segmentRow) runs() ([]pieceRun, error) {
	if r.object == "" {
		return []pieceRun{{0, r.pieces()}}, nil
	}
	var runs []pieceRun
	at := uint64(0)
	for b := []byte(r.kept); len(b) > 0; {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errRuns
		}
		length, w := binary.Uvarint(b[n:])
		if w <= 0 || length == 0 || gap > 1<<31 || length > 1<<31 || at+gap+length > uint64(r.pieces()) || len(runs) > 0 && gap == 0 {
			return nil, errRuns
		}
		runs = append(runs, pieceRun{uint32(at + gap), uint32(at + gap + length)})
		at, b = at+gap+length, b[n+w:]
	}
	return runs, nil
}

var errRuns = errors.New("index: the row of a segment is damaged: which pieces it keeps")

// runsOf are the pieces that spans touch.
func runsOf(spans []segment.Span) (runs []pieceRun) {
	for _, s := range spans {
		if s.From == s.To {
			continue
		}
		from, to := uint32(s.From/pieceBytes), uint32((s.To-1)/pieceBytes)+1
		if last := len(runs) - 1; last >= 0 && from <= runs[last].to {
			runs[last].to = max(runs[last].to, to)
			continue
		}
		runs = append(runs, pieceRun{from, to})
	}
	return runs
}

// spansOf are the bytes of pieces.
func spansOf(runs []pieceRun, size int64) (spans []segment.Span) {
	for _, r := range runs {
		spans = append(spans, segment.Span{From: int64(r.from) * pieceBytes, To: min(size, int64(r.to)*pieceBytes)})
	}
	return spans
}

// UseObjects has the machine read cold segments through a cache; it is called before Load. Without it they are
// missing in answers.
func (m *Machine) UseObjects(c *objectstore.Cache) { m.objects = c }

// readerOf reads a segment of the state, through read as rowReaderAt.
func (m *Machine) readerOf(first uint64, row segmentRow, read func(key []byte, use func([]byte) error) error) (io.ReaderAt, error) {
	rows := rowReaderAt{row: row, first: first, read: read}
	if row.object == "" {
		return rows, nil
	}
	runs, err := row.runs()
	return &coldReaderAt{rows: rows, runs: runs, objects: m.objects}, err
}

// coldReaderAt reads a cold segment.
type coldReaderAt struct {
	rows    rowReaderAt
	runs    []pieceRun
	objects *objectstore.Cache // nil without a store
}

// kept tells whether the rows have a piece, and up to which one that is so.
func (r *coldReaderAt) kept(n uint32) (ok bool, until uint32) {
	for _, run := range r.runs {
		switch {
		case n < run.from:
			return false, run.from
		case n < run.to:
			return true, run.to
		}
	}
	return false, r.rows.row.pieces()
}

// ReadAt implements io.ReaderAt.
func (r *coldReaderAt) ReadAt(b []byte, at int64) (int, error) {
	row := r.rows.row
	for done := 0; done < len(b); {
		pos := at + int64(done)
		if pos >= int64(row.size) {
			return done, io.EOF
		}
		kept, until := r.kept(uint32(pos / pieceBytes))
		part := b[done:min(int64(len(b)), int64(done)+min(int64(until)*pieceBytes, int64(row.size))-pos)]
		var err error
		switch {
		case kept:
			_, err = r.rows.ReadAt(part, pos)
		case r.objects == nil:
			err = fmt.Errorf("%w: no store for cold segments is configured on this node", objectstore.ErrUnavailable)
		default:
			err = r.objects.ReadAt(row.object, int64(row.size), part, pos)
		}
		if err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(b), nil
}

// reread has the cache forget a part of the object.
func (r *coldReaderAt) reread(at int64, n int) bool {
	if r.objects == nil {
		return false
	}
	r.objects.Drop(r.rows.row.object, at, n)
	return true
}

// coldError means that a segment cannot be read now for want of its object.
type coldError struct {
	base uint64
	err  error
}

func (e *coldError) Error() string {
	return fmt.Sprintf("index: the cold segment of the documents from %d on: %v", e.base, e.err)
}
func (e *coldError) Unwrap() error { return e.err }

// isAway tells whether an error means that an object cannot be read.
func isAway(err error) bool {
	return errors.Is(err, objectstore.ErrUnavailable) || errors.Is(err, objectstore.ErrNotFound)
}

// away is the cold segments that an answer lacks.
type away struct {
	bases []uint64
	all   bool // all cold segments
}

// add notes one more. The second time all are given up, so that a search begins anew twice at most.
func (a *away) add(base uint64) {
	a.all = len(a.bases) > 0
	a.bases = append(a.bases, base)
}

func (a *away) any() bool { return len(a.bases) > 0 }

// split takes the segments that are given up out of the sources.
func (a *away) split(sources []source) (left []source, gone []segmentSource) {
	for _, s := range sources {
		if seg, ok := s.(segmentSource); ok && (a.all && seg.cold.Load() || slices.Contains(a.bases, seg.Base())) {
			gone = append(gone, seg)
			continue
		}
		left = append(left, s)
	}
	return left, gone
}

// missingOfAway says what an answer without these segments lacks.
func missingOfAway(gone []segmentSource) string {
	docs, newest, oldest := 0, int64(0), int64(openEnd)
	for _, s := range gone {
		docs += s.Len()
		newest, oldest = max(newest, s.Newest()), min(oldest, s.Oldest())
	}
	day := func(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339) }
	return fmt.Sprintf("%d cold segments with %d documents of the times %s to %s", len(gone), docs, day(oldest), day(newest))
}

// hasOf tells whether a document of the tenant is among those of a posting; of a cold segment the rows know.
func (s *sealed) hasOf(p segment.Posting, tenant string) (bool, error) {
	own, err := bitmapOf(segmentLeaves{s.Segment}, groupTenant, tenant)
	if err != nil {
		return false, err
	}
	bm, err := p.Bitmap()
	return err == nil && roaring.And(own, bm).GetCardinality() > 0, err
}

// Cold is how many segments of this replica are cold ones.
func (m *Machine) Cold() (n int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.segments {
		if s.cold.Load() {
			n++
		}
	}
	return n
}

// ObjectsDamaged counts reads that found wrong bytes in an object since the process started.
func (m *Machine) ObjectsDamaged() uint64 { return m.objectsDamaged.Load() }
