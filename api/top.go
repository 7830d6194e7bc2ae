package api

import (
	"context"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// top shows an identity of one tenant the keys of that tenant alone.
func (s *server) top(ctx context.Context, c *call, r *limiterv1.TopRequest) (*limiterv1.TopResponse, error) {
	if s.deps.Checker == nil {
		return nil, ErrServiceOff
	}
	tenant, f := anyTenant(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	most := r.GetMost()
	switch {
	case most == 0:
		most = DefaultBusyKeys
	case most > MaxBusyKeys:
		return nil, refuse(reasonFieldMalformed, "most: %d is above %d", most, MaxBusyKeys)
	}
	keys, missing, err := s.deps.Checker.BusyKeys(ctx, tenant, r.GetDenied(), int(most))
	if err != nil {
		return nil, err
	}
	res := &limiterv1.TopResponse{Keys: make([]*limiterv1.BusyKey, len(keys)), Missing: missing}
	for i, k := range keys {
		res.Keys[i] = &limiterv1.BusyKey{
			Tenant: k.Tenant, Token: k.Token, Key: k.Key,
			ChecksPerSecond: k.Checks, DeniesPerSecond: k.Denies, ErrorPerSecond: k.Error, LimitId: k.LimitID,
		}
	}
	return res, nil
}
