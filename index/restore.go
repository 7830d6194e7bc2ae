package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/raftfsm"
)

var _ raftfsm.Restorer = (*Machine)(nil)

// BackupRanges implements raftfsm.Restorer: segments, each directory row behind its pieces, then the
// documents that are not sealed, then what tells when they arrived. All else follows from them.
func (m *Machine) BackupRanges() [][2][]byte {
	return [][2][]byte{
		{{tablePiece}, {tablePiece + 1}},
		{{tableSegment}, {tableSegment + 1}},
		{{tableDocument}, {tableDocument + 1}},
		{{tableBatch}, {tableBatch + 1}},
		{{tableMark}, {tableMark + 1}},
	}
}

// ServesRestore implements raftfsm.Restorer: a search would find a part of the documents, and
// a new one would take the number of an old one.
func (m *Machine) ServesRestore([]byte) bool { return false }

// RestoreBegin implements raftfsm.Restorer.
func (m *Machine) RestoreBegin(*raftfsm.Tx) error {
	if m.docs > 0 { // only Apply, Load and the restore write it, all on this goroutine
		return fmt.Errorf("%w: it has %d documents", raftfsm.ErrNotEmpty, m.docs)
	}
	return nil
}

// RestoreRows implements raftfsm.Restorer: it stores segments as they are, and documents under their old
// numbers as if they came in for the first time.
func (m *Machine) RestoreRows(tx *raftfsm.Tx, _ raftfsm.Entry, rows []raftfsm.Row) (err error) {
	if err := m.waitForSealer(); err != nil {
		return err
	}
	ids, release := m.knownIDs()
	defer release()
	a := applier{tx: tx, m: m, layout: m.layout, next: m.docs, ids: ids, buffers: &m.buffers}
	a.reset()
	r := restorer{applier: &a}
	defer func() {
		if err != nil {
			err = errors.Join(err, releaseAll(r.opened))
		}
	}()
	for _, row := range rows {
		if len(row.Key) > 0 && row.Key[0] != tableDocument {
			err = r.row(row)
		} else {
			err = r.ownRow(row)
		}
		if err != nil {
			return err
		}
	}
	if err := tx.Set([]byte{tableCount}, binary.BigEndian.AppendUint64(nil, a.next)); err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	tx.OnCommit(func() { m.publish(a.stored, a.rows) })
	return nil
}

// RestoreEnd implements raftfsm.Restorer.
func (m *Machine) RestoreEnd(tx *raftfsm.Tx, e raftfsm.Entry) error { return m.resumeClock(tx, e) }
