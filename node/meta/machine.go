package meta

import (
	"context"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Bounds of one answer to a query: well below what a link carries in one message.
const (
	pageRecordsMax = 2000
	pageBytesMax   = 256 << 10
)

// Machine is the state machine of the meta group.
type Machine struct {
	rules func(table) rules
	store *raftfsm.Store
	views views
}

// NewMachine makes an empty machine; the host loads it.
func NewMachine() *Machine { return newMachine(regionRules) }

func newMachine(rules func(table) rules) *Machine {
	m := &Machine{rules: rules}
	m.views.init()
	return m
}

// Load implements raftfsm.Machine.
func (m *Machine) Load(store *raftfsm.Store) error {
	m.store = store
	tables := map[table][]record{}
	for _, t := range []table{tableTokens, tableSettings, tableNodes, tablePlacement} {
		records, err := loadTable(store, t)
		if err != nil {
			return err
		}
		tables[t] = records
	}
	return m.views.reset(tables)
}

func loadTable(store *raftfsm.Store, t table) ([]record, error) {
	it, err := store.NewIter(recordKey(t, ""), recordKey(t+1, ""))
	if err != nil {
		return nil, fmt.Errorf("meta: load table %d: %w", t, err)
	}
	var out []record
	for ok := it.First(); ok; ok = it.Next() {
		rec, err := recordAt(it)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		out = append(out, rec)
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("meta: load table %d: %w", t, err)
	}
	return out, nil
}

// recordAt decodes the record that it stands on.
func recordAt(it *raftfsm.Iter) (record, error) {
	v, err := it.Value()
	if err != nil {
		return record{}, fmt.Errorf("meta: %w", err)
	}
	return decodeRecord(string(it.Key()[2:]), v)
}

// Apply implements raftfsm.Machine.
func (m *Machine) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	var all []published
	results := make([][]byte, len(e.Commands))
	for i, data := range e.Commands {
		if isCatalog(data) {
			res, err := m.applyCatalog(tx, e, data)
			if err != nil {
				return nil, err
			}
			results[i] = res
			continue
		}
		c, err := decodeChange(data)
		if errors.Is(err, errNewer) {
			return nil, err
		}
		if err != nil {
			results[i] = encodeResult(changeResult{outcome: outcomeMalformed, message: err.Error()})
			continue
		}
		res, changed, err := apply(tx, e.Wall, c, m.rules(c.table))
		if err != nil {
			return nil, err
		}
		results[i] = encodeResult(res)
		all = append(all, changed...)
	}
	if len(all) > 0 {
		tx.OnCommit(func() { m.views.update(all) })
	}
	return results, nil
}

// Close implements raftfsm.Machine.
func (m *Machine) Close() error { return nil }

// Query implements raftfsm.Machine: a page of a table's records in the order of their last
// change. Reading on from each page's last record until a page says last gives the table as
// of that page: what changed meanwhile comes again, later.
func (m *Machine) Query(_ context.Context, query []byte) (answer []byte, err error) {
	if isCatalog(query) {
		return m.queryCatalog(query)
	}
	if len(query) > 1 && query[1] == opRecord {
		t, key, err := decodeRecordQuery(query)
		if err != nil {
			return nil, err
		}
		return m.queryRecord(t, key)
	}
	if len(query) > 1 && query[1] == opRange {
		return m.queryRange(query)
	}
	t, after, err := decodeFeedQuery(query)
	if err != nil {
		return nil, err
	}
	it, err := m.store.NewIter(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("meta: query: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	p, err := readPage(it, t, after)
	if err != nil {
		return nil, fmt.Errorf("meta: query table %d: %w", t, err)
	}
	return encodePage(p), nil
}

// readPage uses one iterator throughout, so that all it reads is of one moment.
func readPage(it *raftfsm.Iter, t table, after position) (page, error) {
	var p page
	var err error
	if p.counters, err = countersAt(it, t); err != nil {
		return page{}, err
	}
	keys, err := changedKeys(it, t, after)
	if err != nil {
		return page{}, err
	}
	size := 0
	for _, key := range keys {
		if len(p.records) == pageRecordsMax || size > pageBytesMax {
			return p, nil
		}
		if !it.SeekGE(recordKey(t, key)) {
			return page{}, errors.Join(it.Error(), fmt.Errorf("record %q is missing", key))
		}
		rec, err := recordAt(it)
		if err != nil {
			return page{}, err
		}
		p.records = append(p.records, rec)
		size += len(key) + len(rec.value)
	}
	p.last = true
	return p, it.Error()
}

// countersAt are the counters of a table as the iterator sees them.
func countersAt(it *raftfsm.Iter, t table) (counters, error) {
	row := []byte{spaceTable, byte(t)}
	if !it.SeekGE(row) || string(it.Key()) != string(row) {
		return counters{}, it.Error()
	}
	v, err := it.Value()
	if err != nil {
		return counters{}, err
	}
	return decodeCounters(v)
}

// changedKeys lists the records behind after, one more than fits a page.
func changedKeys(it *raftfsm.Iter, t table, after position) ([]string, error) {
	var keys []string
	from := append(changeKey(spaceChange, t, after.version, after.key), 0) // the next possible key
	for ok := it.SeekGE(from); ok && len(keys) <= pageRecordsMax; ok = it.Next() {
		k := it.Key()
		if k[0] != spaceChange || k[1] != byte(t) {
			break
		}
		_, key, err := splitChangeKey(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, it.Error()
}
