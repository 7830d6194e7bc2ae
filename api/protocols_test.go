package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpctls "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/limiter"
)

// protocolOptions are the ways that a Connect client can speak.
var protocolOptions = map[string][]connect.ClientOption{
	"connect":        nil,
	"connect json":   {connect.WithProtoJSON()},
	"connect gzip":   {connect.WithSendGzip()},
	"grpc":           {connect.WithGRPC()},
	"grpc json":      {connect.WithGRPC(), connect.WithProtoJSON()},
	"grpc gzip":      {connect.WithGRPC(), connect.WithSendGzip()},
	"grpc-web":       {connect.WithGRPCWeb()},
	"grpc-web json":  {connect.WithGRPCWeb(), connect.WithProtoJSON()},
	"grpc-web gzip":  {connect.WithGRPCWeb(), connect.WithSendGzip()},
	"grpc-web, both": {connect.WithGRPCWeb(), connect.WithProtoJSON(), connect.WithSendGzip()},
}

var deniedDecision = limiter.Decision{
	RetryAfterMs: 120, Reason: limiter.ReasonLimited, LimitID: "acme-api", Kind: limiter.KindTokenBucket, Version: 3,
	Levels: []limiter.Level{{LimitID: "acme-api", Scope: limiter.ScopeTenant, Kind: limiter.KindTokenBucket, Limit: 20}},
}

// TestCheckInEveryProtocol: the same request gets the same answer, and the same refusal.
func TestCheckInEveryProtocol(t *testing.T) {
	for name, options := range protocolOptions {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil)
			e.services.decision = deniedDecision
			client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url, options...)
			res, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{
				Token: "t", Key: strings.Repeat("k", 200), Cost: 2, RequestId: "r1",
			}))
			if err != nil {
				t.Fatal(err)
			}
			if m := res.Msg; m.GetAllow() || m.GetRetryAfterMs() != 120 || m.GetReason() != "limited" || m.GetLimitId() != "acme-api" ||
				m.GetLimitsVersion() != 3 || len(m.GetLevels()) != 1 || m.GetLevels()[0].GetLimit() != 20 {
				t.Errorf("answer %v", m)
			}
			want := limiter.Request{Tenant: "acme", Token: "t", Key: strings.Repeat("k", 200), Cost: 2, RequestID: "r1"}
			if got := e.services.checks[0]; got != want {
				t.Errorf("the limiter was asked %+v, want %+v", got, want)
			}
			_, err = client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "globex"}))
			wantReason(t, err, connect.CodePermissionDenied, "tenant_foreign")
		})
	}
}

