package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/api"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/limiter"
)

// Kinds of no-op servers; both are served by api.Serve like a node's API.
const (
	noopConnect = "connect" // a bare Connect handler
	noopAPI     = "api"     // the whole API, with a limiter that does nothing
	noopMap     = "map"     // streams of plain messages to a map under a mutex
)

// noopLimiter allows everything, without a thought.
type noopLimiter struct {
	limiterv1connect.UnimplementedLimiterHandler
}

func (noopLimiter) Check(context.Context, *connect.Request[limiterv1.CheckRequest]) (*connect.Response[limiterv1.CheckResponse], error) {
	return connect.NewResponse(&limiterv1.CheckResponse{
		Allow: true, Levels: []*limiterv1.Level{{LimitId: "bench-0", Scope: "tenant", Limit: 1, Remaining: 1}},
	}), nil
}

// noopServices stand behind the API.
type noopServices struct{ api.Checker }

func (noopServices) Check(context.Context, limiter.Request) (limiter.Decision, error) {
	return limiter.Decision{Allow: true, Levels: []limiter.Level{{LimitID: "bench-0", Scope: limiter.ScopeTenant, Limit: 1, Kind: limiter.KindTokenBucket, Remaining: 1}}}, nil
}

func (noopServices) Authenticate(context.Context, string) (api.Principal, error) {
	return api.Principal{ID: "bench", Tenant: api.AllTenants, Role: api.RoleAdmin}, nil
}

// serveNoop is the other process: it serves until its standard input ends, after printing
// its address.
func serveNoop(ctx context.Context, kind, certsDir string) error {
	logger := slog.New(slog.DiscardHandler)
	var handler http.Handler
	switch kind {
	case noopConnect:
		mux := http.NewServeMux()
		// As in the API: small answers are not worth compressing.
		mux.Handle(limiterv1connect.NewLimiterHandler(noopLimiter{}, connect.WithCompressMinBytes(1<<10)))
		handler = mux
	case noopAPI:
		handler = api.NewHandler(api.Deps{Authenticator: noopServices{}, Checker: noopServices{}, Region: "local", Logger: logger})
	case noopMap:
		handler = mapHandler()
	default:
		return fmt.Errorf("-noop %q; use %s, %s or %s", kind, noopConnect, noopAPI, noopMap)
	}
	files := certs.NodePaths(certsDir, "node-1")
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that matters
		cancel()
	}()
	fmt.Printf("https://%s\n", ln.Addr())
	return api.Serve(ctx, ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, handler, logger)
}

// startNoop runs this program as a no-op server and returns its address.
func startNoop(ctx context.Context, kind, certsDir string) (endpoint string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-noop", kind, "-noop-certs", certsDir)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = stopPatient
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	endpoint, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("the no-op server did not start: %w", err), stop())
	}
	return strings.TrimSpace(endpoint), stop, nil
}

// measureNoop puts checks beside no-ops: the same client, number of connections, server,
// protocol and message sizes; all calls go to one endpoint.
func measureNoop(ctx context.Context, b *bench) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	results := map[string]measured{}
	workers := []int{1, 64}
	for _, kind := range []string{noopConnect, noopAPI} {
		endpoint, stop, err := startNoop(ctx, kind, filepath.Dir(b.region.Context().CA))
		if err != nil {
			return err
		}
		for _, n := range workers {
			clients, clientErr := b.noopClients(min(n, connections), endpoint)
			if clientErr != nil {
				return errors.Join(clientErr, stop())
			}
			name := fmt.Sprintf("noop.%s.c%d", kind, n)
			if results[name], err = b.besides(ctx, n, clients); err != nil {
				return errors.Join(err, stop())
			}
			b.report.latency(name, results[name], config{"concurrency": n, "connections": len(clients), "loop": "closed"})
		}
		if err := stop(); err != nil {
			return err
		}
	}
	for _, n := range workers {
		clients, err := b.newClients(min(n, connections), false)
		if err != nil {
			return err
		}
		m, err := b.besides(ctx, n, clients)
		if err != nil {
			return err
		}
		c := config{"concurrency": n, "connections": len(clients), "loop": "closed", "call": "Check cost=1, one matching limit"}
		b.report.latency(fmt.Sprintf("noop.check.c%d", n), m, c)
		for _, kind := range []string{noopConnect, noopAPI} {
			other := results[fmt.Sprintf("noop.%s.c%d", kind, n)]
			b.report.scalar(fmt.Sprintf("noop.check_to_%s.c%d.p50", kind, n),
				percentile(m.samples, 0.5).Seconds()/percentile(other.samples, 0.5).Seconds(), "times the latency", c)
			b.report.scalar(fmt.Sprintf("noop.check_to_%s.c%d.throughput", kind, n), m.throughput()/other.throughput(), "times the throughput", c)
		}
	}
	return nil
}

func (b *bench) besides(ctx context.Context, workers int, clients []*client.Client) (measured, error) {
	if _, err := closedLoop(ctx, workers, 0, warmUp, checkOf(clients, 1)); err != nil {
		return measured{}, fmt.Errorf("warm up: %w", err)
	}
	return closedLoop(ctx, workers, 0, b.window, checkOf(clients, 1))
}

func (b *bench) noopClients(n int, endpoint string) ([]*client.Client, error) {
	where := b.region.Context()
	token, err := where.ReadToken()
	if err != nil {
		return nil, err
	}
	var out []*client.Client
	for range n {
		c, err := client.New(client.Options{Endpoints: []string{endpoint}, CAFile: where.CA, Token: token})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	b.clients = append(b.clients, out...)
	return out, nil
}
