package raftfsm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// littleLog makes a follower that was away need the state itself.
var littleLog = hosttest.Retain(raftfsm.Retention{SnapshotEntries: 20, SnapshotInterval: 20 * time.Millisecond, TrailingEntries: 5})

// awaitTruncated waits until no running node has entries of group a up to index any more, so that
// whoever leads must send the state. It asks for snapshots: a log that was held back for a transfer
// is cut by the next snapshot, which no entry would bring about any more.
func awaitTruncated(t *testing.T, c *hosttest.Cluster, index uint64) {
	t.Helper()
	c.Await("the log to be truncated", func() bool {
		for i := range c.Members() {
			if c.Host(i) == nil {
				continue
			}
			if first, err := raftfsm.FirstLogIndex(c.Host(i), groupA); err != nil || first <= index {
				_ = c.Host(i).Raft(groupA).Snapshot().Error()
				return false
			}
		}
		return true
	})
}

// A follower that is further behind than the log reaches receives the state, keeps nothing
// of its old one, and then follows the log again.
func TestFollowerCatchesUpFromASnapshot(t *testing.T) {
	var machines []*counters // of group a, in the order of the nodes' starts
	c := hosttest.Start(t, 3, func() []raftfsm.Group {
		groups := twoGroups()
		machines = append(machines, groups[0].Machine.(*counters))
		return groups
	}, littleLog)
	leader := c.AwaitLeader("a")
	away := (leader + 1) % 3
	add(t, c.Host(leader), groupA, "before")
	c.Stop(away)
	for i := range 300 {
		add(t, c.Host(leader), groupA, fmt.Sprint("k", i%100))
	}
	awaitTruncated(t, c, 50)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if machines[len(machines)-1].suspended.Load() == 0 {
		t.Error("the state was replaced under a machine that was not told to rest")
	}
	// Group b had no traffic and is untouched by the exchange of group a's rows.
	awaitEqualStates(t, c, groupB)
	add(t, c.Host(away), groupA, "after")
	awaitEqualStates(t, c, groupA)

	// What was received survives a restart of the follower on its own data.
	c.Stop(away)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if got := read(t, c.Host(away), groupA, "k7"); got != 3 {
		t.Fatalf("k7 is %d after the transfer, want 3", got)
	}
}

// A node whose disk lost what was synced refuses to take part instead of voting with a hole.
func TestLostStateIsRefused(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, littleLog)
	for i := range 60 {
		add(t, c.Host(0), groupA, fmt.Sprint("k", i))
	}
	marker := filepath.Join(c.Dir(0), "raft", "a", "snapshots", "marker")
	c.Await("a snapshot", func() bool { _, err := os.Stat(marker); return err == nil })
	c.Stop(0)
	if err := os.RemoveAll(filepath.Join(c.Dir(0), "state")); err != nil {
		t.Fatal(err)
	}
	err := c.TryStart(0)
	if err == nil || !strings.Contains(err.Error(), "lost synced data") {
		t.Fatalf("a node without its state started: %v", err)
	}
}

// A node whose log was lost, but not its state, refuses too.
func TestLostLogIsRefused(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	for i := range 10 {
		add(t, c.Host(0), groupA, fmt.Sprint("k", i))
	}
	awaitEqualStates(t, c, groupA)
	c.Stop(0)
	if err := os.Remove(filepath.Join(c.Dir(0), "raft", "a", "log.bolt")); err != nil {
		t.Fatal(err)
	}
	err := c.TryStart(0)
	if err == nil || !strings.Contains(err.Error(), "lost synced data") {
		t.Fatalf("a node without its log started: %v", err)
	}
}

// Entries may have half a megabyte, so the log is bounded by bytes: its file stays near what is
// kept, however much is written.
func TestLogFileStaysBounded(t *testing.T) {
	const kept, written, value, workers = 4 << 20, 24 << 20, 256 << 10, 4
	keep := raftfsm.Retention{SnapshotInterval: time.Hour, SnapshotBytes: kept / 2, TrailingBytes: kept / 2, HeldBytes: kept / 2}
	c := hosttest.Start(t, 3, twoGroups, hosttest.Retain(keep))
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			key := make([]byte, value)
			key[0] = byte(w)
			for range written / value / workers {
				if _, err := c.Host(0).Propose(ctx, groupA, raftfsm.Command{Data: key}); err != nil {
					t.Errorf("propose: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range c.Members() {
		info, err := os.Stat(filepath.Join(c.Dir(i), "raft", "a", "log.bolt"))
		if err != nil {
			t.Fatal(err)
		}
		// A bolt file grows by 16 MiB at a time: one step is enough for what is kept.
		if info.Size() > written {
			t.Errorf("after %d bytes the log of node %d has %d, keeping %d", written, i, info.Size(), kept)
		}
	}
	awaitEqualStates(t, c, groupA)
}
