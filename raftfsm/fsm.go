package raftfsm

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// fsm is a group as Raft sees it. Its methods run on Raft's one applying goroutine.
type fsm struct{ g *group }

var _ raft.BatchingFSM = fsm{}

// Apply is required by the interface; Raft calls ApplyBatch.
func (f fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries. A state that cannot be applied cannot be trusted, so
// an error ends the process.
func (f fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		switch l.Type {
		case raft.LogCommand:
			applied, err := f.g.replica.Apply(l.Index, l.Term, l.Data)
			if err != nil {
				f.g.host.fatal("apply_failed", fmt.Errorf("group %s: %w", f.g.name, err))
				return out
			}
			out[i] = applied
		case raft.LogConfiguration:
			if err := f.g.replica.ApplyConfig(l.Index, l.Term, l.Data); err != nil {
				f.g.host.fatal("apply_failed", fmt.Errorf("group %s: %w", f.g.name, err))
				return out
			}
		}
	}
	return out
}

// Snapshot starts a local snapshot. Nothing is copied: the state is in Pebble already.
func (f fsm) Snapshot() (raft.FSMSnapshot, error) { return marker(f), nil }

// Restore replaces the group's state by a received snapshot.
func (f fsm) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	f.g.replacing.Lock()
	defer f.g.replacing.Unlock()
	if s, ok := f.g.machine.(Suspender); ok {
		s.Suspend()
	}
	// A copy that was refused before the exchange has changed nothing; loading what is there
	// puts the machine to work again in either case.
	err := f.g.snaps.ingest(rc)
	if err := f.g.replica.Open(); err != nil {
		f.g.host.fatal("restore_failed", fmt.Errorf("group %s: %w", f.g.name, err))
		return err
	}
	if err != nil {
		return fmt.Errorf("raftfsm: restore group %s: %w", f.g.name, err)
	}
	pos := f.g.replica.Position()
	f.g.keep.reset(note{index: pos.Index, stamp: pos.Time})
	f.g.log.Info("state replaced by a snapshot", "index", pos.Index, "term", pos.Term)
	return nil
}

// marker is a local snapshot: a promise that the state up to its index is on disk.
type marker struct{ g *group }

// Persist syncs Pebble, because Raft truncates its log as soon as this returns.
func (m marker) Persist(sink raft.SnapshotSink) error {
	s, ok := sink.(*markerSink)
	if !ok {
		return fmt.Errorf("raftfsm: local snapshot into a %T", sink)
	}
	if err := m.g.host.db.LogData(nil, pebble.Sync); err != nil {
		m.g.host.fatal("state_sync_failed", err)
		return err
	}
	return s.Close()
}

// Release has nothing to release.
func (m marker) Release() {}
