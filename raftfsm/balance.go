package raftfsm

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// preferredAfter is how long the preferred leader of a group must have been fit to lead
	// before it gets the group. Shorter: a node that has just started, or flaps, would be handed
	// leaderships and lose them again. Longer: leaders stay uneven after every restart.
	preferredAfter = 5 * time.Second
	// balancePause is the least time between two leaderships that a node gives away to balance.
	// Each costs a group some tens of milliseconds without a leader; many at once would add up
	// for callers that use all groups.
	balancePause = 2 * time.Second
)

// moves keeps leaderships from being balanced away all at once.
type moves struct {
	mu    sync.Mutex
	under bool
	until time.Time
}

// begin tells whether a leadership may be given away now; end must follow if so.
func (m *moves) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.under || time.Now().Before(m.until) {
		return false
	}
	m.under = true
	return true
}

func (m *moves) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.under, m.until = false, time.Now().Add(balancePause)
}

// fit tells whether the node of a replica is in a state to lead the group, and stays.
func (g *group) fit(id string) bool {
	s, ok := g.host.peer(MemberOf(id))
	r, hosts := s.Groups[g.id]
	return ok && hosts && r.Replica == id && !g.host.leaves(id) && !s.Draining && !s.ClockWrong && s.Disk == DiskGood
}

// balance hands the group to its preferred leader, once that has kept pace and been fit for a
// while. Nothing moves while this node or that one stops, nor to a node that lags in any of its groups:
// what it has to make up for takes the time of its processors, and callers of this group would wait.
func (g *group) balance(ctx context.Context, p Placement) error {
	first, s := p.Voters[0], g.seat
	ready := first != g.self && !g.host.draining.Load() && slices.Contains(s.caughtUp(), first) && g.fit(first)
	s.mu.Lock()
	if !ready {
		s.preferred = time.Time{}
	} else if s.preferred.IsZero() {
		s.preferred = time.Now()
	}
	wait := time.Since(s.preferred) < preferredAfter
	s.mu.Unlock()
	if !ready || wait || g.host.lags(MemberOf(first)) || !g.host.moves.begin() {
		return nil
	}
	defer g.host.moves.end()
	g.log.Info("leadership is handed over", "reason", "preferred leader", "to", first)
	return g.transfer(ctx, first)
}