// TestJSONOverHTTP1: simple clients may use HTTP/1.1, and JSON may name its charset.
func TestJSONOverHTTP1(t *testing.T) {
	e := newEnv(t, nil)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: e.ca.pool}, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodPost, e.url+limiterv1connect.LimiterCheckProcedure, strings.NewReader(`{"key":"runs"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; charset=UTF-8")
	r.Header.Set("Authorization", "bearer "+secretOf("acme", RoleRunner))
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if res.ProtoMajor != 1 || res.StatusCode != http.StatusOK || answer["allow"] != true {
		t.Errorf("HTTP/%d %d %v", res.ProtoMajor, res.StatusCode, answer)
	}
}

// TestJSONHasDefaults: a client that reads JSON without a schema sees every field.
func TestJSONHasDefaults(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decision = limiter.Decision{}
	res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, limiterv1connect.LimiterCheckProcedure, "application/json", []byte(`{}`))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	if allow, there := answer["allow"]; !there || allow != false {
		t.Errorf(`"allow": false is missing in %s`, body)
	}
	if levels, ok := answer["levels"].([]any); !ok || len(levels) != 0 {
		t.Errorf(`"levels": [] is missing in %s`, body)
	}
	if after, ok := answer["retryAfterMs"].(float64); !ok || after != 0 {
		t.Errorf(`"retryAfterMs": 0 is missing in %s`, body)
	}
}

func dialGRPC(t *testing.T, e *env) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(e.address, grpc.WithTransportCredentials(grpctls.NewTLS(&tls.Config{RootCAs: e.ca.pool})))
	if err != nil {
		t.Fatal(err)
	}
	e.onClose(func() { conn.Close() })
	return conn
}

// TestGRPCClient: grpc-go, which shares no code with Connect, gets answers and details.
func TestGRPCClient(t *testing.T) {
	e := newEnv(t, nil)
	conn := dialGRPC(t, e)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secretOf("acme", RoleRunner))
	var answer limiterv1.CheckResponse
	if err := conn.Invoke(ctx, limiterv1connect.LimiterCheckProcedure, &limiterv1.CheckRequest{Key: "runs"}, &answer); err != nil {
		t.Fatal(err)
	}
	if !answer.GetAllow() {
		t.Errorf("answer %v", &answer)
	}
	for _, c := range []struct {
		what   string
		ctx    context.Context
		method string
		tenant string
		code   codes.Code
		reason string
	}{
		{"no token", t.Context(), limiterv1connect.LimiterCheckProcedure, "", codes.Unauthenticated, "credentials_missing"},
		{"another tenant", ctx, limiterv1connect.LimiterCheckProcedure, "globex", codes.PermissionDenied, "tenant_foreign"},
		{"no such procedure", ctx, "/mc.limiter.v1.Limiter/Guess", "", codes.Unimplemented, "route_unknown"},
	} {
		err := conn.Invoke(c.ctx, c.method, &limiterv1.CheckRequest{Tenant: c.tenant}, &answer)
		st := status.Convert(err)
		if st.Code() != c.code || len(st.Details()) != 1 {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if d, ok := st.Details()[0].(*commonv1.ErrorDetail); !ok || d.GetReason() != c.reason {
			t.Errorf("%s: details %v", c.what, st.Details())
		}
	}
}

// TestHealth: probes need no token; a service that is off or not ready says so.
func TestHealth(t *testing.T) {
	e := newEnv(t, func(d *Deps) {
		d.Index = nil
		d.Serving = func(service string) bool { return service != "mc.cluster.v1.Tokens" }
	})
	client := grpc_health_v1.NewHealthClient(dialGRPC(t, e))
	for service, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"":                            grpc_health_v1.HealthCheckResponse_SERVING,
		"mc.limiter.v1.Limiter":       grpc_health_v1.HealthCheckResponse_SERVING,
		"mc.provenance.v1.Provenance": grpc_health_v1.HealthCheckResponse_NOT_SERVING,
		"mc.cluster.v1.Tokens":        grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		res, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || res.GetStatus() != want {
			t.Errorf("%q: %v %v, want %v", service, res.GetStatus(), err, want)
		}
	}
	_, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "mc.weather.v1.Weather"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
}

func reflectionStream(t *testing.T, e *env, secret string, options ...connect.ClientOption) *grpcreflect.ClientStream {
	stream := grpcreflect.NewClient(e.client(secret), e.url, append(options, connect.WithGRPC())...).NewStream(t.Context())
	e.onClose(func() { _, _ = stream.Close() })
	return stream
}

// TestReflection: grpcurl finds the procedures, given a token.
func TestReflection(t *testing.T) {
	e := newEnv(t, nil)
	stream := reflectionStream(t, e, secretOf("acme", RoleReader))
	names, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != len(services) {
		t.Errorf("services %v, want %v", names, services)
	}
	files, err := stream.FileContainingSymbol("mc.limiter.v1.Limiter")
	if err != nil || len(files) == 0 {
		t.Errorf("files %v, error %v", files, err)
	}
}

// reflectionReason asks one version of the reflection service, and returns the reason that it
// refuses with.
func reflectionReason(t *testing.T, e *env, procedure, secret string) string {
	t.Helper()
	stream, err := dialGRPC(t, e).NewStream(metadata.AppendToOutgoingContext(t.Context(), authorizationOf(secret)...),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, procedure)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	var answer limiterv1.CheckResponse // nothing was asked: the stream ends without an answer
	err = stream.RecvMsg(&answer)
	for _, d := range status.Convert(err).Details() {
		return d.(*commonv1.ErrorDetail).GetReason()
	}
	return ""
}

func authorizationOf(secret string) []string {
	if secret == "" {
		return nil
	}
	return []string{"authorization", "Bearer " + secret}
}

// TestPlainHTTP: a client that forgot TLS is told so.
func TestPlainHTTP(t *testing.T) {
	e := newEnv(t, nil)
	res, err := http.Get("http://" + e.address + "/api/provenance/search")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", res.StatusCode)
	}
}

// TestForeignCertificate: a client certificate of another CA does not get past the handshake.
func TestForeignCertificate(t *testing.T) {
	e := newEnv(t, nil)
	config := newAuthority(t).clientConfig(t, certs.AdminURI)
	config.RootCAs = e.ca.pool
	if _, err := e.clientWith(config, "").Get(e.url + "/api/provenance/search"); err == nil {
		t.Error("the handshake admitted a certificate of another CA")
	}
}

// TestDeadlines: the server sets one when the client does not, and keeps the client's when
// it is shorter.
func TestDeadlines(t *testing.T) {
	e := newEnv(t, nil)
	var left time.Duration
	e.services.checking = func(ctx context.Context) {
		at, ok := ctx.Deadline()
		if !ok {
			t.Error("a check without a deadline")
		}
		left = time.Until(at)
	}
	for name, options := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}} {
		client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url, options...)
		for _, c := range []struct{ asked, most time.Duration }{
			{0, DeadlineCheck},
			{10 * time.Second, 10 * time.Second},
			{20 * time.Second, 20 * time.Second},
			{time.Hour, MaxDeadline},
		} {
			ctx := t.Context()
			if c.asked > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.asked)
				defer cancel()
			}
			if _, err := client.Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{})); err != nil {
				t.Fatal(err)
			}
			if left > c.most || left < c.most/2 {
				t.Errorf("%s: asked for %v, the handler has %v", name, c.asked, left)
			}
		}
	}
}

// TestWriteThatTimesOut: its outcome is unknown, and the client is told.
func TestWriteThatTimesOut(t *testing.T) {
	e := newEnv(t, nil)
	e.services.checking = func(ctx context.Context) { <-ctx.Done() }
	e.services.err = context.DeadlineExceeded
	// The header is the deadline, not the context: the client waits for the server's answer.
	res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, limiterv1connect.LimiterCheckProcedure, "application/json",
		[]byte(`{}`), "Connect-Timeout-Ms", "20")
	if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(body), `"outcome":"unknown"`) &&
		!strings.Contains(string(body), `"outcome": "unknown"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestDrain: requests under way get their answers, streams end, new connections are refused.
func TestDrain(t *testing.T) {
	e := newEnv(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	e.services.checking = func(context.Context) { close(entered); <-release }
	client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url)
	answered := make(chan error, 1)
	go func() {
		_, err := client.Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{}))
		answered <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { e.stop(); close(stopped) }()
	waitRefused(t, e.address)
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	<-stopped
}

