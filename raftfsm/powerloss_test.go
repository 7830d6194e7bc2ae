package raftfsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// These tests run what a replica stores through power losses: its log, its state, its marker
// and the states it receives, on a disk that forgets what was not synced. Raft itself is
// played by a script of random steps. A seed chooses the steps, the operation at which the
// power fails, and how much of what was not synced survives. MAESTRO_SEEDS=N tries N seeds.

// memoryLog is a log whose writes are durable when they return, as bolt's are.
type memoryLog struct {
	mu      sync.Mutex
	entries map[uint64]*raft.Log
	stable  map[string][]byte
}

func newMemoryLog() *memoryLog {
	return &memoryLog{entries: map[uint64]*raft.Log{}, stable: map[string][]byte{}}
}

func (l *memoryLog) clone() *memoryLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &memoryLog{entries: maps.Clone(l.entries), stable: maps.Clone(l.stable)}
}

func (l *memoryLog) bound(pick func(...uint64) uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == 0 {
		return 0
	}
	return pick(slices.Collect(maps.Keys(l.entries))...)
}

func (l *memoryLog) FirstIndex() (uint64, error) {
	return l.bound(func(k ...uint64) uint64 { return slices.Min(k) }), nil
}

func (l *memoryLog) LastIndex() (uint64, error) {
	return l.bound(func(k ...uint64) uint64 { return slices.Max(k) }), nil
}

func (l *memoryLog) GetLog(index uint64, out *raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*out = *e
	return nil
}

func (l *memoryLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *memoryLog) StoreLogs(logs []*raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range logs {
		c := *e
		l.entries[e.Index] = &c
	}
	return nil
}

func (l *memoryLog) DeleteRange(lo, hi uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.entries, func(i uint64, _ *raft.Log) bool { return lo <= i && i <= hi })
	return nil
}

func (l *memoryLog) Set(key, val []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stable[string(key)] = slices.Clone(val)
	return nil
}

func (l *memoryLog) Get(key []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.stable[string(key)]; ok {
		return v, nil
	}
	return nil, errors.New("not found")
}

