package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The watchdogs look for what the library or the machine can do to a group without any error
// that would end it. DESIGN.md has a table of them.

// Reasons, as they stand in logs, in metrics and in what Fatal and Stop are called with.
const (
	// ReasonLogStalled and ReasonStateStalled end the process: a write to a log, or to the state,
	// does not come back. The slow ones come before.
	ReasonLogSlow      = "log_write_slow"
	ReasonLogStalled   = "log_write_stalled"
	ReasonStateSlow    = "state_write_slow"
	ReasonStateStalled = "state_write_stalled"
	// ReasonTransferStuck and ReasonReplicationStuck restart a group's Raft.
	ReasonTransferStuck    = "transfer_stuck"
	ReasonReplicationStuck = "replication_stuck"
	// ReasonSnapshotConflict restarts a group's Raft whose log had other entries than a snapshot
	// that it was sent.
	ReasonSnapshotConflict = "snapshot_conflict"
	// ReasonClockWrong, ReasonDiskSlow and ReasonDiskLow make a node hand its leaderships over.
	ReasonClockWrong = "clock_wrong"
	ReasonDiskSlow   = "disk_slow"
	ReasonDiskLow    = "disk_low"
	// ReasonDiskFull is a group that takes nothing that would make it grow.
	ReasonDiskFull = "disk_full"
	// ReasonDiskCritical stops the node in order.
	ReasonDiskCritical = "disk_critical"
)

const (
	// watchInterval is how often the writes under way are looked at.
	watchInterval = 250 * time.Millisecond
	// writeSlowAfter is when a write counts as slow. A disk needs milliseconds, a busy one some
	// hundred; from one second on, callers notice.
	writeSlowAfter = time.Second
	// writeStalledAfter is when a write under way ends the process. Shorter: a network disk that
	// fails over, or a device that resets, comes back within some seconds. Longer: the groups
	// that the node leads are out of service for as long.
	writeStalledAfter = 10 * time.Second
	// slowDiskMemory is how long a disk counts as slow after its last slow write: long enough
	// that leaderships do not come back between two of them.
	slowDiskMemory = 30 * time.Second

	// stewardInterval is how often a node asks itself whether it should lead what it leads, and
	// whether that gets on.
	stewardInterval = time.Second
	// transferStuckAfter is how long Raft may refuse writes for a transfer of leadership before
	// that is looked into. A transfer takes up to one election timeout, and an RPC on top.
	transferStuckAfter = 2*leaderHeartbeatTimeout + transportTimeout
	// replicationStuckAfter is how long a reachable voter may get nothing. Shorter: the library
	// waits for up to ten seconds between two tries, plus the timeout of an RPC; and a voter with
	// a stalled disk ends itself after ten. Longer: two disks hold what three should.
	replicationStuckAfter = 20 * time.Second
	// restartPause is how long a group is left alone after its Raft was restarted for want of
	// progress: what a restart did not mend, another one soon after will not either.
	restartPause = 5 * time.Minute
	// handOverPause is the pause after a leadership could not be handed over.
	handOverPause = 10 * time.Second
	// declinesMax is how often a node that should not lead tries to hand a leadership over that it
	// has just got, before it serves. Each try takes a second or two without a leader.
	declinesMax = 3
	// successorLag is how many entries a successor may be behind: the transfer sends them first.
	successorLag = 64
)

// notices keeps repeated warnings down to one a minute each.
type notices struct {
	mu   sync.Mutex
	said map[string]time.Time
}

// say calls f unless it was called for key within the last minute.
func (n *notices) say(key string, f func()) {
	n.mu.Lock()
	now := time.Now()
	if last, ok := n.said[key]; ok && now.Sub(last) < time.Minute {
		n.mu.Unlock()
		return
	}
	if n.said == nil {
		n.said = map[string]time.Time{}
	}
	n.said[key] = now
	n.mu.Unlock()
	f()
}

// watchWrites looks after the writes under way until the host closes. It never waits for
// anything itself.
func (h *Host) watchWrites() {
	defer h.wg.Done()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	last := h.clock.Steady()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		now := h.clock.Steady()
		for _, w := range h.writes.tick(time.Duration(now - last)) {
			h.lateWrite(w)
		}
		last = now
	}
}

func (h *Host) lateWrite(w lateWrite) {
	slow, stalled := ReasonLogSlow, ReasonLogStalled
	if w.group == "" {
		slow, stalled = ReasonStateSlow, ReasonStateStalled
	}
	if !w.stalled {
		h.metrics.acted(w.group, slow)
		h.log.Warn("the disk is slow: a write is under way for long", "group", w.group, "write", w.op, "for", w.age, "reason", slow)
		return
	}
	h.metrics.acted(w.group, stalled)
	h.fatal(stalled, fmt.Errorf("%s of group %q is under way for %v: the disk does not answer", w.op, w.group, w.age))
}

// runSteward looks after this node's leaderships until the host closes.
func (h *Host) runSteward() {
	defer h.wg.Done()
	tick := time.NewTicker(stewardInterval)
	defer tick.Stop()
	last := h.clock.Steady()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		now := h.clock.Steady()
		// A process that was stopped has seen nothing meanwhile.
		elapsed := min(time.Duration(now-last), 2*stewardInterval)
		last = now
		if err := h.ClockError(); err != nil {
			h.notices.say("clock", func() { h.log.Error("this node should not lead", "reason", ReasonClockWrong, "err", err) })
		}
		for _, g := range h.open() {
			h.tend(g, elapsed)
		}
	}
}

