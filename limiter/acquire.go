package limiter

import (
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// acquire takes a slot of every limit that matches and has a concurrency, or of none.
func (m *Machine) acquire(tx *raftfsm.Tx, now int64, c holdCommand) ([]byte, error) {
	if c.renew {
		return m.renew(tx, now, c)
	}
	id := newHoldID(c.id, now)
	key := heldKey(tableHeld, c.Tenant, id)
	refusal, err := m.mayHold(tx, now, c.Tenant, key)
	if refusal != nil || err != nil {
		return refusal, err
	}
	m.matched = m.set.matchSlots(m.matched[:0], c.Tenant, c.Token, c.Key)
	if len(m.matched) > levelsMax {
		return tooManyLimits(), nil
	}
	levels := make([]level, len(m.matched))
	d, err := m.judgeSlots(tx, now, levels, c.Request)
	if err != nil {
		return nil, err
	}
	if !d.Allow {
		return appendHeldResult(outcomeAcquired, &d, holdID{}, 0), nil
	}
	h := &held{token: c.Token, key: c.Key, weight: c.Cost}
	life := int64(math.MaxInt64)
	for i := range levels {
		l := &levels[i]
		if !l.limit.hasConcurrency() || l.shadow && l.verdict.denies() {
			continue
		}
		h.from = append(h.from, heldFrom{uid: l.limit.uid, scope: l.limit.Scope})
		life = min(life, l.limit.slotTTL)
	}
	h.deadline = now + slotLife(c.ttl, life)
	if err := m.putSlots(tx, c.Tenant, id, h, true); err != nil {
		return nil, err
	}
	if err := m.hold(tx, c.Tenant, key, appendHeld(nil, h), h.deadline); err != nil {
		return nil, err
	}
	return appendHeldResult(outcomeAcquired, &d, id, h.deadline-now), nil
}

// slotLife is for how long slots are held: as long as was asked for, but no longer than the limits
// allow. most is the largest number without any.
func slotLife(ms uint64, most int64) int64 {
	if most == math.MaxInt64 {
		return holdMicros(ms, HoldUsual.Microseconds())
	}
	return min(holdMicros(ms, most), most)
}

// judgeSlots decides an acquire and reports what is left after it.
func (m *Machine) judgeSlots(tx *raftfsm.Tx, now int64, levels []level, r Request) (d Decision, err error) {
	it, err := tx.NewIter([]byte{tableSlot}, []byte{tableSlot + 1})
	if err != nil {
		return d, fmt.Errorf("limiter: slots: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i, limit := range m.matched {
		l := &levels[i]
		l.limit, l.shadow = limit, limit.shadows(r.Tenant) || m.watched
		if !limit.hasConcurrency() {
			continue
		}
		if err := l.loadSlots(it, r, now, m.set.emptied, r.Cost, uint64(limit.Concurrency.Limit), &m.slots); err != nil {
			return d, err
		}
		if r.Cost > limit.Concurrency.Limit {
			l.slots = verdict{kind: KindConcurrency, never: true}
		}
	}
	d = judgeWith(levels, m.set.version, (*level).judgeSlots)
	d.Levels = make([]Level, 0, len(levels))
	for i := range levels {
		l := &levels[i]
		if d.Allow && !l.verdict.denies() {
			l.held += uint64(r.Cost)
		}
		d.Levels = l.marked(d.Levels, (*level).appendSlots)
	}
	return d, nil
}

// loadSlots finds what is held of a limit's counter, and how long it takes until cost more and that are
// at most so many. After a restore a counter is full for as long as slots from before it can have
// been held.
func (l *level) loadSlots(it *raftfsm.Iter, r Request, now, emptied int64, cost uint32, most uint64, memo *slotMemo) (err error) {
	l.held, l.slots = 0, verdict{kind: KindConcurrency}
	s := slotsOf{it: it, prefix: slotPrefix(l.limit.uid, r.Tenant, l.limit.subject(r.Token, r.Key)), now: now, memo: memo}
	// More than there can be never passes, however long it waits.
	if l.held, err = s.held(); err == nil && uint64(cost) <= most && l.held+uint64(cost) > most {
		l.slots.wait, err = s.wait(l.held + uint64(cost) - most)
	}
	if err != nil {
		return fmt.Errorf("limiter: slots of %s: %w", l.limit.ID, err)
	}
	if full := emptied + l.limit.slotTTL; emptied > 0 && now < full {
		l.held = max(l.held, uint64(l.limit.Concurrency.Limit))
		if wait := (u128{0, uint64(full - now)}); l.slots.wait.less(wait) {
			l.slots.wait = wait
		}
	}
	return nil
}

// judgeSlots is the verdict of the part that an acquire asks.
func (l *level) judgeSlots() verdict {
	switch {
	case l.limit.Access == AccessBanned:
		return verdict{kind: KindBanned, never: true}
	case l.limit.hasConcurrency():
		return l.slots
	}
	return verdict{}
}

// appendSlots reports what an acquire asks.
func (l *level) appendSlots(dst []Level) []Level {
	if l.limit.Access != "" {
		return l.appendParts(dst)
	}
	most := l.limit.Concurrency.Limit
	return append(dst, Level{
		LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindConcurrency,
		Limit: most, Remaining: most - uint32(min(uint64(most), l.held)),
	})
}

// renew holds slots for longer that are held.
func (m *Machine) renew(tx *raftfsm.Tx, now int64, c holdCommand) ([]byte, error) {
	key := heldKey(tableHeld, c.Tenant, c.id)
	h, err := m.held(tx, key)
	if err != nil {
		return nil, err
	}
	if h == nil || h.deadline <= now {
		return unknownHold(), nil
	}
	most := int64(math.MaxInt64)
	for _, f := range h.from {
		if l := m.set.byUID[f.uid]; l != nil && l.hasConcurrency() {
			most = min(most, l.slotTTL)
		}
	}
	if deadline := now + slotLife(c.ttl, most); deadline > h.deadline {
		if err := m.putSlots(tx, c.Tenant, c.id, h, false); err != nil {
			return nil, err
		}
		if err := tx.Delete(dueKey(h.deadline, key)); err != nil {
			return nil, fmt.Errorf("limiter: renew: %w", err)
		}
		h.deadline = deadline
		if err := m.putSlots(tx, c.Tenant, c.id, h, true); err != nil {
			return nil, err
		}
		if err := tx.Set(key, appendHeld(nil, h)); err != nil {
			return nil, fmt.Errorf("limiter: renew: %w", err)
		}
		if err := tx.Set(dueKey(deadline, key), nil); err != nil {
			return nil, fmt.Errorf("limiter: renew: %w", err)
		}
	}
	d := Decision{Allow: true, Version: m.set.version}
	return appendHeldResult(outcomeAcquired, &d, c.id, h.deadline-now), nil
}

// release gives slots back. What is not held, or not any more, needs no release.
func (m *Machine) release(tx *raftfsm.Tx, now int64, c holdCommand) ([]byte, error) {
	key := heldKey(tableHeld, c.Tenant, c.id)
	h, err := m.held(tx, key)
	if err != nil {
		return nil, err
	}
	was := h != nil && h.deadline > now
	if h != nil {
		if err := tx.Delete(dueKey(h.deadline, key)); err != nil {
			return nil, fmt.Errorf("limiter: release: %w", err)
		}
		if err := m.free(tx, key, h); err != nil {
			return nil, err
		}
	}
	return appendBool([]byte{codecLeases, byte(outcomeReleased)}, was), nil
}
