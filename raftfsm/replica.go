package raftfsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Rows of the host's space.
var (
	rowPosition     = []byte{'p'}
	tableRequest    = byte('r') // request id -> expiry, fingerprint, result
	tableRequestAge = byte('x') // expiry, request id -> nothing
	rowRestore      = []byte{'b'}
)

// Position is how far a replica has applied its log.
type Position struct {
	// Index and Term are those of the last applied entry.
	Index uint64
	Term  uint64
	// Time is the group time after it, in microseconds.
	Time int64
	// ConfigIndex and Config are the last applied membership, as Raft encodes it.
	ConfigIndex uint64
	Config      []byte
}

// Applied is what became of one command of an entry.
type Applied struct {
	Result
	// Err is nil or ErrRequestReused.
	Err error
}

// Replica applies one group's committed entries to Pebble, each exactly once whatever is
// replayed: the position is part of every batch. It is the host's inner half and needs no
// Raft, which is how tests drive machines. One goroutine calls Open, Apply and ApplyConfig.
type Replica struct {
	db      *pebble.DB
	group   GroupID
	machine Machine
	store   *Store
	host    []byte
	pos     Position
	// expiry is when the request that is remembered the shortest may expire, in group time: no entry before
	// it looks for some.
	expiry int64
	index  atomic.Uint64
	time   atomic.Int64
	config atomic.Pointer[appliedConfig]
	// restored is how far a restore has come; nil when there was none.
	restored atomic.Pointer[restoreRow]

	mu      sync.Mutex
	changed chan struct{} // closed at the next step; nil when nobody waits
}

// NewReplica joins a machine to its part of db and its files. Call Open before Apply.
func NewReplica(db *pebble.DB, folder *Folder, group GroupID, machine Machine) *Replica {
	return &Replica{db: db, group: group, machine: machine, store: newStore(db, group, folder), host: keyPrefix(group, spaceHost)}
}

// Open reads the position and loads the machine. It is called again after a snapshot has
// replaced the group's rows.
func (r *Replica) Open() error {
	v, err := get(r.db, r.host, rowPosition)
	switch {
	case errors.Is(err, ErrNotFound):
		r.pos = Position{}
	case err != nil:
		return err
	default:
		if r.pos, err = decodePosition(v); err != nil {
			return err
		}
	}
	r.expiry = 0 // not known
	if err := r.openRestore(); err != nil {
		return err
	}
	if err := r.machine.Load(r.store); err != nil {
		return fmt.Errorf("raftfsm: load group %d: %w", r.group, err)
	}
	r.publish()
	return nil
}

// Position is how far the replica has come. Only the applying goroutine may call it.
func (r *Replica) Position() Position { return r.pos }

// appliedConfig is the last applied, and so committed, membership and its index.
type appliedConfig struct {
	index  uint64
	config []byte
}

// AppliedTime is the group time after the last applied entry; any goroutine may ask.
func (r *Replica) AppliedTime() int64 { return r.time.Load() }

// AppliedIndex is the index of the last applied entry; any goroutine may ask.
func (r *Replica) AppliedIndex() uint64 { return r.index.Load() }

// Apply executes one encoded entry. An entry at or below the position was applied before
// and returns nil.
func (r *Replica) Apply(index, term uint64, data []byte) ([]Applied, error) {
	if index <= r.pos.Index {
		return nil, r.sameTerm(index, term)
	}
	wall, cmds, err := decodeEntry(data)
	if err != nil {
		return nil, fmt.Errorf("group %d index %d: %w", r.group, index, err)
	}
	pos := r.pos
	pos.Index, pos.Term = index, term
	if stamp, ok := entryStamp(data, term); ok {
		pos.Time = max(pos.Time, stamp)
	}
	b := r.db.NewIndexedBatch()
	defer b.Close()
	e := Entry{Index: index, Term: term, Time: pos.Time, Wall: wall}
	var out []Applied
	var commits []func()
	switch {
	case len(cmds) == 1 && cmds[0].host:
		out = make([]Applied, 1)
		out[0], commits, err = r.restore(b, e, cmds[0].Data)
	default:
		out, commits, err = r.execute(b, e, cmds)
	}
	if err != nil {
		return nil, fmt.Errorf("group %d index %d: %w", r.group, index, err)
	}
	if err := r.commit(b, pos); err != nil {
		return nil, err
	}
	for _, f := range commits {
		f()
	}
	r.publish()
	return out, nil
}

// ApplyConfig records a membership entry.
func (r *Replica) ApplyConfig(index, term uint64, config []byte) error {
	if index <= r.pos.Index {
		return r.sameTerm(index, term)
	}
	pos := r.pos
	pos.Index, pos.Term, pos.ConfigIndex = index, term, index
	pos.Config = bytes.Clone(config)
	b := r.db.NewBatch()
	defer b.Close()
	if err := r.commit(b, pos); err != nil {
		return err
	}
	r.publish()
	return nil
}

