package api

import (
	"context"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
)

// Roles of an identity, from least to most. The table in authz.go says what each may do.
const (
	RoleReader    = "reader"
	RoleRunner    = "runner"
	RolePublisher = "publisher"
	RoleOperator  = "operator"
	RoleAdmin     = "admin"
)

// AllTenants is the tenant of identities that belong to the platform.
const AllTenants = "*"

// Principal is the identity behind a call.
type Principal struct {
	// ID names the token or certificate in logs and audit records; it is not a secret.
	ID string
	// Tenant is whose data it reaches, or AllTenants.
	Tenant string
	Role   string
}

// Authenticator finds the identity behind a bearer token. It returns ErrTokenUnknown,
// ErrTokenExpired or ErrTokenRevoked for a token that does not admit.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Principal, error)
}

// Freshness tells whether this node knows of every revocation up to a second ago. Requests
// are refused while it does not, with the reason meta_stale.
type Freshness interface {
	// Fresh answers at once.
	Fresh() bool
	// AwaitFresh waits until Fresh, or returns ErrMetaStale once ctx is done.
	AwaitFresh(ctx context.Context) error
}

// Checker decides checks; *limiter.Service is one.
type Checker interface {
	Check(ctx context.Context, r limiter.Request) (limiter.Decision, error)
}

// LimitChange is what became of a change to the limits.
type LimitChange struct {
	Version                      uint32
	Created, Replaced, Unchanged int
	// InForce is true when every limiter group applies the change already.
	InForce bool
}

// LimitAdmin keeps the limits.
type LimitAdmin interface {
	// SetLimits creates or replaces limits, all or none. tenant is AllTenants, or the only
	// tenant whose limits the caller may touch: replacing a limit of another tenant is
	// ErrLimitForeign.
	SetLimits(ctx context.Context, tenant string, limits []limiter.Limit, requestID string) (LimitChange, error)
	// DeleteLimits removes limits, all or none; one that does not exist, or is another
	// tenant's, is ErrLimitUnknown.
	DeleteLimits(ctx context.Context, tenant string, ids []string, requestID string) (LimitChange, error)
	// ListLimits returns all limits ordered by id, and their version.
	ListLimits(ctx context.Context) ([]limiter.Limit, uint32, error)
}

// Indexer stores and finds documents; *index.Service is one.
type Indexer interface {
	// Ingest takes documents that index.Normalize has accepted.
	Ingest(ctx context.Context, docs []index.Document, requestID string) (index.IngestResult, error)
	Search(ctx context.Context, r index.SearchRequest) (index.SearchResult, error)
}

// Token is an API token without its secret.
type Token struct {
	ID          string
	Tenant      string
	Role        string
	Created     time.Time
	Expires     time.Time // zero when it does not expire
	Revoked     bool
	Description string
}

// TokenAdmin keeps the API tokens.
type TokenAdmin interface {
	// CreateToken returns the secret, which is kept nowhere else.
	CreateToken(ctx context.Context, t Token) (secret string, created Token, err error)
	// ListTokens returns all tokens, newest first.
	ListTokens(ctx context.Context) ([]Token, error)
	// RevokeToken ends a token; ErrTokenUnknown when there is none.
	RevokeToken(ctx context.Context, id string) error
}

// NodeStatus and GroupStatus describe a region as one node sees it.
type NodeStatus struct {
	Name, ID                   string
	ClusterAddress, APIAddress string
	Reachable                  bool
	Version                    string
}

// GroupStatus is one Raft group.
type GroupStatus struct {
	Name, Leader                    string
	Term, CommitIndex, AppliedIndex uint64
	Voters                          []string
}

// RegionStatus is the answer of Cluster/Status.
type RegionStatus struct {
	ClusterID, Region, AnsweredBy, Version string
	Nodes                                  []NodeStatus
	Groups                                 []GroupStatus
}

// ClusterAdmin starts the region and reports on it.
type ClusterAdmin interface {
	// Init starts the region and returns its cluster id, or ErrAlreadyInitialised, or
	// ErrSeedsNotReady naming the seeds that are missing or not empty.
	Init(ctx context.Context) (clusterID string, err error)
	Status(ctx context.Context) (RegionStatus, error)
}
