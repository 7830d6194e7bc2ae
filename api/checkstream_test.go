package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

type checkStreamClient = connect.BidiStreamForClient[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse]

func (e *env) checkStream(t testing.TB, secret string, options ...connect.ClientOption) *checkStreamClient {
	stream := limiterv1connect.NewLimiterClient(e.client(secret), e.url, options...).CheckStream(t.Context())
	e.onClose(func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() })
	return stream
}

// ask sends one message and takes its answer.
func ask(t testing.TB, stream *checkStreamClient, m *limiterv1.CheckStreamRequest) *limiterv1.CheckStreamResponse {
	t.Helper()
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// mixedColumns are checks of two tenants, of which the fake denies what is called "no", fails
// what is called "lost", and allows the rest.
var mixedColumns = &limiterv1.CheckStreamRequest{
	Checks: 5, Tenants: []string{"acme", ""}, TenantAt: []uint32{0, 1, 0, 0, 1}, Tokens: []string{"ana"},
	Keys: "gönolostno", KeyBytes: []uint32{3, 0, 2, 4, 2}, Costs: []uint32{1, 2, 3, 4, 5},
}

var mixedRequests = []limiter.Request{
	{Tenant: "acme", Token: "ana", Key: "gö", Cost: 1, Brief: true},
	{Tenant: "acme", Token: "ana", Cost: 2, Brief: true},
	{Tenant: "acme", Token: "ana", Key: "no", Cost: 3, Brief: true},
	{Tenant: "acme", Token: "ana", Key: "lost", Cost: 4, Brief: true},
	{Tenant: "acme", Token: "ana", Key: "no", Cost: 5, Brief: true},
}

// TestCheckStream: every check reaches the limiter as it was sent, and its answer is found in the
// columns, in every protocol.
func TestCheckStream(t *testing.T) {
	for name, options := range protocolOptions {
		if strings.HasPrefix(name, "grpc-web") && strings.Contains(name, "both") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil)
			e.services.decide = func(r limiter.Request) limiter.Decision {
				d := deniedDecision
				d.Allow = r.Key != "no"
				return d
			}
			stream := e.checkStream(t, secretOf("acme", RoleRunner), options...)
			answer := ask(t, stream, mixedColumns)
			if got := e.services.checks; !slices.Equal(got, mixedRequests) {
				t.Errorf("the limiter was asked\n%+v, want\n%+v", got, mixedRequests)
			}
			if answer.GetChecks() != 5 || !slices.Equal(answer.GetAllowed(), []byte{0b00011}) || !slices.Equal(answer.GetRetryAfterMs(), []uint32{120, 120}) ||
				len(answer.GetDenials()) != 1 || answer.GetDenials()[0].GetLimitId() != "acme-api" || answer.GetDenialAt() != nil ||
				answer.GetLimitsVersion() != 3 || answer.GetLevels() != nil || answer.GetRefused() != nil {
				t.Errorf("answer %v", answer)
			}
			if f := answer.GetFailed(); len(f) != 1 || f[0].GetCheck() != 3 || f[0].GetError().GetOutcome() != "unknown" || f[0].GetError().GetReason() != "lost" {
				t.Errorf("failed %v", f)
			}
			if err := stream.CloseRequest(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// TestCheckStreamGRPC: a client that shares no code with Connect streams checks.
func TestCheckStreamGRPC(t *testing.T) {
	e := newEnv(t, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), authorizationOf(secretOf("acme", RoleRunner))...)
	stream, err := dialGRPC(t, e).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, limiterv1connect.LimiterCheckStreamProcedure)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := stream.SendMsg(&limiterv1.CheckStreamRequest{Checks: uint32(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		var answer limiterv1.CheckStreamResponse
		if err := stream.RecvMsg(&answer); err != nil || answer.GetChecks() != uint32(n) {
			t.Errorf("answer %d: %v, %v", n, &answer, err)
		}
	}
}

// TestCheckStreamDetails: different denials are told apart, shadows are listed, and levels come
// when they are asked for.
func TestCheckStreamDetails(t *testing.T) {
	e := newEnv(t, nil)
	level := limiter.Level{LimitID: "w", Scope: limiter.ScopeKey, Kind: limiter.KindWindow, Limit: 9, Remaining: 4}
	shadow := level
	shadow.Shadow, shadow.WouldDeny = true, true
	e.services.decide = func(r limiter.Request) limiter.Decision {
		switch r.Key {
		case "a", "b":
			return limiter.Decision{RetryAfterMs: r.Cost, Reason: limiter.ReasonLimited, LimitID: r.Key, Kind: limiter.KindWindow, Version: 8}
		case "s":
			return limiter.Decision{Allow: true, Levels: []limiter.Level{level, shadow}, Version: 7}
		}
		return limiter.Decision{Allow: true, Levels: []limiter.Level{level}, Version: 9}
	}
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	m := &limiterv1.CheckStreamRequest{
		Checks: 6, Keys: "abcsba", KeyBytes: []uint32{1, 1, 1, 1, 1, 1}, Costs: []uint32{1, 2, 3, 4, 5, 6}, Levels: true,
	}
	answer := ask(t, stream, m)
	var denials []string
	for i, at := range answer.GetDenialAt() {
		denials = append(denials, fmt.Sprint(answer.GetDenials()[at].GetLimitId(), " ", answer.GetRetryAfterMs()[i]))
	}
	if want := []string{"a 1", "b 2", "b 5", "a 6"}; !slices.Equal(denials, want) {
		t.Errorf("denials %q, want %q", denials, want)
	}
	if !slices.Equal(answer.GetWouldDeny(), []uint32{3}) || answer.GetLimitsVersion() != 7 || !slices.Equal(answer.GetAllowed(), []byte{0b001100}) {
		t.Errorf("answer %v", answer)
	}
	var levels []int
	for _, l := range answer.GetLevels() {
		levels = append(levels, len(l.GetLevels()))
	}
	if !slices.Equal(levels, []int{0, 0, 1, 2, 0, 0}) || answer.GetLevels()[3].GetLevels()[1].GetWouldDeny() != true {
		t.Errorf("levels %v of %v", levels, answer)
	}
	// The buffers of a message hold nothing of the one before.
	m.Levels, m.Keys = false, "cccccc"
	if answer := ask(t, stream, m); len(answer.GetDenials())+len(answer.GetLevels())+len(answer.GetWouldDeny()) != 0 || answer.GetAllowed()[0] != 0b111111 {
		t.Errorf("the next answer %v", answer)
	}
}

// TestCheckStreamRefusesMessages: a message that is not valid is refused whole and says where; the
// stream goes on.
func TestCheckStreamRefusesMessages(t *testing.T) {
	e := newEnv(t, nil)
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	for _, c := range []struct {
		what, reason, says string
		m                  *limiterv1.CheckStreamRequest
	}{
		{"too many", "batch_too_large", "1001", &limiterv1.CheckStreamRequest{Checks: MaxBatchChecks + 1}},
		{"4 billion", "batch_too_large", "4294967295", &limiterv1.CheckStreamRequest{Checks: 1<<32 - 1}},
		{"another tenant", "tenant_foreign", "tenants[1]", &limiterv1.CheckStreamRequest{Checks: 2, Tenants: []string{"acme", "globex"}, TenantAt: []uint32{0, 0}}},
		{"no tenant's name", "tenant_malformed", "UPPER", &limiterv1.CheckStreamRequest{Checks: 1, Tenants: []string{"UPPER"}}},
		{"more tenants than checks", "batch_too_large", "tenants", &limiterv1.CheckStreamRequest{Checks: 1, Tenants: []string{"acme", "acme"}}},
		{"short column", "field_malformed", "costs", &limiterv1.CheckStreamRequest{Checks: 2, Costs: []uint32{1}}},
		{"long column", "field_malformed", "tenant_at", &limiterv1.CheckStreamRequest{Checks: 1, TenantAt: []uint32{0, 0}}},
		{"column without checks", "field_malformed", "token_at", &limiterv1.CheckStreamRequest{TokenAt: []uint32{0}}},
		{"no such tenant", "field_malformed", "tenant 1 of 1", &limiterv1.CheckStreamRequest{Checks: 1, TenantAt: []uint32{1}}},
		{"no such token", "field_malformed", "token 4294967295 of 1", &limiterv1.CheckStreamRequest{Checks: 1, Tokens: []string{"t"}, TokenAt: []uint32{1<<32 - 1}}},
		{"long token", "field_too_long", "tokens[0]", &limiterv1.CheckStreamRequest{Checks: 1, Tokens: []string{strings.Repeat("t", MaxTokenBytes+1)}}},
		{"long key", "field_too_long", "key of check 0", &limiterv1.CheckStreamRequest{Checks: 1, Keys: strings.Repeat("k", MaxKeyBytes+1), KeyBytes: []uint32{MaxKeyBytes + 1}}},
		{"keys too short", "field_malformed", "key_bytes[1]", &limiterv1.CheckStreamRequest{Checks: 2, Keys: "abc", KeyBytes: []uint32{2, 2}}},
		{"keys too long", "field_malformed", "1 bytes more", &limiterv1.CheckStreamRequest{Checks: 1, Keys: "abc", KeyBytes: []uint32{2}}},
		{"keys without lengths", "field_malformed", "3 bytes more", &limiterv1.CheckStreamRequest{Checks: 1, Keys: "abc"}},
		{"a cut character", "field_malformed", "key_bytes[0]", &limiterv1.CheckStreamRequest{Checks: 2, Keys: "ö", KeyBytes: []uint32{1, 1}}},
	} {
		answer := ask(t, stream, c.m)
		r := answer.GetRefused()
		if r.GetError().GetReason() != c.reason || !strings.Contains(r.GetMessage(), c.says) || r.GetError().GetOutcome() != "definite" || answer.GetChecks() != 0 {
			t.Errorf("%s: %v, want %s with %q", c.what, answer, c.reason, c.says)
		}
	}
	if len(e.services.checks) != 0 {
		t.Errorf("the limiter was asked %v", e.services.checks)
	}
	if answer := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1}); answer.GetAllowed()[0] != 1 {
		t.Errorf("a good message: %v", answer)
	}
}

// TestCheckStreamIsPipelined: messages are decided at the same time, up to the bound, and answered in
// their order whichever is decided first.
func TestCheckStreamIsPipelined(t *testing.T) {
	e := newEnv(t, nil)
	entered, release := make(chan struct{}, 2*MaxStreamMessages), make(chan struct{})
	e.services.checking = func(context.Context) { entered <- struct{}{}; <-release }
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	const messages = MaxStreamMessages + 5
	go func() {
		for n := range messages {
			_ = stream.Send(&limiterv1.CheckStreamRequest{Checks: 1, Costs: []uint32{uint32(n)}, Levels: true}) // Receive tells
		}
	}()
	for range MaxStreamMessages {
		<-entered
	}
	select {
	case <-entered:
		t.Errorf("more than %d messages are decided at the same time", MaxStreamMessages)
	default:
	}
	e.services.mu.Lock()
	e.services.decide = func(r limiter.Request) limiter.Decision {
		return limiter.Decision{Allow: true, Levels: []limiter.Level{{Remaining: r.Cost}}}
	}
	e.services.mu.Unlock()
	close(release)
	for n := range messages {
		answer, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.GetLevels()[0].GetLevels()[0].GetRemaining(); got != uint32(n) {
			t.Errorf("answer %d is that of message %d", n, got)
		}
	}
}

// TestCheckStreamTimeout: a message has the time that it asks for; what is not decided by then is
// unknown, and the stream goes on.
func TestCheckStreamTimeout(t *testing.T) {
	e := newEnv(t, nil)
	e.services.checking = func(ctx context.Context) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a check without a deadline")
		}
		<-ctx.Done()
	}
	e.services.err = context.DeadlineExceeded
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	for range 2 {
		answer := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1, TimeoutMs: 1})
		if f := answer.GetFailed(); len(f) != 1 || f[0].GetError().GetReason() != "deadline_exceeded" || f[0].GetError().GetOutcome() != "unknown" {
			t.Errorf("answer %v", answer)
		}
	}
}

