package raftfsm

import (
	"errors"
	"fmt"
)

// Outcome says what is known about a write that failed.
type Outcome uint8

const (
	// OutcomeDefinite means that the write did not and will not take effect.
	OutcomeDefinite Outcome = iota
	// OutcomeUnknown means that the write may have taken effect or may still do so. Repeat
	// it with the same request id to find out.
	OutcomeUnknown
)

func (o Outcome) String() string {
	if o == OutcomeUnknown {
		return "unknown"
	}
	return "definite"
}

// Sentinel errors; test with errors.Is. OutcomeOf tells whether a write may have happened.
var (
	// ErrNoLeader means that the group had no reachable leader until the deadline.
	ErrNoLeader = errors.New("no reachable leader")
	// ErrOverloaded means that the group's queue of proposals is full.
	ErrOverloaded = errors.New("too many proposals in flight")
	// ErrDiskFull means that the disks of the group's leader, or of a majority of its voters, are
	// nearly full, so that it takes nothing that would make it grow.
	ErrDiskFull = errors.New("disk nearly full")
	// ErrTooLarge means that a command exceeds CommandBytesMax.
	ErrTooLarge = errors.New("command too large")
	// ErrRequestReused means that the request id came with other content before.
	ErrRequestReused = errors.New("request id was used for another request")
	// ErrNotVoter means that the member has no replica of the group that votes.
	ErrNotVoter = errors.New("the member has no voting replica of the group")
	// ErrUnknownGroup means that there is no such group.
	ErrUnknownGroup = errors.New("unknown group")
	// ErrLost means that leadership or the link was lost while the write was under way.
	ErrLost = errors.New("leadership or link lost during the request")
	// ErrRestoring means that the group is being restored from a backup and takes nothing else.
	ErrRestoring = errors.New("the group is being restored from a backup")
	// ErrNotEmpty means that a group to be restored was written to; the wrapping error says more.
	ErrNotEmpty = errors.New("the group holds other data")
	// ErrRestoreRefused means that a step of a restore does not fit; the wrapping error says why.
	ErrRestoreRefused = errors.New("the restore was refused")
	// ErrBackupGone means that a reading of a group for a backup was ended: its leader changed, or
	// nobody read on. It has to begin anew.
	ErrBackupGone = errors.New("the reading of the group was ended and has to begin anew")
	// ErrShutdown means that the node is stopping.
	ErrShutdown = errors.New("node is stopping")
)

// Error is a failed operation on a group.
type Error struct {
	// Op is "propose", "query", ...
	Op string
	// Group is the group's name.
	Group   string
	Outcome Outcome
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s on group %s: %v (outcome %s)", e.Op, e.Group, e.Err, e.Outcome)
}

func (e *Error) Unwrap() error { return e.Err }

// OutcomeOf tells whether a write that failed with err may have taken effect. Errors that
// did not come from a group are definite.
func OutcomeOf(err error) Outcome {
	var e *Error
	if errors.As(err, &e) {
		return e.Outcome
	}
	return OutcomeDefinite
}
