package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// Every key in Pebble is [group u32 big endian][space u8][machine's key]. One group is one
// contiguous range, so that a snapshot can replace it whole.
const (
	spaceHost    byte = 1 // the host's rows: applied position, remembered requests
	spaceState   byte = 2 // the machine's replicated state
	spaceDerived byte = 3 // what the machine derives from it on this node only
)

const prefixLen = 5

func keyPrefix(group GroupID, space byte) []byte {
	p := make([]byte, prefixLen)
	binary.BigEndian.PutUint32(p, uint32(group))
	p[4] = space
	return p
}

// groupSpan is the range of keys [lower, upper) that belong to group.
func groupSpan(group GroupID) (lower, upper []byte) {
	lower = binary.BigEndian.AppendUint32(nil, uint32(group))
	upper = binary.BigEndian.AppendUint32(nil, uint32(group)+1)
	return lower, upper
}

// ErrNotFound is returned by Get for a key that does not exist.
var ErrNotFound = errors.New("raftfsm: key not found")

// ErrCorrupt means that the disk does not give back what was stored: a checksum is wrong.
var ErrCorrupt = errors.New("raftfsm: the state is damaged on the disk")

// readFailed names damage, whoever found it.
func readFailed(err error) error {
	if pebble.IsCorruptionError(err) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("raftfsm: get: %w", err)
}

// Store is one group's part of the node's Pebble, open for reading its replicated state.
// Keys are the machine's own; their first byte should tell tables apart.
type Store struct {
	db      *pebble.DB
	group   GroupID
	state   []byte
	derived *Derived
	folder  *Folder
	// deleted is told of ranges in which there is nothing any more.
	deleted func(lower, upper []byte)
}

func newStore(db *pebble.DB, group GroupID, folder *Folder) *Store {
	return &Store{
		db:      db,
		group:   group,
		state:   keyPrefix(group, spaceState),
		derived: &Derived{db: db, prefix: keyPrefix(group, spaceDerived)},
		folder:  folder,
		deleted: func(_, _ []byte) {},
	}
}

// Get returns a copy of the value at key, or ErrNotFound.
func (s *Store) Get(key []byte) ([]byte, error) { return get(s.db, s.state, key) }