// sameTerm refuses another entry in the place of the last applied one: the state then holds
// what the group's log no longer has.
func (r *Replica) sameTerm(index, term uint64) error {
	if index == r.pos.Index && term != r.pos.Term {
		return fmt.Errorf("the log has an entry of term %d at index %d, where the state has one of term %d: a majority has lost synced data", term, index, r.pos.Term)
	}
	return nil
}

// publish tells readers how far the replica has come.
func (r *Replica) publish() {
	r.time.Store(r.pos.Time)
	if c := r.config.Load(); c == nil || c.index != r.pos.ConfigIndex {
		r.config.Store(&appliedConfig{index: r.pos.ConfigIndex, config: r.pos.Config})
	}
	r.index.Store(r.pos.Index)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// WaitApplied waits until the entry at index has been applied.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	for {
		r.mu.Lock()
		if r.index.Load() >= index {
			r.mu.Unlock()
			return nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Replica) commit(b *pebble.Batch, pos Position) error {
	if err := b.Set(join(r.host, rowPosition), encodePosition(pos), nil); err != nil {
		return fmt.Errorf("raftfsm: position: %w", err)
	}
	// The Raft log is the durability; a snapshot syncs before Raft may truncate it.
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("raftfsm: commit: %w", err)
	}
	r.pos = pos
	return nil
}

// execute runs the commands that are new and answers the repeated ones from memory.
func (r *Replica) execute(b *pebble.Batch, e Entry, cmds []Command) ([]Applied, []func(), error) {
	out := make([]Applied, len(cmds))
	requests := requestTable{b: b, prefix: r.host, expiry: &r.expiry}
	inEntry := map[RequestID]int{} // first command of this entry with the id
	fresh := make([]int, 0, len(cmds))
	for i, c := range cmds {
		if r.closed(c.Data) {
			out[i] = Applied{Result: Result{Index: e.Index}, Err: ErrRestoring}
			continue
		}
		if c.RequestID != (RequestID{}) {
			if first, ok := inEntry[c.RequestID]; ok {
				out[i].Repeated = true
				if fingerprint(c.Data) != fingerprint(cmds[first].Data) {
					out[i].Err = ErrRequestReused
				}
				continue
			}
			known, err := requests.lookup(c, e.Time)
			if err != nil {
				return nil, nil, err
			}
			if known != nil {
				out[i] = *known
				continue
			}
			inEntry[c.RequestID] = i
		}
		fresh = append(fresh, i)
		e.Commands = append(e.Commands, c.Data)
	}
	var tx Tx
	if len(fresh) > 0 {
		tx = Tx{b: b, prefix: r.store.state, deleted: r.store.deleted}
		results, err := r.machine.Apply(&tx, e)
		if err != nil {
			return nil, nil, err
		}
		if len(results) != len(fresh) {
			return nil, nil, fmt.Errorf("machine returned %d results for %d commands", len(results), len(fresh))
		}
		for n, i := range fresh {
			out[i].Data, out[i].Index = results[n], e.Index
		}
	}
	for i, c := range cmds {
		if c.RequestID == (RequestID{}) {
			continue
		}
		if first := inEntry[c.RequestID]; out[i].Repeated && out[i].Index == 0 {
			out[i].Index = out[first].Index
			if out[i].Err == nil {
				out[i].Data = out[first].Data
			}
		} else if !out[i].Repeated && out[i].Err == nil {
			if err := requests.remember(c, e, out[i].Data); err != nil {
				return nil, nil, err
			}
		}
	}
	return out, tx.onCommit, requests.expire(e.Time, 8+2*len(inEntry))
}

// requestTable remembers the results of commands by request id.
type requestTable struct {
	b      *pebble.Batch
	prefix []byte
	expiry *int64 // the replica's
}

func fingerprint(data []byte) uint64 {
	sum := sha256.Sum256(data)
	return binary.BigEndian.Uint64(sum[:])
}

func (t requestTable) lookup(c Command, now int64) (*Applied, error) {
	v, err := get(t.b, t.prefix, append([]byte{tableRequest}, c.RequestID[:]...))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(v) < 24 {
		return nil, fmt.Errorf("raftfsm: malformed row of request %x", c.RequestID)
	}
	if int64(binary.BigEndian.Uint64(v)) <= now {
		return nil, nil
	}
	a := &Applied{Result: Result{Data: v[24:], Index: binary.BigEndian.Uint64(v[16:]), Repeated: true}}
	if binary.BigEndian.Uint64(v[8:]) != fingerprint(c.Data) {
		a.Err, a.Data = ErrRequestReused, nil
	}
	return a, nil
}