// waitRefused returns once nobody listens at address.
func waitRefused(t *testing.T, address string) {
	t.Helper()
	for t.Context().Err() == nil {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		var failed *net.OpError
		if errors.As(err, &failed) {
			return
		}
		conn.Close()
	}
}

// Each check of a batch has its own answer: a decision, or what went wrong with it alone.
func TestCheckBatch(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decision = deniedDecision
	client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url)
	res, err := client.CheckBatch(t.Context(), connect.NewRequest(&limiterv1.CheckBatchRequest{
		Checks: []*limiterv1.CheckRequest{{Cost: 1}, {Cost: 1, Key: "lost"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	first, second := res.Msg.GetResults()[0], res.Msg.GetResults()[1]
	if first.GetDecision().GetReason() != limiter.ReasonLimited || first.GetDecision().GetKind() != limiter.KindTokenBucket || first.GetError() != nil {
		t.Errorf("the first: %v", first)
	}
	if second.GetDecision() != nil || second.GetError().GetOutcome() != "unknown" {
		t.Errorf("the second: %v", second)
	}
	for what, checks := range map[string][]*limiterv1.CheckRequest{
		"tenant_foreign":  {{}, {Tenant: "globex"}},
		"field_too_long":  {{}, {Key: strings.Repeat("k", MaxKeyBytes+1)}},
		"batch_too_large": make([]*limiterv1.CheckRequest, MaxBatchChecks+1),
	} {
		asked := len(e.services.checks)
		for i := range checks {
			if checks[i] == nil {
				checks[i] = &limiterv1.CheckRequest{}
			}
		}
		_, err := client.CheckBatch(t.Context(), connect.NewRequest(&limiterv1.CheckBatchRequest{Checks: checks}))
		if got := detailOf(t, err).GetReason(); got != what || len(e.services.checks) != asked {
			t.Errorf("reason %s, want %s, with nothing asked", got, what)
		}
	}
}

// Usage tells what is used of each level; a peek is the answer of a check.
func TestUsageAndPeek(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decision = limiter.Decision{Allow: true, Version: 3, Levels: []limiter.Level{{
		LimitID: "w", Scope: limiter.ScopeTenant, Kind: limiter.KindWindow, Limit: 5, Used: 7, ResetMs: 9, Shadow: true, WouldDeny: true,
	}}}
	client := limiterv1connect.NewLimiterClient(e.client(secretOf("acme", RoleRunner)), e.url)
	usage, err := client.Usage(t.Context(), connect.NewRequest(&limiterv1.UsageRequest{Token: "t"}))
	if err != nil {
		t.Fatal(err)
	}
	if u := usage.Msg.GetLevels()[0]; u.GetUsed() != 7 || u.GetResetMs() != 9 || u.GetLevel().GetKind() != limiter.KindWindow || !u.GetLevel().GetShadow() {
		t.Errorf("usage %v", u)
	}
	peek, err := client.Peek(t.Context(), connect.NewRequest(&limiterv1.PeekRequest{Cost: 3}))
	if err != nil || !peek.Msg.GetDecision().GetAllow() || !peek.Msg.GetDecision().GetWouldDeny() {
		t.Errorf("peek %v, %v", peek, err)
	}
	want := []limiter.Request{{Tenant: "acme", Token: "t"}, {Tenant: "acme", Cost: 3}}
	if got := e.services.checks; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("the limiter was asked %v, want %v", got, want)
	}
}
