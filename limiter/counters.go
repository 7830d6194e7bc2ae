package limiter

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// cacheCounters is for how many counters, as rowCache counts them, a group keeps rows in memory: 9 MB when
// full. More save Pebble reads when more counters than that are busy at once.
const cacheCounters = 1 << 16

// loadKnown looks which counters have rows.
func (m *Machine) loadKnown() error {
	m.known, m.next = newKnownRows(0), nil
	it, err := m.store.NewIter([]byte{tableCounter}, []byte{tableCounter + 1})
	if err != nil {
		return fmt.Errorf("limiter: load counters: %w", err)
	}
	for ok := it.First(); ok && !m.known.full; ok = it.Next() {
		m.known.addNew(m.hash(it.Key()))
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("limiter: load counters: %w", err)
	}
	return nil
}

// showRowless shows others which counters have no row, before what the entry has written is.
func (m *Machine) showRowless() {
	if !m.known.isView(m.rowless.Load()) {
		m.rowless.Store(m.known.view())
	}
}

func (m *Machine) hash(key []byte) uint64 { return maphash.Bytes(m.seed, key) }

// read finds a counter among those of this entry, in the cache, or in its row.
func (m *Machine) read(tx *raftfsm.Tx, key []byte) (counter, bool, error) {
	hash := m.hash(key)
	if t := m.touched.get(hash, key); t != nil {
		return t.counter, t.found, nil
	}
	row, old, found := m.cache.get(hash, key)
	cached := found && !old
	if !found && m.known.mayHave(hash) {
		var err error
		if row, err = tx.Get(key); err != nil && !errors.Is(err, raftfsm.ErrNotFound) {
			return counter{}, false, err
		}
		found = err == nil
	}
	var c counter
	if found {
		var err error
		if c, err = decodeCounter(row); err != nil {
			return counter{}, false, err
		}
	}
	t := m.touched.add(hash, key)
	t.counter, t.found, t.cached = c, found, cached
	return c, found, nil
}

// write changes a counter. Its row is written by flush.
func (m *Machine) write(key []byte, c counter) {
	hash := m.hash(key)
	t := m.touched.get(hash, key)
	if t == nil {
		t = m.touched.add(hash, key)
	}
	t.counter, t.found, t.dirty = c, true, true
}

// flush writes the counters that have changed, and tells the cache of those that it does not have.
func (m *Machine) flush(tx *raftfsm.Tx) error {
	for _, i := range m.touched.sorted() {
		t := &m.touched.all[i]
		if !t.found || t.cached && !t.dirty {
			continue
		}
		key := m.touched.key(t)
		m.value = appendCounter(m.value[:0], t.counter)
		if t.dirty {
			if err := tx.Set(key, m.value); err != nil {
				return fmt.Errorf("limiter: write counter: %w", err)
			}
			m.known.add(t.hash)
			if m.next != nil {
				m.next.add(t.hash)
			}
		}
		m.cache.put(t.hash, key, m.value)
	}
	m.touched.reset()
	return nil
}
