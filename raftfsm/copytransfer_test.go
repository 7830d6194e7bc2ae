package raftfsm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// transfers watches the state copies of a cluster: which files arrived, in every life of a node,
// and what the nodes have counted.
type transfers struct {
	mu      sync.Mutex
	arrived map[int][]int // of group a, by node
	regs    map[int]*prometheus.Registry
	// on, if set, is called for every file that arrives, by node and number.
	on func(ctx context.Context, node, n int)
}

func (x *transfers) option() hosttest.Option {
	x.arrived, x.regs = map[int][]int{}, map[int]*prometheus.Registry{}
	return hosttest.Configure(func(i int, o *raftfsm.Options) {
		r := prometheus.NewRegistry()
		x.mu.Lock()
		x.regs[i] = r
		x.mu.Unlock()
		o.Registry = r
		o.WithCopyFiles(16 << 10)
		o.WithStaged(func(ctx context.Context, g raftfsm.GroupID, n int) {
			if g != groupA {
				return
			}
			x.mu.Lock()
			x.arrived[i] = append(x.arrived[i], n)
			on := x.on
			x.mu.Unlock()
			if on != nil {
				on(ctx, i, n)
			}
		})
	})
}

// take returns the files that arrived at a node since the last call.
func (x *transfers) take(node int) []int {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.arrived[node]
	delete(x.arrived, node)
	return a
}

func (x *transfers) hook(f func(ctx context.Context, node, n int)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.on = f
}

// sum adds up a counter of a node over the series that have all of the labels' values.
func (x *transfers) sum(t *testing.T, node int, name string, values ...string) float64 {
	t.Helper()
	x.mu.Lock()
	r := x.regs[node]
	x.mu.Unlock()
	return counted(t, r, name, values...)
}

// counted adds up a counter over the series that have all of the labels' values.
func counted(t *testing.T, r prometheus.Gatherer, name string, values ...string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := 0
			for _, l := range m.GetLabel() {
				for _, v := range values {
					if l.GetValue() == v {
						has++
					}
				}
			}
			if has == len(values) {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// longKey is a row that does not compress to nothing.
func longKey(i int) string {
	var b bytes.Buffer
	for part := range 24 {
		fmt.Fprintf(&b, "%x", sha256.Sum256(fmt.Append(nil, i, part)))
	}
	return b.String()
}

// leaveBehind stops a follower and writes so much that the log does not reach back to it.
func leaveBehind(t *testing.T, c *hosttest.Cluster) (leader, away int) {
	t.Helper()
	leader = c.AwaitLeader("a")
	away = (leader + 1) % 3
	add(t, c.Host(leader), groupA, "before")
	awaitEqualStates(t, c, groupA)
	c.Stop(away)
	for i := range 200 {
		add(t, c.Host(leader), groupA, longKey(i))
	}
	awaitTruncated(t, c, 50)
	return leader, away
}

// hang makes the first transfer to a node stop when a file has arrived, until let is called or
// the node stops; reached is closed when it does.
func (x *transfers) hang(node, n int) (reached chan struct{}, let func()) {
	reached, free := make(chan struct{}), make(chan struct{})
	var hung atomic.Bool
	var freed sync.Once
	x.hook(func(ctx context.Context, at, got int) {
		if at != node || got != n || hung.Swap(true) {
			return
		}
		close(reached)
		select {
		case <-free:
		case <-ctx.Done():
		}
	})
	return reached, func() { freed.Do(func() { close(free) }) }
}

func awaitClosed(c *hosttest.Cluster, what string, ch <-chan struct{}) {
	c.Await(what, func() bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	})
}

// A follower far behind catches up by files while writes go on.
func TestTransferByFilesUnderWrites(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option())
	leader, away := leaveBehind(t, c)
	c.Start(away)
	for i := range 60 {
		add(t, c.Host(leader), groupA, fmt.Sprint("meanwhile", i))
	}
	awaitEqualStates(t, c, groupA)
	if files := x.take(away); len(files) < 5 {
		t.Fatalf("%d files arrived; the state was to be sent in many", len(files))
	}
	// The state is there a moment before it is counted.
	c.Await("the installed copy to be counted", func() bool { return x.sum(t, away, "mc_raft_copies_total", "a", "in", "installed") > 0 })
	if n := x.sum(t, away, "mc_raft_copy_bytes_total", "a", "in"); n == 0 {
		t.Error("no received bytes were counted")
	}
	c.Await("the staged files to be removed", func() bool {
		_, err := os.Stat(filepath.Join(c.Dir(away), "raft", "a", "snapshots", "staging"))
		return os.IsNotExist(err)
	})
	c.Stop(away)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
}

