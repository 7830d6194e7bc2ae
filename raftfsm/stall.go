package raftfsm

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// A leader's main goroutine waits for its disk, but heartbeats go on from others: with a disk
// that hangs, a leader answers nothing and is never deposed (hashicorp/raft#503, #666). A
// write cannot be given up either, because it may still complete behind one that came later.
// So a write under way for too long ends the process, and the other nodes elect a leader.

// writeBounds say when a write under way counts as slow, and when as stalled.
type writeBounds struct {
	slow, stalled time.Duration
}

// writeWatch knows the writes under way. It is safe for use by several goroutines. It measures
// in time for which it has seen the process run: a process that was stopped for a minute, or a
// machine that slept, has no stalled disk.
type writeWatch struct {
	bounds writeBounds

	mu      sync.Mutex
	running time.Duration
	next    uint64
	writes  map[uint64]*pendingWrite
	// state are the writes to the state that Pebble reports as slow, by file and operation.
	state map[string]*pendingWrite
	// slowUntil is when the disk counts as good again.
	slowUntil time.Duration
}

// pendingWrite is one write under way.
type pendingWrite struct {
	group, op string
	began     time.Duration // of the running time
	// took and seen are what Pebble said last, and when.
	took, seen time.Duration
	slow       bool // told
}

// lateWrite is a write that has gone beyond a bound.
type lateWrite struct {
	group, op string
	age       time.Duration
	stalled   bool
}

func newWriteWatch(b writeBounds) *writeWatch {
	return &writeWatch{bounds: b, writes: map[uint64]*pendingWrite{}, state: map[string]*pendingWrite{}}
}

// begin notes a write; end takes what it returns.
func (w *writeWatch) begin(group, op string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.writes[w.next] = &pendingWrite{group: group, op: op, began: w.running}
	return w.next
}

func (w *writeWatch) end(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.writes, id)
}

// diskSlow takes an event of Pebble, which repeats it every two seconds while the same
// operation is under way.
func (w *writeWatch) diskSlow(i pebble.DiskSlowInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := i.OpType.String() + " " + i.Path
	p := w.state[key]
	// An operation that began after the last event has lasted for less time than has passed since.
	if p == nil || i.Duration < p.took+(w.running-p.seen)-time.Second {
		// What came before the first event may have been a pause of the process.
		p = &pendingWrite{op: key, began: w.running - w.bounds.slow}
		w.state[key] = p
	}
	p.took, p.seen = i.Duration, w.running
}

// stateEventMemory is how long after Pebble's last event an operation counts as under way: two
// of its intervals.
const stateEventMemory = 4 * time.Second

// tick counts elapsed time and returns the writes that have newly gone beyond a bound.
func (w *writeWatch) tick(elapsed time.Duration) []lateWrite {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running += min(elapsed, 2*watchInterval)
	var late []lateWrite
	look := func(p *pendingWrite) {
		age := w.running - p.began
		if age < w.bounds.slow {
			return
		}
		w.slowUntil = w.running + slowDiskMemory
		stalled := age >= w.bounds.stalled
		if stalled || !p.slow {
			late = append(late, lateWrite{group: p.group, op: p.op, age: age, stalled: stalled})
		}
		p.slow = true
	}
	for _, p := range w.writes {
		look(p)
	}
	for key, p := range w.state {
		if w.running-p.seen > stateEventMemory {
			delete(w.state, key)
			continue
		}
		look(p)
	}
	return late
}

// slow says whether the disk was slow lately.
func (w *writeWatch) slow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running < w.slowUntil
}

// raftStore is a group's log with its term and vote.
type raftStore interface {
	raft.LogStore
	raft.StableStore
}

// watchedStore tells a writeWatch of every write to a raftStore.
type watchedStore struct {
	raftStore
	watch *writeWatch
	group string
}

// StoreLogs appends entries.
func (s watchedStore) StoreLogs(logs []*raft.Log) error {
	defer s.watch.end(s.watch.begin(s.group, "append"))
	return s.raftStore.StoreLogs(logs)
}

// StoreLog appends one entry.
func (s watchedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// DeleteRange removes entries.
func (s watchedStore) DeleteRange(lo, hi uint64) error {
	defer s.watch.end(s.watch.begin(s.group, "truncate"))
	return s.raftStore.DeleteRange(lo, hi)
}

// Set stores a vote.
func (s watchedStore) Set(key, val []byte) error {
	defer s.watch.end(s.watch.begin(s.group, "vote"))
	return s.raftStore.Set(key, val)
}

// SetUint64 stores a term.
func (s watchedStore) SetUint64(key []byte, val uint64) error {
	defer s.watch.end(s.watch.begin(s.group, "vote"))
	return s.raftStore.SetUint64(key, val)
}
