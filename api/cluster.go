package api

import (
	"context"
	"fmt"
	"math"
	"net"
	"strconv"
	"time"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/certs"
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
		Settled: st.Settled, Pending: st.Pending,
		Nodes: make([]*clusterv1.NodeStatus, len(st.Nodes)), Groups: make([]*clusterv1.GroupStatus, len(st.Groups)),
	}
	for i, n := range st.Nodes {
		res.Nodes[i] = &clusterv1.NodeStatus{
			Name: n.Name, Id: n.ID, ClusterAddress: n.ClusterAddress, ApiAddress: n.APIAddress,
			Reachable: n.Reachable, Version: n.Version, State: n.State, Replicas: uint32(n.Replicas),
			Draining: n.Draining, Disk: n.Disk, ClockOffsetMs: clampMs(n.ClockOffset), Level: uint32(n.Level),
		}
	}
	for i, g := range st.Groups {
		res.Groups[i] = &clusterv1.GroupStatus{
			Name: g.Name, Leader: g.Leader, Term: g.Term, CommitIndex: g.CommitIndex, AppliedIndex: g.AppliedIndex, Voters: g.Voters,
			Learners: g.Learners, Preferred: g.Preferred, Moving: g.Moving,
		}
	}
	return res, nil
}

func clampMs(d time.Duration) int32 {
	return int32(min(max(d.Milliseconds(), math.MinInt32), math.MaxInt32))
}

// nodeName checks a field that names a node.
func nodeName(field, value string) *fault {
	if !certs.ValidName(value) {
		return refuse(reasonFieldMalformed, "%s: %q cannot name a node; use 1 to 63 lower-case letters, digits and inner hyphens", field, value)
	}
	return nil
}

// nodeAddress checks a field that says where a node listens.
func nodeAddress(field, value string) *fault {
	host, port, err := net.SplitHostPort(value)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || host == "" {
		return refuse(reasonFieldMalformed, "%s: %q is no address; write HOST:PORT", field, value)
	}
	return nil
}

func (s *server) addNode(ctx context.Context, _ *call, r *clusterv1.AddRequest) (*clusterv1.AddResponse, error) {
	if s.deps.Cluster == nil {
		return nil, ErrServiceOff
	}
	if f := nodeName("name", r.GetName()); f != nil {
		return nil, f
	}
	if f := nodeAddress("cluster_address", r.GetClusterAddress()); f != nil {
		return nil, f
	}
	c, err := s.deps.Cluster.AddNode(ctx, r.GetName(), r.GetClusterAddress())
	if err != nil {
		return nil, err
	}
	return &clusterv1.AddResponse{Id: c.ID, Started: c.Started}, nil
}

func (s *server) removeNode(ctx context.Context, _ *call, r *clusterv1.RemoveRequest) (*clusterv1.RemoveResponse, error) {
	if s.deps.Cluster == nil {
		return nil, ErrServiceOff
	}
	if f := nodeName("name", r.GetName()); f != nil {
		return nil, f
	}
	c, err := s.deps.Cluster.RemoveNode(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &clusterv1.RemoveResponse{Id: c.ID, Started: c.Started, Removed: c.Removed}, nil
}

func (s *server) replaceNode(ctx context.Context, _ *call, r *clusterv1.ReplaceRequest) (*clusterv1.ReplaceResponse, error) {
	if s.deps.Cluster == nil {
		return nil, ErrServiceOff
	}
	if f := nodeName("old_name", r.GetOldName()); f != nil {
		return nil, f
	}
	if f := nodeName("new_name", r.GetNewName()); f != nil {
		return nil, f
	}
	if r.GetClusterAddress() != "" {
		if f := nodeAddress("cluster_address", r.GetClusterAddress()); f != nil {
			return nil, f
		}
	}
	c, err := s.deps.Cluster.ReplaceNode(ctx, r.GetOldName(), r.GetNewName(), r.GetClusterAddress())
	if err != nil {
		return nil, err
	}
	return &clusterv1.ReplaceResponse{OldId: c.ID, NewId: c.NewID, Started: c.Started}, nil
}

func (s *server) transfer(ctx context.Context, _ *call, r *clusterv1.TransferRequest) (*clusterv1.TransferResponse, error) {
	if s.deps.Cluster == nil {
		return nil, ErrServiceOff
	}
	if f := nodeName("group", r.GetGroup()); f != nil { // groups are named by the same rule
		return nil, refuse(reasonFieldMalformed, "group: %q cannot name a group; maestro cluster status lists them", r.GetGroup())
	}
	if f := nodeName("node", r.GetNode()); f != nil {
		return nil, f
	}
	if err := s.deps.Cluster.Transfer(ctx, r.GetGroup(), r.GetNode()); err != nil {
		return nil, err
	}
	return &clusterv1.TransferResponse{}, nil
}
