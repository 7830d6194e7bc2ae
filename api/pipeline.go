package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/internal/stack"
)

// call is one request on its way through the steps.
type call struct {
	route *route
	// id is what the path names; empty for most.
	id          string
	credentials credentials
	principal   Principal
	// meter charges the bytes of the body.
	meter *meter
	// control sets the deadlines of a stream's messages.
	control *http.ResponseController
	start   time.Time
	// cutOff is set on a node that may not know of revocations, for what its leases may decide.
	cutOff bool
	// entered is true once a handler has the request's message.
	entered bool
	// fault is how it failed; nil while it has not.
	fault *fault
}

type callKey struct{}

func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// PrincipalFromContext is the identity behind the request that ctx belongs to, for services
// that record who asked.
func PrincipalFromContext(ctx context.Context) (Principal, bool) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return Principal{}, false
	}
	return c.principal, true
}

// ServeHTTP takes a request through the steps that all protocols share.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, healthPath) {
		s.health.ServeHTTP(w, r)
		return
	}
	rt, id := s.routeOf(r)
	if rt == nil {
		s.metrics.unknownRoute.Inc()
		s.writeFault(w, r, nil, refuse(reasonRouteUnknown, "there is nothing at %s", shortPath(r)))
		return
	}
	if !rt.stream { // streams are many, and stay
		stack.Grow()
	}
	c := &call{route: rt, id: id, start: time.Now()}
	ctx, leave, f := s.admit(c, w, r)
	if f != nil {
		c.fault = f
		if rt.method != r.Method {
			w.Header().Set("Allow", rt.methods())
		}
		s.writeFault(w, r, rt, f)
		s.finish(c, r)
		return
	}
	defer func() {
		leave()
		s.finish(c, r)
	}()
	rt.handler.ServeHTTP(w, r.WithContext(ctx))
}

// admit takes the steps before the handler. When it returns no fault, leave must be called.
func (s *server) admit(c *call, w http.ResponseWriter, r *http.Request) (ctx context.Context, leave func(), f *fault) {
	rt := c.route
	if r.Method != rt.method {
		return nil, nil, refuse(reasonMethodNotAllowed, "%s takes %s only", rt.path, rt.methods())
	}
	if c.credentials, f = credentialsOf(r); f != nil {
		return nil, nil, f
	}
	fresh := s.fresh()
	if f := s.admitIdentity(r.Context(), c); f != nil {
		return nil, nil, f
	}
	who := c.principal
	g := s.gates[rt.class]
	c.meter = &meter{gate: g, tenant: who.Tenant}
	var clientDeadline bool
	if !rt.rest {
		if clientDeadline, f = prepareRPC(rt, r, c.meter); f != nil {
			return nil, nil, f
		}
	}
	if f := g.enter(who.Tenant); f != nil {
		return nil, nil, f
	}
	ctx = context.WithValue(r.Context(), callKey{}, c)
	leave = func() { c.meter.release(); g.leave(who.Tenant) }
	if rt.stream {
		c.control = http.NewResponseController(w)
	} else {
		deadline := rt.deadline
		if clientDeadline {
			deadline = MaxDeadline // Connect sets the client's own, which may be shorter
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		release := leave
		leave = func() { cancel(); release() }
	}
	if !fresh {
		if f := s.admitCutOff(ctx, c); f != nil {
			leave()
			return nil, nil, f
		}
	}
	return ctx, leave, nil
}

// admitIdentity finds who calls and whether it may.
func (s *server) admitIdentity(ctx context.Context, c *call) *fault {
	who, err := s.identify(ctx, c.credentials)
	if err != nil {
		return c.note(s, err)
	}
	c.principal = who
	return c.route.authorize(who)
}

// note records how the call failed.
func (c *call) note(s *server, err error) *fault {
	c.fault = s.explain(c.route, c.principal, err)
	return c.fault
}

// explain finds the fault for err, and logs what must not reach the caller.
func (s *server) explain(rt *route, who Principal, err error) *fault {
	f := faultOf(err, rt.write)
	if f.id != "" {
		s.log.Error("api request failed", "id", f.id, "procedure", rt.name, "principal", who.ID, "error", f.cause)
	}
	return f
}

// finish counts and logs a request that is over.
func (s *server) finish(c *call, r *http.Request) {
	took := time.Since(c.start)
	f := c.fault
	if c.meter != nil && c.meter.refused != nil {
		f = c.meter.refused
	}
	if f == nil && !c.entered && !c.route.rest && !isReflection(c.route) {
		// Connect refused the body before a handler saw it.
		f = refuse(reasonMessageMalformed, "")
	}
	code := connect.Code(0)
	level, message := slog.LevelDebug, "api request"
	reasonName := ""
	if f != nil {
		code, reasonName = f.code, f.name
		if code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied {
			level, message = slog.LevelInfo, "api request refused"
		}
	}
	if f != nil && (f.reason == reasonOverloaded || f.reason == reasonTenantOverloaded) {
		s.metrics.shed.WithLabelValues(classLimits[c.route.class].name, f.name).Inc()
	}
	// A stream counts its messages itself, and its end only when it fails.
	if !c.route.stream || f != nil {
		c.route.metrics.observe(code, took)
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	s.log.LogAttrs(r.Context(), level, message,
		slog.String("procedure", c.route.name), slog.String("code", codeName(code)), slog.String("reason", reasonName),
		slog.String("principal", c.principal.ID), slog.String("tenant", c.principal.Tenant), slog.String("role", c.principal.Role),
		slog.String("remote", r.RemoteAddr), slog.Duration("took", took))
}

func isReflection(rt *route) bool { return rt.name == reflectionV1 || rt.name == reflectionV1Alpha }

// writeFault answers in the protocol of the request; rt is nil when there is no such route.
func (s *server) writeFault(w http.ResponseWriter, r *http.Request, rt *route, f *fault) {
	kind, rpc := bodyKindOf(r.Header.Get("Content-Type"))
	// JSON sent to an unknown path is as likely meant for REST as for an RPC.
	rest := (rt == nil && !kind.enveloped) || (rt != nil && rt.rest)
	if rest || !rpc || r.Method != http.MethodPost {
		writeProblem(w, f)
		return
	}
	_ = s.errors.Write(w, r, f.wire()) // the client may have gone
}

func shortPath(r *http.Request) string {
	const most = 128
	path := r.URL.EscapedPath()
	if len(path) > most {
		path = path[:most] + "..."
	}
	return path
}

func codeName(c connect.Code) string {
	if c == 0 {
		return "ok"
	}
	return c.String()
}
