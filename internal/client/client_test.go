package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
)

// fakeNode is a node's API with one rpc, behind real TLS.
type fakeNode struct {
	limiterv1connect.UnimplementedLimiterHandler
	name   string
	server *httptest.Server
	calls  atomic.Int32
	tokens atomic.Value
	answer atomic.Pointer[func(ctx context.Context) error]
}

func (n *fakeNode) Check(ctx context.Context, req *connect.Request[limiterv1.CheckRequest]) (*connect.Response[limiterv1.CheckResponse], error) {
	n.calls.Add(1)
	n.tokens.Store(req.Header().Get("Authorization"))
	if f := n.answer.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&limiterv1.CheckResponse{Allow: true, LimitId: n.name}), nil
}

func (n *fakeNode) answers(f func(ctx context.Context) error) { n.answer.Store(&f) }

type region struct {
	dir   string
	nodes []*fakeNode
}

func newRegion(t *testing.T, nodes int) *region {
	t.Helper()
	r := &region{dir: t.TempDir()}
	must(t, certs.CreateCA(r.dir))
	for i := range nodes {
		n := &fakeNode{name: fmt.Sprintf("node-%d", i+1)}
		must(t, certs.IssueNode(r.dir, n.name, []string{"127.0.0.1"}))
		p := certs.NodePaths(r.dir, n.name)
		cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		must(t, err)
		mux := http.NewServeMux()
		mux.Handle(limiterv1connect.NewLimiterHandler(n))
		n.server = httptest.NewUnstartedServer(mux)
		n.server.EnableHTTP2 = true
		n.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		n.server.StartTLS()
		t.Cleanup(n.server.Close)
		r.nodes = append(r.nodes, n)
	}
	return r
}

func (r *region) client(t *testing.T) *Client {
	t.Helper()
	o := Options{CAFile: certs.CAPath(r.dir), Token: "secret"}
	for _, n := range r.nodes {
		o.Endpoints = append(o.Endpoints, n.server.URL)
	}
	c, err := New(o)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func check(ctx context.Context, c *Client, r *limiterv1.CheckRequest) (string, *Error) {
	resp, err := c.Limiter().Check(ctx, connect.NewRequest(r))
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			panic(fmt.Sprintf("%T is not an *Error: %v", err, err))
		}
		return "", e
	}
	return resp.Msg.GetLimitId(), nil
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func regionError(code connect.Code, outcome string, retryAfterMs uint32) error {
	err := connect.NewError(code, errors.New("the region says no"))
	d, detailErr := connect.NewErrorDetail(&commonv1.ErrorDetail{Reason: "why_not", Hint: "do this", Outcome: outcome, RetryAfterMs: retryAfterMs})
	if detailErr != nil {
		panic(detailErr)
	}
	err.AddDetail(d)
	return err
}

func TestStaysWithTheEndpointThatAnswers(t *testing.T) {
	r := newRegion(t, 3)
	c := r.client(t)
	r.nodes[0].server.Close()
	for range 5 {
		if name, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{Cost: 1}); err != nil || name != "node-2" {
			t.Fatalf("answered by %q, %v", name, err)
		}
	}
	if c.Endpoint() != r.nodes[1].server.URL {
		t.Errorf("current endpoint %s", c.Endpoint())
	}
	if got := r.nodes[1].tokens.Load(); got != "Bearer secret" {
		t.Errorf("Authorization %q", got)
	}
}

func TestDefiniteUnavailableIsTriedElsewhereUntilItWorks(t *testing.T) {
	r := newRegion(t, 3)
	c := r.client(t)
	var refusals atomic.Int32
	for _, n := range r.nodes {
		n.answers(func(context.Context) error {
			if refusals.Add(1) <= 7 { // two rounds and one more
				return regionError(connect.CodeUnavailable, OutcomeDefinite, 0)
			}
			return nil
		})
	}
	name, err := check(within(t, 10*time.Second), c, &limiterv1.CheckRequest{Cost: 1})
	if err != nil || name != "node-2" {
		t.Errorf("answered by %q, %v after %d refusals", name, err, refusals.Load())
	}
}

func TestUnknownOutcomeIsRepeatedOnlyWhenHarmless(t *testing.T) {
	for _, tc := range []struct {
		name  string
		req   *limiterv1.CheckRequest
		calls int32
	}{
		{"a debit", &limiterv1.CheckRequest{Cost: 1}, 1},
		{"a debit with a request id", &limiterv1.CheckRequest{Cost: 1, RequestId: "r1"}, 2},
		{"a look without a debit", &limiterv1.CheckRequest{Cost: 0}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRegion(t, 2)
			c := r.client(t)
			r.nodes[0].answers(func(context.Context) error { return regionError(connect.CodeUnavailable, OutcomeUnknown, 0) })
			_, err := check(within(t, 5*time.Second), c, tc.req)
			if calls := r.nodes[0].calls.Load() + r.nodes[1].calls.Load(); calls != tc.calls {
				t.Errorf("%d calls, want %d", calls, tc.calls)
			}
			if tc.calls == 1 && (err == nil || err.Outcome != OutcomeUnknown) {
				t.Errorf("got %v, want an error with unknown outcome", err)
			}
		})
	}
}

