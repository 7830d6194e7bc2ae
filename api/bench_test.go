package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

// instantChecker answers at once, so that what is measured is the API.
type instantChecker struct{ Checker }

func (instantChecker) Check(context.Context, limiter.Request) (limiter.Decision, error) {
	return limiter.Decision{Allow: true}, nil
}

func benchHandler() http.Handler {
	services := newServices()
	return NewHandler(Deps{
		Authenticator: services, Checker: instantChecker{}, Metrics: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler),
	})
}

// noOpHandler is Check on Connect alone: no identity, no limits on anything, no metrics.
func noOpHandler() http.Handler {
	return connect.NewUnaryHandler(checkPath, func(context.Context, *connect.Request[limiterv1.CheckRequest]) (*connect.Response[limiterv1.CheckResponse], error) {
		return connect.NewResponse(&limiterv1.CheckResponse{Allow: true}), nil
	}, connect.WithCompressMinBytes(1<<10))
}

func benchServe(b *testing.B, handler http.Handler) {
	ca := newAuthority(b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, ca.serverConfig(b), handler, slog.New(slog.DiscardHandler)) }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, ForceAttemptHTTP2: true}
	defer func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
	}()
	client := limiterv1connect.NewLimiterClient(
		&http.Client{Transport: bearerTransport{transport, secretOf("acme", RoleRunner)}}, "https://"+ln.Addr().String())
	request := &limiterv1.CheckRequest{Token: "t", Key: "runs", Cost: 1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Check(ctx, connect.NewRequest(request)); err != nil {
			b.Fatal(err)
		}
	}
}

// The two below are one client over TLS and HTTP/2; their difference is what the steps of
// the API cost.
func BenchmarkCheckOverConnect(b *testing.B) { benchServe(b, benchHandler()) }
func BenchmarkNoOpOverConnect(b *testing.B)  { benchServe(b, noOpHandler()) }

// nullWriter is a response that nobody reads.
type nullWriter struct{ header http.Header }

func (w nullWriter) Header() http.Header         { return w.header }
func (w nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w nullWriter) WriteHeader(int)             {}

func benchDirect(b *testing.B, handler http.Handler) {
	body := []byte(`{"token":"t","key":"runs","cost":1}`)
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + secretOf("acme", RoleRunner)}}
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequest(http.MethodPost, checkPath, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		r.Header = header
		handler.ServeHTTP(nullWriter{http.Header{}}, r)
	}
}

// The two below leave the network out.
func BenchmarkCheckHandler(b *testing.B) { benchDirect(b, benchHandler()) }
func BenchmarkNoOpHandler(b *testing.B)  { benchDirect(b, noOpHandler()) }
