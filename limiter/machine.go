package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Machine is the state machine of one limiter group.
type Machine struct {
	// Only the goroutine that applies uses these.
	slots  slotMemo
	set    *limitSet
	config config
	// Where counters are looked for, in this order, before their rows; see counters.go.
	touched touchedCounters
	cache   *rowCache
	// known has all counters that have rows. While the sweep goes round, next has those that it left and
	// those written since.
	known, next *knownRows
	seed        maphash.Seed // of hashes of keys
	// heldMax bounds what a tenant holds; the constant, but in tests.
	heldMax uint64
	// Scratch of one check.
	matched []*limitState
	levels  []level
	key     []byte
	value   []byte
	// watched means that every limit is a shadow for the command under way.
	watched bool

	// Readers use these.
	store     *raftfsm.Store
	time      atomic.Int64              // group time of the last applied entry, in microseconds
	wall      atomic.Int64              // wall clock of the leader at that entry, in milliseconds
	published atomic.Pointer[limitSet]  // the limits of the last commit
	rowless   atomic.Pointer[knownRows] // a view of known: see covers
	restoring atomic.Bool               // a restore writes limits that are not in force yet
	// credited is called with a tenant whose limits got tokens back, once that is committed.
	credited atomic.Pointer[func(tenant string)]
}

// NewMachine makes an empty machine; the host loads it.
func NewMachine() *Machine { return newMachine(cacheCounters) }

func newMachine(counters int) *Machine {
	return &Machine{cache: newRowCache(counters), seed: maphash.MakeSeed(), slots: slotMemo{after: slotRowsRead}, heldMax: heldMax}
}

// Load implements raftfsm.Machine.
func (m *Machine) Load(store *raftfsm.Store) error {
	m.store = store
	m.cache = &rowCache{capacity: m.cache.capacity}
	m.touched = touchedCounters{}
	m.slots = slotMemo{after: m.slots.after}
	m.time.Store(0)
	m.wall.Store(0)
	m.rowless.Store(nil)
	m.restoring.Store(false)
	m.config = config{nextUID: 1}
	v, err := store.Get([]byte{tableConfig})
	if err != nil && !errors.Is(err, raftfsm.ErrNotFound) {
		return fmt.Errorf("limiter: load: %w", err)
	}
	if err == nil {
		if m.config, err = decodeConfig(v); err != nil {
			return err
		}
	}
	sorted, err := loadLimits(store)
	if err != nil {
		return err
	}
	emptied, err := loadEmptied(store)
	if err != nil {
		return err
	}
	wall, err := loadWall(store)
	if err != nil {
		return err
	}
	m.set = newLimitSet(m.config.version, sorted, emptied, wall)
	if m.set.plans, err = loadPlans(store); err != nil {
		return err
	}
	if m.set.blankets, err = loadBlankets(store); err != nil {
		return err
	}
	if err := m.loadKnown(); err != nil {
		return err
	}
	m.showRowless()
	m.published.Store(m.set)
	return nil
}

// rows are those of a store or of an entry.
type rows interface {
	Get(key []byte) ([]byte, error)
	NewIter(lower, upper []byte) (*raftfsm.Iter, error)
}

func loadLimits(store rows) ([]*limitState, error) {
	it, err := store.NewIter([]byte{tableLimit}, []byte{tableLimit + 1})
	if err != nil {
		return nil, fmt.Errorf("limiter: load limits: %w", err)
	}
	var sorted []*limitState
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("limiter: load limits: %w", err), it.Close())
		}
		l, err := decodeLimitRow(v)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		sorted = append(sorted, l)
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("limiter: load limits: %w", err)
	}
	return sorted, nil
}

// Apply implements raftfsm.Machine.
func (m *Machine) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	before := m.set
	wall := e.Wall / 1_000_000
	m.wall.Store(wall)
	results := make([][]byte, len(e.Commands))
	for i, data := range e.Commands {
		r, err := m.execute(tx, e.Time, wall, data)
		if err != nil {
			return nil, err
		}
		results[i] = r
	}
	if err := m.flush(tx); err != nil {
		return nil, err
	}
	m.showRowless()
	if after := m.set; after != before {
		tx.OnCommit(func() { m.published.Store(after) })
	}
	m.time.Store(e.Time)
	return results, nil
}

// Close implements raftfsm.Machine.
func (m *Machine) Close() error { return nil }