func (l *memoryLog) SetUint64(key []byte, val uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

func (l *memoryLog) GetUint64(key []byte) (uint64, error) {
	v, err := l.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

func (l *memoryLog) Close() error { return nil }

// lastWrites is a machine that keeps, for each key, the index of the entry that wrote it last.
type lastWrites struct{}

func (lastWrites) Load(*Store) error { return nil }
func (lastWrites) Query(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("never asked")
}
func (lastWrites) Close() error { return nil }

func (lastWrites) Apply(tx *Tx, e Entry) ([][]byte, error) {
	out := make([][]byte, len(e.Commands))
	for i, key := range e.Commands {
		out[i] = binary.BigEndian.AppendUint64(nil, e.Index)
		if err := tx.Set(key, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// entryAt is the entry that every log has at index: first the members, then writes.
func entryAt(index uint64) *raft.Log {
	if index == 1 {
		return &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: powerConfig}
	}
	data := EncodeEntry(1, int64(index), 0, []Command{{Data: []byte(keyOf(index))}})
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
}

// keyOf is what the entry at index writes.
func keyOf(index uint64) string { return fmt.Sprint("k", index*7919%53) }

// stateAt is the state that the entries up to index leave.
func stateAt(index uint64) map[string]uint64 {
	m := map[string]uint64{}
	for i := uint64(2); i <= index; i++ {
		m[keyOf(i)] = i
	}
	return m
}

const powerGroup GroupID = 1

var powerConfig = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n.a", Address: "n.a"}}})

// powerNode is one replica's storage between two losses of power.
type powerNode struct {
	g    *group
	opts *pebble.Options
	log  *memoryLog
	fail []string // reasons of fatal errors
}

// openPower opens a replica as a host does, replays its log, and says what does not fit.
func openPower(fs vfs.FS, log *memoryLog) (*powerNode, error) {
	n := &powerNode{log: log}
	fatal := func(reason string, err error) { n.fail = append(n.fail, fmt.Sprintf("%s: %v", reason, err)) }
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	n.opts = pebbleOptions(fs, pebbleLog{quiet}, fatal)
	n.opts.CacheSize, n.opts.MemTableSize = 1<<20, 64<<10
	db, err := pebble.Open("state", n.opts)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	h := &Host{db: db, fs: fs, pebble: n.opts, log: quiet, fatal: fatal, clock: clk}
	if h.metrics, err = newHostMetrics(h, nil); err != nil {
		return nil, err
	}
	keep := &timekeeper{clock: clk}
	n.g = &group{id: powerGroup, name: "g", host: h, log: quiet, machine: lastWrites{}, keep: keep, replica: NewReplica(db, NewFolder(fs, "derived"), powerGroup, lastWrites{})}
	n.g.replacing = new(sync.RWMutex)
	n.g.logs = newLogStore(log, "", Retention{TrailingEntries: 3}, keep, fatal, func(int, time.Duration) {})
	return n, n.recover()
}

func (n *powerNode) recover() error {
	g := n.g
	if err := g.replica.Open(); err != nil {
		return err
	}
	pos := g.replica.Position()
	var err error
	g.snaps, err = openSnapshotStore(g.host.fs, g.host.db, g.id, "snapshots", pos, func() sstFormat {
		return sstFormat{options: n.opts.MakeWriterOptions(0, g.host.db.TableFormat())}
	})
	if err != nil {
		return err
	}
	g.logs.applied, g.logs.covered = g.replica.AppliedIndex, g.snaps.markerIndex
	if err := g.checkLog(pos); err != nil {
		return err
	}
	last, err := g.logs.LastIndex()
	if err != nil {
		return err
	}
	for i := g.snaps.markerIndex() + 1; i <= last; i++ {
		var e raft.Log
		if err := g.logs.GetLog(i, &e); err != nil {
			return fmt.Errorf("entry %d, behind the snapshot at %d: %w", i, g.snaps.markerIndex(), err)
		}
		if err := n.apply(&e); err != nil {
			return err
		}
	}
	return nil
}

func (n *powerNode) apply(e *raft.Log) error {
	if e.Type == raft.LogConfiguration {
		return n.g.replica.ApplyConfig(e.Index, e.Term, e.Data)
	}
	_, err := n.g.replica.Apply(e.Index, e.Term, e.Data)
	return err
}

// close ends the process that lost its power: nothing of it matters any more.
func (n *powerNode) close() { _ = n.g.host.db.Close() }

// state reads what the replica holds.
func (n *powerNode) state() (map[string]uint64, error) {
	it, err := n.g.replica.store.NewIter(nil, nil)
	if err != nil {
		return nil, err
	}
	m := map[string]uint64{}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		m[string(it.Key())] = binary.BigEndian.Uint64(v)
	}
	return m, it.Close()
}

// promises is what the replica has told others: entries and a vote that it must not lose.
type promises struct {
	index, term uint64
}

// powerRun is one seed: a node at work until its power fails.
type powerRun struct {
	rng  *rand.Rand
	disk *vfs.MemFS

	mu   sync.Mutex
	node *powerNode
	made promises
	// left is how many operations on the disk are left until the power fails.
	left int
	// what was on the disk then
	after     *vfs.MemFS
	afterLog  *memoryLog
	afterMade promises
}

// tick counts one operation; at the last one it keeps what a loss of power would leave.
func (r *powerRun) tick(errorfs.Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left--; r.left == 0 {
		r.after = r.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.rng.IntN(101), RNG: r.rng})
		r.afterLog, r.afterMade = r.node.log.clone(), r.made
	}
	return nil
}

func (r *powerRun) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.after != nil
}

// promise notes what others may count on from now on.
func (r *powerRun) promise(f func(*promises)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.made)
}

