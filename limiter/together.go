package limiter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// TogetherMax bounds the parts of Service.CheckTogether.
const TogetherMax = 64

// Part is one of the checks that pass together, or not at all.
type Part struct {
	Request
	// Peek judges the part like a check of its cost, and takes nothing for it.
	Peek bool
}

// CheckTogether decides checks of one tenant in one step, in their order: each sees what those
// before it take. When all of them pass, all are taken; otherwise none is, and the decisions tell
// which would have passed. There are at most TogetherMax, without request ids. The error is as
// from Check, and is about all of them. Global limits must have room for all parts at once; when they
// do not, every part that takes something says so.
//
// While a member of the region is of a level below raftfsm.LevelLeases, the parts are decided one
// by one, and those that pass are taken whatever becomes of the others.
func (s *Service) CheckTogether(ctx context.Context, parts []Part) ([]Decision, error) {
	if err := validParts(parts); err != nil || len(parts) == 0 {
		return nil, err
	}
	mode := s.mode()
	if mode == ModeOff {
		out := make([]Decision, len(parts))
		for i := range out {
			out[i] = Decision{Allow: true, Mode: mode}
		}
		return out, nil
	}
	if s.groups.Level() < raftfsm.LevelLeases {
		return s.checkApart(ctx, parts)
	}
	some, canaries, err := s.globals(ctx)
	if err != nil {
		return nil, err
	}
	if some {
		return s.togetherWithGlobals(ctx, mode, parts, canaries)
	}
	return s.decideTogetherAway(ctx, mode, parts)
}

// decideTogether decides what the tenant's limits say of parts.
func (s *Service) decideTogether(ctx context.Context, mode Mode, parts []Part) ([]Decision, error) {
	tenant := parts[0].Tenant
	group, cmd := s.Group(tenant), raftfsm.Command{Data: inMode(mode, appendTogether(nil, parts))}
	res, err := s.propose(ctx, group, cmd)
	if l := s.holding(); l != nil && err == nil {
		lent := lentBatch{}
		for i := range res.batch {
			lent.add(i, tenant, &res.batch[i], 0)
		}
		if lent.recall(ctx, l, group) {
			res, err = s.propose(ctx, group, cmd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("limiter: check for tenant %s: %w", tenant, err)
	}
	if res.outcome == outcomeTooManyLimits {
		return nil, fmt.Errorf("tenant %s: %w", tenant, ErrTooManyLimits)
	}
	if res.outcome != outcomeTogether || len(res.batch) != len(parts) {
		return nil, unexpected(res)
	}
	out := make([]Decision, len(parts))
	for i, one := range res.batch {
		if out[i], err = decisionOf(one, outcomeDecided, tenant, mode); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkApart decides parts one by one.
func (s *Service) checkApart(ctx context.Context, parts []Part) ([]Decision, error) {
	out := make([]Decision, len(parts))
	for i, p := range parts {
		decide := s.Check
		if p.Peek {
			decide = s.Peek
		}
		var err error
		if out[i], err = decide(ctx, p.Request); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func validParts(parts []Part) error {
	if len(parts) > TogetherMax {
		return &InvalidError{Field: "parts", Message: fmt.Sprintf("must be at most %d, not %d", TogetherMax, len(parts))}
	}
	var errs []error
	for i, p := range parts {
		if err := validRequest(p.Request); err != nil {
			errs = append(errs, fmt.Errorf("parts[%d]: %w", i, err))
		}
		if p.Tenant != parts[0].Tenant {
			errs = append(errs, &InvalidError{Field: fmt.Sprintf("parts[%d].tenant", i), Message: "must be the same in all parts"})
		}
		if p.RequestID != "" {
			errs = append(errs, &InvalidError{Field: fmt.Sprintf("parts[%d].request_id", i), Message: "is not taken together with other checks; send the check alone"})
		}
	}
	return errors.Join(errs...)
}

func appendTogether(b []byte, parts []Part) []byte {
	b = binary.AppendUvarint(append(b, codecLeases, opTogether), uint64(len(parts)))
	for _, p := range parts {
		b = appendBool(appendRequest(b, p.Request), p.Peek)
	}
	return b
}

func readParts(r *wire.Reader) []Part {
	var parts []Part
	for n := r.Count(TogetherMax); n > 0 && !r.Failed(); n-- {
		parts = append(parts, Part{Request: readRequest(r), Peek: r.Byte(1) == 1})
	}
	return parts
}

// provisional are the counters that checks have debited which may yet come to nothing.
type provisional struct {
	keys     []string // in the order of the first debit
	counters map[string]counter
}

func (p *provisional) put(key []byte, c counter) {
	if _, there := p.counters[string(key)]; !there {
		p.keys = append(p.keys, string(key))
	}
	p.counters[string(key)] = c
}

// together decides parts one after the other, and stores their debits when all of them pass.
func (m *Machine) together(tx *raftfsm.Tx, now, wall int64, parts []Part) ([]byte, error) {
	debits := provisional{counters: map[string]counter{}}
	read := func(key []byte) (counter, bool, error) {
		if c, ok := debits.counters[string(key)]; ok {
			return c, true, nil
		}
		return m.read(tx, key)
	}
	all := true
	decisions, taken, lent := make([]Decision, len(parts)), make([][]Level, len(parts)), make([][]Recall, len(parts))
	for i, p := range parts {
		m.matched = m.set.matchCounters(m.matched[:0], p.Tenant, p.Token, p.Key)
		if len(m.matched) > levelsMax {
			return tooManyLimits(), nil
		}
		if err := m.gather(p.Request, now, read); err != nil {
			return nil, err
		}
		d := judgeAll(m.levels, p.Cost, m.set.version, wall)
		d.Levels = reportAll(m.levels)
		taken[i] = d.Levels
		if d.Allow && !p.Peek {
			taken[i] = decide(m.levels, p.Cost, m.set.version, wall).Levels
			for _, l := range m.levels {
				if l.debited {
					debits.put(l.key, l.counter)
				}
			}
		}
		if !d.Allow {
			all, lent[i] = false, recalls(m.levels, p.Cost, wall, &d)
		}
		decisions[i] = d
	}
	if all {
		for _, key := range debits.keys {
			m.write([]byte(key), debits.counters[key])
		}
	}
	b := binary.AppendUvarint([]byte{codecLeases, byte(outcomeTogether)}, uint64(len(parts)))
	for i := range decisions {
		if all {
			decisions[i].Levels = taken[i]
		}
		if len(lent[i]) > 0 {
			b = wire.AppendString(b, appendScarce(nil, &decisions[i], lent[i]))
			continue
		}
		b = wire.AppendString(b, appendDecision(nil, &decisions[i]))
	}
	return b, nil
}
