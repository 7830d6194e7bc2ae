package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
)

// unary makes the handler of a procedure with one request and one answer. fn gets a message
// that was read whole; its error goes through the table of reasons.
func unary[Req, Res any](s *server, name string, fn func(context.Context, *call, *Req) (*Res, error)) http.Handler {
	return connect.NewUnaryHandler(name, func(ctx context.Context, r *connect.Request[frame[Req]]) (*connect.Response[Res], error) {
		c := callFrom(ctx)
		c.entered = true
		if f := r.Msg.fault; f != nil {
			return nil, c.note(s, f).wire()
		}
		res, err := guarded(ctx, c, &r.Msg.msg, fn)
		if err != nil {
			return nil, c.note(s, err).wire()
		}
		return connect.NewResponse(res), nil
	}, optionsOf(name)...)
}

// guarded turns a panic into an internal error: one request must not take the others, and
// the replicas on this node, with it.
func guarded[Req, Res any](ctx context.Context, c *call, req *Req, fn func(context.Context, *call, *Req) (*Res, error)) (res *Res, err error) {
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx, c, req)
}
