package client_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/limiter/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = api.TokenPrefix + "acme"

// node is the API of a node with a limiter of the test's making behind it.
type node struct {
	api.Checker
	url  string
	stop func() // drains it

	mu      sync.Mutex
	decide  func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error
	denied  error // what authentication fails with
	decided int   // checks that were decided
	conns   []net.Conn
}

func (n *node) CheckBatchInto(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
	n.mu.Lock()
	decide := n.decide
	n.mu.Unlock()
	if err := decide(ctx, all, out); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.decided += len(all)
	return nil
}

func (n *node) Authenticate(context.Context, string) (api.Principal, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return api.Principal{ID: "test", Tenant: "acme", Role: api.RoleRunner}, n.denied
}

func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// cut breaks all connections to the node.
func (n *node) cut() {
	n.set(func() {
		for _, c := range n.conns {
			_ = c.Close()
		}
		n.conns = nil
	})
}

// watched remembers the connections it accepts.
type watched struct {
	net.Listener
	node *node
}

func (w watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.node.set(func() { w.node.conns = append(w.node.conns, c) })
	}
	return c, err
}

// echo allows what costs an even number, and denies the rest for as many milliseconds as it costs.
func echo(_ context.Context, all []limiter.Request, out []limiter.Outcome) error {
	for i, r := range all {
		out[i].Err = nil
		out[i].Decision = limiter.Decision{Allow: r.Cost%2 == 0, Version: 1}
		if r.Cost%2 == 1 {
			out[i].Decision = limiter.Decision{RetryAfterMs: r.Cost, Reason: limiter.ReasonLimited, LimitID: r.Key, Kind: limiter.KindWindow, Version: 1}
		}
	}
	return nil
}

// startRegion starts nodes and opens a stream to them.
func startRegion(t testing.TB, size int) ([]*node, *client.Stream) {
	t.Helper()
	nodes, o := startNodes(t, size)
	s, err := client.Open(o)
	must(t, err)
	t.Cleanup(s.Close)
	return nodes, s
}

func startNodes(t testing.TB, size int) ([]*node, client.Options) {
	t.Helper()
	dir := t.TempDir()
	must(t, certs.CreateCA(dir))
	must(t, certs.IssueNode(dir, "node", []string{"127.0.0.1"}))
	files := certs.NodePaths(dir, "node")
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(t, err)
	o := client.Options{CAFile: certs.CAPath(dir), Token: token}
	var nodes []*node
	for range size {
		n := startNode(t, cert)
		nodes = append(nodes, n)
		o.Endpoints = append(o.Endpoints, n.url)
	}
	return nodes, o
}

func startNode(t testing.TB, cert tls.Certificate) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n := &node{url: "https://" + ln.Addr().String(), decide: echo}
	handler := api.NewHandler(api.Deps{Authenticator: n, Checker: n, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- api.Serve(ctx, watched{ln, n}, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, handler, slog.New(slog.DiscardHandler))
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