// steps are what a replica does, by chance.
func (r *powerRun) step(n *powerNode, draw int, early bool) error {
	g := n.g
	last, err := g.logs.LastIndex()
	if err != nil {
		return err
	}
	last = max(last, g.snaps.markerIndex())
	applied := g.replica.Position().Index
	switch {
	case draw < 45:
		var logs []*raft.Log
		for i := last + 1; i <= last+uint64(1+draw%4); i++ {
			logs = append(logs, entryAt(i))
		}
		if err := g.logs.StoreLogs(logs); err != nil {
			return err
		}
		r.promise(func(p *promises) { p.index = logs[len(logs)-1].Index })
	case draw < 75 && applied < last:
		var e raft.Log
		if err := g.logs.GetLog(applied+1, &e); err != nil {
			return err
		}
		return n.apply(&e)
	case draw < 85 && applied > 0:
		return n.snapshot(early)
	case draw < 90:
		r.mu.Lock()
		term := r.made.term + 1
		r.mu.Unlock()
		if err := g.logs.SetUint64([]byte("CurrentTerm"), term); err != nil {
			return err
		}
		r.promise(func(p *promises) { p.term = term })
	case draw < 95:
		return g.host.db.Flush()
	case draw < 98:
		to := last + uint64(20+draw)
		if err := n.receive(to); err != nil {
			return err
		}
		r.promise(func(p *promises) { p.index = max(p.index, to) })
	}
	return nil
}

// snapshot does what Raft does: persist, then compact. Early is a planted fault: it compacts first.
func (n *powerNode) snapshot(early bool) error {
	g, pos := n.g, n.g.replica.Position()
	compact := func(to uint64) error {
		first, err := g.logs.FirstIndex()
		if err != nil || first == 0 || to < first {
			return err
		}
		return n.log.DeleteRange(first, to)
	}
	if early {
		if err := compact(pos.Index); err != nil {
			return err
		}
	}
	sink, err := g.snaps.Create(raft.SnapshotVersionMax, pos.Index, pos.Term, raft.DecodeConfiguration(powerConfig), 0, nil)
	if err != nil {
		return err
	}
	if err := (marker{g}).Persist(sink); err != nil {
		return err
	}
	first, err := g.logs.FirstIndex()
	last, lastErr := g.logs.LastIndex()
	if err != nil || lastErr != nil || first == 0 || pos.Index < first+1 {
		return errors.Join(err, lastErr)
	}
	return g.logs.DeleteRange(first, min(pos.Index, last-1))
}

// receive takes the state at index from another node, as Raft hands it over.
func (n *powerNode) receive(index uint64) error {
	donor, err := openPower(vfs.NewMem(), newMemoryLog())
	if err != nil {
		return err
	}
	defer donor.close()
	for i := uint64(1); i <= index; i++ {
		if err := donor.apply(entryAt(i)); err != nil {
			return err
		}
	}
	it, err := donor.g.host.db.NewIter(&pebble.IterOptions{LowerBound: keyPrefix(powerGroup, spaceHost), UpperBound: keyPrefix(powerGroup, spaceDerived)})
	if err != nil {
		return err
	}
	rc, _, err := donor.g.snaps.copyOut(it, donor.g.replica.Position())
	if err != nil {
		return err
	}
	sink, err := n.g.snaps.Create(raft.SnapshotVersionMax, index, 1, raft.DecodeConfiguration(powerConfig), 0, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, rc); err != nil {
		return err
	}
	if err := errors.Join(rc.Close(), sink.Close()); err != nil {
		return err
	}
	_, in, err := n.g.snaps.Open(sink.ID())
	if err != nil {
		return err
	}
	return (fsm{n.g}).Restore(in)
}

