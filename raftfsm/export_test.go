package raftfsm

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// What tests of the whole host reach of its inside.

// RaftStore is a group's log with its term and vote.
type RaftStore = raftStore

// OpenBolt opens a group's log as a host does by itself.
func OpenBolt(dir string, group GroupID) (LogFile, error) { return openBolt(dir, group) }

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

// WithCopyFiles sets how large the files of a transfer become.
func (o *Options) WithCopyFiles(bytes uint64) { o.seams.copyFile = bytes }

// WithWholeCopies sends the state as to builds of level 1.
func (o *Options) WithWholeCopies() { o.seams.wholeCopies = true }

// WithStaged calls f when a file of a transfer has arrived, before its sender learns of it; the
// context ends with the host.
func (o *Options) WithStaged(f func(ctx context.Context, group GroupID, n int)) { o.seams.staged = f }

// Raft is the Raft of a group.
func (h *Host) Raft(id GroupID) *raft.Raft { return h.seats[id].current.Load().raft }

// Successor is the replica that this node would hand a group to, or "".
func (h *Host) Successor(id GroupID) string { return h.seats[id].current.Load().successor() }

// Fit tells whether a replica's node is in a state to lead the group.
func (h *Host) Fit(id GroupID, replica string) bool { return h.seats[id].current.Load().fit(replica) }

// Lags tells whether a member has a replica that does not keep pace.
func (h *Host) Lags(member string) bool { return h.lags(member) }

// Spare tells whether a group has a majority without this node.
func (h *Host) Spare(id GroupID) bool { return h.seats[id].current.Load().spare() }

// Restart closes and opens a group's Raft, as a watchdog does.
func (h *Host) Restart(id GroupID) error { return h.seats[id].current.Load().restart("test") }

// Confirm asks a majority whether this node still leads the group in its term.
func (h *Host) Confirm(id GroupID) error {
	g := h.seats[id].current.Load()
	return h.confirmer.confirm(h.ctx, g, g.raft.CurrentTerm())
}

// FirstLogIndex is the first index of a group's log.
func FirstLogIndex(h *Host, id GroupID) (uint64, error) {
	g, err := h.hosted(id)
	if err != nil {
		return 0, err
	}
	return g.logs.FirstIndex()
}

// AppendToLog appends n entries of one command each to the log file at path, which ends at last.
func AppendToLog(path string, last, term uint64, n int, command []byte) error {
	clk, err := clock.System()
	if err != nil {
		return err
	}
	s, err := openLogStore(path, Retention{}, &timekeeper{clock: clk}, func(string, error) {}, func(int, time.Duration) {})
	if err != nil {
		return err
	}
	logs := make([]*raft.Log, n)
	for i := range logs {
		logs[i] = &raft.Log{
			Index: last + 1 + uint64(i), Term: term, Type: raft.LogCommand,
			Data: EncodeEntry(term, 1, 0, []Command{{Data: command}}),
		}
	}
	return errors.Join(s.StoreLogs(logs), s.close())
}

// Quiet tells whether a line of the library is for debugging only.
func (h *Host) Quiet(line string) bool { return h.quiet(line) }
