package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter/client"
)

// serve runs a sidecar without a region, which lets everything pass by its own word, on a loopback address and a
// socket.
func serve(t *testing.T) (address, socket string, stop func()) {
	t.Helper()
	l, err := client.NewLimiter(client.LimiterOptions{
		Options: client.Options{Endpoints: []string{"https://127.0.0.1:1"}, Token: "t"}, OnFailure: client.FailOpen,
	})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	unix, err := ListenSocket(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, "acme", tcp, unix) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return tcp.Addr().String(), socket, stop
}

// The Go client asks a sidecar over both ways as it asks nodes, with many calls at the same time.
func TestStreamsOverLoopbackAndSocket(t *testing.T) {
	address, socket, _ := serve(t)
	for _, at := range []string{address, socket} {
		s, err := client.OpenLocal(at)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				answers, err := s.Checks(t.Context(), []client.Request{{Key: "a", Cost: 1}, {Tenant: "other", Token: "ü", Key: "é", Cost: 7}, {Cost: 1}})
				if err != nil || len(answers) != 3 {
					t.Errorf("%d answers, %v", len(answers), err)
				}
				for _, a := range answers {
					if !a.Allow || !a.OnFailure || a.Err != nil {
						t.Errorf("%+v", a)
					}
				}
			})
		}
		all.Wait()
		s.Close()
	}
	for _, address := range []string{"192.0.2.1:7480", "example.com:1", "socket", ""} {
		if _, err := client.OpenLocal(address); err == nil {
			t.Errorf("%q is taken for local", address)
		}
	}
}

// open begins a stream as a generated client does.
func open(t *testing.T, address string) *connect.BidiStreamForClient[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse] {
	t.Helper()
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2c.CloseIdleConnections)
	stream := limiterv1connect.NewLimiterClient(&http.Client{Transport: h2c}, "http://"+address).CheckStream(context.Background())
	t.Cleanup(func() { _, _ = stream.CloseRequest(), stream.CloseResponse() })
	return stream
}

// What is wrong with a message is said in its answer, as nodes say it, and the stream goes on.
func TestStreamRefusesMessages(t *testing.T) {
	address, _, _ := serve(t)
	stream := open(t, address)
	for _, c := range []struct {
		m      *limiterv1.CheckStreamRequest
		reason string
		words  string
	}{
		{&limiterv1.CheckStreamRequest{Checks: client.MaxChecks + 1}, "batch_too_large", "1001"},
		{&limiterv1.CheckStreamRequest{Checks: 2, Costs: []uint32{1}}, "field_malformed", "costs has 1 entries for 2"},
		{&limiterv1.CheckStreamRequest{Checks: 1, TenantAt: []uint32{1}, Tenants: []string{"a"}}, "field_malformed", "does not have"},
		{&limiterv1.CheckStreamRequest{Checks: 1, TokenAt: []uint32{1}}, "field_malformed", "does not have"},
		{&limiterv1.CheckStreamRequest{Checks: 1, Keys: "é", KeyBytes: []uint32{1}}, "field_malformed", "character"},
		{&limiterv1.CheckStreamRequest{Checks: 1, Keys: "ab", KeyBytes: []uint32{3}}, "field_malformed", "character"},
		{&limiterv1.CheckStreamRequest{Checks: 1, Keys: "ab", KeyBytes: []uint32{1}}, "field_malformed", "more than key_bytes"},
		{&limiterv1.CheckStreamRequest{Checks: 1, Keys: "ab"}, "field_malformed", "more than key_bytes"},
		{&limiterv1.CheckStreamRequest{}, "", ""},
		{&limiterv1.CheckStreamRequest{Checks: 1, TimeoutMs: 1 << 31, Levels: true}, "", ""},
	} {
		if err := stream.Send(c.m); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetRefused().GetError().GetReason() != c.reason || !strings.Contains(got.GetRefused().GetMessage(), c.words) ||
			c.reason == "" && (got.GetChecks() != c.m.GetChecks() || len(got.GetOnFailure()) != int(c.m.GetChecks())) {
			t.Errorf("%v: %v", c.m, got)
		}
	}
}

// A sidecar that stops answers what it has read, says why the stream ends, and does not wait for its clients.
func TestStreamsEndWithTheSidecar(t *testing.T) {
	address, _, stop := serve(t)
	stream := open(t, address)
	if err := stream.Send(&limiterv1.CheckStreamRequest{Checks: 1}); err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Receive(); err != nil || got.GetChecks() != 1 {
		t.Fatal(got, err)
	}
	go stop()
	_, err := stream.Receive()
	if connect.CodeOf(err) != connect.CodeUnavailable || errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	stop()
}

// The columns of an answer are those that nodes send: each check is allowed, denied for its reason, or failed.
func TestColumnsOfAnAnswer(t *testing.T) {
	deny := func(id string, ms uint32) client.Outcome {
		return client.Outcome{Decision: client.Decision{Reason: "limited", LimitID: id, Kind: "window", RetryAfterMs: ms, Version: 4}}
	}
	got := columns([]client.Outcome{
		{Decision: client.Decision{Allow: true, Version: 5}},
		deny("a", 7),
		{Err: refused("field_malformed", "x")},
		deny("b", 8), deny("a", 9),
		{Decision: client.Decision{Allow: true, Source: client.SourceFailure}},
		{Decision: client.Decision{Allow: true, WouldDeny: true, Version: 6}},
		{Decision: client.Decision{Allow: true}},
		{Decision: client.Decision{Allow: true, Levels: []client.Level{{LimitID: "a"}}}},
	}, true)
	said := fmt.Sprint(got.GetChecks(), got.GetAllowed(), got.GetRetryAfterMs(), got.GetDenialAt(), len(got.GetDenials()), got.GetDenials()[1].GetLimitId(),
		got.GetFailed()[0].GetCheck(), got.GetOnFailure(), got.GetWouldDeny(), got.GetLimitsVersion(), len(got.GetLevels()), got.GetLevels()[8].GetLevels()[0].GetLimitId())
	if said != "9 [225 1] [7 8 9] [0 1 0] 2b2 [5] [6] 4 9a" {
		t.Error(said)
	}
}

// A stream over HTTP/1.1 is refused, as Connect does.
func TestStreamsNeedHTTP2(t *testing.T) {
	address, _, _ := serve(t)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", address) }}}
	resp, err := c.Post("http://sidecar"+limiterv1connect.LimiterCheckStreamProcedure, "application/connect+json", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("status %d", resp.StatusCode)
	}
}
