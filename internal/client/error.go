package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
)

// Outcomes of a failed call.
const (
	// OutcomeDefinite means the call changed nothing.
	OutcomeDefinite = "definite"
	// OutcomeUnknown means the call may have taken effect.
	OutcomeUnknown = "unknown"
)

// Reasons that the client gives itself; all others are the region's.
const (
	ReasonUnreachable  = "unreachable"   // no node could be connected to
	ReasonTLSUntrusted = "tls_untrusted" // the node's certificate is not to be trusted
	ReasonTimeout      = "timeout"       // the deadline passed
	ReasonInterrupted  = "interrupted"   // the caller gave up
	ReasonBrokenLink   = "broken_link"   // the connection broke under the call
)

// Error is a failed call.
type Error struct {
	// Code is the Connect code; Reason a stable snake_case code.
	Code   connect.Code
	Reason string
	// Message says what went wrong, Hint what can be done about it; Hint may be empty.
	Message string
	Hint    string
	// Outcome is OutcomeDefinite or OutcomeUnknown.
	Outcome string
	// RetryAfterMs says when a retry can succeed, in milliseconds; 0 when that is not known.
	RetryAfterMs uint32
	// Endpoint is the node that was asked.
	Endpoint string

	cause error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the error underneath, in most cases a *connect.Error.
func (e *Error) Unwrap() error { return e.cause }

// mayRetry says whether another try can help and does no harm.
func (e *Error) mayRetry(repeatable bool) bool {
	if e.Reason == ReasonTLSUntrusted {
		return false
	}
	if e.Outcome == OutcomeUnknown {
		return repeatable
	}
	switch e.Code {
	case connect.CodeUnavailable:
		return true
	case connect.CodeResourceExhausted:
		return e.RetryAfterMs > 0
	}
	return false
}

// newError explains what a try came to.
func newError(err error, a *attempt) *Error {
	e := &Error{Code: connect.CodeOf(err), Message: err.Error(), Endpoint: a.endpoint.String(), cause: err}
	var ce *connect.Error
	if errors.As(err, &ce) {
		e.Message = ce.Message()
		for _, d := range ce.Details() {
			value, valueErr := d.Value()
			if detail, ok := value.(*commonv1.ErrorDetail); ok && valueErr == nil {
				e.Reason, e.Hint = detail.GetReason(), detail.GetHint()
				e.Outcome, e.RetryAfterMs = detail.GetOutcome(), detail.GetRetryAfterMs()
			}
		}
	}
	if e.Outcome == "" {
		e.Outcome = OutcomeDefinite
		if a.sent.Load() && couldHaveTakenEffect(e.Code) {
			e.Outcome = OutcomeUnknown
		}
	}
	if e.Reason == "" {
		e.explainTransport(err, a)
	}
	return e
}

// couldHaveTakenEffect says what a code means for a request that was sent, when the answer
// does not say: these are the codes that a broken connection or a lost answer becomes.
func couldHaveTakenEffect(code connect.Code) bool {
	switch code {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown,
		connect.CodeInternal, connect.CodeAborted, connect.CodeDataLoss:
		return true
	}
	return false
}

// explainTransport finds words for errors that did not come from the region.
func (e *Error) explainTransport(err error, a *attempt) {
	var untrusted *tls.CertificateVerificationError
	var host x509.HostnameError
	var notTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		e.Reason, e.Message = ReasonInterrupted, "interrupted"
	case errors.As(err, &untrusted), errors.As(err, &host):
		e.Reason = ReasonTLSUntrusted
		e.Message = fmt.Sprintf("%s: the certificate is not trusted: %v", e.Endpoint, rootCause(err))
		e.Hint = "use the CA file of this region (--ca), and the host name that the certificate was issued for"
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		e.Reason = ReasonTLSUntrusted
		e.Message = e.Endpoint + " does not speak TLS"
		e.Hint = "check the address: a node's API port speaks TLS, its admin port does not"
	case errors.As(err, &op) && op.Op == "remote error": // an alert of the node's TLS
		e.Reason, e.Outcome = ReasonTLSUntrusted, OutcomeDefinite
		e.Message = fmt.Sprintf("%s refused the TLS connection: %v", e.Endpoint, rootCause(err))
		e.Hint = "check the client certificate: it must come from the CA of this region"
	case errors.Is(err, context.DeadlineExceeded):
		e.Reason, e.Message = ReasonTimeout, e.Endpoint+" did not answer in time"
		e.Hint = "see which nodes answer with: maestro cluster status"
	case !a.sent.Load() && errors.As(err, &op):
		e.Code, e.Reason = connect.CodeUnavailable, ReasonUnreachable
		e.Message = fmt.Sprintf("%s cannot be reached: %v", e.Endpoint, rootCause(err))
		e.Hint = "is the region running, and is this the right address? (maestro dev starts one on this machine)"
	case isBroken(err):
		e.Code, e.Reason = connect.CodeUnavailable, ReasonBrokenLink
		e.Message = e.Endpoint + ": the connection broke"
		e.Hint = "see which nodes answer with: maestro cluster status"
	default:
		e.Reason = e.Code.String()
	}
}

// isBroken says whether a connection ended under a call.
func isBroken(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return true
	}
	// The HTTP/2 transport of the standard library does not export these errors.
	text := err.Error()
	for _, s := range []string{"client connection lost", "client conn could not be established", "connection force closed", "GOAWAY", "timeout awaiting response headers"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// rootCause is the innermost error, which says it in the fewest words.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// timedOut is what remains when the context ends: the failure that kept the call from being
// answered, or the last try's own. If any try may have taken effect, so may the call.
func timedOut(e, earlier *Error) *Error {
	if earlier == nil {
		return e
	}
	if e.Reason != ReasonTimeout && e.Reason != ReasonInterrupted {
		earlier = e
	}
	out := *earlier
	out.cause = errors.Join(earlier.cause, e.cause)
	if e.Outcome == OutcomeUnknown {
		out.Outcome = OutcomeUnknown
	}
	return &out
}
