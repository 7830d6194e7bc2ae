package limiter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Query implements raftfsm.Machine. A check is evaluated as if it came right after the last
// applied entry, at that entry's time, and takes nothing.
func (m *Machine) Query(ctx context.Context, query []byte) ([]byte, error) {
	c, err := decodeCommand(query)
	if err != nil {
		return malformed(err), nil
	}
	switch {
	case c.op == opCheck && c.check.Cost == 0 && c.hold.id == (holdID{}):
		return m.peek(ctx, c, (*limitSet).matchCounters, func(d *Decision, _ []level, _ int64) []byte { return appendDecision(nil, d) })
	case c.op == opPeek:
		return m.peek(ctx, c, (*limitSet).match, func(d *Decision, levels []level, wall int64) []byte {
			d.Levels = d.Levels[:0]
			for i := range levels {
				d.Levels = levels[i].detail(d.Levels, wall)
			}
			return appendPeeked(nil, d)
		})
	case c.op == opCalendars:
		set := m.published.Load()
		b := binary.AppendUvarint([]byte{codecLimits, byte(outcomeCalendars)}, uint64(set.wall.passed))
		b = binary.AppendUvarint(b, uint64(set.nextExpiry()))
		return appendPeriods(b, set.calendars()), nil
	case c.op == opVersion:
		rows, set, err := m.view(ctx)
		if err != nil {
			return nil, err
		}
		return appendVersionResult(nil, outcomeConfigured, set.version), rows.Close()
	}
	return malformed(fmt.Errorf("%w: operation %d is not a query, or takes something", errCodec, c.op)), nil
}

// matcher is one of the ways in which a set finds limits.
type matcher func(s *limitSet, dst []*limitState, tenant, token, key string) []*limitState

func (m *Machine) peek(ctx context.Context, c command, match matcher, encode func(*Decision, []level, int64) []byte) (answer []byte, err error) {
	r := c.check
	now, wall := m.time.Load(), m.wall.Load()
	rows, set, err := m.view(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	matched := match(set, nil, r.Tenant, r.Token, r.Key)
	if len(matched) > levelsMax {
		return tooManyLimits(), nil
	}
	levels := make([]level, len(matched))
	for i, limit := range matched {
		err := levels[i].load(limit, r, now, set, func(key []byte) (counter, bool, error) { return readRow(rows, key, decodeCounter) })
		if err == nil && limit.hasConcurrency() {
			err = levels[i].loadSlots(rows, r, now, set.emptied, 0, 0, nil) // and until nothing is held
		}
		if err != nil {
			return nil, err
		}
		levels[i].shadow = levels[i].shadow || c.watched
	}
	d := judgeAll(levels, r.Cost, set.version, wall)
	d.Levels = reportAll(levels)
	return encode(&d, levels, wall), nil
}

// view returns the rows as they are at one moment, and the limits of that moment. There is no such
// moment while a restore that has begun since the query did writes limits.
func (m *Machine) view(ctx context.Context) (*raftfsm.Iter, *limitSet, error) {
	for ctx.Err() == nil {
		if m.restoring.Load() {
			return nil, nil, fmt.Errorf("limiter: query: %w", raftfsm.ErrRestoring)
		}
		rows, err := m.store.NewIter([]byte{tableWall}, []byte{tableSlot + 1})
		if err != nil {
			return nil, nil, fmt.Errorf("limiter: query: %w", err)
		}
		version, rolls, err := versionOf(rows)
		if set := m.published.Load(); err == nil && set.version == version && set.wall.rolls == rolls {
			return rows, set, nil
		}
		// An entry that changes the limits was committed between the two reads, or is about to
		// be published: look again.
		if err := errors.Join(err, rows.Close()); err != nil {
			return nil, nil, fmt.Errorf("limiter: query: %w", err)
		}
	}
	return nil, nil, fmt.Errorf("limiter: query: %w", ctx.Err())
}

// versionOf is what tells apart the limits that rows belong to.
func versionOf(rows *raftfsm.Iter) (version uint32, rolls uint64, err error) {
	wall, _, err := readRow(rows, []byte{tableWall}, decodeWall)
	if err != nil {
		return 0, 0, err
	}
	c, _, err := readRow(rows, []byte{tableConfig}, decodeConfig)
	return c.version, wall.rolls, err
}

func readRow[T any](rows *raftfsm.Iter, key []byte, decode func([]byte) (T, error)) (row T, found bool, err error) {
	if !rows.SeekGE(key) || string(rows.Key()) != string(key) {
		return row, false, rows.Error()
	}
	v, err := rows.Value()
	if err != nil {
		return row, false, err
	}
	row, err = decode(v)
	return row, true, err
}