// A follower of level 1 gets the state in one stream.
func TestTransferInOneStream(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option(), hosttest.Configure(func(_ int, o *raftfsm.Options) { o.WithWholeCopies() }))
	_, away := leaveBehind(t, c)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if files := x.take(away); len(files) > 0 {
		t.Fatalf("files %v arrived", files)
	}
	c.Await("the installed copy to be counted", func() bool { return x.sum(t, away, "mc_raft_copies_total", "a", "in", "installed") > 0 })
}

// interrupt stops a follower in the middle of a transfer and returns how many files it has.
func interrupt(t *testing.T, c *hosttest.Cluster, x *transfers, away int) int {
	t.Helper()
	reached, _ := x.hang(away, 3)
	c.Start(away)
	awaitClosed(c, "some files to arrive", reached)
	c.Stop(away)
	x.hook(nil)
	files := x.take(away)
	return files[len(files)-1] + 1
}

// A follower that stops in the middle goes on where it was: what it has is not sent again.
func TestTransferGoesOnAfterAFollowersRestart(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option())
	leader, away := leaveBehind(t, c)
	term := c.Host(leader).Raft(groupA).CurrentTerm()
	had := interrupt(t, c, &x, away)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if c.Host(leader).Raft(groupA).CurrentTerm() != term {
		t.Skip("another leader was elected meanwhile")
	}
	for _, n := range x.take(away) {
		if n < had {
			t.Errorf("file %d was sent again, %d were there", n, had)
		}
	}
	if n := x.sum(t, leader, "mc_raft_copies_resumed_total", "a"); n == 0 {
		t.Error("no transfer was taken up again")
	}
}

// A staged file that the disk has changed is noticed and sent again, with those after it.
func TestDamagedStagedFileIsSentAgain(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option())
	leader, away := leaveBehind(t, c)
	term := c.Host(leader).Raft(groupA).CurrentTerm()
	interrupt(t, c, &x, away)
	path := filepath.Join(c.Dir(away), "raft", "a", "snapshots", "staging", "00001.sst")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if c.Host(leader).Raft(groupA).CurrentTerm() != term {
		t.Skip("another leader was elected meanwhile")
	}
	if files := x.take(away); len(files) == 0 || files[0] != 1 {
		t.Fatalf("files %v arrived after file 1 was damaged", files)
	}
}

// A follower votes while a transfer to it hangs, here as half of the majority that elects the
// next leader, which then brings it the state.
func TestLeaderDiesInATransfer(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option())
	leader, away := leaveBehind(t, c)
	reached, let := x.hang(away, 3)
	defer let()
	c.Start(away)
	awaitClosed(c, "some files to arrive", reached)
	c.Stop(leader)
	c.AwaitLeader("a")
	let()
	add(t, c.Host(away), groupA, "after")
	c.Start(leader)
	awaitEqualStates(t, c, groupA)
}

// A follower whose log has other entries where a snapshot ends does not get it for ever
// (hashicorp/raft#697): the log is cut and the group's Raft started again.
func TestSnapshotThatConflictsWithTheLog(t *testing.T) {
	var x transfers
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option())
	leader := c.AwaitLeader("a")
	away := (leader + 1) % 3
	add(t, c.Host(leader), groupA, "before")
	awaitEqualStates(t, c, groupA)
	r := c.Host(away).Raft(groupA)
	last, term := r.LastIndex(), r.CurrentTerm()
	c.Stop(away)
	for i := range 100 {
		add(t, c.Host(leader), groupA, longKey(i))
	}
	awaitTruncated(t, c, last+50)
	// Entries of an earlier leader that never reached a majority, beyond where the copy will end.
	log := filepath.Join(c.Dir(away), "raft", "a", "log.bolt")
	if err := raftfsm.AppendToLog(log, last, term-1, 300, []byte("never")); err != nil {
		t.Fatal(err)
	}
	c.Start(away)
	c.Await("the conflict to be noticed", func() bool {
		return x.sum(t, away, "mc_watchdog_total", "a", raftfsm.ReasonSnapshotConflict) > 0
	})
	add(t, c.Host(leader), groupA, "after")
	awaitEqualStates(t, c, groupA)
}