// TestCheckStreamSharesTheBatchesRoom: a message that finds no room is refused by name, with the
// time to retry; the stream goes on.
func TestCheckStreamSharesTheBatchesRoom(t *testing.T) {
	e := newEnv(t, nil)
	gate := e.handler.gates[classBatch]
	for range gate.mostOne {
		if f := gate.enter("acme"); f != nil {
			t.Fatal(f)
		}
	}
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	if r := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1}).GetRefused(); r.GetError().GetReason() != "tenant_overloaded" || r.GetError().GetRetryAfterMs() == 0 {
		t.Errorf("refused %v", r)
	}
	gate.leave("acme")
	if answer := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1}); answer.GetAllowed()[0] != 1 {
		t.Errorf("answer %v", answer)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	e.stop()
	for _, class := range []class{classBatch, classCheckStream} {
		if g := e.handler.gates[class]; g.inside.bytes != 0 || len(g.byTenant) != 0 && class == classCheckStream {
			t.Errorf("%s: %+v is left of what is over", g.name, g.inside)
		}
	}
}

// TestCheckStreamAnswersFindRoom: an answer with levels has room before its checks are decided, one of a
// stream at a time, so that clients that do not read cannot fill the node; without room nothing is decided.
func TestCheckStreamAnswersFindRoom(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decide = func(limiter.Request) limiter.Decision {
		return limiter.Decision{Allow: true, Levels: make([]limiter.Level, 2*levelsUsual)}
	}
	gate := e.handler.gates[classCheckAnswer]
	const checks, messages = 100, 12
	gate.mu.Lock()
	gate.mostOneBytes = answerRoom(checks, true)
	gate.mu.Unlock()
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	m := &limiterv1.CheckStreamRequest{Checks: checks, Levels: true}
	for range messages {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for n := range messages {
		answer, err := stream.Receive()
		if err != nil || len(answer.GetLevels()) != checks || len(answer.GetLevels()[0].GetLevels()) != 2*levelsUsual {
			t.Fatalf("answer %d: %v, %v", n, answer, err)
		}
	}
	if got := len(e.services.checks); got != messages*checks {
		t.Errorf("%d checks were decided, want %d", got, messages*checks)
	}

	// Somebody does not read.
	other := &underway{}
	for other.hold(gate, "acme", answerRoom(checks, true)/2) != nil {
		runtime.Gosched() // the last answer's room is free after it was sent
	}
	if r := ask(t, stream, m).GetRefused().GetError(); r.GetReason() != "tenant_overloaded" || r.GetOutcome() != "definite" || r.GetRetryAfterMs() == 0 {
		t.Errorf("refused %v", r)
	}
	if answer := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: checks}); answer.GetRefused() != nil {
		t.Errorf("without levels: %v", answer)
	}
	if got := len(e.services.checks); got != (messages+1)*checks {
		t.Errorf("%d checks were decided, want %d", got, (messages+1)*checks)
	}
	other.free()
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	e.stop()
	if gate.inside != (share{}) {
		t.Errorf("%+v is left of what is over", gate.inside)
	}
}

