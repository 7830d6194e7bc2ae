package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// placerInterval is how often the leader of meta looks whether something is to be moved. A
	// move takes seconds, so more often gains nothing.
	placerInterval = time.Second
	// describeTimeout bounds how long it, and the status, wait for the leaders of the groups.
	describeTimeout = time.Second
)

// runPlacer decides where replicas belong, while this node leads meta: it writes the tables of
// members when every member understands them, changes one placement after the other, and ends
// the membership of those that have given everything away.
func (n *Node) runPlacer(ctx context.Context) {
	service := n.services.running.Load().meta
	tick := time.NewTicker(placerInterval)
	defer tick.Stop()
	said := ""
	for ctx.Err() == nil {
		changed := service.MembershipChanged()
		again, err := n.placeOnce(ctx, service)
		if err != nil && !errors.Is(err, meta.ErrStale) && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			n.log.Warn("placement of replicas waits", "err", err)
		}
		if again {
			continue
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// placeOnce makes at most one change; again says that the next look need not wait.
func (n *Node) placeOnce(ctx context.Context, service *meta.Service) (again bool, err error) {
	if n.host.Level() < raftfsm.LevelMembers {
		return false, nil // the region runs as it was started
	}
	m := service.Membership()
	if !m.Complete() {
		return false, n.foundTables(ctx, service, m)
	}
	// Without a look at the groups first: mostly, nothing is due at all.
	if p := n.placing(m, nil); !p.due(m) {
		return false, nil
	}
	views, err := n.describe(ctx, m)
	if err != nil {
		return false, err
	}
	p := n.placing(m, views)
	if next, ok := p.next(); ok {
		if err := service.PutPlacement(ctx, m.PlacementVersion, next.to); err != nil {
			return false, err
		}
		n.log.Info("placement changed", "change", next.why, "voters", next.to.Voters)
		return false, nil
	}
	for _, node := range m.Sorted() {
		if node.State == meta.NodeLeaving && gaveAllAway(node.ID, m, views) {
			if err := service.RemoveNode(ctx, m.NodesVersion, node.ID); err != nil {
				return false, err
			}
			n.log.Info("member removed", "id", node.ID)
			return true, nil
		}
	}
	return false, nil
}

// foundTables writes the members and placement that the region was started with.
func (n *Node) foundTables(ctx context.Context, service *meta.Service, m meta.Membership) error {
	start := n.boot.current().membership()
	if m.NodesVersion == 0 {
		return service.PutNodes(ctx, 0, start.Sorted()...)
	}
	if m.PlacementVersion == 0 {
		return service.PutPlacement(ctx, 0, slices.Collect(maps.Values(start.Groups))...)
	}
	return fmt.Errorf("%d members and %d placements are known", len(m.Nodes), len(m.Groups))
}

// due tells whether anything may have to be done. Where p was made without views, it takes for
// granted that the groups are where they belong.
func (p placing) due(m meta.Membership) bool {
	if _, ok := p.next(); ok {
		return true
	}
	return slices.ContainsFunc(m.Sorted(), func(n meta.Node) bool { return n.State == meta.NodeLeaving })
}

// placing is the state that the next placement is decided from. Without views, all groups count
// as settled.
func (n *Node) placing(m meta.Membership, views map[string]raftfsm.GroupView) placing {
	p := placing{groups: byGroup(m.Groups, groupNames(n.boot.current())), settled: map[string]bool{}}
	fit := map[string]bool{n.boot.self(): !n.draining.Load()}
	for _, peer := range n.host.Peers() {
		fit[peer.ID] = peer.Reachable && !peer.Draining && peer.Disk != raftfsm.DiskLow
	}
	for _, node := range m.Sorted() {
		p.members = append(p.members, candidate{
			id: node.ID, active: node.State == meta.NodeActive, successor: node.Successor, fit: fit[node.ID],
		})
	}
	for _, g := range p.groups {
		v, ok := views[g.Group]
		p.settled[g.Group] = views == nil || ok && sameSet(v.Voters, g.Voters) && sameSet(v.Learners, learnersOf(g.Group, g, m))
	}
	return p
}

// describe asks the leader of every group.
func (n *Node) describe(ctx context.Context, m meta.Membership) (map[string]raftfsm.GroupView, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	ids := groupIDs(n.boot.current())
	names := slices.Sorted(maps.Keys(m.Groups))
	views, errs := make([]raftfsm.GroupView, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { views[i], errs[i] = n.host.Describe(ctx, ids[name]) })
	}
	all.Wait()
	out := map[string]raftfsm.GroupView{}
	for i, name := range names {
		if errs[i] == nil {
			out[name] = views[i]
		}
	}
	return out, errors.Join(errs...)
}

// gaveAllAway tells whether nothing but the replica of meta is left on a member, neither placed
// nor in a group's committed membership, and that one has no vote.
func gaveAllAway(id string, m meta.Membership, views map[string]raftfsm.GroupView) bool {
	for name, g := range m.Groups {
		v, ok := views[name]
		if !ok || indexOfMember(g.Voters, id) >= 0 || indexOfMember(v.Voters, id) >= 0 {
			return false
		}
		if name != metaName && indexOfMember(v.Learners, id) >= 0 {
			return false
		}
	}
	return true
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
