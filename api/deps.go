package api

import (
	"context"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
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

// Freshness tells whether this node knows of every revocation up to a second ago. While it does not,
// requests are refused with the reason meta_stale, but for checks that it decides from leases.
type Freshness interface {
	// Fresh answers at once.
	Fresh() bool
	// AwaitFresh waits until Fresh, or returns ErrMetaStale once ctx is done.
	AwaitFresh(ctx context.Context) error
}

// BusyKey is what is asked about often: rates are per second, over about the last minute.
type BusyKey struct {
	Tenant, Token, Key string
	// Error is how much of Checks may belong to keys whose place this one took.
	Checks, Denies, Error float64
	// LimitID is the limit that denied it last; empty when none did.
	LimitID string
}

// Checker decides checks.
type Checker interface {
	Check(ctx context.Context, r limiter.Request) (limiter.Decision, error)
	// CheckHeld decides the checks that tokens decide which this node holds, asks nobody, and returns where
	// the others are.
	CheckHeld(all []limiter.Request, out []limiter.Outcome) (open []int)
	// CheckOnFailure decides the checks for which their limits say what is decided while no group can be
	// asked, asks nobody, and returns where the others are.
	CheckOnFailure(all []limiter.Request, out []limiter.Outcome) (open []int)
	// CheckTogether takes the parts of one tenant when all of them pass, and otherwise none.
	CheckTogether(ctx context.Context, parts []limiter.Part) ([]limiter.Decision, error)
	// CheckBatchInto decides checks into out, which has an outcome for each; the levels that are
	// there are used again. The texts of the checks are parts of a message: what keeps one longer
	// copies it. An error is from before anything was done.
	CheckBatchInto(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error
	// Peek decides without taking anything, and knows what is used of each level.
	Peek(ctx context.Context, r limiter.Request) (limiter.Decision, error)
	// Limit is a limit as this node knows it; false when it does not.
	Limit(id string) (limiter.Limit, bool)
	// BusyKeys are the most busy, or most denied, keys of a tenant, or of all when it is empty, as
	// the nodes of the region count them; missing names those that did not answer.
	BusyKeys(ctx context.Context, tenant string, denied bool, most int) (keys []BusyKey, missing []string, err error)
}

// Holder reserves costs, keeps slots, and gives back; *limiter.Service is one.
type Holder interface {
	Reserve(ctx context.Context, r limiter.Request, ttl time.Duration) (limiter.Hold, error)
	Commit(ctx context.Context, tenant, id string, actual uint32) (limiter.Settlement, error)
	Refund(ctx context.Context, tenant, requestID string, cost uint32) (refunded uint32, err error)
	Acquire(ctx context.Context, r limiter.Request, ttl time.Duration) (limiter.Hold, error)
	// Renew holds a slot for longer.
	Renew(ctx context.Context, tenant, id string, ttl time.Duration) (limiter.Hold, error)
	Release(ctx context.Context, tenant, id string) (held bool, err error)
}

// Lender lends tokens to processes outside the nodes; *limiter.Service is one.
type Lender interface {
	// Lend answers the asks of a holder, all of one tenant.
	Lend(ctx context.Context, h limiter.Holder, tenant string, asks []limiter.Ask) ([]limiter.Route, error)
	// Attend connects a holder until its Leave; nil when there is nothing to tell it.
	Attend(h limiter.Holder) *limiter.Outside
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
	// LimiterMode is how limits act in the region.
	LimiterMode(ctx context.Context) (limiter.Mode, error)
	// SetLimiterMode changes it, for every node within a second, and returns what it was; ErrLevel
	// while a member does not know modes.
	SetLimiterMode(ctx context.Context, mode limiter.Mode) (before limiter.Mode, err error)
	// SetPlans puts tenants on plans, and those without a plan off theirs, all or none; one that is to
	// leave and is on no plan is ErrPlanNone. While a member does not know plans it is ErrLevel.
	SetPlans(ctx context.Context, all []limiter.Assignment, requestID string) (PlanChange, error)
	// ListPlans returns a page of who is on which plan, ordered by tenant; or ErrLevel.
	ListPlans(ctx context.Context, q PlanQuery) (PlanPage, error)
}

// PlanChange is what became of a change of plans: Created counts tenants that were on no plan, and
// Removed those that are on none now.
type PlanChange struct {
	LimitChange
	Removed int
}

// PlanQuery asks for at most Limit assignments of tenants behind After; other empty fields keep all.
type PlanQuery struct {
	Plan, Tenant, After string
	Limit               int
}

// PlanPage is one page of assignments.
type PlanPage struct {
	Assignments []limiter.Assignment
	// Next is the tenant behind which more follow, or empty.
	Next string
	// Version is that of the limits at the moment of the page.
	Version uint32
}

// Indexer stores and finds documents.
type Indexer interface {
	// Ingest takes documents that index.Normalize has accepted.
	Ingest(ctx context.Context, docs []index.Document, requestID string) (index.IngestResult, error)
	Search(ctx context.Context, r index.SearchRequest) (index.SearchResult, error)
	Lookup(ctx context.Context, r index.LookupRequest) (index.LookupResult, error)
	Lineage(ctx context.Context, r index.LineageRequest) (index.LineageResult, error)
	// IndexMode is what the region's index takes and answers; calls above that it does not are
	// index.ErrReadOnly or index.ErrOff.
	IndexMode(ctx context.Context) (index.Mode, error)
	// SetIndexMode changes it, for every node within a second, and returns what it was; ErrLevel
	// while a member does not know modes.
	SetIndexMode(ctx context.Context, mode index.Mode) (before index.Mode, err error)
	// Retention is how long documents are kept. SetRetention and RemoveRetention change it; index.ErrRetention
	// for rules that cannot be, index.ErrRetentionKey on a node that could not sign records, ErrLevel while a member
	// does not know retention.
	Retention(ctx context.Context) (index.RetentionPolicy, error)
	SetRetention(ctx context.Context, rules []index.RetentionRule) (index.RetentionPolicy, error)
	RemoveRetention(ctx context.Context, names []string) (index.RetentionPolicy, error)
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
	// State is "active" or "leaving".
	State string
	// Replicas counts those that are placed on it.
	Replicas int
	Draining bool
	// Disk is "good", "slow", "low", or empty when not known.
	Disk string
	// ClockOffset is how far its wall clock is ahead of the answering node's.
	ClockOffset time.Duration
	// Level is the protocol level of its build, 0 when not known.
	Level int
}

// GroupStatus is one Raft group.
type GroupStatus struct {
	Name, Leader                    string
	Term, CommitIndex, AppliedIndex uint64
	Voters, Learners                []string
	// Preferred is the node that leads unless it cannot.
	Preferred string
	// Moving is true until the replicas are where they belong.
	Moving bool
}

// RegionStatus is the answer of Cluster/Status.
type RegionStatus struct {
	ClusterID, Region, AnsweredBy, Version string
	Nodes                                  []NodeStatus
	Groups                                 []GroupStatus
	// Settled is true when every replica is where it belongs and nothing is left to move;
	// Pending says what is, for people.
	Settled bool
	Pending []string
}

// MemberChange is what a change of members came to.
type MemberChange struct {
	// ID is the member that was added or is to go; NewID the one that takes its place.
	ID, NewID string
	// Started is false when nothing was to be done any more.
	Started bool
	// Removed is true when ID is no member any more.
	Removed bool
}

// BackupPlan is what a backup of a region consists of.
type BackupPlan struct {
	ClusterID, Region, Version string
	Services                   []string
	// Groups are in the order in which they are to be read, and restored.
	Groups []string
}

// Backups reads groups and restores them; every call may be repeated.
type Backups interface {
	BackupPlan(ctx context.Context) (BackupPlan, error)
	// ExportGroup reads a chunk as raftfsm.Host.ReadBackup does; ErrGroupName when there is no
	// such group.
	ExportGroup(ctx context.Context, group string, reading raftfsm.BackupID, chunk uint64) (raftfsm.BackupChunk, error)
	// ImportGroup takes a step as raftfsm.Host.Restore does.
	ImportGroup(ctx context.Context, group string, step raftfsm.RestoreStep) (raftfsm.RestoreState, error)
}

// ClusterAdmin starts the region, reports on it, and changes its members.
type ClusterAdmin interface {
	// Init starts the region and returns its cluster id, or ErrAlreadyInitialised, or
	// ErrSeedsNotReady naming the seeds that are missing or not empty.
	Init(ctx context.Context) (clusterID string, err error)
	Status(ctx context.Context) (RegionStatus, error)
	// AddNode makes the node at a cluster address a member. ErrNodeUnfit lists everything that
	// keeps it from being one; ErrNodeNameTaken means that another node has its name.
	AddNode(ctx context.Context, name, clusterAddress string) (MemberChange, error)
	// RemoveNode begins to move the replicas of a member away. ErrNodeUnknown when there is
	// none of that name, ErrTooFewNodes when fewer than three others would stay.
	RemoveNode(ctx context.Context, name string) (MemberChange, error)
	// ReplaceNode adds a node, unless it is a member, and begins to move the replicas of another
	// one to it. An empty address means that of the member with the new name.
	ReplaceNode(ctx context.Context, oldName, newName, clusterAddress string) (MemberChange, error)
	// Transfer hands the leadership of a group to a member that votes in it, and prefers it from
	// now on: ErrGroupName, ErrNodeUnknown or ErrNotVoter otherwise.
	Transfer(ctx context.Context, group, name string) error
}
