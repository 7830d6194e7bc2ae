package limiter

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		return []byte{codecVersion, byte(outcomeTooManyLimits)}, nil
	}
	levels := make([]level, len(matched))
	for i, limit := range matched {
		err := levels[i].load(limit, r, now, set.emptied, func(key []byte) (bucket, bool, error) { return readRow(rows, key) })
		if err != nil {
			return nil, err
		}
	}
	d := decide(levels, 0, set.version)
	return appendDecision(nil, &d), nil
}

// viewTries is how often a query looks for a moment at which rows and limits agree. Between an entry's
// commit and the publication of its limits they do not; a hundred tries take half a second at least.
const viewTries = 100

// view returns the rows as they are at one moment, and the limits of that moment. There is no such
// moment while a restore that has begun since the query did writes limits.
func (m *Machine) view(ctx context.Context) (*raftfsm.Iter, *limitSet, error) {
	for try := range viewTries {
		if try > 0 {
			select {
			case <-time.After(time.Duration(min(try, 10)) * time.Millisecond):
			case <-ctx.Done():
				return nil, nil, fmt.Errorf("limiter: query: %w", ctx.Err())
			}
		}
		rows, err := m.store.NewIter([]byte{tableBucket}, []byte{tableConfig + 1})
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
	return nil, nil, fmt.Errorf("limiter: query: %w", raftfsm.ErrRestoring)
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

func readRow(rows *raftfsm.Iter, key []byte) (bucket, bool, error) {
	if !rows.SeekGE(key) || string(rows.Key()) != string(key) {
		return bucket{}, false, rows.Error()
	}
	v, err := rows.Value()
	if err != nil {
		return bucket{}, false, err
	}
	b, err := decodeBucket(v)
	return b, true, err
}
