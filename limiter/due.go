package limiter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// heldMax bounds the open reservations and held slots of a tenant, those that have expired and
	// wait to be forgotten included: some 20 MB of rows.
	heldMax = 100_000
	// expireEach is how many rows that are due a command forgets which makes one: more than one, so
	// that they become fewer.
	expireEach = 4
)

// mayHold returns why a tenant cannot hold one thing more under key, or nothing.
func (m *Machine) mayHold(tx *raftfsm.Tx, now int64, tenant string, key []byte) (refusal []byte, err error) {
	if _, err := m.expire(tx, now, expireEach); err != nil {
		return nil, err
	}
	switch _, err := tx.Get(key); {
	case err == nil:
		return malformed(fmt.Errorf("%w: the seed of an id was used at the same time before", errCodec)), nil
	case !errors.Is(err, raftfsm.ErrNotFound):
		return nil, fmt.Errorf("limiter: hold: %w", err)
	}
	n, err := heldBy(tx, tenant)
	if err == nil && n >= m.heldMax {
		refusal = []byte{codecLeases, byte(outcomeFull)}
	}
	return refusal, err
}

// hold stores something that a tenant holds, and when it may go.
func (m *Machine) hold(tx *raftfsm.Tx, tenant string, key, value []byte, due int64) error {
	if err := tx.Set(key, value); err != nil {
		return fmt.Errorf("limiter: hold: %w", err)
	}
	if err := tx.Set(dueKey(due, key), nil); err != nil {
		return fmt.Errorf("limiter: hold: %w", err)
	}
	n, err := heldBy(tx, tenant)
	if err != nil {
		return err
	}
	return setHeldBy(tx, tenant, n+1)
}

// heldLess is what a tenant holds without one thing that it held.
func heldLess(tx *raftfsm.Tx, tenant string) error {
	n, err := heldBy(tx, tenant)
	if err != nil {
		return err
	}
	return setHeldBy(tx, tenant, n-min(n, 1))
}

func tenantOfHeld(key []byte) string { return string(key[2 : 2+int(key[1])]) }

func heldBy(tx *raftfsm.Tx, tenant string) (uint64, error) {
	v, err := tx.Get(append([]byte{tableTenant}, tenant...))
	if errors.Is(err, raftfsm.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("limiter: what tenant %s holds: %w", tenant, err)
	}
	return decodeHeldBy(v)
}

func decodeHeldBy(b []byte) (uint64, error) {
	r := wire.NewReader(b)
	v, n := r.Byte(rowVersion), r.Uvarint(math.MaxUint32)
	if err := r.Done(); err != nil || v != rowVersion || n == 0 {
		return 0, errRow("tenant")
	}
	return n, nil
}

func setHeldBy(tx *raftfsm.Tx, tenant string, n uint64) error {
	key := append([]byte{tableTenant}, tenant...)
	var err error
	if n == 0 {
		err = tx.Delete(key)
	} else {
		err = tx.Set(key, binary.AppendUvarint([]byte{rowVersion}, n))
	}
	if err != nil {
		return fmt.Errorf("limiter: what tenant %s holds: %w", tenant, err)
	}
	return nil
}

// dueKey orders rows by when they may go.
func dueKey(due int64, key []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{tableDue}, uint64(due))
	return append(b, key...)
}

// expire forgets up to most rows that are due, the oldest first, and tells whether more are. Answers do
// not depend on it: what is due counts as forgotten already.
func (m *Machine) expire(tx *raftfsm.Tx, now int64, most int) (more bool, err error) {
	it, err := tx.NewIter([]byte{tableDue}, dueKey(now+1, nil))
	if err != nil {
		return false, fmt.Errorf("limiter: expire: %w", err)
	}
	var due [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		if len(due) == most {
			more = true
			break
		}
		due = append(due, bytes.Clone(it.Key()))
	}
	if err := it.Close(); err != nil {
		return false, fmt.Errorf("limiter: expire: %w", err)
	}
	for _, k := range due {
		if err := m.forget(tx, now, k[9:]); err != nil {
			return false, err
		}
		if err := tx.Delete(k); err != nil {
			return false, fmt.Errorf("limiter: expire: %w", err)
		}
	}
	return more, nil
}

// forget removes the row at key, unless it is a later one under the same key.
func (m *Machine) forget(tx *raftfsm.Tx, now int64, key []byte) error {
	if key[0] == tableHeld {
		h, err := m.held(tx, key)
		if err != nil || h == nil || h.deadline > now {
			return err
		}
		return m.free(tx, key, h)
	}
	t, err := m.taken(tx, key)
	if err != nil || t == nil {
		return err
	}
	due := t.expires
	if key[0] == tableReserve {
		due += rememberFor.Microseconds()
	}
	if due > now {
		return nil
	}
	if err := tx.Delete(key); err != nil {
		return fmt.Errorf("limiter: forget: %w", err)
	}
	if key[0] == tableTaken || t.settled != nil {
		return nil // not counted
	}
	return heldLess(tx, tenantOfHeld(key))
}
