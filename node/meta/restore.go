package meta

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

var _ raftfsm.Restorer = (*Machine)(nil)

// restored are the tables that a backup takes, without a gap. The others say what this region is
// made of.
var restored = [...]table{tableLimits, tableTokens}

// BackupRanges implements raftfsm.Restorer: the records and counters of the tables restored, and the catalog.
func (m *Machine) BackupRanges() [][2][]byte {
	first, end := byte(restored[0]), byte(restored[len(restored)-1])+1
	ranges := [][2][]byte{{{spaceRecord, first}, {spaceRecord, end}}, {{spaceTable, first}, {spaceTable, end}}}
	return append(ranges, catalogRanges()...)
}

// ServesRestore implements raftfsm.Restorer: without meta, nobody could go on restoring. Rows
// wait aside until the end. Limits cannot change meanwhile: those of the backup would be refused.
func (m *Machine) ServesRestore(command []byte) bool {
	if isCatalog(command) {
		return false
	}
	c, err := decodeChange(command)
	return err != nil || c.table != tableLimits
}

// RestoreBegin implements raftfsm.Restorer. Tokens may be there: who restores needs one.
func (m *Machine) RestoreBegin(tx *raftfsm.Tx) error {
	count, _, err := getRow(tx, []byte{spaceTable, byte(tableLimits)}, decodeCounters)
	if err == nil && count.version > 0 {
		err = fmt.Errorf("%w: limits have been set in it", raftfsm.ErrNotEmpty)
	}
	if err == nil {
		err = emptyCatalog(tx)
	}
	return err
}

// RestoreRows implements raftfsm.Restorer.
func (m *Machine) RestoreRows(tx *raftfsm.Tx, _ raftfsm.Entry, rows []raftfsm.Row) error {
	for _, row := range rows {
		if ofCatalog(row.Key) {
			if err := m.restoreCatalog(tx, row); err != nil {
				return err
			}
			continue
		}
		if err := m.restorable(row); err != nil {
			return fmt.Errorf("%w: row %q: %w", raftfsm.ErrRestoreRefused, row.Key, err)
		}
		if err := tx.Set(append([]byte{spaceStaged}, row.Key...), row.Value); err != nil {
			return fmt.Errorf("meta: restore: %w", err)
		}
	}
	return nil
}

func (m *Machine) restorable(row raftfsm.Row) error {
	k := row.Key
	if len(k) < 2 || !slices.Contains(restored[:], table(k[1])) {
		return errors.New("it is of no table that is restored")
	}
	switch {
	case k[0] == spaceTable && len(k) == 2:
		_, err := decodeCounters(row.Value)
		return err
	case k[0] == spaceRecord && len(k) > 2 && len(k) <= 2+keyBytesMax:
		rec, err := decodeRecord(string(k[2:]), row.Value)
		if err != nil || rec.deleted {
			return err
		}
		return m.rules(table(k[1])).valid(rec.key, rec.value)
	}
	return errors.New("it is no record")
}

// RestoreEnd implements raftfsm.Restorer: all records appear at once, each as it was. The
// version of a table rises above what it was, so that limiter groups, which were restored before,
// take later changes. Tokens of this region stay.
func (m *Machine) RestoreEnd(tx *raftfsm.Tx, _ raftfsm.Entry) error {
	count, _, err := getRow(tx, []byte{spaceTable, byte(tableLimits)}, decodeCounters)
	if err == nil && count.version > 0 {
		err = fmt.Errorf("%w: limits have been set in it", raftfsm.ErrNotEmpty)
	}
	if err == nil {
		err = tx.Delete([]byte{spaceRestoring})
	}
	if err != nil {
		return err
	}
	clock, _, err := getRow(tx, []byte{spaceClock}, decodeClock)
	if err != nil {
		return err
	}
	var all []published
	for _, t := range restored {
		w, err := m.adopt(tx, t, &clock)
		if err != nil {
			return err
		}
		all = append(all, w.changed...)
	}
	if err := tx.Set([]byte{spaceClock}, encodeClock(clock)); err != nil {
		return fmt.Errorf("meta: clock: %w", err)
	}
	if err := tx.DeleteRange([]byte{spaceStaged}, []byte{spaceStaged + 1}); err != nil {
		return fmt.Errorf("meta: restore: %w", err)
	}
	tx.OnCommit(func() { m.views.update(all) })
	return nil
}

// adopt moves the staged records of a table into it, and the clock behind them.
func (m *Machine) adopt(tx *raftfsm.Tx, t table, clock *timestamp) (*writer, error) {
	count, _, err := getRow(tx, []byte{spaceTable, byte(t)}, decodeCounters)
	if err != nil {
		return nil, err
	}
	old, _, err := getRow(tx, []byte{spaceStaged, spaceTable, byte(t)}, decodeCounters)
	if err != nil {
		return nil, err
	}
	w := &writer{tx: tx, table: t, rules: m.rules(t), count: count}
	if old.version == 0 {
		return w, nil // nothing was ever written to it
	}
	if w.count.version = max(count.version, old.version); w.count.version == math.MaxUint32 {
		return nil, fmt.Errorf("%w: table %d has no version numbers left", raftfsm.ErrRestoreRefused, t)
	}
	w.count.version++
	w.count.floor = w.count.version
	records, err := stagedRecords(tx, t)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if s := rec.stamp; s.wall > clock.wall || s.wall == clock.wall && s.logical > clock.logical {
			*clock = s
		}
		if _, own, err := getRecord(tx, t, rec.key); err != nil || own {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := w.put(rec); err != nil {
			return nil, err
		}
	}
	if err := tx.Set([]byte{spaceTable, byte(t)}, encodeCounters(w.count)); err != nil {
		return nil, fmt.Errorf("meta: table %d: %w", t, err)
	}
	return w, nil
}

func stagedRecords(tx *raftfsm.Tx, t table) ([]record, error) {
	it, err := tx.NewIter([]byte{spaceStaged, spaceRecord, byte(t)}, []byte{spaceStaged, spaceRecord, byte(t) + 1})
	if err != nil {
		return nil, fmt.Errorf("meta: restore: %w", err)
	}
	var out []record
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("meta: restore: %w", err), it.Close())
		}
		rec, err := decodeRecord(string(it.Key()[3:]), v)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		out = append(out, rec)
	}
	return out, it.Close()
}
