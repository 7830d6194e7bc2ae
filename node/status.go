package node

import (
	"context"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/version"
)

// statusTimeout bounds how long a status waits for nodes that do not answer.
const statusTimeout = time.Second

// status describes the region as this node sees it.
func (n *Node) status(ctx context.Context) (api.RegionStatus, error) {
	if _, err := n.services.get(); err != nil {
		return api.RegionStatus{}, err
	}
	st := api.RegionStatus{
		ClusterID: n.rec.ClusterID, Region: n.rec.Region, AnsweredBy: n.cfg.Name, Version: version.String(),
		Nodes: make([]api.NodeStatus, len(n.rec.Members)),
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	names := map[string]string{}
	for i, m := range n.rec.Members {
		names[m.ID] = m.Name
		wg.Go(func() { st.Nodes[i] = n.nodeStatus(ctx, m) })
	}
	wg.Wait()
	for _, g := range n.host.Status() {
		s := api.GroupStatus{Name: g.Name, Leader: names[g.Leader], Term: g.Term, CommitIndex: g.CommitIndex, AppliedIndex: g.AppliedIndex}
		for _, v := range g.Voters {
			s.Voters = append(s.Voters, names[v])
		}
		st.Groups = append(st.Groups, s)
	}
	return st, nil
}

// nodeStatus asks a member who it is. One that answers under another incarnation has lost
// its data and is no member any more.
func (n *Node) nodeStatus(ctx context.Context, m recordMember) api.NodeStatus {
	s := api.NodeStatus{Name: m.Name, ID: m.ID, ClusterAddress: m.Cluster, APIAddress: m.API}
	if m.Name == n.cfg.Name {
		s.Reachable, s.Version = true, version.String()
		return s
	}
	h, err := n.boot.ask(ctx, Seed{Name: m.Name, Cluster: m.Cluster}, "hello")
	if err == nil && h.ID == m.ID {
		s.Reachable, s.Version = true, h.Version
	}
	return s
}
