package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

const (
	healthPath     = "/grpc.health.v1.Health/"
	maxHealthBytes = 4 << 10
)

// services are the names that health and reflection know.
var services = []string{
	limiterv1connect.LimiterName,
	envoyService,
	provenancev1connect.ProvenanceName,
	clusterv1connect.ClusterName,
	clusterv1connect.TokensName,
	clusterv1connect.BackupsName,
	packagesv1connect.PackagesName,
}

// healthChecker answers the gRPC health service. It is open to all, as probes carry no token.
type healthChecker struct{ s *server }

// Check reports whether a service, or for the empty name the node, can serve.
func (h healthChecker) Check(_ context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	d := &h.s.deps
	var on bool
	switch r.Service {
	case "":
		on = true
	case limiterv1connect.LimiterName:
		on = d.Checker != nil
	case envoyService:
		on = d.Checker != nil && d.Envoy != nil
	case provenancev1connect.ProvenanceName:
		on = d.Index != nil
	case clusterv1connect.ClusterName:
		on = d.Cluster != nil
	case packagesv1connect.PackagesName:
		on = d.Packages != nil
	case clusterv1connect.TokensName:
		on = d.Tokens != nil
	default:
		return nil, connect.NewError(connect.CodeNotFound, errors.New("unknown service"))
	}
	status := grpchealth.StatusNotServing
	if on && (d.Serving == nil || d.Serving(r.Service)) {
		status = grpchealth.StatusServing
	}
	return &grpchealth.CheckResponse{Status: status}, nil
}
