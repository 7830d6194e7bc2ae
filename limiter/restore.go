package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

var _ raftfsm.Restorer = (*Machine)(nil)

// BackupRanges implements raftfsm.Restorer: the limits, the plans and their version. Counters stay out:
// they go on being used after any backup, so those of a backup say nothing. A restore empties
// all counters instead, those without a row too.
func (m *Machine) BackupRanges() [][2][]byte {
	return [][2][]byte{{{tableConfig}, {tableConfig + 1}}, {{tableLimit}, {tableLimit + 1}}, {{tablePlan}, {tablePlan + 1}}}
}

// ServesRestore implements raftfsm.Restorer: a check in between would find no limits.
func (m *Machine) ServesRestore([]byte) bool { return false }

// RestoreBegin implements raftfsm.Restorer.
func (m *Machine) RestoreBegin(*raftfsm.Tx) error {
	if m.config.version > 0 || m.set.emptied > 0 {
		return fmt.Errorf("%w: limits have been set in it", raftfsm.ErrNotEmpty)
	}
	return nil
}

// RestoreRows implements raftfsm.Restorer. Group time is another one here, so a limit goes on
// with its present rate alone.
func (m *Machine) RestoreRows(tx *raftfsm.Tx, e raftfsm.Entry, rows []raftfsm.Row) error {
	m.restoring.Store(true)
	for _, row := range rows {
		value := row.Value
		var err error
		switch {
		case len(row.Key) == 1 && row.Key[0] == tableConfig:
			_, err = decodeConfig(value)
		case len(row.Key) > 1 && row.Key[0] == tablePlan:
			_, err = decodePlan(row.Key, value)
		default:
			var l *limitState
			if l, err = restoredLimit(row); err == nil {
				speed := l.speed()
				speed.start = e.Time
				value = encodeLimitRow(newLimitState(l.Limit, l.uid, 0, []generation{speed}))
			}
		}
		if err != nil {
			return fmt.Errorf("%w: row %q: %w", raftfsm.ErrRestoreRefused, row.Key, err)
		}
		if err := tx.Set(row.Key, value); err != nil {
			return fmt.Errorf("limiter: restore: %w", err)
		}
	}
	return nil
}

func restoredLimit(row raftfsm.Row) (*limitState, error) {
	l, err := decodeLimitRow(row.Value)
	if err != nil {
		return nil, err
	}
	if string(row.Key) != string(limitKey(l.ID)) {
		return nil, errors.New("it is not a limit's")
	}
	return l, ValidateStored([]Limit{l.Limit})
}

// RestoreEnd implements raftfsm.Restorer. All counters are empty from here on, and refill.
func (m *Machine) RestoreEnd(tx *raftfsm.Tx, e raftfsm.Entry) error {
	next := config{nextUID: 1}
	v, err := tx.Get([]byte{tableConfig})
	if err == nil {
		next, err = decodeConfig(v)
	}
	if err != nil && !errors.Is(err, raftfsm.ErrNotFound) {
		return fmt.Errorf("limiter: restore: %w", err)
	}
	sorted, err := loadLimits(tx)
	if err != nil {
		return err
	}
	for _, l := range sorted {
		if l.uid >= next.nextUID {
			return fmt.Errorf("%w: limit %s has a number that was not given out", raftfsm.ErrRestoreRefused, l.ID)
		}
	}
	emptied := max(1, e.Time) // 0 means never
	if err := tx.Set([]byte{tableEmpty}, binary.AppendUvarint([]byte{rowVersion}, uint64(emptied))); err != nil {
		return fmt.Errorf("limiter: restore: %w", err)
	}
	set := newLimitSet(next.version, sorted, emptied, m.set.wall)
	if set.plans, err = loadPlans(tx); err != nil {
		return err
	}
	m.config, m.set = next, set
	tx.OnCommit(func() {
		m.published.Store(set)
		m.restoring.Store(false)
	})
	m.time.Store(e.Time)
	return nil
}

// loadEmptied is when a restore emptied all counters, in group time; 0 for never.
func loadEmptied(store rows) (int64, error) {
	v, err := store.Get([]byte{tableEmpty})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("limiter: load: %w", err)
	}
	r := wire.NewReader(v)
	version, emptied := r.Byte(rowVersion), int64(r.Uvarint(math.MaxInt64))
	if err := r.Done(); err != nil || version != rowVersion || emptied == 0 {
		return 0, errRow("restore")
	}
	return emptied, nil
}
