package meta

import (
	"context"
	"fmt"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const modeValueVersion = 1

// modeSetting is a setting that is one of some modes, numbered from 0, which holds without it.
type modeSetting struct {
	key   string
	what  string // for errors
	modes int
	level int // from which on it is written
}

var (
	// limiterMode is how limits act; without it, they are enforced.
	limiterMode = modeSetting{settingLimiterMode, "limits", len(limiter.Modes), raftfsm.LevelLeases}
	// indexMode is what the index takes and answers; without it, everything.
	indexMode = modeSetting{settingIndexMode, "index", len(index.Modes), raftfsm.LevelSegments}
)

// LimiterMode is how limits act, as this node knows it. A node that is cut off keeps what it knew; a
// second later it answers nobody but from leases that it holds.
func (m *Machine) LimiterMode() limiter.Mode { return limiter.Mode(m.views.mode.Load()) }

// IndexMode is what the index takes and answers, as this node knows it. A node that is cut off keeps
// what it knew; it answers nobody a second later.
func (m *Machine) IndexMode() index.Mode { return index.Mode(m.views.indexMode.Load()) }

// LimiterMode is how limits act in the region, linearizably.
func (s *Service) LimiterMode(ctx context.Context) (limiter.Mode, error) {
	m, err := s.mode(ctx, limiterMode)
	return limiter.Mode(m), err
}

// IndexMode is what the region's index takes and answers, linearizably.
func (s *Service) IndexMode(ctx context.Context) (index.Mode, error) {
	m, err := s.mode(ctx, indexMode)
	return index.Mode(m), err
}

// SetLimiterMode changes how limits act: every node that answers follows within a second. It
// returns api.ErrLevel while a member does not know modes.
func (s *Service) SetLimiterMode(ctx context.Context, mode limiter.Mode) (before limiter.Mode, err error) {
	m, err := s.setMode(ctx, limiterMode, byte(mode))
	return limiter.Mode(m), err
}

// SetIndexMode changes what the index takes and answers: every node that answers follows within a
// second. It returns api.ErrLevel while a member does not know such modes.
func (s *Service) SetIndexMode(ctx context.Context, mode index.Mode) (before index.Mode, err error) {
	m, err := s.setMode(ctx, indexMode, byte(mode))
	return index.Mode(m), err
}

func (s *Service) mode(ctx context.Context, m modeSetting) (byte, error) {
	f, err := s.read(ctx, tableSettings, 0)
	if err != nil {
		return 0, fmt.Errorf("meta: mode of the %s: %w", m.what, err)
	}
	r := f.records[m.key]
	if r.deleted || len(r.value) == 0 {
		return 0, nil
	}
	return m.decode(r.value)
}

func (s *Service) setMode(ctx context.Context, m modeSetting, mode byte) (before byte, err error) {
	if s.groups.Level() < m.level {
		return 0, fmt.Errorf("meta: mode of the %s: %w", m.what, api.ErrLevel)
	}
	if before, err = s.mode(ctx, m); err != nil {
		return 0, err
	}
	res, err := s.change(ctx, change{table: tableSettings, actor: anyOwner, steps: []step{
		{kind: kindPut, key: m.key, owner: anyOwner, value: []byte{modeValueVersion, mode}},
	}}, raftfsm.RequestID{})
	if err == nil && res.outcome != outcomeDone {
		err = unexpected(res)
	}
	if err != nil {
		return 0, fmt.Errorf("meta: mode of the %s: %w", m.what, err)
	}
	return before, nil
}

func (m modeSetting) decode(b []byte) (byte, error) {
	r := wire.NewReader(b)
	v, mode := r.Byte(modeValueVersion), r.Byte(byte(m.modes-1))
	if err := r.Done(); err != nil || v != modeValueVersion {
		return 0, errRow("setting " + m.key)
	}
	return mode, nil
}

// inForce is the mode of a value, the first one without or with a damaged one.
func (m modeSetting) inForce(b []byte) uint32 {
	mode, err := m.decode(b)
	if err != nil {
		return 0
	}
	return uint32(mode)
}
