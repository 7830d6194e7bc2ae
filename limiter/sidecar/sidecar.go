// Package sidecar serves checks to the processes of one machine, most of them from tokens that the
// region has lent to it.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter/client"
)

const (
	// bodyBytesMax bounds a request: a batch whose checks are all at their longest.
	bodyBytesMax = 1 << 20
	// streamsMax bounds the requests of one connection that are under way.
	streamsMax = 1024
	// closeTimeout is how long the requests under way, and then the region, have when the sidecar ends.
	closeTimeout = 5 * time.Second
)

// ErrNotLoopback means that an address can be reached from other machines.
var ErrNotLoopback = errors.New("the address is not of the loopback interface")

// server answers checks.
type server struct {
	limiterv1connect.UnimplementedLimiterHandler
	limiter *client.Limiter
	// tenant is that of checks that name none; empty means the identity's.
	tenant string
}

// Handler serves Check, CheckBatch and CheckStream of mc.limiter.v1.Limiter, /healthz, /readyz and /metrics.
// Checks that name no tenant are of the given one or, if that is empty, of the identity's. Streams end when
// ends is done.
func Handler(ends context.Context, l *client.Limiter, tenant string) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{l})
	mux := http.NewServeMux()
	path, handler := limiterv1connect.NewLimiterHandler(&server{limiter: l, tenant: tenant},
		connect.WithReadMaxBytes(bodyBytesMax), connect.WithCodec(jsonCodec{"json"}), connect.WithCodec(jsonCodec{"json; charset=utf-8"}))
	mux.Handle(path, withReading(handler, ends))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := l.Stats(); !s.Connected {
			http.Error(w, "no node of the region lends: "+s.Failure, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Serve answers on the listeners until ctx is done, lets what is under way end, and closes the limiter,
// which gives back what it holds.
func Serve(ctx context.Context, l *client.Limiter, tenant string, listeners ...net.Listener) error {
	ends, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	srv := &http.Server{
		Handler: Handler(ends, l, tenant), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streamsMax},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan error, len(listeners))
	for _, ln := range listeners {
		go func() { ended <- srv.Serve(ln) }()
	}
	var failed error
	left := len(listeners)
	select {
	case <-ctx.Done():
	case failed = <-ended:
		left--
	}
	end()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if srv.Shutdown(limit) != nil {
		_ = srv.Close() // what is under way is cut off
	}
	for range left {
		<-ended
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	l.Close(back)
	if failed != nil {
		return fmt.Errorf("sidecar: serve: %w", failed)
	}
	return nil
}

// Listen listens on an address of the loopback interface: there is neither encryption nor an identity.
func Listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("sidecar: listen on %s: %w; use 127.0.0.1 or [::1], or a socket", address, ErrNotLoopback)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	return ln, nil
}

// ListenSocket listens on a Unix socket that its owner and group may use. One that nobody listens on
// any more is replaced.
func ListenSocket(path string) (net.Listener, error) {
	ln, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if conn, dialErr := net.Dial("unix", path); dialErr == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("sidecar: %w; another process serves it", err)
		} else if errors.Is(dialErr, syscall.ECONNREFUSED) && os.Remove(path) == nil {
			ln, err = net.Listen("unix", path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("sidecar: %w", err), ln.Close())
	}
	return ln, nil
}

// Check decides one check.
func (s *server) Check(ctx context.Context, r *connect.Request[limiterv1.CheckRequest]) (*connect.Response[limiterv1.CheckResponse], error) {
	d, err := s.limiter.Check(ctx, s.request(r.Msg))
	if err != nil {
		return nil, wire(err)
	}
	return connect.NewResponse(message(&d)), nil
}

// CheckBatch decides many checks.
func (s *server) CheckBatch(ctx context.Context, r *connect.Request[limiterv1.CheckBatchRequest]) (*connect.Response[limiterv1.CheckBatchResponse], error) {
	all := make([]client.Request, len(r.Msg.GetChecks()))
	for i, m := range r.Msg.GetChecks() {
		all[i] = s.request(m)
	}
	out, err := s.limiter.CheckBatch(ctx, all)
	if err != nil {
		return nil, wire(err)
	}
	res := &limiterv1.CheckBatchResponse{}
	for i := range out {
		result := &limiterv1.CheckResult{}
		if out[i].Err != nil {
			result.Error = detail(out[i].Err)
		} else {
			result.Decision = message(&out[i].Decision)
		}
		res.Results = append(res.Results, result)
	}
	return connect.NewResponse(res), nil
}

func (s *server) request(m *limiterv1.CheckRequest) client.Request {
	r := client.Request{Tenant: m.GetTenant(), Token: m.GetToken(), Key: m.GetKey(), Cost: m.GetCost(), RequestID: m.GetRequestId()}
	if r.Tenant == "" {
		r.Tenant = s.tenant
	}
	return r
}

func message(d *client.Decision) *limiterv1.CheckResponse {
	m := &limiterv1.CheckResponse{
		Allow: d.Allow, WouldDeny: d.WouldDeny, RetryAfterMs: d.RetryAfterMs, Reason: d.Reason, LimitId: d.LimitID, Kind: d.Kind,
		LimitsVersion: d.Version, Source: d.Source, Mode: d.Mode,
	}
	m.Levels = levelMessages(d.Levels)
	return m
}

func levelMessages(all []client.Level) (out []*limiterv1.Level) {
	for _, l := range all {
		out = append(out, &limiterv1.Level{
			LimitId: l.LimitID, Scope: l.Scope, Kind: l.Kind, Limit: l.Limit, Remaining: l.Remaining, Shadow: l.Shadow, WouldDeny: l.WouldDeny,
		})
	}
	return out
}

// detail is what callers may compare.
func detail(err error) *commonv1.ErrorDetail {
	var e *client.Error
	if !errors.As(err, &e) {
		return &commonv1.ErrorDetail{Reason: "internal"}
	}
	return &commonv1.ErrorDetail{Reason: e.Reason, Hint: e.Hint, Outcome: e.Outcome, RetryAfterMs: e.RetryAfterMs}
}

// wire is an error as the region would have sent it.
func wire(err error) error {
	code := connect.CodeInternal
	var e *client.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	out := connect.NewError(code, errors.New(err.Error()))
	if d, err := connect.NewErrorDetail(detail(err)); err == nil { // a generated message always marshals
		out.AddDetail(d)
	}
	return out
}
