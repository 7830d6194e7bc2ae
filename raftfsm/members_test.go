package raftfsm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

type placements = map[raftfsm.GroupID]raftfsm.Placement

// placed tells whether a group's voters and learners are those of a placement.
func placed(v raftfsm.GroupView, p raftfsm.Placement) bool {
	sorted := func(ids []string) []string { return slices.Sorted(slices.Values(ids)) }
	return slices.Equal(sorted(v.Voters), sorted(p.Voters)) && slices.Equal(sorted(v.Learners), sorted(p.Learners))
}

// awaitMembers waits until the leader says that the group's voters and learners are those placed.
func awaitMembers(t *testing.T, c *hosttest.Cluster, h *raftfsm.Host, g raftfsm.GroupID, p raftfsm.Placement) raftfsm.GroupView {
	t.Helper()
	var v raftfsm.GroupView
	c.Await(fmt.Sprintf("group %d at %v, learners %v", g, p.Voters, p.Learners), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		v, err = h.Describe(ctx, g)
		return err == nil && placed(v, p)
	})
	return v
}

// awaitHosted waits until node i hosts the group under id, or not at all with "".
func awaitHosted(t *testing.T, c *hosttest.Cluster, i int, g raftfsm.GroupID, id string) {
	t.Helper()
	c.Await(fmt.Sprintf("node %d to host group %d as %q", i, g, id), func() bool {
		for _, s := range c.Host(i).Status() {
			if s.ID == g {
				return s.Replica == id
			}
		}
		return false
	})
}

// load writes steadily through the given node, at most every five milliseconds, until stop is
// called, which returns how many writes were acknowledged. All nodes share the processors of a test:
// without a pace, the writer would take the time in which the others follow.
func load(t *testing.T, h *raftfsm.Host, g raftfsm.GroupID, key string) (stop func() uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	done := uint64(0)
	wg.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for ; ctx.Err() == nil; <-pace.C {
			id := raftfsm.NewRequestID("load", fmt.Sprint(requests.Add(1)))
			wait, end := context.WithTimeout(context.Background(), hosttest.Patience)
			_, err := h.Propose(wait, g, raftfsm.Command{Data: []byte(key), RequestID: id})
			end()
			if err != nil {
				t.Errorf("a write under load: %v", err)
				return
			}
			done++
		}
	})
	return func() uint64 { cancel(); wg.Wait(); return done }
}

// equalOn waits until replicas hold the same state. One that is being started again has none to compare.
func equalOn(t *testing.T, c *hosttest.Cluster, g raftfsm.GroupID, nodes ...int) {
	t.Helper()
	c.Await("equal states", func() bool {
		first, err := c.Host(nodes[0]).StateHash(g)
		for _, i := range nodes[1:] {
			h, herr := c.Host(i).StateHash(g)
			if err != nil || herr != nil || h != first {
				return false
			}
		}
		return err == nil
	})
}

// A region of one grows to three under load: nothing is lost, and every node serves.
func TestGrowFromOneToThree(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups)
	add(t, c.Host(0), groupA, "before")
	stop := load(t, c.Host(0), groupA, "k")
	c.Add()
	c.Add()
	three := c.Voters(0, 1, 2)
	c.Place(placements{groupA: three, groupB: three})
	awaitMembers(t, c, c.Host(2), groupA, three)
	awaitMembers(t, c, c.Host(1), groupB, three)
	n := stop()
	for i := range 3 {
		if got := read(t, c.Host(i), groupA, "k"); got != n {
			t.Errorf("node %d reads %d of %d acknowledged writes", i, got, n)
		}
	}
	equalOn(t, c, groupA, 0, 1, 2)
	// The first one is not needed any more.
	c.Stop(0)
	if got := add(t, c.Host(1), groupA, "k"); got != n+1 {
		t.Errorf("without the first node the next sum is %d, want %d", got, n+1)
	}
	c.Start(0)
	equalOn(t, c, groupA, 0, 1, 2)
}