// TestCheckStreamEnds: a token that is revoked, a message that cannot be read or is too large end
// the stream by name, after the answers to what came before.
func TestCheckStreamEnds(t *testing.T) {
	for _, c := range []struct {
		what   string
		before func(*env)
		m      *limiterv1.CheckStreamRequest
		code   connect.Code
		reason string
	}{
		{"revoked", func(e *env) { e.services.breakToken(secretOf("acme", RoleRunner), ErrTokenRevoked) }, &limiterv1.CheckStreamRequest{Checks: 1}, connect.CodeUnauthenticated, "token_revoked"},
		{"large", nil, &limiterv1.CheckStreamRequest{Keys: strings.Repeat("k", classLimits[classCheckStream].body+1)}, connect.CodeResourceExhausted, "body_too_large"},
	} {
		t.Run(c.what, func(t *testing.T) {
			e := newEnv(t, nil)
			release := make(chan struct{})
			e.services.checking = func(context.Context) { <-release }
			stream := e.checkStream(t, secretOf("acme", RoleRunner))
			if err := stream.Send(&limiterv1.CheckStreamRequest{Checks: 1}); err != nil {
				t.Fatal(err)
			}
			close(release)
			if _, err := stream.Receive(); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				c.before(e)
			}
			_ = stream.Send(c.m) // Receive tells why it failed
			_, err := stream.Receive()
			wantReason(t, err, c.code, c.reason)
		})
	}
}

