package raftfsm_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/disk"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// Logs that were long become short again on every node while the group goes on, and a node that is started on
// such a log has everything.
func TestLogsAreTidied(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, hosttest.Retain(raftfsm.Retention{TrailingTime: time.Millisecond, LeastBytes: 64 << 10, TidyInterval: 20 * time.Millisecond}))
	leader := c.AwaitLeader("a")
	key := strings.Repeat("k", 100_000)
	const times = 150
	for range times {
		add(t, c.Host(leader), groupA, key)
	}
	n := uint64(times)
	for node := range 3 {
		log := filepath.Join(c.Dir(node), "raft", "a", "log.bolt")
		c.Await("the log to be short", func() bool {
			add(t, c.Host(leader), groupA, key)
			n++
			size, err := disk.FileBytes(log)
			return err == nil && size < 8<<20
		})
	}
	away := (leader + 1) % 3
	c.Stop(away)
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if got := read(t, c.Host(leader), groupA, key); got != n {
		t.Fatalf("%d additions, want %d", got, n)
	}
}
