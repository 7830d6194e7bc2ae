package limiter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Settlement is what became of a reservation.
type Settlement struct {
	// Actual is what was really spent, as the first Commit said.
	Actual uint32
	// Refunded is how much less that is than what was reserved; limits get of it what has not
	// flowed back by itself. Overdrawn is how much more, which was debited whether there was
	// room or not.
	Refunded, Overdrawn uint32
	// Late means that the reservation had expired: nothing of it comes back.
	Late bool
}

// newHoldID makes an id of the seed that a caller chose and the moment. A seed can come again with
// a request id that was forgotten meanwhile; the id cannot.
func newHoldID(seed holdID, now int64) holdID {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(seed[:], uint64(now)))
	return holdID(sum[:])
}

// reserve decides like a check, and remembers what it took until it is settled.
func (m *Machine) reserve(tx *raftfsm.Tx, now, wall int64, c holdCommand) ([]byte, error) {
	id := newHoldID(c.id, now)
	key := heldKey(tableReserve, c.Tenant, id)
	refusal, err := m.mayHold(tx, now, c.Tenant, key)
	if refusal != nil || err != nil {
		return refusal, err
	}
	d, ok, err := m.decide(tx, now, wall, c.Request)
	if err != nil {
		return nil, err
	}
	if !ok {
		return tooManyLimits(), nil
	}
	if !d.Allow {
		if lent := recalls(m.levels, c.Cost, wall, &d); len(lent) > 0 {
			return appendScarce(nil, &d, lent), nil
		}
		return appendHeldResult(outcomeReserved, &d, holdID{}, 0), nil
	}
	life := holdMicros(c.ttl, HoldUsual.Microseconds())
	t := takenBy(m.levels, c.Request, now, now+life)
	if err := m.hold(tx, c.Tenant, key, appendTaken(nil, t), t.expires+rememberFor.Microseconds()); err != nil {
		return nil, err
	}
	return appendHeldResult(outcomeReserved, &d, id, life), nil
}

// holdMicros is a TTL that a caller gave in milliseconds, or the usual one.
func holdMicros(ms uint64, usual int64) int64 {
	if ms == 0 {
		return usual
	}
	return int64(ms) * 1000
}

// settle ends a reservation: what was not spent goes back, and what was spent beyond it is taken.
func (m *Machine) settle(tx *raftfsm.Tx, now int64, c holdCommand) ([]byte, error) {
	key := heldKey(tableReserve, c.Tenant, c.id)
	t, err := m.taken(tx, key)
	if err != nil {
		return nil, err
	}
	if t == nil || t.expires+rememberFor.Microseconds() <= now {
		return unknownHold(), nil
	}
	if t.settled != nil {
		return appendSettlement(*t.settled), nil
	}
	s := Settlement{Actual: c.Cost, Late: t.expires <= now}
	switch {
	case c.Cost > t.cost:
		s.Overdrawn = c.Cost - t.cost
		err = m.overdraw(tx, now, c.Tenant, t, s.Overdrawn)
	case !s.Late && c.Cost < t.cost:
		s.Refunded = t.cost - c.Cost
		err = m.giveBack(tx, now, c.Tenant, t, s.Refunded)
	}
	if err != nil {
		return nil, err
	}
	t.settled = &s
	if err := tx.Set(key, appendTaken(nil, t)); err != nil {
		return nil, fmt.Errorf("limiter: settle a reservation: %w", err)
	}
	return appendSettlement(s), heldLess(tx, c.Tenant)
}

// remember keeps what a check with a request id took, for a refund.
func (m *Machine) remember(tx *raftfsm.Tx, now int64, r Request, id holdID) error {
	t := takenBy(m.levels, r, now, now+rememberFor.Microseconds())
	key := heldKey(tableTaken, r.Tenant, id)
	if err := tx.Set(key, appendTaken(nil, t)); err != nil {
		return fmt.Errorf("limiter: remember a check: %w", err)
	}
	if err := tx.Set(dueKey(t.expires, key), nil); err != nil {
		return fmt.Errorf("limiter: remember a check: %w", err)
	}
	_, err := m.expire(tx, now, expireEach)
	return err
}

// refund gives back what a check took, once.
func (m *Machine) refund(tx *raftfsm.Tx, now int64, c holdCommand) ([]byte, error) {
	key := heldKey(tableTaken, c.Tenant, c.id)
	t, err := m.taken(tx, key)
	if err != nil {
		return nil, err
	}
	if t == nil || t.expires <= now {
		return unknownHold(), nil
	}
	if t.settled == nil {
		back := t.cost
		if c.Cost > 0 {
			back = min(back, c.Cost)
		}
		t.settled = &Settlement{Actual: t.cost - back, Refunded: back}
		if err := m.giveBack(tx, now, c.Tenant, t, back); err != nil {
			return nil, err
		}
		if err := tx.Set(key, appendTaken(nil, t)); err != nil {
			return nil, fmt.Errorf("limiter: refund: %w", err)
		}
	}
	return binary.AppendUvarint([]byte{codecLeases, byte(outcomeRefunded)}, uint64(t.settled.Refunded)), nil
}

func unknownHold() []byte { return []byte{codecLeases, byte(outcomeUnknown)} }