// A node is replaced while it runs, under load; it lets go of everything, keeps no data, and
// still serves by asking the others. Moved back, its replicas have new ids.
func TestReplaceANodeAndMoveBack(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, littleLog)
	add(t, c.Host(0), groupB, "b")
	stop := load(t, c.Host(1), groupA, "k")
	four := c.Add()
	moved := c.Voters(1, 2, four)
	c.Place(placements{groupA: moved, groupB: moved})
	for _, g := range []raftfsm.GroupID{groupA, groupB} {
		awaitMembers(t, c, c.Host(1), g, moved)
		awaitHosted(t, c, 0, g, "")
	}
	n := stop()
	c.Await("the files of the erased replica to be gone", func() bool {
		_, err := os.Stat(filepath.Join(c.Dir(0), "raft", "a"))
		return os.IsNotExist(err)
	})
	if got := read(t, c.Host(0), groupA, "k"); got != n {
		t.Errorf("a node without the group reads %d of %d acknowledged writes", got, n)
	}
	if got := add(t, c.Host(0), groupA, "k"); got != n+1 {
		t.Errorf("a node without the group writes %d, want %d", got, n+1)
	}
	equalOn(t, c, groupA, 1, 2, four)

	// The old id is refused: its log is gone.
	old := c.Members()[0].ID
	back := c.Voters(1, 2, four)
	back.Voters[2] = old
	c.Place(placements{groupA: back})
	c.Stop(0)
	c.Start(0)
	awaitHosted(t, c, 0, groupA, "")
	// A new one is taken.
	back.Voters[2] = old + ".1"
	c.Place(placements{groupA: back})
	awaitMembers(t, c, c.Host(1), groupA, back)
	awaitHosted(t, c, 0, groupA, old+".1")
	awaitHosted(t, c, four, groupA, "")
	equalOn(t, c, groupA, 0, 1, 2)
	c.Stop(0)
	c.Start(0)
	awaitHosted(t, c, 0, groupA, old+".1")
	if got := add(t, c.Host(0), groupA, "k"); got != n+2 {
		t.Errorf("after the move back the sum is %d, want %d", got, n+2)
	}
}

