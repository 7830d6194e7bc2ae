package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A document's age is counted from its arrival, in time of the group: wall clocks do not matter, and
// group time is never ahead of real time. Numbers grow with arrival, so a mark once a minute, below which numbers
// arrived before a time, tells the arrival of all. The end of the minute counts, so nothing is older than it is.
const (
	tableMark  = 'a' // retention time, inverted -> mark
	tableClock = 'o' // -> retention time less group time, in a group that was restored
)

// markEvery is how far apart marks are: half a million a year, 10 MB.
const markEvery = int64(time.Minute / time.Microsecond)

// mark says that the documents with numbers below it had arrived at a time.
type mark struct {
	number uint64
	time   int64 // retention time, microseconds
	wall   int64 // for people, nanoseconds since 1970 UTC
}

// markKey has the latest first.
func markKey(time int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableMark}, ^(uint64(time) ^ 1<<63))
}

func (k mark) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, k.number), uint64(k.wall))
}

func decodeMark(key, value []byte) (mark, error) {
	if len(key) != 9 || len(value) != 16 {
		return mark{}, fmt.Errorf("index: a mark of arrivals is damaged: %x", key)
	}
	return mark{
		number: binary.BigEndian.Uint64(value), wall: int64(binary.BigEndian.Uint64(value[8:])),
		time: int64(^binary.BigEndian.Uint64(key[1:]) ^ 1<<63),
	}, nil
}

// iterating is a Store or a Tx.
type iterating interface {
	NewIter(lower, upper []byte) (*raftfsm.Iter, error)
}

// markAt is the last mark at a time or before; the first of all documents, 0, when there is none.
func markAt(s iterating, time int64) (k mark, err error) {
	it, err := s.NewIter([]byte{tableMark}, []byte{tableMark + 1})
	if err != nil {
		return mark{}, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.SeekGE(markKey(time)) {
		return mark{}, it.Error()
	}
	v, err := it.Value()
	if err != nil {
		return mark{}, err
	}
	return decodeMark(it.Key(), v)
}

// latest is later than any time of a mark.
const latest = 1<<62 - 1

// readClock reads how far retention time is ahead of the group's.
func readClock(get func([]byte) ([]byte, error)) (int64, error) {
	v, err := get([]byte{tableClock})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return 0, nil
	}
	if err == nil && len(v) != 8 {
		err = errors.New("index: the row of the clock of retention is damaged")
	}
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

// retentionClock is what a machine knows of arrivals.
type retentionClock struct {
	ahead int64 // of group time
	last  mark
}

func loadClock(store *raftfsm.Store) (c retentionClock, err error) {
	if c.ahead, err = readClock(store.Get); err != nil {
		return c, err
	}
	c.last, err = markAt(store, latest)
	return c, err
}

// mark writes down that the documents before the entry have arrived, unless that was done a moment ago.
func (a *applier) mark(now int64) error {
	c := &a.m.clock
	if a.layout < layoutRetention || a.before <= c.last.number || c.last.number > 0 && now < c.last.time+markEvery {
		return nil
	}
	k := mark{number: a.before, time: now, wall: a.wall}
	if err := a.tx.Set(markKey(k.time), k.encode()); err != nil {
		return err
	}
	a.tx.OnCommit(func() { a.m.setClock(retentionClock{ahead: c.ahead, last: k}) })
	return nil
}

func (m *Machine) setClock(c retentionClock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = c
}

// isMarked tells whether the arrival of all documents is known.
func (m *Machine) isMarked() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.docs <= m.clock.last.number
}

// resumeClock lets the age of documents that were restored go on where the last mark left it: what was between
// the backup and the restore does not count.
func (m *Machine) resumeClock(tx *raftfsm.Tx, e raftfsm.Entry) error {
	last, err := markAt(tx, latest)
	if err != nil || last.number == 0 {
		return err
	}
	ahead := last.time - e.Time
	tx.OnCommit(func() { m.setClock(retentionClock{ahead: ahead, last: last}) })
	return tx.Set([]byte{tableClock}, binary.BigEndian.AppendUint64(nil, uint64(ahead)))
}
