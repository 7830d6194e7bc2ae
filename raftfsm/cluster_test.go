package raftfsm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// counters is a machine that adds: a command "key" adds one to key and returns the sum.
type counters struct {
	mu    sync.Mutex
	store *raftfsm.Store
	// suspended is how often the host asked for rest before it replaced the state.
	suspended atomic.Int64
}

func (c *counters) Suspend() { c.suspended.Add(1) }

func (c *counters) Load(s *raftfsm.Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store = s
	return nil
}

func (c *counters) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	out := make([][]byte, len(e.Commands))
	for i, cmd := range e.Commands {
		sum := uint64(0)
		v, err := tx.Get(cmd)
		switch {
		case err == nil:
			sum = binary.BigEndian.Uint64(v)
		case !errors.Is(err, raftfsm.ErrNotFound):
			return nil, err
		}
		out[i] = binary.BigEndian.AppendUint64(nil, sum+1)
		if err := tx.Set(cmd, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// panicKey is a query that the machine cannot take.
const panicKey = "panic"

func (c *counters) Query(_ context.Context, key []byte) ([]byte, error) {
	if string(key) == panicKey {
		panic("asked to")
	}
	c.mu.Lock()
	store := c.store
	c.mu.Unlock()
	v, err := store.Get(key)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return make([]byte, 8), nil
	}
	return v, err
}

func (c *counters) Close() error { return nil }

const (
	groupA raftfsm.GroupID = 1
	groupB raftfsm.GroupID = 2
)

func twoGroups() []raftfsm.Group {
	return []raftfsm.Group{
		{ID: groupA, Name: "a", Machine: &counters{}},
		{ID: groupB, Name: "b", Machine: &counters{}},
	}
}

var requests atomic.Int64

// add counts once: with a request id, the host itself repeats what a dying leader may have
// taken or not.
func add(t *testing.T, h *raftfsm.Host, g raftfsm.GroupID, key string) uint64 {
	t.Helper()
	id := raftfsm.NewRequestID("add", fmt.Sprint(requests.Add(1)))
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	r, err := h.Propose(ctx, g, raftfsm.Command{Data: []byte(key), RequestID: id})
	if err != nil {
		t.Fatalf("propose: %v", err)
	}
	return binary.BigEndian.Uint64(r.Data)
}

func read(t *testing.T, h *raftfsm.Host, g raftfsm.GroupID, key string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	a, err := h.Query(ctx, g, []byte(key), raftfsm.Linearizable)
	if err != nil {
		t.Fatalf("query: %v", err)
	}
	return binary.BigEndian.Uint64(a.Data)
}

// Any node takes any proposal and any read, and a read sees every acknowledged write.
func TestWritesAndReadsFromEveryNode(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	want := uint64(0)
	for range 10 {
		for i := range 3 {
			want++
			if got := add(t, c.Host(i), groupA, "k"); got != want {
				t.Fatalf("sum after write %d is %d", want, got)
			}
			for j := range 3 {
				if got := read(t, c.Host(j), groupA, "k"); got != want {
					t.Fatalf("node %d reads %d after %d was acknowledged", j, got, want)
				}
			}
		}
	}
	if got := read(t, c.Host(0), groupB, "k"); got != 0 {
		t.Fatalf("group b sees %d of group a's writes", got)
	}
}

// A leader that dies is replaced; nothing acknowledged is lost; the node comes back and
// catches up to the same state.
func TestLeaderDiesAndReturns(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	sums := map[string]uint64{}
	for round := range 3 {
		leader := c.AwaitLeader("a")
		other := (leader + 1) % 3
		for i := range 20 {
			key := fmt.Sprint("k", i%7)
			sums[key]++
			if got := add(t, c.Host(other), groupA, key); got != sums[key] {
				t.Fatalf("round %d: %s is %d, want %d", round, key, got, sums[key])
			}
		}
		c.Stop(leader)
		for i := range 20 {
			key := fmt.Sprint("k", i%7)
			sums[key]++
			if got := add(t, c.Host(other), groupA, key); got != sums[key] {
				t.Fatalf("round %d without leader: %s is %d, want %d", round, key, got, sums[key])
			}
		}
		c.Start(leader)
	}
	awaitEqualStates(t, c, groupA)
	for k, want := range sums {
		if got := read(t, c.Host(0), groupA, k); got != want {
			t.Fatalf("%s is %d, want %d", k, got, want)
		}
	}
}

// All nodes stop and start again: the same answers.
func TestWholeClusterRestarts(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	for range 25 {
		add(t, c.Host(0), groupA, "k")
	}
	for i := range 3 {
		c.Stop(i)
	}
	for i := range 3 {
		c.Start(i)
	}
	if got := read(t, c.Host(2), groupA, "k"); got != 25 {
		t.Fatalf("after the restart the sum is %d, want 25", got)
	}
	if got := add(t, c.Host(1), groupA, "k"); got != 26 {
		t.Fatalf("after the restart the next sum is %d, want 26", got)
	}
}

// Proposals with request ids are retried through leader changes and take effect once.
func TestRequestIDsAcrossLeaderChanges(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	var done atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	var wg sync.WaitGroup
	first := c.AwaitLeader("a")
	client := c.Host((first + 1) % 3)
	const workers, each = 8, 40
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				id := raftfsm.NewRequestID("test", fmt.Sprint(w), fmt.Sprint(i))
				if _, err := client.Propose(ctx, groupA, raftfsm.Command{Data: []byte("k"), RequestID: id}); err != nil {
					t.Errorf("propose: %v", err)
					return
				}
				done.Add(1)
			}
		}()
	}
	c.Await("a third of the work", func() bool { return done.Load() > workers*each/3 || t.Failed() })
	c.Stop(first)
	c.Await("two thirds of the work", func() bool { return done.Load() > workers*each*2/3 || t.Failed() })
	c.Start(first)
	wg.Wait()
	if got := read(t, client, groupA, "k"); got != workers*each {
		t.Fatalf("%d requests were counted %d times", workers*each, got)
	}
}

