package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// The log makes segments cold. The leader stores a segment's bytes as an object, has the other replicas read it, and
// proposes; the entry removes the pieces that are in the object alone, on all replicas. What dies at any point before the
// entry leaves an object that nobody names, under the name that the next try gives it.
const (
	coldFreeze = 1 // a segment becomes a cold one
	coldForget = 2 // an object that no segment is in any more was removed
	// coldAbandon gives up an object that no segment is in: the leader that stored it has died.
	coldAbandon = 3
)

// tableGone is objects that no segment is in any more.
const tableGone = 'g' // name -> retention time since when, microseconds

func goneKey(object string) []byte { return append([]byte{tableGone}, object...) }

func coldHeader(op byte) []byte { return []byte{commandVersion, commandCold, op} }

func encodeFreeze(first uint64, row segmentRow) []byte {
	return appendIdentity(coldHeader(coldFreeze), first, row)
}

func encodeAbandon(object string) []byte { return wire.AppendString(coldHeader(coldAbandon), object) }

func encodeForget(object string) []byte { return wire.AppendString(coldHeader(coldForget), object) }

// cold executes a command about cold segments.
func (a *applier) cold(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return resultRefused, nil
	}
	if b[0] > coldAbandon {
		return nil, fmt.Errorf("%w: operation %d of cold segments", errCommandVersion, b[0])
	}
	ok, err := false, error(nil)
	r := wire.NewReader(b[1:])
	switch b[0] {
	case coldFreeze:
		first, row, rowErr := readIdentity(r)
		if rowErr == nil && r.Done() == nil && row.object != "" {
			ok, err = a.freeze(first, row)
		}
	case coldForget:
		object := r.String(objectNameMax)
		if r.Done() == nil && object != "" {
			ok, err = true, a.tx.Delete(goneKey(object))
		}
	case coldAbandon:
		object := r.String(objectNameMax)
		if r.Done() == nil && object != "" {
			ok, err = a.abandonUnnamed(object)
		}
	}
	if err != nil || ok {
		return resultDone, err
	}
	return resultRefused, nil
}

// freeze makes a segment a cold one. Only merged ones are: others are about to be replaced. An object that was given up
// may be deleted at any moment.
func (a *applier) freeze(first uint64, row segmentRow) (bool, error) {
	m := a.m
	old, err := a.segmentRow(first)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return false, nil
	}
	pending := m.pending != nil && m.pending.first == first
	if err != nil || pending || a.moved || a.disposed || old.object != "" || old.size == 0 || old.docs != row.docs || old.generation != row.generation ||
		int(row.docs) != m.headDocuments*m.mergedHeads {
		return false, err
	}
	if _, err := a.tx.Get(goneKey(row.object)); !errors.Is(err, raftfsm.ErrNotFound) {
		return false, err
	}
	runs, err := row.runs()
	if err != nil {
		return false, nil // every replica refuses it alike
	}
	if err := a.tx.Set(segmentKey(first), row.encode()); err != nil {
		return false, err
	}
	at := uint32(0)
	for _, r := range runs {
		if err := a.forgetPieces(first, row.tag(), at, r.from); err != nil {
			return false, err
		}
		at = r.to
	}
	if err := a.forgetPieces(first, row.tag(), at, max(old.pieces(), row.pieces())); err != nil {
		return false, err
	}
	a.moved = true
	reader, err := m.readerOf(first, row, m.store.Read)
	if err != nil {
		return false, err
	}
	m.mu.RLock()
	s := m.storedAt(first)
	m.mu.RUnlock()
	if s == nil {
		return false, fmt.Errorf("index: there is no segment of documents from %d on", first)
	}
	s.file.prepare(reader)
	a.tx.OnCommit(func() { m.finishFreeze(s, first, old, row, reader) })
	return true, nil
}

// finishFreeze reads the segment from its object from now on.
func (m *Machine) finishFreeze(s *sealed, first uint64, old, row segmentRow, reader io.ReaderAt) {
	_ = s.file.move(reader) // a mended file that cannot be closed is removed by the next Load
	m.mu.Lock()
	defer m.mu.Unlock()
	s.cold.Store(true)
	if u := m.doubted(first); u != nil {
		m.forgetDoubts(first, first+1)
		if u.whole == nil {
			m.doubt(first, row, u.closed)
		}
	}
	if old.digest != row.digest && m.doubted(first) == nil {
		m.doubt(first, row, false) // this replica's build compresses otherwise: its pieces are not the object's
	}
	m.changed.Broadcast()
}

func (a *applier) forgetPieces(first uint64, tag, from, to uint32) error {
	if from >= to {
		return nil
	}
	return a.tx.DeleteRange(pieceKey(first, tag, from), pieceKey(first, tag, to))
}

// abandonUnnamed gives an object up unless a segment is in it.
func (a *applier) abandonUnnamed(object string) (bool, error) {
	named := false
	err := eachRow(a.tx, []byte{tableSegment}, []byte{tableSegment + 1}, func(_, value []byte) error {
		row, err := decodeSegmentRow(value)
		named = named || row.object == object
		return err
	})
	if err != nil || named {
		return false, err
	}
	if _, err := a.tx.Get(goneKey(object)); !errors.Is(err, raftfsm.ErrNotFound) {
		return err == nil, err
	}
	return true, a.abandon(segmentRow{object: object}, a.now)
}

// abandon notes that no segment is in an object any more.
func (a *applier) abandon(row segmentRow, now int64) error {
	if row.object == "" {
		return nil
	}
	return a.tx.Set(goneKey(row.object), binary.BigEndian.AppendUint64(nil, uint64(now)))
}