// TestCheckStreamPanics: what goes wrong inside fails one message with an id for the log, and no
// other.
func TestCheckStreamPanics(t *testing.T) {
	e := newEnv(t, nil)
	e.services.decide = func(r limiter.Request) limiter.Decision {
		if r.Key == "bad" {
			panic("a secret thing")
		}
		return limiter.Decision{Allow: true}
	}
	stream := e.checkStream(t, secretOf("acme", RoleRunner))
	r := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1, Keys: "bad", KeyBytes: []uint32{3}}).GetRefused()
	if r.GetError().GetReason() != "internal" || r.GetError().GetOutcome() != "unknown" || strings.Contains(r.GetMessage(), "secret") || !strings.Contains(e.log.String(), "a secret thing") {
		t.Errorf("refused %v", r)
	}
	if answer := ask(t, stream, &limiterv1.CheckStreamRequest{Checks: 1}); answer.GetAllowed()[0] != 1 {
		t.Errorf("answer %v", answer)
	}
}

// TestCheckStreamDrains: a node that stops answers what it has read and then ends the stream.
func TestCheckStreamDrains(t *testing.T) {
	e := newEnv(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	e.services.checking = func(context.Context) { close(entered); <-release }
	stream := e.checkStream(t, secretOf("acme", RoleRunner), connect.WithGRPC())
	if err := stream.Send(&limiterv1.CheckStreamRequest{Checks: 1}); err != nil {
		t.Fatal(err)
	}
	<-entered
	stopped := make(chan struct{})
	go func() {
		e.stop()
		close(stopped)
	}()
	waitRefused(t, e.address)
	close(release)
	if answer, err := stream.Receive(); err != nil || answer.GetAllowed()[0] != 1 {
		t.Fatalf("answer %v, %v", answer, err)
	}
	_, err := stream.Receive()
	wantReason(t, err, connect.CodeUnavailable, "shutting_down")
	<-stopped
}

// FuzzCheckColumns: whatever the columns, reading them ends, and gives requests within their bounds
// or a fault that says why.
func FuzzCheckColumns(f *testing.F) {
	f.Add(uint32(2), "acme", "t", "gö", []byte{0, 0}, []byte{0, 0}, []byte{1, 2}, []byte{1, 1})
	f.Add(uint32(1), "", "", "k", []byte(nil), []byte(nil), []byte{2}, []byte(nil))
	f.Add(uint32(1<<31), "UPPER", "", "", []byte{255}, []byte{1}, []byte(nil), []byte{9})
	f.Fuzz(func(t *testing.T, n uint32, tenant, token, keys string, tenantAt, tokenAt, keyBytes, costs []byte) {
		widen := func(b []byte) (out []uint32) {
			for _, v := range b {
				out = append(out, uint32(v))
			}
			return out
		}
		var b checkBuffer
		fault := b.read(Principal{Tenant: "acme", Role: RoleRunner}, &limiterv1.CheckStreamRequest{
			Checks: n, Tenants: []string{tenant}, TenantAt: widen(tenantAt), Tokens: []string{token}, TokenAt: widen(tokenAt),
			Keys: keys, KeyBytes: widen(keyBytes), Costs: widen(costs),
		})
		if fault != nil {
			if fault.code == 0 || fault.message == "" {
				t.Fatal("a fault without a code or message")
			}
			return
		}
		all := ""
		for _, r := range b.requests {
			if r.Tenant != "acme" || r.Token != token || len(r.Key) > MaxKeyBytes {
				t.Fatalf("request %+v", r)
			}
			all += r.Key
		}
		if len(b.requests) != int(n) || len(b.outcomes) != int(n) || all != keys {
			t.Fatalf("%d requests with the keys %q", len(b.requests), all)
		}
	})
}
