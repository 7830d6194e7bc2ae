package raftfsm

import (
	"time"

	"github.com/hashicorp/raft"
)

// What tests of the whole host reach of its inside.

// RaftStore is a group's log with its term and vote.
type RaftStore = raftStore

// WithRaft changes the settings of Raft.
func (o *Options) WithRaft(f func(*raft.Config)) { o.seams.raft = f }

// WithTransport wraps the transports of the groups.
func (o *Options) WithTransport(f func(raft.Transport) raft.Transport) { o.seams.transport = f }

// WithStream wraps the connections of the groups.
func (o *Options) WithStream(f func(raft.StreamLayer) raft.StreamLayer) { o.seams.stream = f }

// WithLog wraps the logs of the groups.
func (o *Options) WithLog(f func(GroupID, RaftStore) RaftStore) { o.seams.log = f }

// WithBounds shortens the patience of the watchdogs.
func (o *Options) WithBounds(slow, stalled, replication time.Duration) {
	o.seams.bounds = &bounds{write: writeBounds{slow: slow, stalled: stalled}, replication: replication}
}

// Raft is the Raft of a group.
func (h *Host) Raft(id GroupID) *raft.Raft { return h.seats[id].current.Load().raft }

// Confirm asks a majority whether this node still leads the group in its term.
func (h *Host) Confirm(id GroupID) error {
	g := h.seats[id].current.Load()
	return h.confirmer.confirm(h.ctx, g, g.raft.CurrentTerm())
}
