package limiter

import (
	"context"
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
	case c.op == opCheck && c.check.Cost == 0:
		return m.peek(ctx, c.check)
	case c.op == opVersion:
		rows, set, err := m.view(ctx)
		if err != nil {
			return nil, err
		}
		return appendVersionResult(nil, outcomeConfigured, set.version), rows.Close()
	}
	return malformed(fmt.Errorf("%w: operation %d is not a query, or takes something", errCodec, c.op)), nil
}

func (m *Machine) peek(ctx context.Context, r Request) (answer []byte, err error) {
	now := m.time.Load()
	rows, set, err := m.view(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	matched := set.match(nil, r.Tenant, r.Token, r.Key)
	if len(matched) > levelsMax {
		return []byte{codecFirst, byte(outcomeTooManyLimits)}, nil
	}
	levels := make([]level, len(matched))
	for i, limit := range matched {
		err := levels[i].load(limit, r, now, set.emptied, func(key []byte) (counter, bool, error) { return readRow(rows, key) })
		if err != nil {
			return nil, err
		}
	}
	d := decide(levels, 0, set.version)
	return appendDecision(nil, &d), nil
}

// view returns the rows as they are at one moment, and the limits of that moment.
func (m *Machine) view(ctx context.Context) (*raftfsm.Iter, *limitSet, error) {
	for ctx.Err() == nil {
		rows, err := m.store.NewIter([]byte{tableCounter}, []byte{tableConfig + 1})
		if err != nil {
			return nil, nil, fmt.Errorf("limiter: query: %w", err)
		}
		version, err := versionOf(rows)
		if set := m.published.Load(); err == nil && set.version == version {
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

func versionOf(rows *raftfsm.Iter) (uint32, error) {
	if !rows.SeekGE([]byte{tableConfig}) {
		return 0, rows.Error()
	}
	v, err := rows.Value()
	if err != nil {
		return 0, err
	}
	c, err := decodeConfig(v)
	return c.version, err
}

func readRow(rows *raftfsm.Iter, key []byte) (counter, bool, error) {
	if !rows.SeekGE(key) || string(rows.Key()) != string(key) {
		return counter{}, false, rows.Error()
	}
	v, err := rows.Value()
	if err != nil {
		return counter{}, false, err
	}
	c, err := decodeCounter(v)
	return c, true, err
}