// powerLoss runs a seed and says whether the power failed and what was lost then. early and
// lies plant faults.
func powerLoss(seed int64, early bool, lies func(vfs.FS) vfs.FS) (failed bool, err error) {
	r := &powerRun{rng: rand.New(rand.NewPCG(uint64(seed), 0)), disk: vfs.NewCrashableMem()}
	r.left = -1
	var fs vfs.FS = r.disk
	if lies != nil {
		fs = lies(fs)
	}
	n, err := openPower(errorfs.Wrap(fs, errorfs.InjectorFunc(r.tick)), newMemoryLog())
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	r.node, r.left = n, 1+r.rng.IntN(400)
	r.mu.Unlock()
	for steps := 0; steps < 200 && !r.lost(); steps++ {
		r.mu.Lock()
		draw := r.rng.IntN(100)
		r.mu.Unlock()
		if err := r.step(n, draw, early); err != nil {
			n.close()
			return false, fmt.Errorf("at work: %w", err)
		}
	}
	n.close()
	if len(n.fail) > 0 {
		return false, fmt.Errorf("at work: %v", n.fail)
	}
	if !r.lost() {
		return false, nil
	}
	back, err := openPower(r.after, r.afterLog)
	if back != nil {
		defer back.close()
	}
	if err != nil {
		return true, fmt.Errorf("after the power came back: %w", err)
	}
	return true, r.judge(back)
}

// judge compares a replica that came back with what it had promised.
func (r *powerRun) judge(n *powerNode) error {
	applied := n.g.replica.AppliedIndex()
	if applied < r.afterMade.index {
		return fmt.Errorf("promised the entries up to %d, came back with %d", r.afterMade.index, applied)
	}
	got, err := n.state()
	if err != nil {
		return err
	}
	if want := stateAt(applied); !maps.Equal(got, want) {
		return fmt.Errorf("the state at index %d is %v, want %v", applied, got, want)
	}
	if term, err := n.g.logs.GetUint64([]byte("CurrentTerm")); err == nil && term < r.afterMade.term || err != nil && r.afterMade.term > 0 {
		return fmt.Errorf("voted in term %d, came back in term %d: %v", r.afterMade.term, term, err)
	}
	return nil
}

func powerSeeds(t *testing.T, usual int) int {
	t.Helper()
	s := os.Getenv("MAESTRO_SEEDS")
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("MAESTRO_SEEDS: %v", err)
	}
	return n
}

// Whatever moment the power fails at, a replica comes back with all that it promised.
func TestPowerLoss(t *testing.T) {
	seeds, losses := powerSeeds(t, 300), 0
	for seed := range seeds {
		failed, err := powerLoss(int64(seed), false, nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if failed {
			losses++
		}
	}
	if losses < seeds*3/4 {
		t.Errorf("the power failed in %d of %d seeds", losses, seeds)
	}
	t.Logf("the power failed in %d of %d seeds", losses, seeds)
}

// The simulation notices each write that is not synced and each step that comes too early.
func TestPowerLossFindsPlantedFaults(t *testing.T) {
	named := func(parts ...string) func(string) bool {
		return func(path string) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(filepath.Base(path), p) })
		}
	}
	for name, fault := range map[string]struct {
		early bool
		lies  func(string) bool // files whose syncs do nothing
	}{
		"the log is truncated before the snapshot": {early: true},
		"the state is not synced":                  {lies: named(".log")},
		"the marker is not synced":                 {lies: named("marker")},
		"received rows are not synced":             {lies: named(".sst")},
	} {
		t.Run(name, func(t *testing.T) {
			var lies func(vfs.FS) vfs.FS
			if fault.lies != nil {
				lies = func(fs vfs.FS) vfs.FS { return lyingDisk{fs, fault.lies} }
			}
			for seed := range 3000 {
				if _, err := powerLoss(int64(seed), fault.early, lies); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("3000 seeds did not notice it")
		})
	}
}

// lyingDisk does not sync the files that lies names.
type lyingDisk struct {
	vfs.FS
	lies func(path string) bool
}

func (d lyingDisk) file(path string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !d.lies(path) {
		return f, err
	}
	return lyingFile{f}, nil
}

func (d lyingDisk) Create(path string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(path, c)
	return d.file(path, f, err)
}

func (d lyingDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(from, to, c)
	return d.file(to, f, err)
}

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error                { return nil }
func (lyingFile) SyncData() error            { return nil }
func (lyingFile) SyncTo(int64) (bool, error) { return false, nil }
