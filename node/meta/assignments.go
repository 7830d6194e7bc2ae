package meta

import (
	"context"
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Assignments of tenants to plans are records of the table of limits, so that a limiter group learns
// of both in one order. Their keys are behind those of all limits, whose ids have no ~.
const assignmentPrefix = "~plan/"

const assignmentValueVersion = 1

func assignmentKey(tenant string) string { return assignmentPrefix + tenant }

func isAssignment(key string) bool { return strings.HasPrefix(key, assignmentPrefix) }

func encodeAssignment(plan string) []byte {
	return wire.AppendString([]byte{assignmentValueVersion}, plan)
}

func decodeAssignment(key string, value []byte) (limiter.Assignment, error) {
	r := wire.NewReader(value)
	v := r.Byte(assignmentValueVersion)
	a := limiter.Assignment{Tenant: strings.TrimPrefix(key, assignmentPrefix), Plan: r.String(nameBytesMax)}
	if err := r.Done(); err != nil || v != assignmentValueVersion || !limiter.ValidName(a.Tenant) || !limiter.ValidName(a.Plan) {
		return limiter.Assignment{}, errRow("plan of " + key)
	}
	return a, nil
}

// addAssignment adds to a change what became of one assignment.
func addAssignment(c *limiter.Change, r record) error {
	if r.deleted {
		if c.From > 0 {
			c.Leavers = append(c.Leavers, strings.TrimPrefix(r.key, assignmentPrefix))
		}
		return nil
	}
	a, err := decodeAssignment(r.key, r.value)
	if err != nil {
		return err
	}
	c.Plans = append(c.Plans, a)
	return nil
}

// SetPlans implements api.LimitAdmin. Beside its errors it returns *limiter.InvalidError for
// assignments that are not valid, or when the region would have more than limiter.AssignmentsMax.
func (s *Service) SetPlans(ctx context.Context, all []limiter.Assignment, requestID string) (api.PlanChange, error) {
	const op = "meta.plans.set"
	if err := validCall(api.AllTenants, "assignments", len(all), requestID); err != nil {
		return api.PlanChange{}, err
	}
	if err := limiter.ValidateAssignments(all); err != nil {
		return api.PlanChange{}, err
	}
	if s.groups.Level() < raftfsm.LevelLeases {
		return api.PlanChange{}, fmt.Errorf("%s: %w", op, api.ErrLevel)
	}
	steps, removed := make([]step, len(all)), 0
	for i, a := range all {
		if a.Plan == "" {
			steps[i] = step{kind: kindDelete, key: assignmentKey(a.Tenant)}
			removed++
			continue
		}
		steps[i] = step{kind: kindPut, key: assignmentKey(a.Tenant), owner: anyOwner, value: encodeAssignment(a.Plan)}
	}
	res, err := s.changeTable(ctx, op, api.AllTenants, steps, requestID)
	if err != nil {
		return api.PlanChange{}, err
	}
	switch res.outcome {
	case outcomeDone:
	case outcomeUnknown:
		return api.PlanChange{}, fmt.Errorf("tenant %s: %w", all[res.step].Tenant, api.ErrPlanNone)
	case outcomeFull:
		return api.PlanChange{}, &limiter.InvalidError{Field: "assignments", Message: fmt.Sprintf(
			"at most %d tenants of a region are on plans; take some off theirs first", limiter.AssignmentsMax)}
	default:
		return api.PlanChange{}, unexpected(res)
	}
	return api.PlanChange{
		LimitChange: api.LimitChange{
			Version: res.version, Created: int(res.created), Replaced: int(res.replaced), Unchanged: int(res.unchanged),
			InForce: s.pushAll(ctx),
		},
		Removed: removed,
	}, nil
}

// ListPlans implements api.LimitAdmin.
func (s *Service) ListPlans(ctx context.Context, q api.PlanQuery) (api.PlanPage, error) {
	if s.groups.Level() < raftfsm.LevelLeases {
		return api.PlanPage{}, fmt.Errorf("meta.plans.list: %w", api.ErrLevel)
	}
	from, until := assignmentPrefix, endOf(assignmentPrefix)
	if q.Tenant != "" {
		from, until = assignmentKey(q.Tenant), after(assignmentKey(q.Tenant))
	}
	if q.After != "" {
		from = max(from, after(assignmentKey(q.After)))
	}
	out, most := api.PlanPage{}, max(1, q.Limit)
	for {
		p, err := s.rangePage(ctx, tableLimits, from, until)
		if err != nil {
			return api.PlanPage{}, fmt.Errorf("meta.plans.list: %w", err)
		}
		out.Version = p.counters.version
		for _, r := range p.records {
			a, err := decodeAssignment(r.key, r.value)
			if err != nil {
				return api.PlanPage{}, err
			}
			if q.Plan != "" && a.Plan != q.Plan {
				continue
			}
			if len(out.Assignments) == most {
				out.Next = out.Assignments[most-1].Tenant
				return out, nil
			}
			out.Assignments = append(out.Assignments, a)
		}
		if p.last || len(p.records) == 0 {
			return out, nil
		}
		from = after(p.records[len(p.records)-1].key)
	}
}
