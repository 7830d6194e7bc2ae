package limiter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// held is what one acquire holds: a slot of each counter that it was acquired from.
type held struct {
	token, key string
	weight     uint32
	deadline   int64 // group time from which it is not held any more
	from       []heldFrom
}

// heldFrom is one counter; the scope says which after its limit is gone.
type heldFrom struct {
	uid   uint64
	scope string
}

// slotPrefix begins the keys of the slots of one counter. The row at the prefix itself has the sum of
// their weights, those included that have expired and were not removed yet.
func slotPrefix(uid uint64, tenant, subject string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{tableSlot}, uid)
	b = append(append(b, byte(len(tenant))), tenant...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(subject)))
	return append(b, subject...)
}

// slotKey orders the slots of a counter by when they free themselves.
func slotKey(prefix []byte, deadline int64, id holdID) []byte {
	b := binary.BigEndian.AppendUint64(slices.Clone(prefix), uint64(deadline))
	return append(b, id[:]...)
}

// slotsOf reads the slots of one counter in the order of their deadlines.
type slotsOf struct {
	it     *raftfsm.Iter
	prefix []byte
	now    int64
	memo   *slotMemo // nil where none is kept
}

// held is the weight that is held.
func (s slotsOf) held() (uint64, error) {
	if !s.it.SeekGE(s.prefix) || !bytes.Equal(s.it.Key(), s.prefix) {
		return 0, s.it.Error()
	}
	sum, err := s.weight()
	if err != nil {
		return 0, err
	}
	for s.it.Next() && bytes.HasPrefix(s.it.Key(), s.prefix) && s.deadline() <= s.now {
		w, err := s.weight()
		if err != nil {
			return 0, err
		}
		sum -= min(sum, w)
	}
	return sum, s.it.Error()
}

// wait is how long it takes until slots of the weight need have freed themselves; with the largest
// need until all have.
func (s slotsOf) wait(need uint64) (u128, error) {
	if known := s.memo.find(s.prefix); known != nil {
		return u128{0, uint64(known.until(s.now, need) - s.now)}, nil
	}
	var freed uint64
	until := s.now
	var read []timedSlot
	for ok := s.it.SeekGE(slotKey(s.prefix, s.now+1, holdID{})); ok && bytes.HasPrefix(s.it.Key(), s.prefix); ok = s.it.Next() {
		w, err := s.weight()
		if err != nil {
			return u128{}, err
		}
		if freed < need {
			freed, until = freed+w, s.deadline()
		} else if s.memo == nil || len(read) <= s.memo.after {
			break
		}
		if s.memo != nil {
			read = append(read, timedSlot{s.deadline(), w})
		}
	}
	if s.memo != nil && len(read) > s.memo.after && s.it.Error() == nil {
		s.memo.put(s.prefix, read)
	}
	return u128{0, uint64(until - s.now)}, s.it.Error()
}

func (s slotsOf) deadline() int64 {
	return int64(binary.BigEndian.Uint64(s.it.Key()[len(s.prefix):]))
}

func (s slotsOf) weight() (uint64, error) {
	v, err := s.it.Value()
	if err != nil {
		return 0, err
	}
	return decodeWeight(v)
}

func encodeWeight(w uint64) []byte { return binary.AppendUvarint([]byte{rowVersion}, w) }

func decodeWeight(b []byte) (uint64, error) {
	r := wire.NewReader(b)
	v, w := r.Byte(rowVersion), r.Uvarint(math.MaxUint32)
	if err := r.Done(); err != nil || v != rowVersion || w == 0 {
		return 0, errRow("slot")
	}
	return w, nil
}

// put makes a slot of a counter, or removes it.
func (m *Machine) putSlot(tx *raftfsm.Tx, prefix []byte, deadline int64, id holdID, weight uint32, there bool) error {
	sum := uint64(0)
	v, err := tx.Get(prefix)
	if err == nil {
		sum, err = decodeWeight(v)
	}
	if err != nil && !errors.Is(err, raftfsm.ErrNotFound) {
		return fmt.Errorf("limiter: slots: %w", err)
	}
	if there {
		sum += uint64(weight)
		err = tx.Set(slotKey(prefix, deadline, id), encodeWeight(uint64(weight)))
	} else {
		sum -= min(sum, uint64(weight))
		err = tx.Delete(slotKey(prefix, deadline, id))
	}
	if err == nil && sum > 0 {
		err = tx.Set(prefix, encodeWeight(sum))
	} else if err == nil {
		err = tx.Delete(prefix)
	}
	if err != nil {
		return fmt.Errorf("limiter: slots: %w", err)
	}
	m.slots.change(prefix, deadline, uint64(weight), there)
	return nil
}

// putSlots makes, or removes, the slots of all counters of h.
func (m *Machine) putSlots(tx *raftfsm.Tx, tenant string, id holdID, h *held, there bool) error {
	for _, f := range h.from {
		l := limitState{Limit: Limit{Scope: f.scope}}
		prefix := slotPrefix(f.uid, tenant, l.subject(h.token, h.key))
		if err := m.putSlot(tx, prefix, h.deadline, id, h.weight, there); err != nil {
			return err
		}
	}
	return nil
}

// free gives back all slots of what is held at key, which stays among those that are due.
func (m *Machine) free(tx *raftfsm.Tx, key []byte, h *held) error {
	id := holdID(key[len(key)-len(holdID{}):])
	if err := m.putSlots(tx, tenantOfHeld(key), id, h, false); err != nil {
		return err
	}
	if err := tx.Delete(key); err != nil {
		return fmt.Errorf("limiter: slots: %w", err)
	}
	return heldLess(tx, tenantOfHeld(key))
}

// held finds what is held at key; nil when nothing is.
func (m *Machine) held(tx *raftfsm.Tx, key []byte) (*held, error) {
	v, err := tx.Get(key)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("limiter: slots: %w", err)
	}
	return decodeHeld(v)
}

func appendHeld(b []byte, h *held) []byte {
	b = append(b, rowVersion)
	b = wire.AppendString(b, h.token)
	b = wire.AppendString(b, h.key)
	b = binary.AppendUvarint(b, uint64(h.weight))
	b = binary.AppendUvarint(b, uint64(h.deadline))
	b = binary.AppendUvarint(b, uint64(len(h.from)))
	for _, f := range h.from {
		b = binary.AppendUvarint(b, f.uid)
		b = append(b, scopeCode(f.scope))
	}
	return b
}

func decodeHeld(b []byte) (*held, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	h := &held{
		token: r.String(SubjectBytesMax), key: r.String(SubjectBytesMax),
		weight: uint32(r.Uvarint(math.MaxUint32)), deadline: int64(r.Uvarint(math.MaxInt64)),
	}
	for n := r.Count(levelsMax); n > 0 && !r.Failed(); n-- {
		h.from = append(h.from, heldFrom{uid: r.Uvarint(math.MaxUint64), scope: scopes[r.Byte(byte(len(scopes)-1))]})
	}
	if err := r.Done(); err != nil || v != rowVersion {
		return nil, errRow("held slot")
	}
	return h, nil
}
