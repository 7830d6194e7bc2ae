// Package fsmtest drives a state machine without Raft: a test feeds it entries, restarts it
// at will, and compares state hashes.
package fsmtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const group raftfsm.GroupID = 1

// Driver feeds entries to one machine on an in-memory Pebble.
type Driver struct {
	t       testing.TB
	make    func() raftfsm.Machine
	fs      vfs.FS
	db      *pebble.DB
	machine raftfsm.Machine
	replica *raftfsm.Replica
	index   uint64
	// crashable is set by NewCrashable, and log has the entries then.
	crashable *vfs.MemFS
	log       [][]byte
	// Time is the group time that the next entry carries, and Wall its wall clock.
	Time time.Duration
	Wall time.Time
}

// New starts a machine made by factory; it is closed when the test ends.
func New(t testing.TB, factory func() raftfsm.Machine) *Driver {
	t.Helper()
	return newDriver(t, factory, vfs.NewMem())
}

// NewCrashable is New for a driver that can lose power.
func NewCrashable(t testing.TB, factory func() raftfsm.Machine) *Driver {
	t.Helper()
	fs := vfs.NewCrashableMem()
	d := newDriver(t, factory, fs)
	d.crashable = fs
	return d
}

func newDriver(t testing.TB, factory func() raftfsm.Machine, fs vfs.FS) *Driver {
	t.Helper()
	d := &Driver{t: t, make: factory, fs: fs, Wall: time.Unix(1_700_000_000, 0).UTC()}
	d.openDB()
	d.open()
	t.Cleanup(func() {
		d.close()
		d.closeDB()
	})
	return d
}

func (d *Driver) openDB() {
	d.t.Helper()
	db, err := pebble.Open("", &pebble.Options{FS: d.fs, FormatMajorVersion: pebble.FormatNewest, Logger: discard{}})
	if err != nil {
		d.t.Fatalf("open pebble: %v", err)
	}
	d.db = db
}

func (d *Driver) closeDB() {
	if err := d.db.Close(); err != nil {
		d.t.Errorf("close pebble: %v", err)
	}
}

// LosePower goes on with the files as they were synced, and by chance more of them, and applies the
// entries again that the state lacks then, as a node does that has them in its log.
func (d *Driver) LosePower(rng *rand.Rand) {
	d.t.Helper()
	after := d.crashable.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	d.close()
	d.closeDB()
	d.fs, d.crashable = after, after
	d.openDB()
	d.open()
	for i := d.replica.Position().Index; i < d.index; i++ {
		if _, err := d.replica.Apply(i+1, 1, d.log[i]); err != nil {
			d.t.Fatalf("apply entry %d again: %v", i+1, err)
		}
	}
}

// Sync makes what was applied durable, as a snapshot does.
func (d *Driver) Sync() {
	d.t.Helper()
	if err := d.db.LogData(nil, pebble.Sync); err != nil {
		d.t.Fatalf("sync: %v", err)
	}
}

// Overwrite changes a row of the state behind the machine's back.
func (d *Driver) Overwrite(key, value []byte) {
	d.t.Helper()
	if err := d.db.Set(append([]byte{0, 0, 0, byte(group), 2}, key...), value, pebble.NoSync); err != nil {
		d.t.Fatalf("overwrite: %v", err)
	}
}

// Apply executes commands as one entry and returns their results.
func (d *Driver) Apply(cmds ...[]byte) [][]byte {
	d.t.Helper()
	proposals := make([]raftfsm.Command, len(cmds))
	for i, c := range cmds {
		proposals[i].Data = c
	}
	applied := d.Propose(proposals...)
	out := make([][]byte, len(applied))
	for i, a := range applied {
		out[i] = a.Data
	}
	return out
}

// Propose is Apply for commands with request ids.
func (d *Driver) Propose(cmds ...raftfsm.Command) []raftfsm.Applied {
	d.t.Helper()
	d.index++
	entry := raftfsm.EncodeEntry(1, d.Time.Microseconds(), d.Wall.UnixNano(), cmds)
	if d.crashable != nil {
		d.log = append(d.log, entry)
	}
	out, err := d.replica.Apply(d.index, 1, entry)
	if err != nil {
		d.t.Fatalf("apply entry %d: %v", d.index, err)
	}
	return out
}

