package raftfsm_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// Every other member is told, the teller is not, and a member that is gone holds nobody up for longer
// than the context lasts.
func TestTellReachesTheOthers(t *testing.T) {
	var mu sync.Mutex
	heard := map[string]int{}
	c := hosttest.Start(t, 3, twoGroups, hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.Told = func(_ context.Context, g raftfsm.GroupID, message []byte) {
			mu.Lock()
			defer mu.Unlock()
			heard[fmt.Sprintf("%d %d %s", i, g, message)]++
		}
	}))
	c.AwaitLeader("a")
	if !c.Host(0).AwaitLevel(t.Context(), raftfsm.LevelLeases) {
		t.Fatal("the region does not reach the level")
	}
	tell := func(what string) {
		ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
		defer cancel()
		c.Host(0).Tell(ctx, groupB, []byte(what))
	}
	tell("x")
	c.Stop(2)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	c.Host(0).Tell(ctx, groupA, []byte("y"))
	cancel()
	tell("z")
	mu.Lock()
	defer mu.Unlock()
	delete(heard, "1 1 y") // it had little time
	if want := map[string]int{"1 2 x": 1, "2 2 x": 1, "1 2 z": 1}; !maps.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}

func TestFollows(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	c.AwaitLeader("a")
	for i := range 3 {
		c.Await("a replica to follow", func() bool { return c.Host(i).Follows(groupA) })
	}
	c.Stop(0)
	c.Stop(1)
	c.Await("the last replica to notice that it follows nobody", func() bool { return !c.Host(2).Follows(groupA) })
	if c.Host(2).Follows(99) {
		t.Error("follows a group that does not exist")
	}
}
