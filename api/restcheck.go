package api

import (
	"io"
	"net/http"
	"net/url"
	"slices"

	"google.golang.org/protobuf/proto"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/ratelimitheader"
)

// checkREST is POST /api/limiter/check: Limiter/Check with JSON, for clients that read headers. With
// the parameter deny=429 a denied check has that status, for gateways that look at nothing else.
func (s *server) checkREST(w http.ResponseWriter, r *http.Request) {
	c := callFrom(r.Context())
	denied, f := deniedStatus(r.URL.RawQuery)
	req := &limiterv1.CheckRequest{}
	if f == nil {
		f = readJSON(r, c, req)
	}
	if f != nil {
		c.fault = f
		writeProblem(w, f)
		return
	}
	d, err := guarded(r.Context(), c, req, s.decide)
	if err != nil {
		writeProblem(w, c.note(s, err))
		return
	}
	h := w.Header()
	shown := *d
	shown.Levels = slices.Clone(d.Levels)
	withoutGlobals(c.principal, &shown)
	if quotas := ratelimitheader.Of(s.deps.Checker.Limit, shown); len(quotas) > 0 {
		h.Set(ratelimitheader.Policy, ratelimitheader.Policies(quotas))
		h.Set(ratelimitheader.Limit, ratelimitheader.Limits(quotas))
	}
	if d.RetryAfterMs > 0 {
		h.Set(ratelimitheader.RetryAfter, ratelimitheader.RetryIn(d.RetryAfterMs))
	}
	status := http.StatusOK
	if !d.Allow {
		status = denied
	}
	s.writeJSON(w, c, status, checkResponse(d))
}

// deniedStatus is the status of a denied check: 200, or what the parameter deny asks for.
func deniedStatus(raw string) (int, *fault) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return 0, refuse(reasonParameterMalformed, "the query string cannot be read: %v", err)
	}
	status := http.StatusOK
	for name, all := range values {
		if name != "deny" || len(all) != 1 || all[0] != "429" {
			return 0, refuse(reasonParameterMalformed, "%s=%q: the only parameter is deny=429, once", name, all)
		}
		status = http.StatusTooManyRequests
	}
	return status, nil
}

// readJSON reads the body of a REST request, within the bound of its class.
func readJSON(r *http.Request, c *call, m proto.Message) *fault {
	contentType := r.Header.Get("Content-Type")
	if kind, ok := bodyKindOf(contentType); !ok || !kind.unary || kind.enveloped || contentType == "application/proto" {
		return refuse(reasonContentTypeUnknown, "%s takes application/json, not %q", c.route.name, contentType)
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refuse(reasonCompressionUnknown, "Content-Encoding: %q is not taken here; send the body as it is", encoding)
	}
	body, err := io.ReadAll(newPlainBody(r.Body, classLimits[c.route.class].body, c.meter))
	if err != nil {
		return faultOf(err, false)
	}
	if err := readProtoJSON(body, m); err != nil {
		return malformed(m, err)
	}
	return nil
}
