package raftfsm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/internal/disk"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// disks are the file systems of a cluster's nodes.
type disks struct{ free [3]atomic.Uint64 }

const diskTotal, diskLow = 1 << 30, 100 << 20

func (d *disks) set(i int, free uint64) { d.free[i].Store(free) }

func (d *disks) option(stopped func(i int, reason string, err error)) hosttest.Option {
	for i := range d.free {
		d.set(i, diskTotal)
	}
	return hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.DiskLow = diskLow
		o.WithBounds(time.Hour, time.Hour, time.Hour)
		o.DiskSpace = func() (disk.Space, error) { return disk.Space{Free: d.free[i].Load(), Total: diskTotal}, nil }
		o.Stop = func(reason string, err error) { stopped(i, reason, err) }
	})
}

// bulkAndSmall are a group that fills the disk and one that does not.
func bulkAndSmall() []raftfsm.Group {
	groups := twoGroups()
	groups[0].Bulk = true
	return groups
}

// try proposes once, without a request id.
func try(h *raftfsm.Host, g raftfsm.GroupID) error {
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	defer cancel()
	_, err := h.Propose(ctx, g, raftfsm.Command{Data: []byte("k")})
	return err
}

// While the disks of a majority are low, what fills them is refused definitely and everything
// else goes on; with room again, it is taken again. One low disk stops nobody.
func TestLowDisks(t *testing.T) {
	var d disks
	c := hosttest.Start(t, 3, bulkAndSmall, d.option(func(i int, reason string, err error) { t.Errorf("node %d stopped: %s: %v", i, reason, err) }))
	refused := func(i int) func() bool {
		return func() bool {
			err := try(c.Host(i), groupA)
			if !errors.Is(err, raftfsm.ErrDiskFull) {
				return false
			}
			if raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite {
				t.Fatalf("a refusal that is not definite: %v", err)
			}
			return true
		}
	}
	add(t, c.Host(0), groupA, "k")

	d.set(0, diskLow-1)
	c.Await("the others to hear of the low disk", func() bool { return told(c, 1, 0, raftfsm.DiskLow) && told(c, 2, 0, raftfsm.DiskLow) })
	c.Await("a leader with room", func() bool { return c.AwaitLeader("a") != 0 })
	c.Await("a write in spite of one low disk", func() bool { return try(c.Host(0), groupA) == nil })
	before := read(t, c.Host(0), groupA, "k")

	for i := 1; i < 3; i++ {
		d.set(i, diskLow-1)
	}
	for i := range 3 {
		c.Await("the refusal of a write", refused(i))
		if got := read(t, c.Host(i), groupA, "k"); got < before {
			t.Errorf("node %d reads %d, want %d at least", i, got, before)
		}
		add(t, c.Host(i), groupB, "k")
	}
	for i := range 3 {
		d.set(i, diskTotal)
	}
	c.Await("writes to be taken again", func() bool { return try(c.Host(0), groupA) == nil })
}

// told says whether node i has heard from node j that its disk is in a state.
func told(c *hosttest.Cluster, i, j int, state raftfsm.Disk) bool {
	for _, p := range c.Host(i).Peers() {
		if p.ID == c.Members()[j].ID && p.Disk == state && p.Reachable {
			return true
		}
	}
	return false
}

// A disk that is about to be full stops the node before a write fails.
func TestCriticalDisk(t *testing.T) {
	var d disks
	stopped := make(chan string, 1024)
	c := hosttest.Start(t, 1, bulkAndSmall, d.option(func(_ int, reason string, err error) { stopped <- fmt.Sprint(reason, ": ", err) }))
	add(t, c.Host(0), groupA, "k")
	d.set(0, diskLow/4-1)
	c.Await("the node to stop itself", func() bool { return len(stopped) > 0 })
	if why := <-stopped; !strings.HasPrefix(why, raftfsm.ReasonDiskCritical) || !strings.Contains(why, "ballast") {
		t.Errorf("stopped because of %q", why)
	}
}

// The default limits fit disks of every size.
func TestDiskLimits(t *testing.T) {
	for _, c := range []struct{ total, want, low uint64 }{
		{total: 2 << 40, low: 2 << 30},
		{total: 1 << 30, low: (1 << 30) / 10},
		{total: 1 << 40, want: 5 << 20, low: 5 << 20},
	} {
		if got := raftfsm.DiskLimitsOf(c.total, c.want); got.Low != c.low || got.Critical != c.low/4 {
			t.Errorf("of %d with %d: %+v", c.total, c.want, got)
		}
	}
}

// skewed is a clock whose wall is off.
type skewed struct {
	clock.Clock
	by *atomic.Int64
}

