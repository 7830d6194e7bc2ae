package raftfsm_test

import (
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// A new group waits for its preferred leader, so that leaders of a new region are spread as its
// placements say; once it has had a leader, its members are as impatient as ever.
func TestFirstLeaderIsPreferred(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, hosttest.Hold())
	timeout := func(i int, g raftfsm.GroupID) time.Duration {
		return c.Host(i).Raft(g).ReloadableConfig().HeartbeatTimeout
	}
	c.Start(0)
	// Alone it is elected nowhere. Consecutive groups prefer different nodes.
	if a, b := timeout(0, groupA), timeout(0, groupB); (a - b).Abs() < time.Second {
		t.Errorf("the same node waits for %v and %v before the first votes of two groups", a, b)
	}
	c.Start(1)
	c.Start(2)
	c.AwaitLeader("a")
	c.AwaitLeader("b")
	c.Await("the usual timeouts", func() bool {
		for i := range 3 {
			if max(timeout(i, groupA), timeout(i, groupB)) >= 1500*time.Millisecond {
				return false
			}
		}
		return true
	})
}
