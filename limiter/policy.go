package limiter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// The words for what is usual, which a Limit keeps as empty: see WithoutUsual.
const (
	enforcementUsual = "enforce"
	oversizeUsual    = "refuse"
	onFailureUsual   = "error"
)

// Values of Limit.Enforcement; empty enforces.
const (
	EnforcementShadow = "shadow"
	EnforcementOff    = "off"
)

// OversizeDebt is the value of Limit.Oversize that lets a cost above the limit pass when nothing is
// used, and what it takes beyond the limit be paid back before anything else passes. Empty refuses.
const OversizeDebt = "debt"

// Values of Limit.OnFailure: what becomes of a check when the group that decides about the limit cannot be
// reached. Empty fails the check.
const (
	OnFailureDeny = "deny"
	// OnFailureOpen lets pass what nobody counts, as far as all other limits that match do so too.
	OnFailureOpen = "open"
)

// Values of Limit.Access; empty limits.
const (
	AccessUnlimited = "unlimited"
	AccessBanned    = "banned"
)

// canarySalt keeps the choice of canaries independent of the placement of tenants.
const canarySalt = ^raftfsm.GroupID(0)

// WithoutUsual is l with one spelling of what is usual: nothing at all.
func (l Limit) WithoutUsual() Limit {
	if l.Enforcement == enforcementUsual {
		l.Enforcement = ""
	}
	if l.Oversize == oversizeUsual {
		l.Oversize = ""
	}
	if l.OnFailure == onFailureUsual {
		l.OnFailure = ""
	}
	if l.Scope == ScopeGlobal && l.Selector == "" {
		l.Selector = anyTenant
	}
	return l
}

// shadows tells whether l only watches a tenant. The canaries of a share stay canaries of every
// larger one, and of every other limit.
func (l Limit) shadows(tenant string) bool {
	return l.Enforcement == EnforcementShadow || l.Canary != 0 && weight(tenant, canarySalt)%100 >= uint64(l.Canary)
}

// over tells whether l does not count any more, or not at all. passed is in seconds since 1970.
func (l Limit) over(passed int64) bool {
	return l.Enforcement == EnforcementOff || l.Expires != 0 && l.Expires <= passed
}

// Keeper is the tenant that may change l: its owner, or * for the platform alone where l counts for
// a plan, lifts what others impose, or shuts the tenant out.
func (l Limit) Keeper() string {
	if l.Access != "" || l.Overrides != "" || l.forPlan() {
		return anyTenant
	}
	return l.Owner()
}

// narrow applies what limits that matched a request say about each other: a ban, or freedom from
// all limits, leaves nothing else to decide, and an override takes the place of the limit it
// names. Limits that only watch the tenant do neither.
func narrow(matched []*limitState, tenant string) []*limitState {
	for _, access := range [...]string{AccessBanned, AccessUnlimited} {
		for _, l := range matched {
			if l.Access == access && l.Overrides == "" && !l.shadows(tenant) {
				return append(matched[:0], l)
			}
		}
	}
	var gone []string
	for _, l := range matched {
		if l.Overrides != "" && !l.shadows(tenant) {
			gone = append(gone, l.Overrides)
		}
	}
	return slices.DeleteFunc(matched, func(l *limitState) bool { return slices.Contains(gone, l.ID) })
}

// debtMax is the largest cost that a bucket takes as debt: one that is paid back in RefillMax.
func debtMax(r rate) u128 {
	return mul64(uint64(RefillMax.Microseconds()), r.refill).divFloor(r.unit)
}

func policyProblems(l Limit) []problem {
	var out []problem
	add := func(field, format string, args ...any) {
		out = append(out, problem{field, fmt.Sprintf(format, args...)})
	}
	switch l.Enforcement {
	case "", EnforcementShadow, EnforcementOff:
	default:
		add("enforcement", "must be enforce, shadow or off")
	}
	if l.Canary > 100 {
		add("canary", `must be from "1%%" to "100%%"`)
	} else if l.Canary != 0 && l.Enforcement != "" {
		add("canary", "is a share of tenants for which the limit is enforced; it does not go with %s", l.Enforcement)
	}
	if l.Oversize != "" && l.Oversize != OversizeDebt {
		add("oversize", "must be refuse or debt")
	} else if l.Oversize != "" && l.hasConcurrency() && !l.counts() {
		add("oversize", "does not go with a concurrency alone: nobody can owe a slot")
	}
	out = append(out, onFailureProblems(l)...)
	if l.Expires < 0 || l.Expires > math.MaxInt32*2 {
		add("expires", "must be between 1970 and 2106")
	}
	if l.Overrides != "" {
		switch {
		case !ValidName(l.Overrides) || l.Overrides == l.ID:
			add("overrides", "must be the id of another limit")
		case l.Owner() == anyTenant:
			add("overrides", "needs a selector that names a tenant or a plan, for which the limit %s does not count", l.Overrides)
		}
	}
	switch l.Access {
	case "":
		return out
	case AccessUnlimited, AccessBanned:
	default:
		add("access", "must be unlimited or banned")
	}
	if l.fields()&(fieldBucket|fieldWindow|fieldCalendar|fieldConcurrency|fieldOversize) != 0 {
		add("access", "does not go with tokenBucket, window, calendar, concurrency or oversize: there is nothing to count")
	}
	if l.Access == AccessUnlimited && (l.Enforcement == EnforcementShadow || l.Canary != 0) {
		add("access", "unlimited cannot be tried out: it would deny nothing")
	}
	if l.Access == AccessBanned && l.Overrides != "" {
		add("access", "banned does not go with overrides: no other limit counts anyway")
	}
	return out
}

func onFailureProblems(l Limit) []problem {
	switch {
	case l.OnFailure == "":
	case l.OnFailure != OnFailureDeny && l.OnFailure != OnFailureOpen:
		return []problem{{"onFailure", "must be error, deny or open"}}
	case l.Access == AccessBanned && l.OnFailure == OnFailureOpen:
		return []problem{{"onFailure", "must be error or deny: a ban lets nothing pass"}}
	case l.hasConcurrency() && !l.counts():
		return []problem{{"onFailure", "does not go with a concurrency alone: checks do not look at it, and a slot cannot be held without its group"}}
	}
	return nil
}

// parseExpires reads the moment at which a limit ends: RFC 3339, in whole seconds.
func parseExpires(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Nanosecond() != 0 || t.Unix() < 1 {
		return 0, errors.New("must be a time such as 2027-01-31T00:00:00Z, in whole seconds")
	}
	return t.Unix(), nil
}
