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
}

func (r *restorer) row(row raftfsm.Row) error {
	if r.layout < layoutSegments {
		// A restore begins only when all members know this layout.
		r.layout = layoutSegments
		if err := setLayout(r.tx); err != nil {
			return err
		}
		r.tx.OnCommit(r.m.layoutChanged)
	}
	switch {
	case row.Key[0] == tablePiece && len(row.Key) == 17 && len(row.Value) > 0 && len(row.Value) <= pieceBytes:
		return r.tx.Set(row.Key, row.Value)
	case row.Key[0] == tableSegment && string(row.Key) == string(segmentKey(r.next)) && len(r.stored) == 0 && r.m.moved+r.openedDocuments() == r.next:
		return r.segment(row)
	}
	return fmt.Errorf("%w: the row %x is in the place of document %d", raftfsm.ErrRestoreRefused, row.Key, r.next)
}

func (r *restorer) openedDocuments() (n uint64) {
	for _, s := range r.opened {
		n += uint64(s.Len())
	}
	return n
}

// segment takes a segment whose pieces are there.
func (r *restorer) segment(row raftfsm.Row) error {
	what, err := decodeSegmentRow(row.Value)
	if err != nil {
		return fmt.Errorf("%w: %w", raftfsm.ErrRestoreRefused, err)
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
		r.opened = append(r.opened, segmentSource{s})
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
	if len(r.opened) == 0 {
		return nil
	}
	for _, s := range r.opened {
		row := segmentRow{docs: uint32(s.Len()), size: uint64(s.file.Size()), digest: s.Digest()}
		first := s.Base()
		r.tx.OnCommit(func() { _ = s.file.move(row.reader(first, r.m.store.Read)) }) // there is no file to close
	}
	end := r.m.moved + r.openedDocuments()
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
