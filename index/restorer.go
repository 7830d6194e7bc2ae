package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// restorer stores the rows of segments of a backup. Pieces are stored as they come; the directory row
// that follows them makes a segment of them, which is read whole first.
type restorer struct {
	*applier
	opened []segmentSource
	// directory are the rows of those that are opened.
	directory []segmentRow
	width     uint64 // numbers of these segments, and of those of which nothing is left
	// Whether documents that are stored together have come; unless known, earlier steps may have brought some.
	batches, known bool
}

func (r *restorer) row(row raftfsm.Row) error {
	if err := r.raise(); err != nil {
		return err
	}
	switch {
	case row.Key[0] == tableMark:
		k, err := decodeMark(row.Key, row.Value)
		if err == nil && k.number > r.next {
			err = fmt.Errorf("index: a mark of arrivals is of document %d, which is not there", k.number)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", raftfsm.ErrRestoreRefused, err)
		}
		return r.tx.Set(row.Key, row.Value)
	case row.Key[0] == tablePiece && len(row.Key) == 17 && len(row.Value) > 0 && len(row.Value) <= pieceBytes:
		return r.tx.Set(row.Key, row.Value)
	case row.Key[0] == tableSegment && string(row.Key) == string(segmentKey(r.next)) && len(r.stored) == 0 && r.m.moved+r.width == r.next:
		return r.segment(row)
	case string(row.Key) == string(batchKey(r.next)):
		return r.batch(row)
	}
	return fmt.Errorf("%w: the row %x is in the place of document %d", raftfsm.ErrRestoreRefused, row.Key, r.next)
}

// raise sets the newest layout. A restore begins only when all members know it.
func (r *restorer) raise() error {
	if r.layout >= layoutNewest {
		return nil
	}
	return r.changeLayout(layoutNewest)
}

// batch takes documents that are stored together.
func (r *restorer) batch(row raftfsm.Row) error {
	docs, err := decodeCommand(row.Value)
	heads := uint64(r.m.headDocuments)
	if err != nil || len(docs) == 0 || r.next/heads != (r.next+uint64(len(docs))-1)/heads {
		return fmt.Errorf("%w: the documents from %d on cannot be read", raftfsm.ErrRestoreRefused, r.next)
	}
	for _, enc := range docs {
		if err := r.document(enc); err != nil {
			return err
		}
	}
	r.batches, r.known = true, true
	return r.tx.Set(row.Key, row.Value)
}

// ownRow takes a document that has a row of its own; none follows those that are stored together.
func (r *restorer) ownRow(row raftfsm.Row) error {
	if !r.known {
		var err error
		if r.batches, err = hasBatches(r.tx); err != nil {
			return err
		}
		r.known = true
	}
	if r.batches || string(row.Key) != string(documentKey(r.next)) {
		return fmt.Errorf("%w: the row %x is in the place of document %d", raftfsm.ErrRestoreRefused, row.Key, r.next)
	}
	if len(row.Value) == 0 {
		if err := r.raise(); err != nil {
			return err
		}
	}
	if r.layout >= layoutBatches {
		if err := r.tx.Set(row.Key, row.Value); err != nil {
			return err
		}
	}
	return r.document(row.Value)
}

// document takes one, or without bytes the place of one that was disposed of.
func (r *restorer) document(enc []byte) error {
	if len(enc) == 0 {
		r.stored, r.rows = append(r.stored, Document{}), append(r.rows, nil)
		r.next++
		return nil
	}
	d, err := DecodeDocument(enc)
	if err != nil || !indexable(&d) {
		return fmt.Errorf("%w: document %d cannot be read", raftfsm.ErrRestoreRefused, r.next)
	}
	r.docs = append(r.docs[:0], d)
	r.mayBeTaken()
	_, found, err := r.lookup(&d, r.taken[0])
	if err != nil {
		return err
	}
	if found {
		return fmt.Errorf("%w: document %d has the id of an earlier one", raftfsm.ErrRestoreRefused, r.next)
	}
	return r.store(enc, &d)
}

// segment takes a segment whose pieces are there.
func (r *restorer) segment(row raftfsm.Row) error {
	what, err := decodeSegmentRow(row.Value)
	if err != nil {
		return fmt.Errorf("%w: %w", raftfsm.ErrRestoreRefused, err)
	}
	if what.size == 0 {
		r.next, r.width = r.next+uint64(what.docs), r.width+uint64(what.docs)
		return r.tx.Set(row.Key, row.Value)
	}
	read := func(key []byte, use func([]byte) error) error {
		v, err := r.tx.Get(key)
		if err != nil {
			return err
		}
		return use(v)
	}
	s, err := r.m.openRow(r.next, what, read)
	if err == nil {
		s.stored = true
		r.opened, r.width = append(r.opened, segmentSource{s}), r.width+s.width
		r.directory = append(r.directory, what)
		runs, runsErr := what.runs()
		if runsErr != nil {
			return runsErr
		}
		// What of a cold segment is in the store is checked when it is read.
		if err = s.ScrubWithin(spansOf(runs, int64(what.size)), func(int) error { return nil }); err == nil && s.Digest() != what.digest {
			err = fmt.Errorf("%w: it has another digest", segment.ErrCorrupt)
		}
	}
	if errors.Is(err, segment.ErrCorrupt) || errors.Is(err, segment.ErrVersion) {
		return fmt.Errorf("%w: the segment of the documents from %d on: %w", raftfsm.ErrRestoreRefused, r.next, err)
	}
	if err != nil {
		return err
	}
	r.next += uint64(what.docs)
	return r.tx.Set(row.Key, row.Value)
}

// finish lists the segments when they are committed.
func (r *restorer) finish() error {
	if r.width == 0 {
		return nil
	}
	for i, s := range r.opened {
		row, first := r.directory[i], s.Base()
		committed, err := r.m.readerOf(first, row, r.m.store.Read)
		if err != nil {
			return err
		}
		r.tx.OnCommit(func() { _ = s.file.move(committed) }) // there is no file to close
	}
	end := r.m.moved + r.width
	r.tx.OnCommit(func() { r.m.restored(r.opened, end) })
	return r.tx.Set([]byte{tableCount}, binary.BigEndian.AppendUint64(nil, r.next))
}

// restored lists segments that were restored; the documents behind them are in the head that is
// published next.
func (m *Machine) restored(fresh []segmentSource, end uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.segments = append(m.segments[:len(m.segments):len(m.segments)], fresh...)
	m.moved, m.docs, m.active = end, end, newHead(end)
	m.changed.Broadcast()
}
