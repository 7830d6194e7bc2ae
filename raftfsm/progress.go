package raftfsm

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// progressWatch is how a leader's followers get on, from what they tell of themselves.
type progressWatch struct {
	mu     sync.Mutex
	voters map[string]followerProgress
	pause  time.Duration
}

// followerProgress is how long a voter has stood at the same place below what the leader had.
type followerProgress struct {
	// last is the follower's last index, and goal the leader's when the wait began.
	last, goal uint64
	stuck      time.Duration
}

// look takes the last index of the leader's log and of those of the voters that can be reached,
// and returns the voter that has waited longest, with how long. copying means that a copy of
// the state is on its way to somebody: logs need not move then.
func (p *progressWatch) look(elapsed time.Duration, leader uint64, voters map[string]uint64, copying bool) (string, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = max(0, p.pause-elapsed)
	next := make(map[string]followerProgress, len(voters))
	worst, longest := "", time.Duration(0)
	for id, last := range voters {
		f, known := p.voters[id]
		if !known || f.last != last || last >= f.goal || copying {
			f = followerProgress{last: last, goal: leader}
		} else {
			f.stuck += elapsed
		}
		next[id] = f
		if f.stuck > longest {
			worst, longest = id, f.stuck
		}
	}
	p.voters = next
	if p.pause > 0 {
		return "", 0
	}
	return worst, longest
}

// reset forgets what was seen: this node does not lead, or leads anew.
func (p *progressWatch) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.voters = nil
}

// hold leaves the group alone for a while.
func (p *progressWatch) hold(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.voters, p.pause = nil, d
}

// replicationStuck tells whether a voter that can be reached has got nothing for too long.
func (g *group) replicationStuck(elapsed time.Duration) bool {
	voters := map[string]uint64{}
	for id := range g.voters() {
		s, ok := g.host.peer(MemberOf(id))
		if r, hosts := s.Groups[g.id]; ok && hosts && r.Replica == id {
			voters[id] = r.Last
		}
	}
	id, stuck := g.guard.progress.look(elapsed, g.raft.LastIndex(), voters, g.guard.copies.Load() > 0)
	if stuck < g.host.bounds.replication {
		return false
	}
	g.log.Error("a voter answers, but its log does not grow", "voter", id, "for", stuck, "reason", ReasonReplicationStuck)
	return true
}

// mendReplication restarts the group's Raft on this node, its leader: the library's goroutine
// that sends to one follower can wait for ever (hashicorp/raft#612), while heartbeats keep the
// leader in place. The group is handed over first, if somebody can take it, so that the restart
// costs no election.
func (g *group) mendReplication(ctx context.Context) {
	if to := g.successor(); to != "" {
		if err := g.transfer(ctx, to); err != nil {
			g.log.Warn("leadership not handed over", "reason", ReasonReplicationStuck, "to", to, "err", err)
		}
	}
	g.guard.progress.hold(restartPause)
	g.again(ReasonReplicationStuck, "a voter gets nothing from this leader")
}

// countedSnapshots counts the copies of the state that are open.
type countedSnapshots struct {
	raft.SnapshotStore
	open *atomic.Int32
}

// Open makes a snapshot readable until it is closed.
func (s countedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.open.Add(1)
	meta, rc, err := s.SnapshotStore.Open(id)
	if err != nil {
		s.open.Add(-1)
		return nil, nil, err
	}
	return meta, &countedCopy{ReadCloser: rc, open: s.open}, nil
}

type countedCopy struct {
	io.ReadCloser
	open *atomic.Int32
	once sync.Once
}

// Close ends the copy.
func (c *countedCopy) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.ReadCloser.Close()
}
