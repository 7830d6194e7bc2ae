package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// AssignmentsMax bounds the tenants of a region that are on a plan.
const AssignmentsMax = 100_000

// planPrefix begins the owner of a limit for the tenants of a plan. No tenant's name has a colon.
const planPrefix = "plan:"

// Assignment says that a tenant is on a plan: every limit whose selector names the plan counts for
// it, with counters of its own.
type Assignment struct{ Tenant, Plan string }

// Plan is the plan that the limit's selector names, or empty.
func (l Limit) Plan() string {
	plan, _ := strings.CutPrefix(l.Owner(), planPrefix)
	if plan == l.Owner() {
		return ""
	}
	return plan
}

// forPlan tells whether the selector means a plan, valid or not.
func (l Limit) forPlan() bool { return strings.HasPrefix(l.Selector, planPrefix) }

// ValidateAssignments checks assignments that came through the API; one without a plan takes its
// tenant off the plan. It returns nil, or what is wrong, up to 20 things, as joined *InvalidError.
func ValidateAssignments(all []Assignment) error {
	var errs []*InvalidError
	seen := make(map[string]int, len(all))
	for i, a := range all {
		bad := func(field, format string, args ...any) {
			errs = append(errs, &InvalidError{Field: fmt.Sprintf("assignments[%d].%s", i, field), Message: fmt.Sprintf(format, args...)})
		}
		if !ValidName(a.Tenant) {
			bad("tenant", nameRule)
		}
		if a.Plan != "" && !ValidName(a.Plan) {
			bad("plan", nameRule)
		}
		if first, ok := seen[a.Tenant]; ok {
			bad("tenant", "%q is the tenant of assignments[%d] already", a.Tenant, first)
		} else {
			seen[a.Tenant] = i
		}
	}
	return joinInvalid("assignments", errs)
}

// planShards is into how many maps a planSet is cut: a change of one tenant copies one map of some
// 25 tenants and the pointers to all, 32 KiB, however many tenants there are.
const planShards = 1 << 12

// planSet is which tenant is on which plan. It never changes once built; a change shares what it
// does not touch with the set before it.
type planSet struct {
	seed   maphash.Seed
	shards *[planShards]map[string]string // tenant -> owner of its plan's limits; nil without tenants
}

func (p *planSet) shard(tenant string) int {
	return int(maphash.String(p.seed, tenant) % planShards)
}

// owner is who the limits of the tenant's plan belong to, or empty.
func (p *planSet) owner(tenant string) string {
	if p.shards == nil {
		return ""
	}
	return p.shards[p.shard(tenant)][tenant]
}

// tenants visits all tenants, in any order.
func (p *planSet) tenants(visit func(tenant string)) {
	if p.shards == nil {
		return
	}
	for _, shard := range p.shards {
		for tenant := range shard { // any order: who visits treats each alike
			visit(tenant)
		}
	}
}

// with is p after a change.
func (p *planSet) with(puts []Assignment, leavers []string) planSet {
	if len(puts)+len(leavers) == 0 {
		return *p
	}
	next := planSet{seed: p.seed, shards: new([planShards]map[string]string)}
	if p.shards == nil {
		next.seed = maphash.MakeSeed()
	} else {
		*next.shards = *p.shards
	}
	var copied [planShards]bool
	shard := func(tenant string) map[string]string {
		i := next.shard(tenant)
		if !copied[i] {
			copied[i] = true
			if next.shards[i] = maps.Clone(next.shards[i]); next.shards[i] == nil {
				next.shards[i] = map[string]string{}
			}
		}
		return next.shards[i]
	}
	owners := map[string]string{} // so that tenants of one plan share its text
	for _, a := range puts {
		owner, ok := owners[a.Plan]
		if !ok {
			owner = planPrefix + a.Plan
			owners[a.Plan] = owner
		}
		shard(a.Tenant)[a.Tenant] = owner
	}
	for _, tenant := range leavers {
		delete(shard(tenant), tenant)
	}
	return next
}

// sameFor tells whether a tenant has the same limits in s as in old.
func (s *limitSet) sameFor(tenant string, old *limitSet) bool {
	return old != nil && s != nil && s.index == old.index && s.plans.owner(tenant) == old.plans.owner(tenant)
}

func planKey(tenant string) []byte { return append([]byte{tablePlan}, tenant...) }

func encodePlan(plan string) []byte { return wire.AppendString([]byte{rowVersion}, plan) }

