package limiter

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// sweepRowsMax bounds the counters that one command looks at: about a millisecond of work, so
// that checks behind it do not wait.
const sweepRowsMax = 1024

// swept is what the sweep does to one row; a nil value removes it.
type swept struct{ key, value []byte }

// sweep looks at the next counters from where the last sweep stopped. It removes those that
// equal a fresh one and those of limits that are gone, and settles those written under an
// older rate, so that few rates need remembering. It forgets reservations, slots and debits that
// are due. None of this changes an answer.
func (m *Machine) sweep(tx *raftfsm.Tx, now int64) ([]byte, error) {
	if err := m.flush(tx); err != nil { // it reads rows
		return nil, err
	}
	due, err := m.expire(tx, now, sweepRowsMax)
	if err != nil {
		return nil, err
	}
	todo, next, err := m.sweepable(tx, now)
	if err != nil {
		return nil, fmt.Errorf("limiter: sweep: %w", err)
	}
	for _, row := range todo {
		m.cache.remove(m.hash(row.key), row.key)
		if row.value == nil {
			err = tx.Delete(row.key)
		} else {
			err = tx.Set(row.key, row.value)
		}
		if err != nil {
			return nil, fmt.Errorf("limiter: sweep: %w", err)
		}
	}
	cursor := []byte{tableCursor}
	if next == nil && m.next != nil {
		m.known, m.next = m.next, nil
	}
	if next == nil {
		err = tx.Delete(cursor)
	} else {
		err = tx.Set(cursor, next)
	}
	if err != nil {
		return nil, fmt.Errorf("limiter: sweep: %w", err)
	}
	return appendBool([]byte{codecFirst, byte(outcomeSwept)}, next != nil || due), nil
}

// sweepable collects what to do; next is where to go on, or nil at the end of the table.
func (m *Machine) sweepable(tx *raftfsm.Tx, now int64) (todo []swept, next []byte, err error) {
	from, err := tx.Get([]byte{tableCursor})
	if errors.Is(err, raftfsm.ErrNotFound) {
		from, err = []byte{tableCounter}, nil
		m.next = newKnownRows(m.known.n)
	}
	if err != nil {
		return nil, nil, err
	}
	it, err := tx.NewIter(from, []byte{tableCounter + 1})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	seen := 0
	for ok := it.First(); ok; ok = it.Next() {
		if seen == sweepRowsMax {
			return todo, bytes.Clone(it.Key()), nil
		}
		seen++
		v, err := it.Value()
		if err != nil {
			return nil, nil, err
		}
		row, change, err := m.sweepRow(it.Key(), v, now)
		if err != nil {
			return nil, nil, err
		}
		if change {
			todo = append(todo, row)
		}
		if m.next != nil && (!change || row.value != nil) {
			m.next.add(m.hash(it.Key()))
		}
	}
	return todo, nil, nil
}

func (m *Machine) sweepRow(key, value []byte, now int64) (row swept, change bool, err error) {
	uid, err := uidOfKey(key)
	if err != nil {
		return swept{}, false, err
	}
	limit := m.set.byUID[uid]
	if limit == nil {
		return swept{key: bytes.Clone(key)}, true, nil
	}
	c, err := decodeCounter(value)
	if err != nil {
		return swept{}, false, err
	}
	settled, fresh := limit.settle(c, now), limit.fresh(now, m.set.emptied)
	switch {
	case settled.unused() && fresh.unused():
		return swept{key: bytes.Clone(key)}, true, nil
	case c.gen != settled.gen:
		return swept{key: bytes.Clone(key), value: appendCounter(nil, settled)}, true, nil
	}
	return swept{}, false, nil
}