// Without a majority, writes and linearizable reads fail definitely by their deadline, and
// bounded reads still answer.
func TestNoMajority(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	add(t, c.Host(0), groupA, "k")
	c.Await("replication", func() bool {
		a, err := c.Host(0).Query(context.Background(), groupA, []byte("k"), raftfsm.Bounded)
		return err == nil && binary.BigEndian.Uint64(a.Data) == 1
	})
	c.Stop(1)
	c.Stop(2)
	c.Await("the lone node to know that it does not lead", func() bool {
		for _, s := range c.Host(0).Status() {
			if s.Leader != "" {
				return false
			}
		}
		return true
	})
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := c.Host(0).Propose(ctx, groupA, raftfsm.Command{Data: []byte("k")})
	if !errors.Is(err, raftfsm.ErrNoLeader) || raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite {
		t.Fatalf("propose without a majority: %v", err)
	}
	if _, err := c.Host(0).Query(ctx, groupA, []byte("k"), raftfsm.Linearizable); !errors.Is(err, raftfsm.ErrNoLeader) {
		t.Fatalf("linearizable query without a majority: %v", err)
	}
	a, err := c.Host(0).Query(context.Background(), groupA, []byte("k"), raftfsm.Bounded)
	if err != nil || binary.BigEndian.Uint64(a.Data) != 1 {
		t.Fatalf("bounded query: %v %v", a, err)
	}
}

// Commands that are too large, and groups that do not exist, are refused at once.
func TestRefusals(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups)
	ctx := context.Background()
	if _, err := c.Host(0).Propose(ctx, groupA, raftfsm.Command{Data: make([]byte, raftfsm.CommandBytesMax+1)}); !errors.Is(err, raftfsm.ErrTooLarge) {
		t.Errorf("oversized command: %v", err)
	}
	if _, err := c.Host(0).Query(ctx, 77, nil, raftfsm.Linearizable); !errors.Is(err, raftfsm.ErrUnknownGroup) {
		t.Errorf("unknown group: %v", err)
	}
	if got := add(t, c.Host(0), groupA, "k"); got != 1 {
		t.Errorf("a single node counts %d", got)
	}
}

func awaitEqualStates(t *testing.T, c *hosttest.Cluster, g raftfsm.GroupID) {
	t.Helper()
	var all []int
	for i := range c.Members() {
		all = append(all, i)
	}
	equalOn(t, c, g, all...)
}

// A leader whose followers have just gone still believes in itself for a while. It must not
// answer a linearizable read in that time: a majority might follow another already.
func TestLeaderAloneDoesNotAnswerReads(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	leader := c.AwaitLeader("a")
	add(t, c.Host(leader), groupA, "k")
	c.Stop((leader + 1) % 3)
	c.Stop((leader + 2) % 3)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if a, err := c.Host(leader).Query(ctx, groupA, []byte("k"), raftfsm.Linearizable); err == nil {
		t.Fatalf("a leader without followers answered %x", a.Data)
	}
}

// A panic of one query is that query's error; the replica goes on.
func TestPanicInAQuery(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups)
	add(t, c.Host(0), groupA, "k")
	if _, err := c.Host(0).Query(context.Background(), groupA, []byte(panicKey), raftfsm.Linearizable); err == nil || !strings.Contains(err.Error(), "panic in a query") {
		t.Fatalf("query that panics: %v", err)
	}
	if got := read(t, c.Host(0), groupA, "k"); got != 1 {
		t.Fatalf("after the panic k is %d", got)
	}
}

// Every node soon knows how each of its peers is, and loses that knowledge when one is gone.
func TestPeersTellHowTheyAre(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	reachable := func(i int) int {
		n := 0
		for _, p := range c.Host(i).Peers() {
			if p.Reachable && p.Level == raftfsm.LevelCurrent && p.ClockOffset.Abs() < time.Second {
				n++
			}
		}
		return n
	}
	for i := range 3 {
		c.Await("news of both peers", func() bool { return reachable(i) == 2 })
		if err := c.Host(i).ClockError(); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
	c.Stop(2)
	c.Await("the news of the stopped node to grow old", func() bool { return reachable(0) == 1 })
}
