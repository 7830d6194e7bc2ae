package limiter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// configure takes a change of the limits, or a part of one. Parts are kept aside until the
// last one arrives, so that a change of any size takes effect at one log index.
func (m *Machine) configure(tx *raftfsm.Tx, now int64, c configureCommand) ([]byte, error) {
	if c.To <= m.config.version {
		return appendVersionResult(nil, outcomeConfigured, m.config.version), nil
	}
	if c.From > m.config.version {
		return appendVersionResult(nil, outcomeNeedFull, m.config.version), nil
	}
	if c.part == 0 && c.last {
		return m.change(tx, now, c.Change)
	}
	s, err := m.stagedChange(tx)
	if err != nil {
		return nil, err
	}
	if s.from != c.From || s.to != c.To {
		if c.To < s.to || c.part > 0 {
			// A newer change is under way, or the beginning of this one is not here.
			return appendVersionResult(nil, outcomeSuperseded, m.config.version), nil
		}
		s = staged{from: c.From, to: c.To}
	}
	switch {
	case c.part > s.parts:
		return appendVersionResult(nil, outcomeSuperseded, m.config.version), nil
	case c.part == s.parts:
		s.parts++
		if err := m.stage(tx, s, c); err != nil {
			return nil, err
		}
	}
	if !c.last {
		return appendVersionResult(nil, outcomeStaged, m.config.version), nil
	}
	whole, err := m.unstage(tx, s)
	if err != nil {
		return nil, err
	}
	if err := validSteps(whole); err != nil {
		return malformed(err), nil
	}
	return m.change(tx, now, whole)
}

func (m *Machine) stagedChange(tx *raftfsm.Tx) (staged, error) {
	v, err := tx.Get([]byte{tableStaged})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return staged{}, nil
	}
	if err != nil {
		return staged{}, fmt.Errorf("limiter: staged change: %w", err)
	}
	return decodeStaged(v)
}

// stage keeps one part; the parts of an older change are overwritten or ignored.
func (m *Machine) stage(tx *raftfsm.Tx, s staged, c configureCommand) error {
	key, other := partKey(c.part), part2Key(c.part)
	version := versionOfSteps(c.Change)
	if version != codecFirst {
		key, other = other, key
	}
	if err := tx.Delete(other); err != nil {
		return fmt.Errorf("limiter: stage part %d: %w", c.part, err)
	}
	if err := tx.Set(key, appendSteps(nil, c.Change, version)); err != nil {
		return fmt.Errorf("limiter: stage part %d: %w", c.part, err)
	}
	if err := tx.Set([]byte{tableStaged}, encodeStaged(s)); err != nil {
		return fmt.Errorf("limiter: stage part %d: %w", c.part, err)
	}
	return nil
}

// unstage joins the parts.
func (m *Machine) unstage(tx *raftfsm.Tx, s staged) (Change, error) {
	whole := Change{From: s.from, To: s.to}
	for part := range s.parts {
		if err := readPart(tx, part, &whole); err != nil {
			return Change{}, err
		}
	}
	return whole, nil
}

// readPart appends a part to the change.
func readPart(tx *raftfsm.Tx, part uint32, whole *Change) error {
	version := byte(codecFirst)
	v, err := tx.Get(partKey(part))
	if errors.Is(err, raftfsm.ErrNotFound) {
		version = codecFailure // which reads what was written in earlier ones
		v, err = tx.Get(part2Key(part))
	}
	if err != nil {
		return fmt.Errorf("limiter: staged part %d: %w", part, err)
	}
	r := wire.NewReader(v)
	readSteps(r, whole, version)
	if err := r.Done(); err != nil {
		return errRow("staged part")
	}
	return nil
}

// change puts a whole, valid change in force.
func (m *Machine) change(tx *raftfsm.Tx, now int64, c Change) ([]byte, error) {
	next := config{version: c.To, nextUID: m.config.nextUID}
	plans, err := m.assign(tx, c)
	if err != nil {
		return nil, err
	}
	set := *m.set // with its index, if the limits stay
	if c.From == 0 || len(c.Puts)+len(c.Deletes) > 0 {
		sorted, err := m.changeLimits(tx, now, c, &next)
		if err != nil {
			return nil, err
		}
		set = *newLimitSet(next.version, sorted, m.set.emptied, m.set.wall)
		if err := m.keepBlankets(tx, &set); err != nil {
			return nil, err
		}
	}
	set.version, set.plans = next.version, plans
	if err := tx.Set([]byte{tableConfig}, encodeConfig(next)); err != nil {
		return nil, fmt.Errorf("limiter: version %d: %w", next.version, err)
	}
	if err := m.unstageAll(tx); err != nil {
		return nil, err
	}
	m.config, m.set = next, &set
	return appendVersionResult(nil, outcomeConfigured, next.version), nil
}

// unstageAll forgets staged parts. Most changes come as a whole, and ranges that are deleted for
// nothing slow down the rows around them.
func (m *Machine) unstageAll(tx *raftfsm.Tx) error {
	if s, err := m.stagedChange(tx); err != nil || s.parts == 0 {
		return err
	}
	for _, table := range []byte{tablePart, tablePart2, tableStaged} {
		if err := tx.DeleteRange([]byte{table}, []byte{table + 1}); err != nil {
			return fmt.Errorf("limiter: forget staged parts: %w", err)
		}
	}
	return nil
}

// changeLimits stores what a change does to limits, and returns those after it by id.
func (m *Machine) changeLimits(tx *raftfsm.Tx, now int64, c Change, next *config) ([]*limitState, error) {
	puts := make(map[string]Limit, len(c.Puts))
	for _, l := range c.Puts {
		puts[l.ID] = l
	}
	gone := make(map[string]bool, len(c.Deletes))
	for _, id := range c.Deletes {
		gone[id] = true
	}
	sorted := make([]*limitState, 0, len(m.set.sorted)+len(c.Puts))
	for _, l := range m.set.sorted {
		if _, stays := puts[l.ID]; !stays && (gone[l.ID] || c.From == 0) {
			if err := tx.Delete(limitKey(l.ID)); err != nil {
				return nil, fmt.Errorf("limiter: remove limit %s: %w", l.ID, err)
			}
		} else if !stays {
			sorted = append(sorted, l)
		}
	}
	for _, l := range c.Puts {
		state, err := m.put(tx, now, l, next)
		if err != nil {
			return nil, err
		}
		sorted = append(sorted, state)
	}
	slices.SortFunc(sorted, func(a, b *limitState) int { return strings.Compare(a.ID, b.ID) })
	return sorted, nil
}

// put stores one limit of a change and returns it ready for use. A limit of the same id and
// scope goes on with its counters; any other starts with fresh ones.
func (m *Machine) put(tx *raftfsm.Tx, now int64, l Limit, next *config) (*limitState, error) {
	old := m.set.byID[l.ID]
	if old != nil && old.Limit == l {
		return old, nil
	}
	var state *limitState
	if old != nil && old.Scope == l.Scope {
		changed, err := old.changed(l, now, m.set.emptied)
		if err != nil {
			return nil, err
		}
		state = changed
	} else {
		speed, err := speedOf(l, now)
		if err != nil {
			return nil, err
		}
		state = newLimitState(l, next.nextUID, 0, []generation{speed})
		next.nextUID++
		if l.hasCalendar() {
			state.calendar.epoch = newEpoch(0, now, m.set.emptied)
		}
	}
	if err := tx.Set(limitKey(l.ID), encodeLimitRow(state)); err != nil {
		return nil, fmt.Errorf("limiter: put limit %s: %w", l.ID, err)
	}
	return state, nil
}
