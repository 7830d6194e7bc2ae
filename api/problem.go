package api

import (
	"encoding/json"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
)

// problemTypeBase is where the type of a problem points: the row of docs/errors.md.
const problemTypeBase = "https://github.com/maestro-conductor/maestro/blob/main/docs/errors.md#"

// problem is a fault as REST carries it: RFC 9457, with the members of mc.common.v1.ErrorDetail.
type problem struct {
	Type         string `json:"type"`
	Title        string `json:"title"`
	Status       int    `json:"status"`
	Detail       string `json:"detail"`
	Reason       string `json:"reason"`
	Hint         string `json:"hint"`
	Outcome      string `json:"outcome"`
	RetryAfterMs uint32 `json:"retryAfterMs"`
}

// writeProblem answers with f as application/problem+json.
func writeProblem(w http.ResponseWriter, f *fault) {
	status := f.httpStatus()
	body, err := json.Marshal(problem{
		Type: problemTypeBase + f.name, Title: f.title, Status: status, Detail: f.message,
		Reason: f.name, Hint: f.hint, Outcome: f.outcome.String(), RetryAfterMs: f.retryAfterMs,
	})
	if err != nil { // strings and numbers always marshal
		status, body = http.StatusInternalServerError, nil
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if f.retryAfterMs > 0 {
		h.Set("Retry-After", strconv.Itoa(int(f.retryAfterMs+999)/1000))
	}
	if f.code == connect.CodeUnauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="maestro"`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// httpStatus is the status of REST answers; the codes map as Connect maps them.
func (r *reason) httpStatus() int {
	if r.status != 0 {
		return r.status
	}
	switch r.code {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return http.StatusBadRequest
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeNotFound:
		return http.StatusNotFound
	case connect.CodeAlreadyExists, connect.CodeAborted:
		return http.StatusConflict
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	case connect.CodeUnimplemented:
		return http.StatusNotImplemented
	case connect.CodeUnavailable:
		return http.StatusServiceUnavailable
	case connect.CodeDeadlineExceeded:
		return http.StatusGatewayTimeout
	case connect.CodeCanceled:
		return 499 // the client has gone; nobody reads it
	default:
		return http.StatusInternalServerError
	}
}
