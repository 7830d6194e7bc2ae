package api

import (
	"context"
	"fmt"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func (s *server) initRegion(ctx context.Context, _ *call, _ *clusterv1.InitRequest) (*clusterv1.InitResponse, error) {
	if s.deps.Cluster == nil || s.deps.Tokens == nil {
		return nil, ErrServiceOff
	}
	id, err := s.deps.Cluster.Init(ctx)
	if err != nil {
		return nil, err
	}
	secret, _, err := s.deps.Tokens.CreateToken(ctx, Token{
		Tenant: AllTenants, Role: RoleAdmin, Created: s.now(), Description: "first administrator token",
	})
	if err != nil {
		// The region runs, so a repeated Init would not help; what is missing is the token.
		f := faultOf(err, true)
		f.outcome = raftfsm.OutcomeUnknown
		f.message = fmt.Sprintf("the region %s was started, but its first token was not made (%s); create one with `maestro token create` and the administrator's certificate", id, f.message)
		return nil, f
	}
	return &clusterv1.InitResponse{ClusterId: id, Token: secret}, nil
}

func (s *server) status(ctx context.Context, _ *call, _ *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	if s.deps.Cluster == nil {
		return nil, ErrServiceOff
	}
	st, err := s.deps.Cluster.Status(ctx)
	if err != nil {
		return nil, err
	}
	res := &clusterv1.StatusResponse{
		ClusterId: st.ClusterID, Region: st.Region, AnsweredBy: st.AnsweredBy, Version: st.Version,
		Nodes: make([]*clusterv1.NodeStatus, len(st.Nodes)), Groups: make([]*clusterv1.GroupStatus, len(st.Groups)),
	}
	for i, n := range st.Nodes {
		res.Nodes[i] = &clusterv1.NodeStatus{
			Name: n.Name, Id: n.ID, ClusterAddress: n.ClusterAddress, ApiAddress: n.APIAddress,
			Reachable: n.Reachable, Version: n.Version,
		}
	}
	for i, g := range st.Groups {
		res.Groups[i] = &clusterv1.GroupStatus{
			Name: g.Name, Leader: g.Leader, Term: g.Term, CommitIndex: g.CommitIndex, AppliedIndex: g.AppliedIndex, Voters: g.Voters,
		}
	}
	return res, nil
}