// Read calls use with the value at key, which is valid during the call only, or returns ErrNotFound.
func (s *Store) Read(key []byte, use func(value []byte) error) error {
	v, closer, err := s.db.Get(join(s.state, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return readFailed(err)
	}
	return errors.Join(use(v), closer.Close())
}

// NewIter iterates over the keys in [lower, upper). A nil upper means the end of the state.
// It sees the state as it is now, whatever is written meanwhile.
func (s *Store) NewIter(lower, upper []byte) (*Iter, error) {
	return newIter(s.db, s.state, lower, upper)
}

// Deleted says that there are no rows in [lower, upper) and were some, perhaps in an earlier process: what they
// take on the disk can be given back. Ranges that Apply deletes are known.
func (s *Store) Deleted(lower, upper []byte) {
	s.deleted(join(s.state, lower), upperBound(s.state, upper))
}

// Derived returns the group's node-local data: what can be rebuilt from the state and is
// neither replicated nor part of a snapshot. It is empty after a restored snapshot.
func (s *Store) Derived() *Derived { return s.derived }

// Folder returns the group's node-local files.
func (s *Store) Folder() *Folder { return s.folder }

// Derived is node-local data of one group.
type Derived struct {
	db     *pebble.DB
	prefix []byte
}

// Get returns a copy of the value at key, or ErrNotFound.
func (d *Derived) Get(key []byte) ([]byte, error) { return get(d.db, d.prefix, key) }

// NewIter iterates over the keys in [lower, upper).
func (d *Derived) NewIter(lower, upper []byte) (*Iter, error) {
	return newIter(d.db, d.prefix, lower, upper)
}

// NewBatch starts an atomic write of derived data.
func (d *Derived) NewBatch() *DerivedBatch {
	return &DerivedBatch{b: d.db.NewBatch(), prefix: d.prefix}
}

// DerivedBatch is an atomic write of derived data. It is used by one goroutine.
type DerivedBatch struct {
	b      *pebble.Batch
	prefix []byte
	buf    []byte
}

// Set writes one row.
func (b *DerivedBatch) Set(key, value []byte) error {
	b.buf = append(append(b.buf[:0], b.prefix...), key...)
	return b.b.Set(b.buf, value, nil)
}

// DeleteRange removes the rows in [lower, upper).
func (b *DerivedBatch) DeleteRange(lower, upper []byte) error {
	return b.b.DeleteRange(join(b.prefix, lower), upperBound(b.prefix, upper), nil)
}

// Size is how many bytes the batch holds.
func (b *DerivedBatch) Size() int { return b.b.Len() }

// Commit makes the batch visible without waiting for the disk: derived data can be rebuilt.
func (b *DerivedBatch) Commit() error { return b.b.Commit(pebble.NoSync) }

// Close releases the batch; it is needed after Commit too.
func (b *DerivedBatch) Close() error { return b.b.Close() }

// Tx collects the writes of one entry and reads through them. It is valid during one call
// of Machine.Apply and is used by that goroutine only.
type Tx struct {
	b        *pebble.Batch
	prefix   []byte
	buf      []byte
	onCommit []func()
	deleted  func(lower, upper []byte)
}

// Get returns a copy of the value at key as of this moment in the entry, or ErrNotFound.
func (t *Tx) Get(key []byte) ([]byte, error) { return get(t.b, t.prefix, key) }

// NewIter iterates over the keys in [lower, upper) as of this moment in the entry.
func (t *Tx) NewIter(lower, upper []byte) (*Iter, error) {
	return newIter(t.b, t.prefix, lower, upper)
}

// Set writes one row.
func (t *Tx) Set(key, value []byte) error {
	t.buf = append(append(t.buf[:0], t.prefix...), key...)
	return t.b.Set(t.buf, value, nil)
}

// Delete removes one row; a missing one is no error.
func (t *Tx) Delete(key []byte) error {
	t.buf = append(append(t.buf[:0], t.prefix...), key...)
	return t.b.Delete(t.buf, nil)
}

// DeleteRange removes the rows in [lower, upper).
func (t *Tx) DeleteRange(lower, upper []byte) error {
	lower, upper = join(t.prefix, lower), upperBound(t.prefix, upper)
	t.OnCommit(func() { t.deleted(lower, upper) })
	return t.b.DeleteRange(lower, upper, nil)
}

// OnCommit calls f once the entry's writes are visible to readers and before any proposer
// learns of them.
func (t *Tx) OnCommit(f func()) { t.onCommit = append(t.onCommit, f) }

// Iter walks over rows in key order. Key and Value are valid until the next move.
type Iter struct {
	it     *pebble.Iterator
	prefix []byte
}

// First moves to the first row.
func (i *Iter) First() bool { return i.it.First() }

// Next moves to the next row.
func (i *Iter) Next() bool { return i.it.Next() }

// SeekGE moves to the first row at or after key.
func (i *Iter) SeekGE(key []byte) bool { return i.it.SeekGE(join(i.prefix, key)) }

// Valid is true while the iterator stands on a row.
func (i *Iter) Valid() bool { return i.it.Valid() }

// Key is the machine's key.
func (i *Iter) Key() []byte { return i.it.Key()[prefixLen:] }

// Value is the row's value.
func (i *Iter) Value() ([]byte, error) { return i.it.ValueAndErr() }

// Error is what ended the walk early, if anything.
func (i *Iter) Error() error { return i.it.Error() }

// Close releases the iterator and returns what went wrong during the walk.
func (i *Iter) Close() error { return i.it.Close() }

func newIter(r pebble.Reader, prefix, lower, upper []byte) (*Iter, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: join(prefix, lower), UpperBound: upperBound(prefix, upper)})
	if err != nil {
		return nil, fmt.Errorf("raftfsm: iterator: %w", err)
	}
	return &Iter{it: it, prefix: prefix}, nil
}

func get(r pebble.Reader, prefix, key []byte) ([]byte, error) {
	v, closer, err := r.Get(join(prefix, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, readFailed(err)
	}
	return closeAfter(append([]byte(nil), v...), closer)
}

func closeAfter(v []byte, c io.Closer) ([]byte, error) {
	if err := c.Close(); err != nil {
		return nil, fmt.Errorf("raftfsm: get: %w", err)
	}
	return v, nil
}

func join(prefix, key []byte) []byte {
	k := make([]byte, 0, len(prefix)+len(key))
	return append(append(k, prefix...), key...)
}

// upperBound is the end of the prefix when upper is nil.
func upperBound(prefix, upper []byte) []byte {
	if upper != nil {
		return join(prefix, upper)
	}
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}
