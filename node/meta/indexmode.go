package meta

import (
	"context"
	"fmt"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// settingIndexMode is what the index takes and answers; without it, everything. It is written from
// raftfsm.LevelSegments on.
const settingIndexMode = "index_write"

// IndexMode is what the index takes and answers, as this node knows it. A node that is cut off keeps
// what it knew; it answers nobody a second later.
func (m *Machine) IndexMode() index.Mode { return index.Mode(m.views.indexMode.Load()) }

// IndexMode is what the region's index takes and answers, linearizably.
func (s *Service) IndexMode(ctx context.Context) (index.Mode, error) {
	f, err := s.read(ctx, tableSettings, 0)
	if err != nil {
		return 0, fmt.Errorf("meta: mode of the index: %w", err)
	}
	r := f.records[settingIndexMode]
	if r.deleted || len(r.value) == 0 {
		return index.ModeReadWrite, nil
	}
	return decodeIndexMode(r.value)
}

// SetIndexMode changes it: every node that answers follows within a second. It returns api.ErrLevel
// while a member does not know such modes.
func (s *Service) SetIndexMode(ctx context.Context, mode index.Mode) (before index.Mode, err error) {
	if s.groups.Level() < raftfsm.LevelSegments {
		return 0, fmt.Errorf("meta: mode of the index: %w", api.ErrLevel)
	}
	if before, err = s.IndexMode(ctx); err != nil {
		return 0, err
	}
	res, err := s.change(ctx, change{table: tableSettings, actor: anyOwner, steps: []step{
		{kind: kindPut, key: settingIndexMode, owner: anyOwner, value: []byte{modeValueVersion, byte(mode)}},
	}}, raftfsm.RequestID{})
	if err == nil && res.outcome != outcomeDone {
		err = unexpected(res)
	}
	if err != nil {
		return 0, fmt.Errorf("meta: mode of the index: %w", err)
	}
	return before, nil
}

func decodeIndexMode(b []byte) (index.Mode, error) {
	r := wire.NewReader(b)
	v, m := r.Byte(modeValueVersion), index.Mode(r.Byte(byte(len(index.Modes)-1)))
	if err := r.Done(); err != nil || v != modeValueVersion {
		return 0, errRow("setting " + settingIndexMode)
	}
	return m, nil
}
