package raftfsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// Ids: a member is NAME.INCARNATION; its replica of a group has the same id, or
// NAME.INCARNATION.GENERATION when it was placed there again after it had been removed. An id is
// never used again with an empty log. Raft's addresses are replica ids too, so that nothing
// reaches a replica under an id that it no longer has; the cluster port knows where they are.

// MemberOf is the member that a replica belongs to.
func MemberOf(replica string) string {
	name, rest, _ := strings.Cut(replica, ".")
	incarnation, _, ok := strings.Cut(rest, ".")
	if !ok {
		return replica
	}
	return name + "." + incarnation
}

// roster are the members as this node knows them; it is replaced, never changed.
type roster struct {
	members map[string]Member
	links   map[string]*link // by member id, all but this node
}

// ids are the members in order.
func (r *roster) ids() []string { return slices.Sorted(maps.Keys(r.members)) }

// SetMembers says who may connect and where everybody is. Connections of members that are not
// in the list any more are closed; new ones are met from now on. It is idempotent. A list without
// this node itself means that it was removed: it then reaches nobody who knows that.
func (h *Host) SetMembers(members []Member) {
	h.rosterMu.Lock()
	defer h.rosterMu.Unlock()
	h.setRoster(members)
}

// setRoster is SetMembers for the holder of rosterMu.
func (h *Host) setRoster(members []Member) {
	old := h.roster.Load()
	if old == nil {
		old = &roster{}
	}
	next := &roster{members: map[string]Member{}, links: map[string]*link{}}
	names, ids := map[string]string{}, map[string]bool{}
	for _, m := range members {
		next.members[m.ID], names[m.ID], ids[m.ID] = m, m.Name, true
		if m.ID == h.self.ID {
			continue
		}
		if l := old.links[m.ID]; l != nil && l.peer.Name == m.Name && l.peer.Address == m.Address {
			next.links[m.ID] = l
		} else {
			next.links[m.ID] = &link{mux: h.mux, peer: m, greeted: h.greeted}
		}
	}
	h.roster.Store(next)
	for id, l := range old.links {
		if next.links[id] != l {
			l.close()
		}
	}
	h.pulses.keep(ids)
	h.mux.setMembers(h.self.ID, names)
}

// leaves tells whether a replica is on a member that leaves.
func (h *Host) leaves(replica string) bool {
	return h.roster.Load().members[MemberOf(replica)].Leaving
}

// Members are the members that this node knows, in order of their ids.
func (h *Host) Members() []Member {
	r := h.roster.Load()
	out := make([]Member, 0, len(r.members))
	for _, id := range r.ids() {
		out = append(out, r.members[id])
	}
	return out
}

// peerLinks are the links to all other members.
func (h *Host) peerLinks() map[string]*link { return h.roster.Load().links }

// linkTo is the link to the member that hosts a replica; nil when it is no other member.
func (h *Host) linkTo(replica string) *link { return h.peerLinks()[MemberOf(replica)] }

// ServerAddr gives Raft the address of a replica, which is its id.
func (h *Host) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// locate finds the member that hosts the replica at a Raft address.
func (h *Host) locate(a raft.ServerAddress) (Member, error) {
	if m, ok := h.roster.Load().members[MemberOf(string(a))]; ok {
		return m, nil
	}
	return Member{}, fmt.Errorf("raftfsm: replica %q %s", a, noMember)
}

// noMember is what errors say of replicas whose member has left.
const noMember = "belongs to no member"

// hosts tells whether this node has exactly that replica open.
func (h *Host) hosts(id GroupID, replica string) bool {
	s := h.seats[id]
	if s == nil {
		return false
	}
	g := s.current.Load()
	return g != nil && g.self == replica
}

// greeted is told whether a peer knows this node. A node whose peers do not know it any more was
// removed; it says so, not more than once a minute while they differ, and goes on harmlessly.
func (h *Host) greeted(peer Member, err error) {
	if err == nil {
		h.removed.Store(false)
		return
	}
	select {
	case h.refused <- struct{}{}:
	default:
	}
	if h.removed.CompareAndSwap(false, true) {
		h.notices.say("removed", func() {
			h.log.Error("a member does not know this node: if it was removed from the region, stop it; its data folder can only be emptied, to join as a new node",
				"node", h.self.ID, "peer", peer.ID, "err", err)
		})
	}
}

// Refused receives when a member has said that it does not know this node: it was removed, or
// that member is behind.
func (h *Host) Refused() <-chan struct{} { return h.refused }
