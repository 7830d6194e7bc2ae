// Package devregion runs a whole region on this machine: one, three or five real node processes on
// loopback, with certificates, an admin token and sample content, kept in one folder.
//
//	DIR/dev.json         what runs where, for scripts; see State
//	DIR/context.yaml     the CLI context of the region
//	DIR/admin.token      the platform administrator's token
//	DIR/certs            the CA, the nodes' and the administrator's certificates
//	DIR/templates.key    the development key that signs the templates, without a password; templates.pub beside it
//	DIR/NODE/            node.yaml, log, data
//	DIR/lock             held while a supervisor runs
//
// It is a supervisor: a node that dies is started again. The nodes never outlive it.
package devregion

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	defaultNodes = 3
	// startTimeout bounds the way to ready; a start takes a few seconds even on a busy machine.
	startTimeout = 2 * time.Minute
)

var (
	// ErrInUse: another supervisor runs a region in the folder.
	ErrInUse = errors.New("devregion: folder in use")
	// ErrPort: a port that a node needs is taken.
	ErrPort = errors.New("devregion: port in use")
	// ErrStart: the region did not become ready.
	ErrStart = errors.New("devregion: start")
)

// Options say what to run and where.
type Options struct {
	// Dir holds everything; created if needed, reused if it holds a region already.
	Dir string
	// Name is the region's name; empty means "local".
	Name string
	// Nodes is how many nodes start the region: 1, 3 or 5; 0 means as many as it has, or 3.
	Nodes int
	// PortBase is the first of the ports, node i using PortBase+10*i and the two after it;
	// 0 picks free ones. A region keeps its ports: an existing one ignores 0 and refuses
	// others.
	PortBase int
	// Binary is the maestro binary; empty means the running program.
	Binary string
	// Earlier writes configurations that builds before this one understand too.
	Earlier bool
	// EnvoyMapping is the file that says what Envoy's descriptors mean; empty switches that service off.
	EnvoyMapping string
	// NoSeed leaves out the sample content.
	NoSeed bool
	// Report receives a line now and then for the person who waits; nil drops them.
	Report func(line string)
}

// Region is a running region.
type Region struct {
	opts  Options
	lock  *os.File
	nodes []*process

	mu    sync.Mutex // guards state and the writing of its file
	state State
}

// Start starts the region in o.Dir and returns when every node is ready and the sample
// content is in. When it fails, or ctx ends before that, nothing is left running.
func Start(ctx context.Context, o Options) (*Region, error) {
	r, err := prepare(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("%w: not ready after %v; see the log in each node's folder", ErrStart, startTimeout))
	defer cancel()
	if err := r.bringUp(ctx); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// prepare does all that needs no process: the lock, ports, certificates and configurations.
func prepare(o Options) (*Region, error) {
	if o.Name == "" {
		o.Name = "local"
	}
	if !certs.ValidName(o.Name) {
		return nil, fmt.Errorf("%w: region %q; use 1 to 63 lower-case letters, digits and inner hyphens", ErrStart, o.Name)
	}
	if o.Report == nil {
		o.Report = func(string) {}
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("%w: find the own binary: %w", ErrStart, err)
		}
	}
	if o.EnvoyMapping != "" {
		if o.EnvoyMapping, err = filepath.Abs(o.EnvoyMapping); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStart, err)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	r := &Region{opts: o}
	if r.lock, err = lockFolder(o.Dir); err != nil {
		return nil, err
	}
	for _, step := range []func() error{r.layOut, r.makeCertificates, r.writeConfigs} {
		if err := step(); err != nil {
			return nil, errors.Join(err, r.lock.Close())
		}
	}
	return r, nil
}

func (r *Region) bringUp(ctx context.Context) error {
	for _, n := range r.state.Regions[0].Nodes {
		r.run(n.ID)
	}
	ctx, cancel := r.failWhenNodesDoNotStay(ctx)
	defer cancel()
	if err := r.initialise(ctx); err != nil {
		return r.withNodeFailure(ctx, err)
	}
	if err := r.saveContext(); err != nil {
		return err
	}
	if err := r.WaitReady(ctx); err != nil {
		return r.withNodeFailure(ctx, err)
	}
	if err := r.waitAdmitted(ctx); err != nil {
		return r.withNodeFailure(ctx, err)
	}
	if r.opts.NoSeed {
		return nil
	}
	return r.seed(ctx)
}

