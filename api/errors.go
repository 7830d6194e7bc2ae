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
	// ErrAlreadyInitialised means that the region was started before.
	ErrAlreadyInitialised = errors.New("the region is already initialised")
	// ErrSeedsNotReady means that a seed is missing or not empty; the wrapping error names it.
	ErrSeedsNotReady = errors.New("the seeds are not ready")
	// ErrNotInitialised means that the region has not been started yet.
	ErrNotInitialised = errors.New("the region is not initialised")
	// ErrNotReady means that this node has started but does not serve yet: its groups open, or
	// what it must know has not reached it.
	ErrNotReady = errors.New("the node is not ready yet")
	// ErrMetaStale means that this node may not know of revocations: it has had no word from
	// the group meta for too long.
	ErrMetaStale = errors.New("the node has had no confirmation from the group meta for a second")
	// ErrServiceOff means that this node does not run the service that was asked for.
	ErrServiceOff = errors.New("the service is switched off on this node")
)
