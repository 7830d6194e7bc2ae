package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"time"

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
	f.g.applying.Store(true)
	defer f.g.applying.Store(false)
	out := make([]any, len(logs))
	for i, l := range logs {
		if f.g.interrupted.Load() {
			return out
		}
		switch l.Type {
		case raft.LogCommand:
			applied, err := f.g.replica.Apply(l.Index, l.Term, l.Data)
			if errors.Is(err, ErrInterrupted) && f.g.ctx.Err() != nil {
				f.g.interrupted.Store(true)
				return out
			}
			if err != nil {
				f.g.host.fatal("apply_failed", fmt.Errorf("group %s: %w", f.g.name, err))
				return out
			}
			out[i] = applied
			f.g.restBehind(l.Index)
		case raft.LogConfiguration:
			if err := f.g.replica.ApplyConfig(l.Index, l.Term, l.Data); err != nil {
				f.g.host.fatal("apply_failed", fmt.Errorf("group %s: %w", f.g.name, err))
				return out
			}
		}
	}
	return out
}

// appliedIndex is the last entry that the state has. Raft counts as applied what it has handed to the
// applying goroutine, thousands of entries before that comes to them; the position of the state leaves
// out entries that are Raft's own. So the first counts while nothing waits.
func (g *group) appliedIndex() uint64 {
	handed := g.raft.AppliedIndex()
	if g.raft.Stats()["fsm_pending"] != "0" || g.applying.Load() || g.loading.Load() != 0 {
		return min(handed, g.replica.AppliedIndex())
	}
	return handed
}

// restBehind lets a follower that is far behind rest after an entry, for the sake of others. Not one
// that has lost its leader, for it may be the next, nor one whom a majority may need.
func (g *group) restBehind(index uint64) {
	if g.seat.current.Load() != g || g.raft.CommitIndex() < index+applyBehind {
		return // the first is so while the replica is opened
	}
	if g.raft.State() == raft.Follower && g.heard() && g.spare() {
		g.rest()
	}
}

// heard tells whether the leader was there a moment ago.
func (g *group) heard() bool { return time.Since(g.raft.LastContact()) < leaderHeartbeatTimeout }

// mayRest tells whether background work on the state may rest.
func (g *group) mayRest() bool {
	if g.raft.State() != raft.Leader && !g.heard() {
		return false
	}
	until := g.loading.Load()
	return until == 0 || g.host.clock.Steady() < until && g.spare()
}

// spare tells whether the group has a majority without this replica, as far as fresh news say: all
// other voters are there.
func (g *group) spare() bool {
	voters := g.configuration().voters
	for _, id := range voters {
		if id == g.self && len(voters) == 2 {
			return false
		}
		if _, fresh := g.host.peer(MemberOf(id)); id != g.self && !fresh {
			return false
		}
	}
	return true
}

// Snapshot starts a local snapshot. Nothing is copied: the state is in Pebble already.
func (f fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.g.interrupted.Load() {
		return nil, ErrInterrupted // Raft believes that entries were applied which were not
	}
	return marker(f), nil
}

// Restore replaces the group's state by a received snapshot.
func (f fsm) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	f.g.replacing.Lock()
	defer f.g.replacing.Unlock()
	began := f.g.host.clock.Steady()
	f.g.loading.Store(max(1, began))
	defer f.g.loading.Store(0)
	if s, ok := f.g.machine.(Suspender); ok {
		s.Suspend()
	}
	// A copy that was refused before the exchange has changed nothing; loading what is there
	// puts the machine to work again in either case.
	if err := errors.Join(f.g.snaps.views.drop(), f.g.host.backups.drop(f.g)); err != nil {
		f.g.log.Warn("a transfer of the old state did not end well", "err", err)
	}
	conflict := false
	err := f.g.snaps.ingest(rc, func(h copyHeader) (err error) {
		f.g.loading.Store(began + int64(h.Files)*int64(loadRestsFor))
		conflict, err = f.g.dropConflict(h)
		return err
	})
	f.g.host.metrics.copyEnded(f.g.name, copyIn, err == nil)
	if err := f.g.replica.Open(); err != nil {
		f.g.host.fatal("restore_failed", fmt.Errorf("group %s: %w", f.g.name, err))
		return err
	}
	if conflict {
		// Not from here: Raft waits for its applying goroutine when it ends. And not before the machine
		// is loaded, which may take longer than closeTimeout.
		f.g.host.wg.Go(func() { f.g.again(ReasonSnapshotConflict, "its log conflicted with a snapshot") })
	}
	if err != nil {
		return fmt.Errorf("raftfsm: restore group %s: %w", f.g.name, err)
	}
	pos := f.g.replica.Position()
	f.g.keep.reset(note{index: pos.Index, stamp: pos.Time})
	f.g.log.Info("state replaced by a snapshot", "index", pos.Index, "term", pos.Term)
	return nil
}

// dropConflict removes our entries from a copy's position on if the one at the position is not
// the group's. Raft keeps them (hashicorp/raft#697): it compares the next append with the entry
// in the log instead of the snapshot, refuses, and gets the snapshot again, for ever. Raft still
// remembers where the log ended and in which term, so it must be restarted if conflict is true.
// What is removed was never committed; a crash before the exchange leaves the old state and a
// log that its leader has told to be wrong.
func (g *group) dropConflict(h copyHeader) (conflict bool, err error) {
	var l raft.Log
	if err := g.logs.GetLog(h.Index, &l); errors.Is(err, raft.ErrLogNotFound) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read log entry %d: %w", h.Index, err)
	}
	if l.Term == h.Term {
		return false, nil
	}
	last, err := g.logs.LastIndex()
	if err != nil {
		return false, fmt.Errorf("last log index: %w", err)
	}
	g.log.Warn("the log conflicts with a snapshot", "reason", ReasonSnapshotConflict, "index", h.Index, "term", h.Term, "ours", l.Term, "last", last)
	return true, g.cache.DeleteRange(h.Index, last)
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