// run starts a node and keeps it running.
func (r *Region) run(node string) {
	r.nodes = append(r.nodes, startProcess(node, r.opts.Binary, r.nodeDir(node), func(pid int) error {
		return r.setPID(node, pid)
	}, r.opts.Report))
}

// initialise makes sure that the region is started and its admin token kept. A run that was
// interrupted between the two left a region whose token nobody has: the administrator's
// certificate gets a new one.
func (r *Region) initialise(ctx context.Context) error {
	if _, err := os.Stat(r.TokenFile()); err == nil {
		return nil
	}
	c, err := r.adminClient()
	if err != nil {
		return err
	}
	defer c.Close()
	token, err := r.firstToken(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: initialise the region: %w", ErrStart, err)
	}
	if err := client.WriteFile(r.TokenFile(), []byte(token+"\n")); err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	return nil
}

// firstToken initialises the region, as soon as its nodes have found each other.
func (r *Region) firstToken(ctx context.Context, c *client.Client) (string, error) {
	for {
		resp, err := c.Cluster().Init(ctx, connect.NewRequest(&clusterv1.InitRequest{}))
		if err == nil {
			return resp.Msg.GetToken(), r.setClusterID(resp.Msg.GetClusterId())
		}
		var e *client.Error
		switch {
		case errors.As(err, &e) && e.Reason == "seeds_not_ready":
			select {
			case <-ctx.Done():
				return "", err
			case <-time.After(readyPoll):
			}
		case errors.As(err, &e) && (e.Reason == "already_initialised" || e.Outcome == client.OutcomeUnknown):
			return r.anotherToken(ctx, c, err)
		default:
			return "", err
		}
	}
}

func (r *Region) anotherToken(ctx context.Context, c *client.Client, why error) (string, error) {
	resp, err := c.Tokens().CreateToken(ctx, connect.NewRequest(&clusterv1.CreateTokenRequest{
		Tenant: "*", Role: "admin", Description: "maestro dev",
	}))
	if err != nil {
		return "", fmt.Errorf("%w; make an admin token: %w", why, err)
	}
	return resp.Msg.GetToken(), nil
}

// Stop ends every node in order (SIGTERM, after ten seconds SIGKILL) and lets go of the
// folder.
func (r *Region) Stop() error {
	for _, n := range r.nodes {
		n.stop()
	}
	for _, n := range r.nodes {
		<-n.ended
	}
	return r.lock.Close()
}

// Signal sends a signal to a node's process, such as SIGKILL; the node comes back by itself.
func (r *Region) Signal(node string, sig syscall.Signal) error {
	p, err := r.process(node)
	if err != nil {
		return err
	}
	return p.signal(sig)
}

// Client returns a client with the platform administrator's token.
func (r *Region) Client() (*client.Client, error) {
	ctx := r.Context()
	token, err := ctx.ReadToken()
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Endpoints: ctx.Endpoints, CAFile: ctx.CA, Token: token})
}

// adminClient returns a client with the administrator's certificate.
func (r *Region) adminClient() (*client.Client, error) {
	admin := certs.AdminPaths(r.certsDir())
	return client.New(client.Options{
		Endpoints: r.Context().Endpoints, CAFile: certs.CAPath(r.certsDir()), CertFile: admin.Cert, KeyFile: admin.Key,
	})
}

// Context is the CLI context of the region.
func (r *Region) Context() client.Context {
	c := client.Context{CA: certs.CAPath(r.certsDir()), TokenFile: r.TokenFile()}
	for _, n := range r.State().Regions[0].Nodes {
		if !n.Spare {
			c.Endpoints = append(c.Endpoints, n.API)
		}
	}
	return c
}

func (r *Region) saveContext() error { return r.Context().Save(r.opts.Dir) }

// TokenFile is the file of the administrator's token.
func (r *Region) TokenFile() string { return filepath.Join(r.opts.Dir, "admin.token") }

func (r *Region) certsDir() string { return filepath.Join(r.opts.Dir, "certs") }

func (r *Region) nodeDir(node string) string { return filepath.Join(r.opts.Dir, node) }
