package raftfsm

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/disk"
)

// groupGuard is what the watchdogs know of one group.
type groupGuard struct {
	// full is set while the group must not grow.
	full atomic.Bool
	// refused is set while Raft answers that a transfer of leadership is under way; refusedFor
	// counts how long, in nanoseconds. transfers are those that this node has asked for.
	refused    atomic.Bool
	refusedFor atomic.Int64
	transfers  atomic.Int32
	// copies are the copies of the state that are being read.
	copies   atomic.Int32
	progress progressWatch
	// tended is set while something is done about the group.
	tended atomic.Bool
	// movePause is left before the next try to hand the leadership over; the steward's own.
	movePause time.Duration
}

// guard prepares the watchdogs, before anything is opened.
func (h *Host) guard(o Options) {
	h.seams = o.seams
	h.bounds = bounds{write: writeBounds{slow: writeSlowAfter, stalled: writeStalledAfter}, replication: replicationStuckAfter}
	if b := o.seams.bounds; b != nil {
		h.bounds = *b
	}
	h.writes = newWriteWatch(h.bounds.write)
	h.stop = o.Stop
	if h.stop == nil {
		h.stop = o.Fatal
	}
	h.disk.low, h.disk.space = o.DiskLow, o.DiskSpace
	if h.disk.space == nil {
		h.disk.space = func() (disk.Space, error) { return disk.SpaceOf(o.Dir) }
	}
}

// watched is a group's log under the eyes of the watchdog.
func (h *Host) watched(g *group) raftStore {
	store := raftStore(g.logs)
	if h.seams.log != nil {
		store = h.seams.log(g.id, store)
	}
	return watchedStore{raftStore: store, watch: h.writes, group: g.name}
}

func (s seams) configure(c *raft.Config) {
	if s.raft != nil {
		s.raft(c)
	}
}

func (s seams) streamOf(l raft.StreamLayer) raft.StreamLayer {
	if s.stream != nil {
		return s.stream(l)
	}
	return l
}

func (s seams) transportOf(t raft.Transport) raft.Transport {
	if s.transport != nil {
		return s.transport(t)
	}
	return t
}

// Warnings are what an operator should mend although this node serves: its clock, its disk.
func (h *Host) Warnings() []string {
	var out []string
	if err := h.ClockError(); err != nil {
		out = append(out, fmt.Sprintf("%s: %v; meanwhile it leads no group that another node can lead", ReasonClockWrong, err))
	}
	switch h.diskState() {
	case DiskLow:
		s, l := h.disk.lastSpace()
		out = append(out, fmt.Sprintf("%s: %d bytes are free, fewer than %d; what fills the disk is refused, and below %d bytes the node stops", ReasonDiskLow, s.Free, l.Low, l.Critical))
	case DiskSlow:
		out = append(out, fmt.Sprintf("%s: writes to the disk took %v or more lately", ReasonDiskSlow, h.bounds.write.slow))
	}
	return out
}

// pause waits for d, or until ctx ends.
func (g *group) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// transfer hands the leadership over to the voter to.
func (g *group) transfer(ctx context.Context, to string) error {
	addr, err := g.host.ServerAddr(raft.ServerID(to))
	if err != nil {
		return err
	}
	g.guard.transfers.Add(1)
	defer g.guard.transfers.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	return await(ctx, g.raft.LeadershipTransferToServer(raft.ServerID(to), addr))
}

// restart closes and opens the group's Raft on the same data.
func (g *group) restart(reason string) error { return g.seat.restart(g, reason) }

// latest takes from in at once, always, and hands on the newest value: Raft's main goroutine
// waits until its notification is taken, and the end of a leadership takes as long as its job.
func latest(done <-chan struct{}, in <-chan bool) <-chan bool {
	out := make(chan bool)
	go func() {
		var value bool
		var next chan<- bool // nil: nothing to hand on
		for {
			select {
			case value = <-in:
				next = out
			case next <- value:
				next = nil
			case <-done:
				return
			}
		}
	}()
	return out
}
