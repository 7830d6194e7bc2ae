package limiter

import (
	"context"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Scopes of a limit: what gets a counter of its own.
const (
	ScopeTenant = "tenant" // one counter per tenant
	ScopeToken  = "token"  // one per tenant and token
	ScopeKey    = "key"    // one per tenant and key
)

// Reasons of a denied check.
const (
	ReasonLimited          = "limited"
	ReasonCostExceedsLimit = "cost_exceeds_limit"
)

// Limit bounds the requests that match its scope and selector.
type Limit struct {
	// ID names the limit in its region.
	ID    string `yaml:"id"`
	Scope string `yaml:"scope"`
	// Selector is a tenant, or tenant/pattern for the scopes token and key. The tenant may be
	// * for every tenant, the pattern may hold * wildcards.
	Selector    string      `yaml:"selector"`
	TokenBucket TokenBucket `yaml:"tokenBucket"`
}

// TokenBucket admits at most Burst + Rate*t tokens in any interval of length t.
type TokenBucket struct {
	// Rate is TOKENS/PERIOD, such as "100/s".
	Rate  string `yaml:"rate"`
	Burst uint32 `yaml:"burst"`
}

// Groups is what the limiter needs of the cluster; *raftfsm.Host provides it.
type Groups interface {
	Propose(ctx context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error)
	Query(ctx context.Context, group raftfsm.GroupID, query []byte, c raftfsm.Consistency) (raftfsm.Answer, error)
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
}

// Decision is the answer to a Request.
type Decision struct {
	Allow bool
	// RetryAfterMs is when the same request would pass if nobody else asked, in milliseconds.
	RetryAfterMs uint32
	// Reason is empty when allowed; LimitID names the limit that denies for longest.
	Reason  string
	LimitID string
	// Levels are the limits that matched, in the order they are evaluated.
	Levels []Level
	// Version is the version of the limits that decided.
	Version uint32
}

// Level is the state of one matching limit after the decision.
type Level struct {
	LimitID   string
	Scope     string
	Burst     uint32
	Remaining uint32
}

// Change is one step of the limits' history: what must be put and removed to come from any
// version >= From to version To. With From 0, Puts is the whole set: limits that it does not
// name are removed, whatever the version was.
type Change struct {
	From    uint32
	To      uint32
	Puts    []Limit
	Deletes []string
}
