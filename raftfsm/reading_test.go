package raftfsm_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// Whichever node is asked, and whichever of its replicas answers, a reading has what was
// acknowledged before it began. A node that is left alone answers none.
func TestReadingIsFreshEverywhere(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	leader := c.AwaitLeader("a")
	c.AwaitLeader("b")
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	type query func(r *raftfsm.Reading, ctx context.Context, id raftfsm.GroupID, q []byte) (raftfsm.Answer, error)
	for i := range 20 {
		add(t, c.Host(leader), groupA, "k")
		for node := range 3 {
			r := c.Host(node).BeginRead([]raftfsm.GroupID{groupA, groupB})
			if _, err := r.Query(ctx, groupB, []byte("k")); err != nil {
				t.Fatalf("node %d, the other group: %v", node, err)
			}
			for name, ask := range map[string]query{"nearest": (*raftfsm.Reading).Query, "another": (*raftfsm.Reading).QueryOther} {
				ans, err := ask(r, ctx, groupA, []byte("k"))
				if err != nil {
					t.Fatalf("node %d, %s: %v", node, name, err)
				}
				if got := binary.BigEndian.Uint64(ans.Data); got != uint64(i+1) {
					t.Fatalf("node %d, %s: %d as of %d, want %d", node, name, got, ans.Applied, i+1)
				}
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
	r := c.Host(alone).BeginRead([]raftfsm.GroupID{groupA})
	stop()
	if ans, err := r.Query(done, groupA, []byte("k")); err == nil {
		t.Errorf("a replica without a majority answers %+v", ans)
	}
}