func decodePlan(key, value []byte) (Assignment, error) {
	r := wire.NewReader(value)
	v := r.Byte(rowVersion)
	a := Assignment{Tenant: string(key[1:]), Plan: r.String(nameBytesMax)}
	if err := r.Done(); err != nil || v != rowVersion || !ValidName(a.Tenant) || !ValidName(a.Plan) {
		return Assignment{}, errRow("plan")
	}
	return a, nil
}

func loadPlans(store rows) (planSet, error) {
	it, err := store.NewIter([]byte{tablePlan}, []byte{tablePlan + 1})
	if err != nil {
		return planSet{}, fmt.Errorf("limiter: load plans: %w", err)
	}
	var all []Assignment
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return planSet{}, errors.Join(fmt.Errorf("limiter: load plans: %w", err), it.Close())
		}
		a, err := decodePlan(it.Key(), v)
		if err != nil {
			return planSet{}, errors.Join(err, it.Close())
		}
		all = append(all, a)
	}
	if err := it.Close(); err != nil {
		return planSet{}, fmt.Errorf("limiter: load plans: %w", err)
	}
	return (&planSet{}).with(all, nil), nil
}

// assign stores what a change does to plans, and only that, and returns the plans after it.
func (m *Machine) assign(tx *raftfsm.Tx, c Change) (planSet, error) {
	plans := &m.set.plans
	leavers := c.Leavers
	if c.From == 0 { // the whole set: who is not named leaves
		named := make(map[string]bool, len(c.Plans))
		for _, a := range c.Plans {
			named[a.Tenant] = true
		}
		plans.tenants(func(tenant string) {
			if !named[tenant] {
				leavers = append(leavers, tenant)
			}
		})
	}
	for _, tenant := range leavers {
		if err := tx.Delete(planKey(tenant)); err != nil {
			return planSet{}, fmt.Errorf("limiter: take tenant %s off its plan: %w", tenant, err)
		}
	}
	var puts []Assignment
	for _, a := range c.Plans {
		if owner := plans.owner(a.Tenant); len(owner) == len(planPrefix)+len(a.Plan) && owner[len(planPrefix):] == a.Plan {
			continue
		}
		if err := tx.Set(planKey(a.Tenant), encodePlan(a.Plan)); err != nil {
			return planSet{}, fmt.Errorf("limiter: put tenant %s on plan %s: %w", a.Tenant, a.Plan, err)
		}
		puts = append(puts, a)
	}
	return plans.with(puts, leavers), nil
}

// appendPlanSteps is what a change does to plans; nothing at all if it does nothing.
func appendPlanSteps(b []byte, c Change) []byte {
	if !c.movesPlans() {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(c.Plans)))
	for _, a := range c.Plans {
		b = wire.AppendString(b, a.Tenant)
		b = wire.AppendString(b, a.Plan)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Leavers)))
	for _, tenant := range c.Leavers {
		b = wire.AppendString(b, tenant)
	}
	return b
}

func readPlanSteps(r *wire.Reader, c *Change) {
	if !r.More() {
		return
	}
	for n := r.Count(AssignmentsMax); n > 0 && !r.Failed(); n-- {
		c.Plans = append(c.Plans, Assignment{Tenant: r.String(nameBytesMax), Plan: r.String(nameBytesMax)})
	}
	for n := r.Count(AssignmentsMax); n > 0 && !r.Failed(); n-- {
		c.Leavers = append(c.Leavers, r.String(nameBytesMax))
	}
	if !c.movesPlans() {
		r.Fail() // what does nothing is left out
	}
}

// movesPlans tells whether some tenant enters or leaves a plan.
func (c Change) movesPlans() bool { return len(c.Plans)+len(c.Leavers) > 0 }

// validPlanSteps refuses names that nobody can have, and tenants that occur twice.
func validPlanSteps(c Change) error {
	seen := make(map[string]bool, len(c.Plans)+len(c.Leavers))
	refuse := func(tenant string) error { return fmt.Errorf("%w: plan of tenant %q", errCodec, tenant) }
	for _, a := range c.Plans {
		if !ValidName(a.Tenant) || !ValidName(a.Plan) || seen[a.Tenant] {
			return refuse(a.Tenant)
		}
		seen[a.Tenant] = true
	}
	for _, tenant := range c.Leavers {
		if !ValidName(tenant) || seen[tenant] {
			return refuse(tenant)
		}
		seen[tenant] = true
	}
	return nil
}
