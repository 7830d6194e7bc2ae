package raftfsm_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// A replica that does not lead answers as the leader would: with all that a linearizable query
// before it has seen, whichever node is asked. A leader that is left alone has no such replica.
func TestQueryReplicaIsAsFresh(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	leader := c.AwaitLeader("a")
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	for i := range 20 {
		add(t, c.Host(leader), groupA, "k")
		now, err := c.Host(leader).Query(ctx, groupA, []byte("other"), raftfsm.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		for node := range 3 {
			ans, err := c.Host(node).QueryReplica(ctx, groupA, now.Applied, []byte("k"))
			if err != nil {
				t.Fatalf("node %d: %v", node, err)
			}
			if got := binary.BigEndian.Uint64(ans.Data); ans.Applied < now.Applied || got != uint64(i+1) {
				t.Fatalf("node %d answers %d as of %d; want %d as of %d", node, got, ans.Applied, i+1, now.Applied)
			}
		}
	}
	alone := (leader + 1) % 3
	for i := range 3 {
		if i != alone {
			c.Stop(i)
		}
	}
	done, stop := context.WithCancel(ctx)
	stop()
	if ans, err := c.Host(alone).QueryReplica(done, groupA, 1<<40, []byte("k")); err == nil {
		t.Errorf("a replica that is not as far answers %+v", ans)
	}
}
