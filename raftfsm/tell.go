package raftfsm

import (
	"context"
	"sync"
)

// Tell sends a message about a group to the domain on every other member that speaks LevelLeases, and
// waits until all have taken it or ctx ends. Nothing is kept and nothing is tried again: it is for
// what only helps if it arrives, such as asking for something back. The domain here is not told.
func (h *Host) Tell(ctx context.Context, id GroupID, message []byte) {
	var all sync.WaitGroup
	for _, l := range h.peerLinks() { // any order
		all.Go(func() {
			// A member that cannot be reached misses it, and the caller cannot do more about that.
			_, _ = l.call(ctx, kindTell, id, message)
		})
	}
	all.Wait()
}

// Follows tells whether this node's replica of a group keeps up: it leads or hears its leader, and
// has applied what it knows to be committed but for a few entries. What it publishes is then at most
// as old as a heartbeat is long.
func (h *Host) Follows(id GroupID) bool {
	s := h.seats[id]
	if s == nil {
		return false
	}
	g := s.current.Load()
	if g == nil || h.replicas.waits(g.name) {
		return false
	}
	_, leader := g.raft.LeaderWithID()
	if leader == "" || string(leader) != g.self && !g.heard() {
		return false
	}
	// The first is cheap, and leaves out entries that are Raft's own.
	committed := g.raft.CommitIndex()
	return g.replica.AppliedIndex()+applyBehind >= committed || g.appliedIndex()+applyBehind >= committed
}