// tend does for one group what is due, at most one thing at a time.
func (h *Host) tend(g *group, elapsed time.Duration) {
	if g.raft.State() != raft.Leader {
		g.guard.progress.reset()
		g.guard.refusedFor.Store(0)
		return
	}
	reason, act := "", func(context.Context) {}
	switch {
	case g.transferStuck(elapsed):
		reason, act = ReasonTransferStuck, g.mendTransfer
	case g.replicationStuck(elapsed):
		reason, act = ReasonReplicationStuck, g.mendReplication
	default:
		if reason = h.hindrance(g); reason == "" {
			g.guard.movePause = 0
			return
		}
		if !g.mayMove(elapsed) {
			return
		}
		act = func(ctx context.Context) { g.moveAway(ctx, reason) }
	}
	if !g.guard.tended.CompareAndSwap(false, true) {
		return
	}
	h.wg.Go(func() {
		defer g.guard.tended.Store(false)
		act(h.ctx)
	})
}

// hindrance is the reason why this node should not lead g, or "".
func (h *Host) hindrance(g *group) string {
	switch {
	case h.ClockError() != nil:
		return ReasonClockWrong
	case h.writes.slow():
		return ReasonDiskSlow
	case g.bulk && h.disk.isLow():
		return ReasonDiskLow
	}
	return ""
}

// successor is the voter that can lead g best, or "" when there is none without a hindrance.
func (g *group) successor() string {
	best, last := "", uint64(0)
	for id := range g.voters() {
		s, ok := g.host.peer(MemberOf(id))
		r, hosts := s.Groups[g.id]
		switch {
		case id == g.self || !ok || !hosts || r.Replica != id || g.host.leaves(id):
		case s.Draining || s.ClockWrong || s.Disk == DiskSlow || g.bulk && s.Disk == DiskLow:
		case r.Last+successorLag < g.raft.LastIndex():
		case best == "" || r.Last > last || r.Last == last && id < best:
			best, last = id, r.Last
		}
	}
	return best
}

// moveAway hands the leadership over because of reason, and tells whether it did.
func (g *group) moveAway(ctx context.Context, reason string) bool {
	to := g.successor()
	if to == "" {
		g.host.notices.say("keep "+g.name, func() {
			g.log.Warn("this node leads although it should not: no other voter is better", "reason", reason)
		})
		return false
	}
	g.host.metrics.acted(g.name, reason)
	g.log.Warn("leadership is handed over", "reason", reason, "to", to)
	if err := g.transfer(ctx, to); err != nil {
		g.log.Warn("leadership not handed over", "reason", reason, "to", to, "err", err)
		return false
	}
	return true
}

// decline hands a leadership over that this node has just got, if it should not have it. It
// gives up when there is nobody better, or after some tries: what a group promises rests on
// none of the reasons, so a leader that is not the best one is better than none.
func (g *group) decline(ctx context.Context) {
	for range declinesMax {
		reason := g.host.hindrance(g)
		if reason == "" || ctx.Err() != nil || !g.moveAway(ctx, reason) {
			return
		}
	}
}

// mayMove counts down the pause after a leadership that could not be handed over.
func (g *group) mayMove(elapsed time.Duration) bool {
	if g.guard.movePause -= elapsed; g.guard.movePause > 0 {
		return false
	}
	g.guard.movePause = handOverPause
	return true
}

// notePropose keeps count of how long Raft has been refusing what it is given because of a
// transfer.
func (g *group) notePropose(err error) {
	switch {
	case err == nil:
		g.guard.refused.Store(false)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		g.guard.refused.Store(true)
	}
}

// transferStuck tells whether Raft has refused for too long, and no transfer of ours is the
// cause.
func (g *group) transferStuck(elapsed time.Duration) bool {
	if !g.guard.refused.Load() {
		g.guard.refusedFor.Store(0)
		return false
	}
	// Tries of ours that fail at once come and go: they only halt the count.
	if g.guard.transfers.Load() > 0 {
		return false
	}
	return time.Duration(g.guard.refusedFor.Add(int64(elapsed))) >= transferStuckAfter
}

// mendTransfer restarts the group's Raft if it still refuses. A transfer that a step-down
// interrupts can leave the library's mark of it standing for good (hashicorp/raft#696): the
// node is elected again and refuses every write.
func (g *group) mendTransfer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	index, err := g.barrier(ctx, enqueueTimeout)
	if err == nil {
		// Readers must not wait for the state to get there.
		g.mu.Lock()
		g.ready.index = max(g.ready.index, index)
		g.mu.Unlock()
	}
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		g.again(ReasonTransferStuck, "Raft refuses writes for a transfer that is not under way")
	}
}

// again restarts the group's Raft.
func (g *group) again(reason, what string) {
	g.host.metrics.acted(g.name, reason)
	g.log.Error("the group's Raft is restarted: "+what, "reason", reason)
	g.guard.refused.Store(false)
	if err := g.restart(reason); err != nil {
		g.host.fatal("restart_failed", fmt.Errorf("group %s: %w", g.name, err))
	}
}