func (s skewed) Now() time.Time { return s.Clock.Now().Add(time.Duration(s.by.Load())) }

// A node whose wall clock is wrong hands over what it leads and says so; with the clock set
// right it may lead again.
func TestWrongClockDoesNotLead(t *testing.T) {
	var by [3]atomic.Int64
	c := hosttest.Start(t, 3, twoGroups, hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.Clock = skewed{o.Clock, &by[i]}
		o.WithBounds(time.Hour, time.Hour, time.Hour)
	}))
	wrong := c.AwaitLeader("a")
	by[wrong].Store(int64(10 * time.Second))
	c.Await("the node to notice", func() bool { return c.Host(wrong).ClockError() != nil })
	if w := c.Host(wrong).Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], raftfsm.ReasonClockWrong) {
		t.Errorf("warnings %q", w)
	}
	for _, group := range []string{"a", "b"} {
		c.Await("another leader of "+group, func() bool { return c.AwaitLeader(group) != wrong })
	}
	add(t, c.Host(wrong), groupA, "k")

	// Elected again, by a transfer that knows nothing of clocks, it does not keep what it got.
	m := c.Members()[wrong]
	term := c.Host(c.AwaitLeader("a")).Raft(groupA).CurrentTerm()
	c.Await("a transfer", func() bool {
		r := c.Host(c.AwaitLeader("a")).Raft(groupA)
		_ = r.LeadershipTransferToServer(raft.ServerID(m.ID), raft.ServerAddress(m.Address)).Error()
		return r.CurrentTerm() > term
	})
	c.Await("a leader with a right clock", func() bool {
		l := c.AwaitLeader("a")
		return l != wrong && c.Host(l).Raft(groupA).CurrentTerm() > term
	})

	by[wrong].Store(0)
	c.Await("the node to notice", func() bool { return c.Host(wrong).ClockError() == nil })
	if w := c.Host(wrong).Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// When nobody's clock can be trusted, a leader that says so is better than none.
func TestClocksThatAllDiffer(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups, hosttest.Configure(func(i int, o *raftfsm.Options) {
		by := new(atomic.Int64)
		by.Store(int64(i) * int64(10*time.Second))
		o.Clock = skewed{o.Clock, by}
	}))
	for i := range 3 {
		c.Await("every node to doubt its clock", func() bool { return c.Host(i).ClockError() != nil })
	}
	for i := range 3 {
		add(t, c.Host(i), groupA, "k")
	}
}

// stalling is a log whose writes can be held.
type stalling struct {
	raftfsm.RaftStore
	gate *gate
}

func (s stalling) StoreLogs(l []*raft.Log) error {
	s.gate.pass()
	return s.RaftStore.StoreLogs(l)
}

// gate holds who passes while it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil while open
	held atomic.Int64
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		g.held.Add(1)
		<-shut
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// A leader whose log write hangs is not deposed by the library, because its heartbeats go on;
// the watchdog tells the peers of the slow disk, and then ends the process.
func TestStalledLogWrite(t *testing.T) {
	var gates [3]gate
	fatal := make(chan string, 1024)
	c := hosttest.Start(t, 3, twoGroups, hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.WithLog(func(g raftfsm.GroupID, s raftfsm.RaftStore) raftfsm.RaftStore {
			if g == groupA {
				return stalling{s, &gates[i]}
			}
			return s
		})
		o.WithBounds(500*time.Millisecond, 3*time.Second, time.Hour)
		o.Fatal = func(reason string, _ error) { fatal <- fmt.Sprint(o.Self, " ", reason) }
	}))
	leader := c.AwaitLeader("a")
	other := (leader + 1) % 3
	add(t, c.Host(leader), groupA, "k")
	term := c.Host(leader).Raft(groupA).CurrentTerm()
	gates[leader].close()
	defer gates[leader].open()
	go func() { _ = try(c.Host(leader), groupA) }()
	c.Await("the write to hang", func() bool { return gates[leader].held.Load() > 0 })
	c.Await("the others to hear of the slow disk", func() bool { return told(c, other, leader, raftfsm.DiskSlow) })
	c.Await("the end of the process", func() bool {
		select {
		case got := <-fatal:
			return got == c.Members()[leader].ID+" "+raftfsm.ReasonLogStalled
		default:
			return false
		}
	})
	if got := c.Host(other).Raft(groupA).CurrentTerm(); got != term {
		t.Logf("the library deposes such a leader by itself now, in term %d: is the watchdog still needed?", got)
	}
	// What the end of the process does.
	gates[leader].open()
	c.Stop(leader)
	add(t, c.Host(other), groupA, "k")
}