// Who sends a copy takes turns, and a node learns at what pace its peers go.
func TestTransfersTakeTurns(t *testing.T) {
	var x transfers
	var turns [3]atomic.Int64
	c := hosttest.Start(t, 3, twoGroups, littleLog, x.option(), hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.Turns = func() func() { return func() { turns[i].Add(1) } }
		o.Pace = func() float64 { return float64(1000 * (i + 1)) }
	}))
	_, away := leaveBehind(t, c)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	files := x.take(away)
	if len(files) == 0 {
		t.Fatal("no files arrived")
	}
	taken := int64(0)
	for i := range turns {
		taken += turns[i].Load()
	}
	if taken == 0 { // how many depends on how fresh the news of the voters were
		t.Errorf("no turns for %d files", len(files))
	}
	want := 1000.0
	if away == 0 {
		want = 2000
	}
	c.Await("the peers' pace", func() bool { return c.Host(away).PeersPace() == want })
}

// heldLoads are counters whose loads wait, from the second of a life on, while held.
type heldLoads struct {
	counters
	loaded bool
	hold   func()
}

func (m *heldLoads) Load(s *raftfsm.Store) error {
	if m.loaded {
		m.hold()
	}
	m.loaded = true
	return m.counters.Load(s)
}

// A node that loads a state does not vote, so it is not ready meanwhile; and nothing rests that the
// group waits for while another voter is missing.
func TestLoadingNodeIsNotReady(t *testing.T) {
	var x transfers
	reached, free := make(chan struct{}), make(chan struct{})
	var once, freed sync.Once
	let := func() { freed.Do(func() { close(free) }) }
	hold := func() {
		once.Do(func() { close(reached) })
		<-free
	}
	c := hosttest.Start(t, 3, func() []raftfsm.Group {
		return []raftfsm.Group{{ID: groupA, Name: "a", Machine: &heldLoads{hold: hold}}}
	}, littleLog, x.option())
	t.Cleanup(let)
	leader, away := leaveBehind(t, c)
	c.Await("the missing voter to be missed", func() bool { return !c.Host(leader).Spare(groupA) })
	c.Start(away)
	c.Await("the state to be loaded", func() bool {
		select {
		case <-reached:
			return true
		default:
			return false
		}
	})
	if err := c.Host(away).Ready(); err == nil {
		t.Error("a node is ready while it loads a state")
	}
	let()
	awaitEqualStates(t, c, groupA)
	c.Await("readiness", func() bool { return c.Host(away).Ready() == nil })
	c.Await("the voter's news", func() bool { return c.Host(leader).Spare(groupA) })
}

// impatient gives up on the first RPC that installs a copy once the receiver loads it.
type impatient struct {
	*raft.NetworkTransport
	loads <-chan struct{}
	gave  *atomic.Bool
}

func (t impatient) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	answered := make(chan error, 1)
	own, answer := *args, raft.InstallSnapshotResponse{}
	go func() { answered <- t.NetworkTransport.InstallSnapshot(id, target, &own, &answer, data) }()
	select {
	case err := <-answered:
		*resp = answer
		return err
	case <-t.loads:
	}
	if !t.gave.Swap(true) {
		return errors.New("no answer in time")
	}
	err := <-answered
	*resp = answer
	return err
}

// A state whose loading outlasts the sender's patience is not sent a second time.
func TestInstalledCopyIsNotSentAgain(t *testing.T) {
	var x transfers
	var gave atomic.Bool
	loads, free := make(chan struct{}), make(chan struct{})
	var once, freed sync.Once
	let := func() { freed.Do(func() { close(free) }) }
	hold := func() {
		once.Do(func() { close(loads) })
		<-free
	}
	c := hosttest.Start(t, 3, func() []raftfsm.Group {
		return []raftfsm.Group{{ID: groupA, Name: "a", Machine: &heldLoads{hold: hold}}}
	}, littleLog, x.option(), hosttest.Configure(func(_ int, o *raftfsm.Options) {
		o.WithTransport(func(t raft.Transport) raft.Transport { return impatient{t.(*raft.NetworkTransport), loads, &gave} })
	}))
	t.Cleanup(let)
	leader, away := leaveBehind(t, c)
	term := c.Host(leader).Raft(groupA).CurrentTerm()
	c.Start(away)
	awaitClosed(c, "the state to be loaded", loads)
	c.Await("a sender to give up and to be told that all is there", func() bool {
		sent := x.sum(t, leader, "mc_raft_copies_total", "a", "out", "installed") + x.sum(t, (leader+2)%3, "mc_raft_copies_total", "a", "out", "installed")
		return gave.Load() && sent > 0
	})
	let()
	awaitEqualStates(t, c, groupA)
	if c.Host(leader).Raft(groupA).CurrentTerm() != term {
		t.Skip("another leader was elected meanwhile, with a copy of its own")
	}
	files := x.take(away)
	for i, n := range files {
		if n != i {
			t.Fatalf("files %v arrived, some more than once", files)
		}
	}
}
