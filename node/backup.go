package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/version"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// BackupPlan says what a backup consists of. The group meta comes last. Of its limits it then
// has at least the version that the limiter groups had; and a restore lets callers in, by their
// tokens, when all that they may ask for is there.
func (s *services) BackupPlan(context.Context) (api.BackupPlan, error) {
	if _, err := s.get(); err != nil {
		return api.BackupPlan{}, err
	}
	rec := s.node.boot.current()
	groups := slices.DeleteFunc(groupNames(rec), func(name string) bool { return name == metaName })
	return api.BackupPlan{
		ClusterID: rec.ClusterID, Region: rec.Region, Version: version.String(),
		Services: slices.Clone(rec.Services), Groups: append(groups, metaName),
	}, nil
}

// ExportGroup reads a chunk of a group. Only its leader has to know how: a region is backed up
// also while a member is down.
func (s *services) ExportGroup(ctx context.Context, group string, reading raftfsm.BackupID, chunk uint64) (raftfsm.BackupChunk, error) {
	id, err := s.backupGroup(group)
	if err != nil {
		return raftfsm.BackupChunk{}, err
	}
	return s.node.host.ReadBackup(ctx, id, reading, chunk)
}

// ImportGroup takes a step of a group's restore, at the pace of ingest.
func (s *services) ImportGroup(ctx context.Context, group string, step raftfsm.RestoreStep) (raftfsm.RestoreState, error) {
	id, err := s.backupGroup(group)
	if err != nil {
		return raftfsm.RestoreState{}, err
	}
	// The leader refuses it too, and does not say which members are behind. The steps after the
	// beginning are refused if there was none.
	if step.Op <= raftfsm.RestoreBegin {
		s.node.host.AwaitLevel(ctx, raftfsm.LevelCurrent)
		if err := s.node.levelOf(raftfsm.LevelCurrent); err != nil {
			return raftfsm.RestoreState{}, err
		}
	}
	if n := len(step.Rows); n > 0 {
		notSent := func(err error) error {
			return &raftfsm.Error{Op: "restore", Group: group, Outcome: raftfsm.OutcomeDefinite, Err: err}
		}
		if err := s.node.pacer.Enter(n); err != nil {
			return raftfsm.RestoreState{}, notSent(errors.Join(raftfsm.ErrOverloaded, err))
		}
		if err := s.node.pacer.Wait(ctx, n); err != nil {
			s.node.pacer.Leave(n)
			return raftfsm.RestoreState{}, notSent(err)
		}
	}
	return s.node.host.Restore(ctx, id, step)
}

// backupGroup finds a group, once the region serves.
func (s *services) backupGroup(name string) (raftfsm.GroupID, error) {
	if _, err := s.get(); err != nil {
		return 0, err
	}
	rec := s.node.boot.current()
	if !slices.Contains(groupNames(rec), name) {
		return 0, fmt.Errorf("%w: %s", api.ErrGroupName, name)
	}
	return groupIDs(rec)[name], nil
}