// With more members than replicas a group, every member serves every group, and the leader is the
// preferred one.
func TestFiveMembersThreeReplicas(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups)
	for range 4 {
		c.Add()
	}
	p := placements{groupA: c.Voters(1, 2, 3), groupB: c.Voters(4, 2, 0)}
	p[groupB] = raftfsm.Placement{Voters: p[groupB].Voters, Learners: []string{c.Members()[1].ID}}
	c.Place(p)
	awaitMembers(t, c, c.Host(0), groupA, p[groupA])
	awaitMembers(t, c, c.Host(0), groupB, p[groupB])
	for i := range 5 {
		for _, g := range []raftfsm.GroupID{groupA, groupB} {
			if got := add(t, c.Host(i), g, "k"); got != uint64(i+1) {
				t.Errorf("node %d counts %d in group %d, want %d", i, got, g, i+1)
			}
			if got := read(t, c.Host((i+1)%5), g, "k"); got != uint64(i+1) {
				t.Errorf("node %d reads %d in group %d, want %d", (i+1)%5, got, g, i+1)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	if _, err := c.Host(0).Query(ctx, groupA, []byte("k"), raftfsm.Bounded); err != nil {
		t.Errorf("a bounded read at a node without the group: %v", err)
	}
	c.Await("the preferred leaders to lead", func() bool {
		s := c.Host(0).Status()
		return s[0].Leader == c.Members()[1].ID && s[1].Leader == c.Members()[4].ID && c.Host(0).Ready() == nil
	})
	// A request moves a leadership from anywhere; a learner cannot take it.
	if err := c.Host(0).Transfer(ctx, groupB, c.Members()[1].ID); !errors.Is(err, raftfsm.ErrNotVoter) {
		t.Errorf("a transfer to a learner: %v", err)
	}
	c.Await("a transfer", func() bool { return c.Host(1).Transfer(ctx, groupB, c.Members()[2].ID) == nil })
}

// held is a machine that applies nothing while its gate is closed.
type held struct {
	*counters
	gate *gate
}

func (m held) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	m.gate.pass()
	return m.counters.Apply(tx, e)
}

// A node lags while its state has not come to what was committed a while ago, although Raft has handed
// that to it; all others know.
func TestANodeLagsUntilItsStateHasCaughtUp(t *testing.T) {
	var gates [3]gate
	started := 0
	c := hosttest.Start(t, 3, func() []raftfsm.Group {
		groups := twoGroups()
		groups[0].Machine = held{&counters{}, &gates[started]}
		started++
		return groups
	})
	leader := c.AwaitLeader("a")
	slow, other := (leader+1)%3, (leader+2)%3
	id, all := c.Members()[slow].ID, c.Voters(leader, slow, other)
	c.Place(placements{groupA: all, groupB: all})
	gates[slow].close()
	defer gates[slow].open()
	for range 3 {
		add(t, c.Host(leader), groupA, "k")
	}
	c.Await("the others to know that it lags", func() bool { return c.Host(leader).Lags(id) && c.Host(other).Lags(id) })
	if r := c.Host(slow).Raft(groupA); r.AppliedIndex() < r.CommitIndex() {
		t.Errorf("Raft has handed over %d of %d entries: then its own index would do", r.AppliedIndex(), r.CommitIndex())
	}
	gates[slow].open()
	c.Await("it to keep pace again", func() bool { return !c.Host(leader).Lags(id) && !c.Host(other).Lags(id) })
}

// A dead node is replaced by its wiped self: a new member with the same name. The old id goes, and
// nothing that was acknowledged is lost.
func TestWipedNodeReturnsAsANewMember(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	add(t, c.Host(0), groupB, "b")
	stop := load(t, c.Host(1), groupA, "k")
	old := c.Wipe(0)
	c.Rejoin(0, old)
	p := c.Voters(1, 2, 0)
	c.Place(placements{groupA: p, groupB: p})
	awaitMembers(t, c, c.Host(1), groupA, p)
	awaitMembers(t, c, c.Host(2), groupB, p)
	c.Tell()
	n := stop()
	if got := read(t, c.Host(0), groupA, "k"); got != n {
		t.Errorf("the returned node reads %d of %d acknowledged writes", got, n)
	}
	equalOn(t, c, groupA, 0, 1, 2)
}

// A removed node that runs on is shut out: it cannot connect, is not asked for votes, reads
// nothing, and its terms, which could disturb the others, stay.
func TestRemovedNodeIsHarmless(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	add(t, c.Host(0), groupA, "k")
	four := c.Add()
	moved := c.Voters(1, 2, four)
	// The removed node does not hear of it, as one that was cut off would not; it must not lead, because
	// then nobody would remove it.
	others := func(g raftfsm.GroupID) (v raftfsm.GroupView, lead bool) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		v, err := c.Host(1).Describe(ctx, g)
		if err != nil || v.Leader != c.Members()[0].ID {
			return v, err == nil
		}
		_ = c.Host(1).Transfer(ctx, g, c.Members()[1].ID)
		return v, false
	}
	for _, g := range []raftfsm.GroupID{groupA, groupB} {
		c.Await("another leader", func() bool { _, lead := others(g); return lead })
	}
	for _, i := range []int{1, 2, four} {
		c.Host(i).Place(placements{groupA: moved, groupB: moved})
	}
	for _, g := range []raftfsm.GroupID{groupA, groupB} {
		c.Await("the removal", func() bool { v, lead := others(g); return lead && placed(v, moved) })
	}
	c.Forget(0)
	c.Await("the removed node to know no leader", func() bool {
		return !slices.ContainsFunc(c.Host(0).Status(), func(s raftfsm.GroupStatus) bool { return s.Leader != "" })
	})
	before := c.Host(0).Status()
	for range 20 {
		add(t, c.Host(four), groupA, "k")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if a, err := c.Host(0).Query(ctx, groupA, []byte("k"), raftfsm.Linearizable); err == nil {
		t.Errorf("the removed node answered a linearizable read: %x", a.Data)
	}
	if _, err := c.Host(0).Propose(ctx, groupA, raftfsm.Command{Data: []byte("k")}); err == nil {
		t.Error("the removed node took a write")
	}
	for i, s := range c.Host(0).Status() {
		if s.Term != before[i].Term {
			t.Errorf("the removed node's term of group %s went from %d to %d", s.Name, before[i].Term, s.Term)
		}
	}
	if got := read(t, c.Host(four), groupA, "k"); got != 21 {
		t.Errorf("the sum is %d, want 21", got)
	}
}

// A crash at any step of an erasure is finished by the next start.
func TestCrashWhileErasing(t *testing.T) {
	c := hosttest.Start(t, 4, twoGroups)
	three := c.Voters(1, 2, 3)
	add(t, c.Host(0), groupA, "k")
	c.Place(placements{groupA: three, groupB: c.Voters(0, 1, 2)})
	awaitMembers(t, c, c.Host(1), groupA, three)
	awaitHosted(t, c, 0, groupA, "")
	c.Stop(0)
	// As if the crash had come right after the list was written: the log is still there.
	list := filepath.Join(c.Dir(0), "replicas.json")
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, []byte(strings.Replace(string(b), `"erased"`, `"erasing": ["a"], "erased"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(c.Dir(0), "raft", "a")
	if err := os.MkdirAll(filepath.Join(left, "snapshots"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.Start(0)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what the crash left: %v", err)
	}
	awaitHosted(t, c, 0, groupB, c.Members()[0].ID)
	if b, err = os.ReadFile(list); err != nil || strings.Contains(string(b), "erasing") {
		t.Errorf("the list still says that something is being erased: %s, %v", b, err)
	}
}

// A listed replica whose log is gone is refused, also on data that is not said to have started.
func TestListedReplicaWithoutItsLog(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, hosttest.Configure(func(_ int, o *raftfsm.Options) { o.Started = false }))
	add(t, c.Host(0), groupA, "k")
	c.Stop(0)
	if err := os.RemoveAll(filepath.Join(c.Dir(0), "raft", "a")); err != nil {
		t.Fatal(err)
	}
	if err := c.TryStart(0); err == nil || !strings.Contains(err.Error(), "lost synced data") {
		t.Fatalf("a node without a log of its list: %v", err)
	}
}

// A group's Raft is restarted under load, wherever it leads: callers see at most a change of
// leader, and the other group nothing.
func TestRestartOfAGroup(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	stop := load(t, c.Host(0), groupA, "k")
	for range 3 {
		for i := range 3 {
			if err := c.Host(i).Restart(groupA); err != nil {
				t.Fatal(err)
			}
			c.Host(i).Status()
			add(t, c.Host(i), groupB, "b")
			c.AwaitLeader("a")
		}
	}
	n := stop()
	for i := range 3 {
		if got := read(t, c.Host(i), groupA, "k"); got != n {
			t.Errorf("node %d reads %d of %d acknowledged writes", i, got, n)
		}
	}
	awaitEqualStates(t, c, groupA)
	awaitEqualStates(t, c, groupB)
}

// steps tells of every step that a leader takes to move replicas or the leadership.
type steps struct {
	slog.Handler
	taken chan struct{}
}

func (s steps) Enabled(context.Context, slog.Level) bool { return true }

func (s steps) WithAttrs(attrs []slog.Attr) slog.Handler {
	return steps{s.Handler.WithAttrs(attrs), s.taken}
}

func (s steps) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "members of the group changed" || r.Message == "leadership is handed over" {
		select {
		case s.taken <- struct{}{}:
		default:
		}
	}
	if !s.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return s.Handler.Handle(ctx, r)
}

// A node is replaced under load, and after each step the leader of the group dies and comes back.
// The placement is reached all the same, and nothing is lost that was acknowledged.
func TestLeadersDieWhileMembersChange(t *testing.T) {
	taken := make(chan struct{}, 1)
	c := hosttest.Start(t, 3, twoGroups, littleLog, hosttest.Configure(func(_ int, o *raftfsm.Options) {
		o.Log = slog.New(steps{o.Log.Handler(), taken})
	}))
	add(t, c.Host(0), groupB, "b")
	four, outside := c.Add(), c.Add() // the one outside hosts nothing, and lives
	stop := load(t, c.Host(outside), groupA, "k")
	p := c.Voters(1, 2, four)
	c.Place(placements{groupA: p, groupB: p})
	look := func(g raftfsm.GroupID) (v raftfsm.GroupView) {
		c.Await("a leader", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			var err error
			v, err = c.Host(outside).Describe(ctx, g)
			return err == nil
		})
		return v
	}
	reached := func() bool {
		return slices.Equal(slices.Sorted(slices.Values(look(groupA).Voters)), slices.Sorted(slices.Values(p.Voters)))
	}
	kills := 0
	for ; kills < 5 && !reached(); kills++ {
		c.Await("the next step", func() bool { return len(taken) > 0 || reached() })
		leader := raftfsm.MemberOf(look(groupA).Leader)
		i := slices.IndexFunc(c.Members(), func(m raftfsm.Member) bool { return m.ID == leader })
		c.Stop(i)
		add(t, c.Host(outside), groupA, "without it")
		c.Start(i)
		select {
		case <-taken: // those of meanwhile are one
		default:
		}
	}
	t.Logf("%d leaders died", kills)
	for _, g := range []raftfsm.GroupID{groupA, groupB} {
		awaitMembers(t, c, c.Host(outside), g, p)
		awaitHosted(t, c, 0, g, "")
	}
	n := stop()
	for i := range c.Members() {
		if got := read(t, c.Host(i), groupA, "k"); got != n {
			t.Errorf("node %d reads %d of %d acknowledged writes", i, got, n)
		}
		if got := read(t, c.Host(i), groupA, "without it"); got != uint64(kills) {
			t.Errorf("node %d reads %d of %d writes without the leader", i, got, kills)
		}
	}
	equalOn(t, c, groupA, 1, 2, four)
	equalOn(t, c, groupB, 1, 2, four)
}
