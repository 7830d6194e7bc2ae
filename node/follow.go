package node

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// removalCheck is how often a node that hears of nobody asks whether it is still a member.
	// Rarer, it would say later why it is out; more often costs the others a handshake each time.
	removalCheck = 2 * time.Second
	// askTimeout bounds one of these questions: nodes of a region answer in milliseconds.
	askTimeout = time.Second
)

// follow keeps the host and the cached record at what meta says about members and placement,
// until ctx ends, or this node is no member any more.
func (n *Node) follow(ctx context.Context) (removed bool, err error) {
	service := n.services.running.Load().meta
	tick := time.NewTicker(removalCheck)
	defer tick.Stop()
	for {
		changed := service.MembershipChanged()
		if removed, err := n.followTo(service.Membership()); removed || err != nil {
			return removed, err
		}
		select {
		case <-changed:
		case <-n.host.Refused():
			// At once: requests that come here until this node knows can only fail.
			if n.removedByOthers(ctx) {
				return true, nil
			}
		case <-tick.C:
			if n.isolated() && n.removedByOthers(ctx) {
				return true, nil
			}
		case <-ctx.Done():
			return false, nil
		}
	}
}

// followTo takes over a membership that is later than the record.
func (n *Node) followTo(m meta.Membership) (removed bool, err error) {
	rec := n.boot.current()
	if !m.Complete() || m.NodesVersion < rec.NodesVersion || m.PlacementVersion < rec.PlacementVersion ||
		(m.NodesVersion == rec.NodesVersion && m.PlacementVersion == rec.PlacementVersion) {
		return false, nil
	}
	if _, ok := m.Nodes[n.boot.self()]; !ok {
		return true, nil
	}
	next := rec.with(m)
	next.Level = max(next.Level, n.host.Level())
	if err := n.boot.follow(next); err != nil {
		return false, err
	}
	n.host.SetMembers(raftMembers(m))
	n.host.Place(raftPlacements(next, m))
	return false, nil
}

// isolated tells whether this node has other members, and hears of none of them.
func (n *Node) isolated() bool {
	peers := n.host.Peers()
	return len(n.boot.current().Members) > 1 && !slices.ContainsFunc(peers, func(p raftfsm.PeerStatus) bool { return p.Reachable })
}

// removedByOthers asks the members and seeds that this node knows for a later list of members,
// and tells whether one is without this node.
func (n *Node) removedByOthers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	own, self := n.boot.current(), n.boot.self()
	known := n.boot.others()
	for _, m := range own.Members {
		if m.Name != n.cfg.Name {
			known = append(known, Seed{Name: m.Name, Cluster: m.Cluster, API: m.API})
		}
	}
	slices.SortFunc(known, func(a, b Seed) int { return strings.Compare(a.Name+" "+a.Cluster, b.Name+" "+b.Cluster) })
	known = slices.CompactFunc(known, func(a, b Seed) bool { return a.Name == b.Name && a.Cluster == b.Cluster })
	without := make([]bool, len(known))
	var all sync.WaitGroup
	for i, s := range known {
		all.Go(func() {
			h, err := n.boot.ask(ctx, s, "hello")
			without[i] = err == nil && h.Record != nil && h.Record.ClusterID == own.ClusterID &&
				h.Record.NodesVersion > own.NodesVersion && h.Record.member(self) == nil
		})
	}
	all.Wait()
	return slices.Contains(without, true)
}

// restAsRemoved is what is left to a node that was removed: it takes part in nothing, and says
// why to everybody who asks, until it is stopped. It does not end by itself, because whatever
// started it would start it again.
func (n *Node) restAsRemoved(ctx context.Context) error {
	n.removed.Store(true)
	if err := n.boot.mark(func(i *identity) { i.Removed = true }); err != nil {
		return err
	}
	n.log.Error("this node was removed from the region and serves nothing any more; stop it, or empty its data folder and add it as a new node",
		"node", n.cfg.Name, "id", n.boot.self(), "cluster", n.boot.current().ClusterID)
	<-ctx.Done()
	return nil
}

// raftMembers are the members as the host knows them.
func raftMembers(m meta.Membership) []raftfsm.Member {
	var out []raftfsm.Member
	for _, n := range m.Sorted() {
		out = append(out, raftfsm.Member{ID: n.ID, Name: n.Name, Address: n.Cluster, Leaving: n.State == meta.NodeLeaving})
	}
	return out
}

// raftPlacements say where the region's groups belong: meta has a replica on every member.
func raftPlacements(r *record, m meta.Membership) map[raftfsm.GroupID]raftfsm.Placement {
	ids, out := groupIDs(r), map[raftfsm.GroupID]raftfsm.Placement{}
	for name, p := range m.Groups {
		id, known := ids[name]
		if !known {
			continue
		}
		out[id] = raftfsm.Placement{Voters: p.Voters, Learners: learnersOf(name, p, m)}
	}
	return out
}

// learnersOf are the replicas of a group that follow without a vote for good.
func learnersOf(group string, p meta.Placement, m meta.Membership) []string {
	if group != metaName {
		return nil
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.Nodes)), func(id string) bool { return indexOfMember(p.Voters, id) >= 0 })
}