// Query asks the machine.
func (d *Driver) Query(q []byte) []byte {
	d.t.Helper()
	out, err := d.machine.Query(context.Background(), q)
	if err != nil {
		d.t.Fatalf("query: %v", err)
	}
	return out
}

// Machine is the running machine.
func (d *Driver) Machine() raftfsm.Machine { return d.machine }

// Folder is the machine's files.
func (d *Driver) Folder() *raftfsm.Folder { return raftfsm.NewFolder(d.fs, "derived") }

// Restart closes the machine and loads a new one from what is stored.
func (d *Driver) Restart() {
	d.t.Helper()
	d.close()
	d.open()
}

// Install replaces the state by that of another driver, as a snapshot that a leader sends does. The machine
// goes on with it.
func (d *Driver) Install(from *Driver) {
	d.t.Helper()
	if s, ok := d.machine.(raftfsm.Suspender); ok {
		s.Suspend()
	}
	lower, upper := []byte{0, 0, 0, byte(group)}, []byte{0, 0, 0, byte(group) + 1}
	b := d.db.NewBatch()
	err := b.DeleteRange(lower, upper, nil)
	it, iterErr := from.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err = errors.Join(err, iterErr); err != nil {
		d.t.Fatalf("install: %v", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		err = errors.Join(err, b.Set(it.Key(), it.Value(), nil))
	}
	if err := errors.Join(err, it.Close(), b.Commit(pebble.NoSync), d.replica.Open()); err != nil {
		d.t.Fatalf("install: %v", err)
	}
	d.index = from.index
}

// StateHash is the hash of the replicated state.
func (d *Driver) StateHash() [32]byte {
	d.t.Helper()
	h, err := d.replica.StateHash()
	if err != nil {
		d.t.Fatalf("state hash: %v", err)
	}
	return h
}

// Backup returns the rows that a backup of the machine takes, in chunks of at most n rows.
func (d *Driver) Backup(n int) [][]byte {
	d.t.Helper()
	var chunks [][]byte
	count := 0
	for _, r := range d.machine.(raftfsm.Restorer).BackupRanges() {
		prefix := []byte{0, 0, 0, byte(group), 2}
		it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: append(prefix[:5:5], r[0]...), UpperBound: append(prefix[:5:5], r[1]...)})
		if err != nil {
			d.t.Fatalf("backup: %v", err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			if count%n == 0 {
				chunks = append(chunks, nil)
			}
			count++
			last := &chunks[len(chunks)-1]
			*last = raftfsm.AppendRow(*last, it.Key()[len(prefix):], it.Value())
		}
		if err := it.Close(); err != nil {
			d.t.Fatalf("backup: %v", err)
		}
	}
	return chunks
}

// Restore begins to restore from chunks of a backup, each applied twice, restarting the machine
// after the first, and ends it. It returns the first refusal.
func (d *Driver) Restore(chunks ...[]byte) error {
	d.t.Helper()
	backup := raftfsm.BackupID{1}
	var sum raftfsm.RowsSum
	steps := []raftfsm.RestoreStep{{Op: raftfsm.RestoreBegin, Backup: backup}}
	for i, c := range chunks {
		s := raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Backup: backup, Chunk: uint64(i), Rows: c}
		steps = append(steps, s, s)
		sum = sum.Add(c)
	}
	steps = append(steps, raftfsm.RestoreStep{Op: raftfsm.RestoreEnd, Backup: backup, Chunk: uint64(len(chunks)), Sum: sum})
	for i, s := range steps {
		if i == 2 {
			d.Restart()
		}
		if _, err := raftfsm.DecodeRestoreResult(d.Propose(s.Command())[0].Data); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) open() {
	d.t.Helper()
	d.machine = d.make()
	d.replica = raftfsm.NewReplica(d.db, d.Folder(), group, d.machine)
	if err := d.replica.Open(); err != nil {
		d.t.Fatalf("open replica: %v", err)
	}
}

func (d *Driver) close() {
	d.t.Helper()
	if err := d.machine.Close(); err != nil {
		d.t.Errorf("close machine: %v", err)
	}
}

type discard struct{}

func (discard) Infof(string, ...any)  {}
func (discard) Errorf(string, ...any) {}
func (discard) Fatalf(f string, a ...any) {
	panic("pebble: " + f)
}
