package index

import (
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/index/query"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Sentinel errors of Service; test with errors.Is.
var (
	// ErrQuery means that the query has a mistake; errors.As finds the *QueryError.
	ErrQuery = query.ErrInvalid
	// ErrCondition means that a condition beside the query, such as the digest, the range of
	// time or the limit, is not valid.
	ErrCondition = errors.New("search condition is not valid")
	// ErrCursor means that a cursor is forged, stale or of another search; errors.As finds
	// the *CursorError.
	ErrCursor = errors.New("cursor is not valid")
	// ErrNotReady means that the node does not yet know the region's cursor key.
	ErrNotReady = errors.New("the region's cursor key is not known yet; try again")
	// ErrIncomplete means that a shard could not answer and the caller wants all of them.
	ErrIncomplete = errors.New("search is incomplete")
)

// Reasons of a CursorError.
const (
	CursorMalformed = "malformed" // not a cursor of this API
	CursorForged    = "forged"    // not made by this region
	CursorForeign   = "foreign"   // made for another query, tenant or condition
	CursorStale     = "stale"     // made by another version, or for shards that are not these
)

// CursorError says why a cursor does not continue the search.
type CursorError struct {
	// Reason is one of the Cursor constants.
	Reason  string
	Message string
}

func (e *CursorError) Error() string { return "cursor: " + e.Message }

// Unwrap makes every CursorError an ErrCursor.
func (e *CursorError) Unwrap() error { return ErrCursor }

// IngestError means that a part of a batch was not acknowledged. Sending the batch again is
// safe: documents that are stored are recognised by their ids.
type IngestError struct {
	// Stored documents are known to be stored or refused; the fate of the other Unknown ones
	// is not known.
	Stored, Unknown int
	// Err is what happened on a shard that failed; on one whose outcome is unknown, if any.
	Err error
}

func (e *IngestError) Error() string {
	return fmt.Sprintf("ingest: %d of %d documents are decided, the others are not acknowledged; send the batch again: %v",
		e.Stored, e.Stored+e.Unknown, e.Err)
}

// Unwrap returns the shard's error. Its outcome is unknown as soon as a part of the batch
// took effect.
func (e *IngestError) Unwrap() error {
	if e.Stored == 0 {
		return e.Err
	}
	return &raftfsm.Error{Op: "propose", Group: groupOf(e.Err), Outcome: raftfsm.OutcomeUnknown, Err: e.Err}
}

func groupOf(err error) string {
	var e *raftfsm.Error
	if errors.As(err, &e) {
		return e.Group
	}
	return "index"
}

// ShardsError means that no shard could answer a search, or that some could not and the
// caller wants all of them.
type ShardsError struct {
	Shards []ShardState
	errs   []error
}

func (e *ShardsError) Error() string {
	for _, s := range e.Shards {
		if s.State != ShardOK {
			return fmt.Sprintf("search: shard %s: %s: %s (%d of %d shards failed)", s.Shard, s.State, s.Message, len(e.errs), len(e.Shards))
		}
	}
	return "search: no shards"
}

// Unwrap returns ErrIncomplete and what happened on the shards.
func (e *ShardsError) Unwrap() []error { return append([]error{ErrIncomplete}, e.errs...) }
