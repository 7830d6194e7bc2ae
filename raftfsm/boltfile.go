package raftfsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// shrinker is a log file that can be written anew without the room that removed entries left.
type shrinker interface {
	// shrink rests now and then, and gives up with the error of rest, or with errLogChanged when entries are
	// removed meanwhile. An error although it was done means that nobody knows which file the disk has.
	shrink(rest func() error) (done bool, err error)
}

// errLogChanged says that entries were removed while a log was written anew.
var errLogChanged = errors.New("raftfsm: entries were removed from the log meanwhile")

const (
	// logName is the bolt file in a group's folder, freshName the one that takes its place.
	logName   = "log.bolt"
	freshName = "log.bolt.new"

	// shrinkStepBytes is about how much of a log is copied in one transaction.
	shrinkStepBytes = 1 << 20
	// shrinkTail is how many entries are left to be copied while nobody can append.
	shrinkTail = 16
)

// stableKeys are what Raft keeps beside its log. Others are refused, because shrink would lose them.
var stableKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// boltFile is a log in a bolt file. The file never shrinks by itself.
type boltFile struct {
	dir string

	// mu is held for writing while another file takes the place of this one.
	mu    sync.RWMutex
	store *raftboltdb.BoltStore

	// removals is how often entries were removed.
	removals atomic.Uint64
}

// openBolt opens or creates a group's log in its folder dir.
func openBolt(dir string, _ GroupID) (LogFile, error) {
	// What a crash has left of a file that was to take the log's place.
	if err := removeFile(vfs.Default, filepath.Join(dir, freshName)); err != nil {
		return nil, fmt.Errorf("raftfsm: remove an unfinished log: %w", err)
	}
	store, err := openBoltStore(filepath.Join(dir, logName))
	if err != nil {
		return nil, err
	}
	return &boltFile{dir: dir, store: store}, nil
}

func openBoltStore(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(), MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("raftfsm: open log %s: %w", path, err)
	}
	return store, nil
}

// FirstIndex implements raft.LogStore, as the methods after it.
func (f *boltFile) FirstIndex() (uint64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.FirstIndex()
}

func (f *boltFile) LastIndex() (uint64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.LastIndex()
}

func (f *boltFile) GetLog(index uint64, l *raft.Log) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.GetLog(index, l)
}

func (f *boltFile) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *boltFile) StoreLogs(logs []*raft.Log) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.StoreLogs(logs)
}

func (f *boltFile) DeleteRange(lo, hi uint64) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.removals.Add(1)
	return f.store.DeleteRange(lo, hi)
}

// Set implements raft.StableStore, as the methods after it.
func (f *boltFile) Set(key, val []byte) error {
	if !slices.Contains(stableKeys, string(key)) {
		return fmt.Errorf("raftfsm: %q is none of the keys that a log keeps: %q", key, stableKeys)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.Set(key, val)
}

func (f *boltFile) Get(key []byte) ([]byte, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.Get(key)
}

func (f *boltFile) SetUint64(key []byte, val uint64) error {
	if !slices.Contains(stableKeys, string(key)) {
		return fmt.Errorf("raftfsm: %q is none of the keys that a log keeps: %q", key, stableKeys)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.SetUint64(key, val)
}

func (f *boltFile) GetUint64(key []byte) (uint64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.store.GetUint64(key)
}

// Close closes the file.
func (f *boltFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store.Close()
}

// shrink copies what the log has into a fresh file beside it. Appends go on until a few entries are left;
// they wait while these, term and vote are copied, and the fresh file, all of it synced, is renamed. A
// crash leaves one of the two, which are equal in all that was acknowledged.
func (f *boltFile) shrink(rest func() error) (done bool, err error) {
	path := filepath.Join(f.dir, freshName)
	fresh, err := openBoltStore(path)
	if err != nil {
		return false, err
	}
	defer func() {
		if !done {
			err = errors.Join(err, fresh.Close(), removeFile(vfs.Default, path))
		}
	}()
	removals := f.removals.Load()
	next, err := f.FirstIndex()
	if err != nil {
		return false, err
	}
	for f.removals.Load() == removals {
		last, err := f.LastIndex()
		if err != nil {
			return false, err
		}
		if last < next+shrinkTail {
			break
		}
		if err := rest(); err != nil {
			return false, err
		}
		if next, err = copyEntries(fresh, f, next, last); err != nil {
			return false, err
		}
	}
	return f.replace(fresh, next, removals)
}

// replace copies the entries from next on, term and vote, and puts the fresh file in this one's place.
func (f *boltFile) replace(fresh *raftboltdb.BoltStore, next, removals uint64) (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.removals.Load() != removals {
		return false, errLogChanged
	}
	last, err := f.store.LastIndex()
	for err == nil && next <= last {
		next, err = copyEntries(fresh, f.store, next, last)
	}
	if err != nil {
		return false, err
	}
	for _, key := range stableKeys {
		v, err := f.store.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err == nil {
			err = fresh.Set([]byte(key), v)
		}
		if err != nil {
			return false, err
		}
	}
	if err := os.Rename(filepath.Join(f.dir, freshName), filepath.Join(f.dir, logName)); err != nil {
		return false, err
	}
	old := f.store
	f.store = fresh
	return true, errors.Join(syncDir(vfs.Default, f.dir), old.Close())
}

// copyEntries stores entries from next on, up to last or shrinkStepBytes, in one transaction. It returns the
// next one.
func copyEntries(to, from raft.LogStore, next, last uint64) (uint64, error) {
	var some []*raft.Log
	for bytes := int64(0); next <= last && bytes < shrinkStepBytes; next++ {
		l := &raft.Log{}
		if err := from.GetLog(next, l); errors.Is(err, raft.ErrLogNotFound) {
			continue // a gap, or an empty log
		} else if err != nil {
			return next, err
		}
		bytes += sizeOf(l)
		some = append(some, l)
	}
	if len(some) == 0 {
		return next, nil
	}
	return next, to.StoreLogs(some)
}
