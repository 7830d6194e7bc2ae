package limiter

import (
	"context"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Scopes of a limit: what gets a counter of its own.
const (
	ScopeTenant = "tenant" // one counter per tenant
	ScopeToken  = "token"  // one per tenant and token
	ScopeKey    = "key"    // one per tenant and key
	ScopeGlobal = "global" // one for all tenants together
)

// Reasons of a denied check.
const (
	ReasonLimited          = "limited"
	ReasonCostExceedsLimit = "cost_exceeds_limit"
	ReasonBanned           = "banned"
	// ReasonAway: the group that would have decided could not be reached; see Limit.OnFailure.
	ReasonAway = "group_away"
)

// Kinds of levels: the parts of a limit that have room of their own.
const (
	KindTokenBucket = "token_bucket"
	KindWindow      = "window"
	KindCalendar    = "calendar"
	KindConcurrency = "concurrency"
	KindUnlimited   = "unlimited"
	KindBanned      = "banned"
)

// Limit bounds the requests that match its scope and selector. It has a token bucket, a
// window, a calendar window, or several of them; a request passes when each has room. What it
// lets run at the same time is its concurrency, which Service.Acquire asks and checks do not.
type Limit struct {
	// ID names the limit in its region.
	ID    string
	Scope string
	// Selector is a tenant, or tenant/pattern for the scopes token and key. In the place of the
	// tenant may be * for every tenant, or plan:NAME for those on a plan; the pattern may hold
	// * wildcards. For the scope global it is *.
	Selector string
	// TokenBucket is there when it has a rate.
	TokenBucket TokenBucket
	// Window is there when it has a length.
	Window Window
	// Calendar is there when it has a period.
	Calendar Calendar
	// Concurrency is there when it has a TTL.
	Concurrency Concurrency
	// Enforcement is empty, EnforcementShadow or EnforcementOff. A shadow limit has counters of its
	// own, reports what it would deny, and decides nothing.
	Enforcement string
	// Canary, when not 0, is the percentage of tenants for which the limit is enforced; for the
	// others it is a shadow.
	Canary uint32
	// Oversize is empty or OversizeDebt.
	Oversize string
	// OnFailure is empty, OnFailureDeny or OnFailureOpen.
	OnFailure string
	// Access, when not empty, is AccessUnlimited or AccessBanned: what matches passes without any
	// limit, or never, and there is nothing to count.
	Access string
	// Overrides names the limit that does not count where this one matches.
	Overrides string
	// Expires, when not 0, is when the limit stops to count, in seconds since 1970.
	Expires int64
}

// TokenBucket admits at most Burst + Rate*t tokens in any interval of length t. A burst of 0
// admits nothing.
type TokenBucket struct {
	// Rate is TOKENS/PERIOD, such as "100/s".
	Rate  string
	Burst uint32
}

// Window admits at most Limit tokens in any interval of length Length. A limit of 0 admits
// nothing.
type Window struct {
	Limit uint32
	// Length is a period such as "1h".
	Length string
}

// Groups is what the limiter needs of the cluster; *raftfsm.Host provides it.
type Groups interface {
	Propose(ctx context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error)
	Query(ctx context.Context, group raftfsm.GroupID, query []byte, c raftfsm.Consistency) (raftfsm.Answer, error)
	// Level is the protocol level of the region.
	Level() int
}

// Request asks whether one request may pass.
type Request struct {
	Tenant string
	Token  string
	Key    string
	// Cost is how many tokens it takes; 0 asks without taking any.
	Cost uint32
	// RequestID, when not empty, makes a retry return the first decision.
	RequestID string
	// Brief leaves out the levels of a decision from leases, which is faster.
	Brief bool
}

// Decision is the answer to a Request.
type Decision struct {
	Allow bool
	// RetryAfterMs is when the same request would pass if nobody else asked, in milliseconds.
	RetryAfterMs uint32
	// Reason is empty when allowed; LimitID and Kind name the level that denies for longest.
	Reason  string
	LimitID string
	Kind    string
	// Levels are those of the limits that matched, in the order they are evaluated: first those of the
	// scope global.
	Levels []Level
	// Version is the version of the limits that decided; 0 when they are off.
	Version uint32
	// Mode is how limits acted.
	Mode Mode
	// Source is who decided: SourceLease, SourceLeader, SourceCached or SourceFailure.
	Source string
}

// Level is the state of one part of a matching limit after the decision.
type Level struct {
	LimitID string
	Scope   string
	Kind    string
	// Limit is the most that can be taken at once: the burst, or what a window admits.
	Limit     uint32
	Remaining uint32
	// Shadow is true for a limit that only watches, and WouldDeny when it would have denied.
	Shadow    bool
	WouldDeny bool
	// Used and ResetMs are known to Service.Peek only: what is used, which debt takes above Limit,
	// and when nothing will be if nobody asks, in milliseconds.
	Used    uint32
	ResetMs uint32
}

// Outcome is what became of one check of a batch.
type Outcome struct {
	Decision Decision
	// Err is as from Service.Check; the Decision then means nothing.
	Err error
}

// WouldDeny tells whether a limit that only watches would have denied the request.
func (d *Decision) WouldDeny() bool {
	return slices.ContainsFunc(d.Levels, func(l Level) bool { return l.WouldDeny })
}

// Change is one step of the limits' history: what must be put and removed to come from any
// version >= From to version To. With From 0, Puts is the whole set: limits that it does not
// name are removed, whatever the version was; so it is with Plans.
type Change struct {
	From    uint32
	To      uint32
	Puts    []Limit
	Deletes []string
	// Plans are tenants that enter a plan, and Leavers those that leave theirs for none.
	Plans   []Assignment
	Leavers []string
}
