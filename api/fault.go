package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// fault is one failure on its way to a caller.
type fault struct {
	*reason
	// message is what the caller reads: it never holds what is inside the server.
	message string
	outcome raftfsm.Outcome
	// retryAfterMs is the reason's, or what the load of the moment says.
	retryAfterMs uint32
	// id joins an internal fault to its line in the log; empty otherwise.
	id string
	// cause is for the log; nil when the message says all.
	cause error
}

// Error is the message alone, since the fault stands inside a connect.Error that adds the code.
func (f *fault) Error() string { return f.message }

// Unwrap gives the cause.
func (f *fault) Unwrap() error { return f.cause }

// refuse is a fault that a handler found itself: nothing was changed.
func refuse(r *reason, format string, args ...any) *fault {
	message := r.title
	if format != "" {
		message = shorten(fmt.Sprintf(format, args...))
	}
	return &fault{reason: r, message: message, retryAfterMs: r.retryAfterMs}
}

// retryIn replaces the reason's advice by what was computed, within reason.
func (f *fault) retryIn(d time.Duration) {
	f.retryAfterMs = uint32(min(max(d, retryLeast), retryMost).Milliseconds())
}

// maxMessageBytes keeps messages small enough for the trailers of gRPC.
const maxMessageBytes = 2048

func shorten(message string) string {
	if len(message) <= maxMessageBytes {
		return message
	}
	cut := maxMessageBytes
	for cut > 0 && !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + "..."
}

// faultOf finds the row of the table for err. write tells whether the request could have
// changed anything: if not, every outcome is definite.
func faultOf(err error, write bool) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	f = &fault{reason: reasonFor(err), cause: err}
	f.retryAfterMs = f.reason.retryAfterMs
	var advice interface{ RetryAfter() time.Duration }
	if errors.As(err, &advice) {
		f.retryIn(advice.RetryAfter())
	}
	f.message = shorten(err.Error())
	if f.opaque {
		f.message = f.title
	}
	if f.reason == reasonInternal {
		f.id = newFaultID()
		f.message = "internal error " + f.id
	}
	if write {
		f.outcome = outcomeOf(err, f.reason)
	}
	return f
}

func reasonFor(err error) *reason {
	for _, r := range reasons {
		for _, s := range r.sentinels {
			if errors.Is(err, s) {
				return r
			}
		}
	}
	return reasonInternal
}

// outcomeOf trusts the group that failed over the table: it knows whether the write left it.
func outcomeOf(err error, r *reason) raftfsm.Outcome {
	var e *raftfsm.Error
	if errors.As(err, &e) {
		return e.Outcome
	}
	if r.unknown {
		return raftfsm.OutcomeUnknown
	}
	return raftfsm.OutcomeDefinite
}

func newFaultID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}

// detail is what callers may compare.
func (f *fault) detail() *commonv1.ErrorDetail {
	return &commonv1.ErrorDetail{Reason: f.name, Hint: f.hint, Outcome: f.outcome.String(), RetryAfterMs: f.retryAfterMs}
}

// wire is the fault as Connect, gRPC and gRPC-Web carry it.
func (f *fault) wire() *connect.Error {
	e := connect.NewError(f.code, f)
	detail, err := connect.NewErrorDetail(f.detail())
	if err == nil { // a generated message always marshals
		e.AddDetail(detail)
	}
	return e
}
