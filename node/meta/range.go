package meta

import (
	"context"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// after is the first key behind key, and endOf the first behind all that begin with prefix.
func after(key string) string { return key + "\x00" }

func endOf(prefix string) string {
	return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
}

func encodeRangeQuery(t table, from, until string) []byte {
	b := wire.AppendString([]byte{codecLeases, opRange, byte(t)}, from)
	return wire.AppendString(b, until)
}

func decodeRangeQuery(b []byte) (t table, from, until string, err error) {
	r, op, err := openCodec(b, codecLeases)
	if err != nil {
		return 0, "", "", err
	}
	t = table(r.Byte(byte(tableLast)))
	from, until = r.String(keyBytesMax+1), r.String(keyBytesMax+1)
	if err := r.Done(); err != nil || op != opRange || t == 0 || b[0] != codecLeases {
		return 0, "", "", fmt.Errorf("%w: query %d of table %d", errCodec, op, t)
	}
	return t, from, until, nil
}

// queryRange answers with a page of the live records with keys in [from, until), by key.
func (m *Machine) queryRange(query []byte) (answer []byte, err error) {
	t, from, until, err := decodeRangeQuery(query)
	if err != nil {
		return nil, err
	}
	it, err := m.store.NewIter(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("meta: query: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	p, err := readRange(it, t, from, until)
	if err != nil {
		return nil, fmt.Errorf("meta: query table %d: %w", t, err)
	}
	return encodePage(p), nil
}

func readRange(it *raftfsm.Iter, t table, from, until string) (page, error) {
	var p page
	var err error
	if p.counters, err = countersAt(it, t); err != nil {
		return page{}, err
	}
	size, end := 0, string(recordKey(t, until))
	for ok := it.SeekGE(recordKey(t, from)); ok && string(it.Key()) < end; ok = it.Next() {
		if len(p.records) == pageRecordsMax || size > pageBytesMax {
			return p, nil
		}
		rec, err := recordAt(it)
		if err != nil {
			return page{}, err
		}
		if rec.deleted {
			continue
		}
		p.records = append(p.records, rec)
		size += len(rec.key) + len(rec.value)
	}
	p.last = true
	return p, it.Error()
}

func (s *Service) rangePage(ctx context.Context, t table, from, until string) (page, error) {
	a, err := s.groups.Query(ctx, s.group, encodeRangeQuery(t, from, until), raftfsm.Linearizable)
	if err != nil {
		return page{}, err
	}
	return decodePage(a.Data)
}

// readRange collects the live records with keys in [from, until) as of one moment, linearizably,
// and the table's version then. It walks them by key, and then takes over what changed meanwhile.
func (s *Service) readRange(ctx context.Context, t table, from, until string) (map[string]record, uint32, error) {
	records := map[string]record{}
	var first uint32
	for at, pages := from, 0; ; pages++ {
		p, err := s.rangePage(ctx, t, at, until)
		if err != nil {
			return nil, 0, err
		}
		if pages == 0 {
			first = p.counters.version
		}
		for _, r := range p.records {
			records[r.key] = r
			at = after(r.key)
		}
		if !p.last {
			continue
		}
		if p.counters.version == first {
			return records, first, nil
		}
		break
	}
	f, err := s.read(ctx, t, first)
	if err != nil {
		return nil, 0, err
	}
	if f.since != first || first == 0 {
		clear(records) // it is all of the table
	}
	for key, r := range f.records { // any order
		switch {
		case key < from || key >= until:
		case r.deleted:
			delete(records, key)
		default:
			records[key] = r
		}
	}
	return records, f.counters.version, nil
}
