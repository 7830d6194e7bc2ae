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
	rows   []segmentRow
	width  uint64 // numbers of these segments, and of those of which nothing is left
}

func (r *restorer) row(row raftfsm.Row) error {
	layout := byte(layoutSegments)
	if row.Key[0] == tableMark || row.Key[0] == tableSegment && len(row.Value) > 0 && row.Value[0] == segmentRowRetention {
		layout = layoutRetention
	}
	if err := r.raise(layout); err != nil {
		return err
	}
	switch {
	case row.Key[0] == tableMark:
		if _, err := decodeMark(row.Key, row.Value); err != nil {
			return fmt.Errorf("%w: %w", raftfsm.ErrRestoreRefused, err)
		}
		return r.tx.Set(row.Key, row.Value)
	case row.Key[0] == tablePiece && len(row.Key) == 17 && len(row.Value) > 0 && len(row.Value) <= pieceBytes:
		return r.tx.Set(row.Key, row.Value)
	case row.Key[0] == tableSegment && string(row.Key) == string(segmentKey(r.next)) && len(r.stored) == 0 && r.m.moved+r.width == r.next:
		return r.segment(row)
	}
	return fmt.Errorf("%w: the row %x is in the place of document %d", raftfsm.ErrRestoreRefused, row.Key, r.next)
}

// raise sets the layout that a row is of. A restore begins only when all members know it.
func (r *restorer) raise(layout byte) error {
	if r.layout >= layout {
		return nil
	}
	r.layout = layout
	r.tx.OnCommit(func() { r.m.layoutChanged(layout) })
	return setLayout(r.tx, layout)
}

// disposed takes the place of a document that was disposed of.
func (r *restorer) disposed(key []byte) error {
	r.stored = append(r.stored, Document{})
	r.next++
	return errors.Join(r.raise(layoutRetention), r.tx.Set(key, nil))
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
	data := &segmentData{r: what.reader(r.next, read), size: int64(what.size)}
	s, err := r.m.openData(data, r.next, int(what.docs))
	if err == nil {
		s.stored = true
		r.opened, r.width = append(r.opened, segmentSource{s}), r.width+s.width
		r.rows = append(r.rows, what)
		if err = s.Verify(); err == nil && s.Digest() != what.digest {
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
		row, first := r.rows[i], s.Base()
		r.tx.OnCommit(func() { _ = s.file.move(row.reader(first, r.m.store.Read)) }) // there is no file to close
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