func (t requestTable) remember(c Command, e Entry, result []byte) error {
	expiry := uint64(e.Time + RequestMemory.Microseconds())
	*t.expiry = min(*t.expiry, int64(expiry))
	row := binary.BigEndian.AppendUint64(nil, expiry)
	row = binary.BigEndian.AppendUint64(row, fingerprint(c.Data))
	row = binary.BigEndian.AppendUint64(row, e.Index)
	row = append(row, result...)
	if err := t.b.Set(join(t.prefix, append([]byte{tableRequest}, c.RequestID[:]...)), row, nil); err != nil {
		return fmt.Errorf("raftfsm: remember request: %w", err)
	}
	if err := t.b.Set(join(t.prefix, ageKey(expiry, c.RequestID)), nil, nil); err != nil {
		return fmt.Errorf("raftfsm: remember request: %w", err)
	}
	return nil
}

// expire forgets up to most requests whose time is over.
func (t requestTable) expire(now int64, most int) error {
	if now < *t.expiry {
		return nil
	}
	it, err := newIter(t.b, t.prefix, []byte{tableRequestAge}, []byte{tableRequestAge + 1})
	if err != nil {
		return err
	}
	var keys [][]byte
	*t.expiry = math.MaxInt64
	for ok := it.First(); ok; ok = it.Next() {
		expiry := int64(binary.BigEndian.Uint64(it.Key()[1:]))
		if expiry > now || len(keys) == most {
			*t.expiry = expiry
			break
		}
		keys = append(keys, bytes.Clone(it.Key()))
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("raftfsm: expire requests: %w", err)
	}
	for _, k := range keys {
		id := k[9:]
		row := append([]byte{tableRequest}, id...)
		// A request that came again after its expiry has a younger row under the same id.
		v, err := get(t.b, t.prefix, row)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && bytes.Equal(v[:8], k[1:9]) {
			if err := t.b.Delete(join(t.prefix, row), nil); err != nil {
				return fmt.Errorf("raftfsm: expire requests: %w", err)
			}
		}
		if err := t.b.Delete(join(t.prefix, k), nil); err != nil {
			return fmt.Errorf("raftfsm: expire requests: %w", err)
		}
	}
	return nil
}

func ageKey(expiry uint64, id RequestID) []byte {
	k := binary.BigEndian.AppendUint64([]byte{tableRequestAge}, expiry)
	return append(k, id[:]...)
}

const positionVersion = 1

func encodePosition(p Position) []byte {
	b := []byte{positionVersion}
	b = binary.BigEndian.AppendUint64(b, p.Index)
	b = binary.BigEndian.AppendUint64(b, p.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Time))
	b = binary.BigEndian.AppendUint64(b, p.ConfigIndex)
	return append(b, p.Config...)
}

func decodePosition(b []byte) (Position, error) {
	if len(b) < 33 || b[0] != positionVersion {
		return Position{}, errors.New("raftfsm: malformed applied position; the data folder is damaged or newer than this build")
	}
	p := Position{
		Index:       binary.BigEndian.Uint64(b[1:]),
		Term:        binary.BigEndian.Uint64(b[9:]),
		Time:        int64(binary.BigEndian.Uint64(b[17:])),
		ConfigIndex: binary.BigEndian.Uint64(b[25:]),
	}
	if len(b) > 33 {
		p.Config = bytes.Clone(b[33:])
	}
	return p, nil
}

// StateHash is a SHA-256 over the replicated rows of the group, the same on every replica
// that has applied the same entries. The applied index is not part of it, so that replicas
// can be compared across entries that change nothing.
func (r *Replica) StateHash() ([32]byte, error) {
	_, h, err := r.StateHashAt()
	return h, err
}

// StateHashAt also returns the applied index at which the rows were hashed. Entries may be
// applied meanwhile; they are not seen.
func (r *Replica) StateHashAt() (applied uint64, hash [32]byte, err error) {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: r.host, UpperBound: upperBound(r.store.state, nil)})
	if err != nil {
		return 0, hash, fmt.Errorf("raftfsm: state hash: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.SeekGE(join(r.host, rowPosition)) && bytes.Equal(it.Key(), join(r.host, rowPosition)) {
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, hash, fmt.Errorf("raftfsm: state hash: %w", err)
		}
		pos, err := decodePosition(v)
		if err != nil {
			return 0, hash, err
		}
		applied = pos.Index
	}
	h := sha256.New()
	var n [8]byte
	for ok := it.SeekGE(r.store.state); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, hash, fmt.Errorf("raftfsm: state hash: %w", err)
		}
		key := it.Key()[prefixLen:]
		binary.BigEndian.PutUint32(n[:4], uint32(len(key)))
		binary.BigEndian.PutUint32(n[4:], uint32(len(v)))
		h.Write(n[:])
		h.Write(key)
		h.Write(v)
	}
	return applied, [32]byte(h.Sum(nil)), nil
}
