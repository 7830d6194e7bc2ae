package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/version"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// statusTimeout bounds how long a status waits for nodes that do not answer.
const statusTimeout = time.Second

// status describes the region as this node sees it.
func (n *Node) status(ctx context.Context) (api.RegionStatus, error) {
	run, err := n.services.get()
	if err != nil {
		return api.RegionStatus{}, err
	}
	rec := n.boot.current()
	m := run.meta.Membership()
	if !m.Complete() {
		m = rec.membership() // the tables have not been written, or have not reached this node
	}
	st := api.RegionStatus{ClusterID: rec.ClusterID, Region: rec.Region, AnsweredBy: n.cfg.Name, Version: version.String()}
	members := m.Sorted()
	st.Nodes = make([]api.NodeStatus, len(members))
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, node := range members {
		wg.Go(func() { st.Nodes[i] = n.nodeStatus(ctx, node, m) })
	}
	var views map[string]raftfsm.GroupView
	if n.host.Level() >= raftfsm.LevelMembers {
		views, _ = n.describe(ctx, m) // groups that cannot be asked are told of as far as this node knows
	}
	wg.Wait()
	p := n.placing(m, views)
	for _, g := range n.host.Status() {
		st.Groups = append(st.Groups, groupStatus(g, m.Groups[g.Name], views, p.settled[g.Name]))
	}
	st.Pending = p.pending(m, views)
	st.Settled = len(st.Pending) == 0
	return st, nil
}

// groupStatus prefers what the group's leader says to what this node knows.
func groupStatus(g raftfsm.GroupStatus, p meta.Placement, views map[string]raftfsm.GroupView, settled bool) api.GroupStatus {
	s := api.GroupStatus{
		Name: g.Name, Leader: meta.NameOf(g.Leader), Term: g.Term, CommitIndex: g.CommitIndex, AppliedIndex: g.AppliedIndex, Moving: !settled,
	}
	voters, learners := g.Voters, g.Learners
	if v, ok := views[g.Name]; ok {
		voters, learners = v.Voters, v.Learners
		s.Leader, s.Term, s.CommitIndex = meta.NameOf(v.Leader), v.Term, max(v.Commit, g.CommitIndex)
	}
	s.Voters, s.Learners = namesOf(voters), namesOf(learners)
	slices.Sort(s.Voters)
	slices.Sort(s.Learners)
	if len(p.Voters) > 0 {
		s.Preferred = meta.NameOf(p.Voters[0])
	}
	return s
}

// pending says for people what is under way, and what comes next.
func (p placing) pending(m meta.Membership, views map[string]raftfsm.GroupView) []string {
	var out []string
	for _, g := range p.groups {
		if p.settled[g.Group] {
			continue
		}
		if v, ok := views[g.Group]; ok {
			out = append(out, fmt.Sprintf("%s: votes are on %s and belong on %s", g.Group, strings.Join(namesOf(v.Voters), ", "), strings.Join(namesOf(g.Voters), ", ")))
		} else {
			out = append(out, g.Group+": no leader tells of it")
		}
	}
	if next, ok := p.next(); ok {
		out = append(out, "next: "+next.why)
	} else if next, ok := p.whenAllFit().next(); ok && len(out) == 0 {
		out = append(out, "waits until every active node can be moved to: "+next.why)
	}
	for _, node := range m.Sorted() {
		if node.State == meta.NodeLeaving {
			out = append(out, node.ID+" leaves")
		}
	}
	return out
}

// nodeStatus asks a member who it is. One that answers under another incarnation has lost
// its data and is no member any more.
func (n *Node) nodeStatus(ctx context.Context, node meta.Node, m meta.Membership) api.NodeStatus {
	s := api.NodeStatus{
		Name: node.Name, ID: node.ID, ClusterAddress: node.Cluster, APIAddress: node.API, State: node.State.String(),
		Replicas: 1, // of meta
	}
	for name, g := range m.Groups {
		if name != metaName && indexOfMember(g.Voters, node.ID) >= 0 {
			s.Replicas++
		}
	}
	if node.ID == n.boot.self() {
		s.Reachable, s.Version, s.Level, s.Draining = true, version.String(), raftfsm.LevelCurrent, n.draining.Load()
		s.Disk = diskText(raftfsm.DiskGood)
		for _, w := range n.host.Warnings() {
			switch {
			case strings.HasPrefix(w, raftfsm.ReasonDiskLow):
				s.Disk = diskText(raftfsm.DiskLow)
			case strings.HasPrefix(w, raftfsm.ReasonDiskSlow):
				s.Disk = diskText(raftfsm.DiskSlow)
			}
		}
		return s
	}
	for _, peer := range n.host.Peers() {
		if peer.ID == node.ID && peer.Reachable {
			s.Draining, s.ClockOffset, s.Level, s.Disk = peer.Draining, peer.ClockOffset, peer.Level, diskText(peer.Disk)
		}
	}
	h, err := n.boot.ask(ctx, Seed{Name: node.Name, Cluster: node.Cluster}, "hello")
	if err == nil && h.ID == node.ID {
		s.Reachable, s.Version = true, h.Version
	}
	return s
}

func diskText(d raftfsm.Disk) string {
	if d == raftfsm.DiskGood {
		return "good"
	}
	return string(d)
}
