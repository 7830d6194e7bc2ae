package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// lookupsMax bounds the questions about unknown tokens that are under way at once, so that
	// made-up tokens cannot load the meta group.
	lookupsMax = 16
	// lookupTimeout bounds one of them.
	lookupTimeout = 2 * time.Second
)

// lookup asks the group for a token that this replica does not know: it may have been made a
// moment ago at another node, or the replica may lag behind after a start. The answer is
// false only when the region has no such token. The error is api.ErrNotReady.
func (s *Service) lookup(ctx context.Context, id string) (token, bool, error) {
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	default:
		return token{}, false, fmt.Errorf("%w: too many unknown tokens are being looked up", api.ErrNotReady)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	a, err := s.groups.Query(ctx, s.group, encodeRecordQuery(tableTokens, id), raftfsm.Linearizable)
	if err != nil {
		return token{}, false, fmt.Errorf("%w: look token %s up: %w", api.ErrNotReady, id, err)
	}
	rec, ok, err := decodeRecordAnswer(id, a.Data)
	if err != nil || !ok || rec.deleted {
		return token{}, false, err
	}
	t, err := decodeToken(rec)
	return t, err == nil, err
}

// queryRecord answers with the record's row, or nothing.
func (m *Machine) queryRecord(t table, key string) ([]byte, error) {
	row, err := m.store.Get(recordKey(t, key))
	if errors.Is(err, raftfsm.ErrNotFound) {
		return []byte{codecFirst, 0}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("meta: query record: %w", err)
	}
	return append([]byte{codecFirst, 1}, row...), nil
}

func encodeRecordQuery(t table, key string) []byte {
	return wire.AppendString([]byte{t.codec(), opRecord, byte(t)}, key)
}

func decodeRecordQuery(b []byte) (t table, key string, err error) {
	r, op, err := openCodec(b, codecMembers)
	if err != nil {
		return 0, "", err
	}
	t = readTable(r, b[0])
	key = r.String(keyBytesMax)
	if err := r.Done(); err != nil || op != opRecord || t == 0 {
		return 0, "", fmt.Errorf("%w: query %d of table %d", errCodec, op, t)
	}
	return t, key, nil
}

func decodeRecordAnswer(key string, b []byte) (record, bool, error) {
	if len(b) < 2 || b[0] != codecFirst || b[1] > 1 {
		return record{}, false, fmt.Errorf("%w: answer about a record", errCodec)
	}
	if b[1] == 0 {
		return record{}, false, nil
	}
	rec, err := decodeRecord(key, b[2:])
	return rec, err == nil, err
}
