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

// What Raft says of a member that leaves, or has left, is for debugging; what it says of others is not.
func TestRaftIsQuietAboutLeavingMembers(t *testing.T) {
	c := hosttest.Start(t, 3, twoGroups)
	h, members := c.Host(0), slices.Clone(c.Members())
	about := func(m raftfsm.Member) string {
		return `failed to heartbeat to: peer=` + m.ID + `.3 error="connection refused"`
	}
	if h.Quiet(about(members[1])) || h.Quiet(about(members[2])) {
		t.Error("quiet about members that stay")
	}
	members[1].Leaving = true
	h.SetMembers(members)
	if !h.Quiet(about(members[1])) || h.Quiet(about(members[2])) {
		t.Errorf("one leaves; quiet about it: %v, about another: %v", h.Quiet(about(members[1])), h.Quiet(about(members[2])))
	}
	if !h.Quiet(`failed to appendEntries to: error="raftfsm: replica "n.1" belongs to no member"`) {
		t.Error("not quiet about a member that has left")
	}
}