func (m *Machine) execute(tx *raftfsm.Tx, now, wall int64, data []byte) ([]byte, error) {
	c, err := decodeCommand(data)
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil {
		return malformed(err), nil
	}
	m.watched = c.watched
	switch c.op {
	case opCheck:
		return m.check(tx, now, wall, c.check, c.recalls, c.hold.id)
	case opConfigure:
		return m.configure(tx, now, c.configure)
	case opSweep:
		return m.sweep(tx, now)
	case opBatch:
		return m.batch(tx, now, wall, c.batch, c.recalls)
	case opLease:
		return m.lease(tx, now, c.lease)
	case opBlanket:
		return m.blanket(tx, now, c.blanket)
	case opTogether:
		return m.together(tx, now, wall, c.parts)
	case opRoll:
		return m.roll(tx, now, c.roll)
	case opReserve:
		return m.reserve(tx, now, wall, c.hold)
	case opSettle:
		return m.settle(tx, now, c.hold)
	case opRefund:
		return m.refund(tx, now, c.hold)
	case opAcquire:
		return m.acquire(tx, now, c.hold)
	case opRelease:
		return m.release(tx, now, c.hold)
	}
	return malformed(fmt.Errorf("%w: operation %d is not a command", errCodec, c.op)), nil
}

func malformed(err error) []byte {
	return append([]byte{codecFirst, byte(outcomeMalformed)}, err.Error()...)
}

// check decides one request, which can be refunded under id unless that is zero. With recall, the
// result of one that leases are in the way of names them.
func (m *Machine) check(tx *raftfsm.Tx, now, wall int64, r Request, recall bool, id holdID) ([]byte, error) {
	d, ok, err := m.decide(tx, now, wall, r)
	if err != nil {
		return nil, err
	}
	if !ok {
		return tooManyLimits(), nil
	}
	if id != (holdID{}) && d.Allow && r.Cost > 0 && (r.Tenant != globalTenant || slices.ContainsFunc(m.levels, func(l level) bool { return l.debited })) {
		if err := m.remember(tx, now, r, id); err != nil {
			return nil, err
		}
	}
	if recall && !d.Allow {
		if lent := recalls(m.levels, r.Cost, wall, &d); len(lent) > 0 {
			return appendScarce(nil, &d, lent), nil
		}
	}
	return appendDecision(nil, &d), nil
}

// decide decides one request and stores its debits; ok is false when too many limits match. A request
// that takes nothing writes nothing.
func (m *Machine) decide(tx *raftfsm.Tx, now, wall int64, r Request) (d Decision, ok bool, err error) {
	m.matched = m.set.matchCounters(m.matched[:0], r.Tenant, r.Token, r.Key)
	if len(m.matched) > levelsMax {
		return Decision{}, false, nil
	}
	if err := m.gather(r, now, func(key []byte) (counter, bool, error) { return m.read(tx, key) }); err != nil {
		return Decision{}, false, err
	}
	d = decide(m.levels, r.Cost, m.set.version, wall)
	for _, l := range m.levels {
		if l.debited {
			m.write(l.key, l.counter)
		}
	}
	return d, true, nil
}

func tooManyLimits() []byte { return []byte{codecFirst, byte(outcomeTooManyLimits)} }

// batch decides checks one after the other: each sees the debits of those before it.
func (m *Machine) batch(tx *raftfsm.Tx, now, wall int64, all []Request, recall bool) ([]byte, error) {
	b := binary.AppendUvarint([]byte{codecLimits, byte(outcomeBatch)}, uint64(len(all)))
	for _, r := range all {
		one, err := m.check(tx, now, wall, r, recall, holdID{})
		if err != nil {
			return nil, err
		}
		b = wire.AppendString(b, one)
	}
	return b, nil
}

// gather fills m.levels with the counters of the limits that matched, settled to now.
func (m *Machine) gather(r Request, now int64, read func(key []byte) (counter, bool, error)) error {
	for len(m.levels) < len(m.matched) {
		m.levels = append(m.levels, level{})
	}
	m.levels = m.levels[:len(m.matched)]
	for i, limit := range m.matched {
		if err := m.levels[i].load(limit, r, now, m.set, read); err != nil {
			return err
		}
		m.levels[i].shadow = m.levels[i].shadow || m.watched
	}
	return nil
}

// load finds the counter of limit for a request and settles it to now.
func (l *level) load(limit *limitState, r Request, now int64, set *limitSet, read func(key []byte) (counter, bool, error)) error {
	l.limit, l.shadow, l.subject = limit, limit.shadows(r.asker()), limit.subject(r.Token, r.Key)
	if !limit.counts() {
		return nil
	}
	l.key = appendCounterKey(l.key[:0], limit.uid, r.Tenant, l.subject)
	c, ok, err := read(l.key)
	if err != nil {
		return fmt.Errorf("limiter: counter of %s: %w", limit.ID, err)
	}
	l.counter = set.present(limit, c, ok, now)
	return nil
}
