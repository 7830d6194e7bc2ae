package api

import "errors"

// What the services behind the handlers return, besides the errors of the packages limiter,
// index and raftfsm. The table in reasons.go says what each becomes on the wire.
var (
	// ErrTokenUnknown means that no token has this secret, or this id.
	ErrTokenUnknown = errors.New("the token is not known")
	// ErrTokenExpired means that the token was good until its expiry.
	ErrTokenExpired = errors.New("the token has expired")
	// ErrTokenRevoked means that an administrator ended the token.
	ErrTokenRevoked = errors.New("the token was revoked")
	// ErrLimitForeign means that a limit of another tenant stands in the way of the change.
	ErrLimitForeign = errors.New("the limit belongs to another tenant")
	// ErrLimitUnknown means that there is no such limit, or that it is another tenant's.
	ErrLimitUnknown = errors.New("the limit is not known")
	// ErrPlanNone means that a tenant that is to leave its plan is on none.
	ErrPlanNone = errors.New("the tenant is on no plan")
	// ErrAlreadyInitialised means that the region was started before.
	ErrAlreadyInitialised = errors.New("the region is already initialised")
	// ErrSeedsNotReady means that a seed is missing or not empty; the wrapping error names it.
	ErrSeedsNotReady = errors.New("the seeds are not ready")
	// ErrNotInitialised means that the region has not been started yet.
	ErrNotInitialised = errors.New("the region is not initialised")
	// ErrNotReady means that this node has started but does not serve yet: its groups open, or
	// what it must know has not reached it.
	ErrNotReady = errors.New("the node is not ready yet")
	// ErrNodeRemoved means that this node is no member of the region any more.
	ErrNodeRemoved = errors.New("the node was removed from the region")
	// ErrNodeUnfit means that a node cannot become a member; the wrapping error says why.
	ErrNodeUnfit = errors.New("the node cannot become a member")
	// ErrNodeNameTaken means that another member has the node's name.
	ErrNodeNameTaken = errors.New("another member has this name")
	// ErrNodeUnknown means that no member has this name.
	ErrNodeUnknown = errors.New("no member has this name")
	// ErrTooFewNodes means that too few members would be left.
	ErrTooFewNodes = errors.New("too few members would be left")
	// ErrTooManyNodes means that the region has as many members as it may have.
	ErrTooManyNodes = errors.New("the region has as many members as it may have")
	// ErrNotVoter means that the node does not vote in the group.
	ErrNotVoter = errors.New("the node does not vote in this group")
	// ErrGroupName means that the region has no group of this name.
	ErrGroupName = errors.New("the region has no such group")
	// ErrLevel means that a member's build is too old for what was asked for.
	ErrLevel = errors.New("a member runs a build that is too old for this")
	// ErrMembersChanged means that other changes of members got in between.
	ErrMembersChanged = errors.New("other changes of members got in between")
	// ErrMetaStale means that this node may not know of revocations: it has had no word from
	// the group meta for too long.
	ErrMetaStale = errors.New("the node has had no confirmation from the group meta for a second")
	// ErrServiceOff means that this node does not run the service that was asked for.
	ErrServiceOff = errors.New("the service is switched off on this node")
)
