package api

import (
	"context"
	"slices"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (s *server) setPlans(ctx context.Context, _ *call, r *limiterv1.SetPlansRequest) (*limiterv1.SetPlansResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	if f := firstFault(withinItems("assignments", len(r.GetAssignments()), MaxBatchPlans),
		withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes)); f != nil {
		return nil, f
	}
	all := make([]limiter.Assignment, len(r.GetAssignments()))
	for i, a := range r.GetAssignments() {
		all[i] = limiter.Assignment{Tenant: a.GetTenant(), Plan: a.GetPlan()}
	}
	if err := limiter.ValidateAssignments(all); err != nil {
		return nil, err
	}
	change, err := s.deps.Limits.SetPlans(ctx, all, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &limiterv1.SetPlansResponse{
		Version: change.Version, Created: uint32(change.Created), Replaced: uint32(change.Replaced),
		Unchanged: uint32(change.Unchanged), Removed: uint32(change.Removed), InForce: change.InForce,
	}, nil
}

// listPlans shows an identity of one tenant that tenant's plan alone.
func (s *server) listPlans(ctx context.Context, c *call, r *limiterv1.ListPlansRequest) (*limiterv1.ListPlansResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	tenant, f := anyTenant(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	for field, name := range map[string]string{"plan": r.GetPlan(), "after": r.GetAfter()} {
		if name != "" && !limiter.ValidName(name) {
			return nil, refuse(reasonFieldMalformed, "%s: %q is no name: 1 to 63 of the characters a-z 0-9 . _ -", field, name)
		}
	}
	most := r.GetMost()
	switch {
	case most == 0:
		most = MaxBatchPlans
	case most > MaxBatchPlans:
		return nil, refuse(reasonFieldMalformed, "most: %d is above %d", most, MaxBatchPlans)
	}
	page, err := s.deps.Limits.ListPlans(ctx, PlanQuery{Plan: r.GetPlan(), Tenant: tenant, After: r.GetAfter(), Limit: int(most)})
	if err != nil {
		return nil, err
	}
	res := &limiterv1.ListPlansResponse{
		Assignments: make([]*limiterv1.PlanAssignment, len(page.Assignments)), Next: page.Next, Version: page.Version,
	}
	for i, a := range page.Assignments {
		res.Assignments[i] = &limiterv1.PlanAssignment{Tenant: a.Tenant, Plan: a.Plan}
	}
	return res, nil
}

// planOf is the plan of an identity's tenant, if some of the limits are for plans; empty for none,
// and for the platform, which sees all limits anyway.
func (s *server) planOf(ctx context.Context, who Principal, limits []limiter.Limit) (string, error) {
	if who.Tenant == AllTenants || !slices.ContainsFunc(limits, func(l limiter.Limit) bool { return l.Plan() != "" }) {
		return "", nil
	}
	page, err := s.deps.Limits.ListPlans(ctx, PlanQuery{Tenant: who.Tenant, Limit: 1})
	if err != nil || len(page.Assignments) == 0 {
		return "", err
	}
	return page.Assignments[0].Plan, nil
}
