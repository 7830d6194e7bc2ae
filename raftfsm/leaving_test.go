package raftfsm_test

import (
	"slices"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// A member that leaves is handed no leadership, however well it follows.
func TestLeavingMembersAreHandedNoLeadership(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	h := c.Host(c.AwaitLeader("a"))
	first := ""
	c.Await("a successor", func() bool { first = h.Successor(groupA); return first != "" && h.Fit(groupA, first) })
	members := slices.Clone(c.Members())
	leave := func(replica string) {
		i := slices.IndexFunc(members, func(m raftfsm.Member) bool { return m.ID == raftfsm.MemberOf(replica) })
		members[i].Leaving = true
		h.SetMembers(members)
	}
	leave(first)
	second := ""
	c.Await("a successor that stays", func() bool { second = h.Successor(groupA); return second != "" })
	if second == first || h.Fit(groupA, first) {
		t.Errorf("%s leaves; the successor is %s, fit: %v", first, second, h.Fit(groupA, first))
	}
	leave(second)
	if got := h.Successor(groupA); got != "" {
		t.Errorf("all others leave, and the successor is %s", got)
	}
}