func TestConnectionLostUnderACallIsUnknown(t *testing.T) {
	r := newRegion(t, 2)
	c := r.client(t)
	r.nodes[0].answers(func(context.Context) error { panic(http.ErrAbortHandler) })
	_, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{Cost: 1})
	if err == nil || err.Outcome != OutcomeUnknown || r.nodes[1].calls.Load() != 0 {
		t.Fatalf("got %+v, %d calls elsewhere", err, r.nodes[1].calls.Load())
	}
	if name, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{Cost: 1, RequestId: "r"}); err != nil || name != "node-2" {
		t.Errorf("with a request id: %q, %v", name, err)
	}
}

func TestErrorsCarryTheRegionsDetail(t *testing.T) {
	r := newRegion(t, 2)
	c := r.client(t)
	r.nodes[0].answers(func(context.Context) error { return regionError(connect.CodeInvalidArgument, OutcomeDefinite, 0) })
	_, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{})
	if err == nil || err.Code != connect.CodeInvalidArgument || err.Reason != "why_not" || err.Hint != "do this" ||
		err.Outcome != OutcomeDefinite || err.Error() != "the region says no" || err.Endpoint != r.nodes[0].server.URL {
		t.Errorf("got %+v", err)
	}
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Error("the Connect error underneath is hidden")
	}
	if r.nodes[1].calls.Load() != 0 {
		t.Error("a final answer was asked for again")
	}
}

func TestOverloadIsRetriedWhenTheRegionSaysWhen(t *testing.T) {
	r := newRegion(t, 1)
	c := r.client(t)
	var calls atomic.Int32
	r.nodes[0].answers(func(context.Context) error {
		if calls.Add(1) == 1 {
			return regionError(connect.CodeResourceExhausted, OutcomeDefinite, 10)
		}
		return nil
	})
	if _, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{Cost: 1}); err != nil {
		t.Errorf("got %v", err)
	}
	r.nodes[0].answers(func(context.Context) error { return regionError(connect.CodeResourceExhausted, OutcomeDefinite, 0) })
	if _, err := check(within(t, 5*time.Second), c, &limiterv1.CheckRequest{Cost: 1}); err == nil || err.Reason != "why_not" {
		t.Errorf("without advice: %v", err)
	}
}

func TestTheReasonSurvivesTheDeadline(t *testing.T) {
	r := newRegion(t, 2)
	c := r.client(t)
	r.nodes[0].server.Close()
	r.nodes[1].server.Close()
	_, err := check(within(t, 300*time.Millisecond), c, &limiterv1.CheckRequest{Cost: 1})
	if err == nil || err.Reason != ReasonUnreachable || err.Outcome != OutcomeDefinite || err.Hint == "" ||
		!strings.Contains(err.Message, "connection refused") {
		t.Errorf("got %+v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := check(ctx, c, &limiterv1.CheckRequest{}); err == nil || err.Reason != ReasonInterrupted {
		t.Errorf("cancelled: %+v", err)
	}
}

func TestASilentNodeIsLeft(t *testing.T) {
	r := newRegion(t, 1)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	c, err := New(Options{Endpoints: []string{"https://" + silent.Addr().String(), r.nodes[0].server.URL}, CAFile: certs.CAPath(r.dir)})
	must(t, err)
	t.Cleanup(c.Close)
	if name, err := check(within(t, 10*time.Second), c, &limiterv1.CheckRequest{Cost: 1}); err != nil || name != "node-1" {
		t.Errorf("answered by %q, %+v", name, err)
	}
}

func TestForeignCertificateIsRefusedAtOnce(t *testing.T) {
	r, other := newRegion(t, 1), newRegion(t, 1)
	c, err := New(Options{Endpoints: []string{r.nodes[0].server.URL}, CAFile: certs.CAPath(other.dir)})
	must(t, err)
	t.Cleanup(c.Close)
	_, e := check(within(t, 10*time.Second), c, &limiterv1.CheckRequest{Cost: 1})
	if e == nil || e.Reason != ReasonTLSUntrusted || e.Outcome != OutcomeDefinite || !strings.Contains(e.Hint, "--ca") {
		t.Errorf("got %+v", e)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	c, err = New(Options{Endpoints: []string{strings.Replace(plain.URL, "http:", "https:", 1)}})
	must(t, err)
	_, e = check(within(t, 10*time.Second), c, &limiterv1.CheckRequest{Cost: 1})
	if e == nil || !strings.Contains(e.Message, "does not speak TLS") {
		t.Errorf("plain HTTP: %+v", e)
	}
}

func TestOptions(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no endpoint", Options{}, "no endpoint"},
		{"plain HTTP", Options{Endpoints: []string{"http://a:1"}}, "write https://HOST:PORT"},
		{"no scheme", Options{Endpoints: []string{"localhost:7400"}}, "write https://HOST:PORT"},
		{"a path", Options{Endpoints: []string{"https://a/b"}}, "write https://HOST:PORT"},
		{"no CA file", Options{Endpoints: []string{"https://a"}, CAFile: "/nonexistent"}, "CA file"},
		{"empty CA file", Options{Endpoints: []string{"https://a"}, CAFile: empty}, "holds no PEM certificate"},
		{"half a certificate", Options{Endpoints: []string{"https://a"}, CertFile: empty}, "both"},
		{"broken certificate", Options{Endpoints: []string{"https://a"}, CertFile: empty, KeyFile: empty}, "client certificate"},
		{"token with a line break", Options{Endpoints: []string{"https://a"}, Token: "a\nb"}, "line break"},
	} {
		if _, err := New(tc.o); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}
