package api

import (
	"context"
	"net/http"

	"google.golang.org/protobuf/proto"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/ratelimitheader"
)

// messageOf is a message by its struct.
type messageOf[T any] interface {
	*T
	proto.Message
}

// deciding is an answer with a decision.
type deciding interface {
	GetDecision() *limiterv1.CheckResponse
}

// restOf serves an RPC as POST with JSON, by the RPC's own fields. An answer with a decision says by
// Retry-After and, with the parameter deny=429, by its status that it denies, as that of restCheck does.
func restOf[Req, Res any, PReq messageOf[Req], PRes messageOf[Res]](s *server, fn func(context.Context, *call, *Req) (*Res, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callFrom(r.Context())
		req, status := new(Req), http.StatusOK
		_, decides := any(PRes(nil)).(deciding)
		denied, f := deniedStatus(r.URL.RawQuery)
		if f == nil && denied != http.StatusOK && !decides {
			f = refuse(reasonParameterMalformed, "%s denies nothing; leave the parameter deny out", c.route.path)
		}
		if f == nil {
			f = readJSON(r, c, PReq(req))
		}
		if f != nil {
			c.fault = f
			writeProblem(w, f)
			return
		}
		res, err := guarded(r.Context(), c, req, fn)
		if err != nil {
			writeProblem(w, c.note(s, err))
			return
		}
		if d, ok := any(PRes(res)).(deciding); ok && !d.GetDecision().GetAllow() {
			status = denied
			if after := d.GetDecision().GetRetryAfterMs(); after > 0 {
				w.Header().Set(ratelimitheader.RetryAfter, ratelimitheader.RetryIn(after))
			}
		}
		s.writeJSON(w, c, status, PRes(res))
	})
}
