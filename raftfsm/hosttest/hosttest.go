// Package hosttest runs a cluster of hosts in one process, over real TLS on loopback and
// real files, so that tests can stop, start and cut its nodes.
package hosttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Patience bounds every wait of a test: it is generous, because it only matters when
// something is broken.
const Patience = 2 * time.Minute

// Cluster is a set of nodes with the same groups.
type Cluster struct {
	t       testing.TB
	dir     string
	certs   string
	members []raftfsm.Member
	groups  func() []raftfsm.Group
	nodes   []*node
	id      raftfsm.ClusterID
	keep    raftfsm.Retention
	// configure changes the options of a node before it starts.
	configure  []func(i int, o *raftfsm.Options)
	placements map[raftfsm.GroupID]raftfsm.Placement
	hold       bool
}

// Option changes how the cluster runs.
type Option func(*Cluster)

// Retain keeps little log, so that a node that was away needs a snapshot.
func Retain(r raftfsm.Retention) Option { return func(c *Cluster) { c.keep = r } }

// Configure changes the options of every node, counted from 0, each time it starts.
func Configure(f func(i int, o *raftfsm.Options)) Option {
	return func(c *Cluster) { c.configure = append(c.configure, f) }
}

// Hold leaves it to the test to start the nodes.
func Hold() Option { return func(c *Cluster) { c.hold = true } }

type node struct {
	mux  *raftfsm.Mux
	host *raftfsm.Host
	addr string
	// join is set for nodes that were added to a cluster which runs.
	join, started bool
}

// Start runs n nodes; groups is called for every start of a node and makes its machines.
// Everything ends with the test.
func Start(t testing.TB, n int, groups func() []raftfsm.Group, options ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), certs: t.TempDir(), groups: groups, id: raftfsm.ClusterID{1}}
	for _, o := range options {
		o(c)
	}
	must(t, certs.CreateCA(c.certs))
	for range n {
		c.addMember(false)
	}
	for i := range n {
		if !c.hold {
			c.Start(i)
		}
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			if c.nodes[i].host != nil {
				c.Stop(i)
			}
		}
	})
	return c
}

// Host is node i's host; nil while it is stopped.
func (c *Cluster) Host(i int) *raftfsm.Host { return c.nodes[i].host }

// Dir is node i's data folder.
func (c *Cluster) Dir(i int) string { return filepath.Join(c.dir, c.members[i].Name) }

// Stop ends node i without handing over its leaderships.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	n := c.nodes[i]
	must(c.t, n.host.Close())
	must(c.t, n.mux.Close())
	n.host, n.mux = nil, nil
}

// Start runs node i on the data it has.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	must(c.t, c.TryStart(i))
}

// TryStart is Start for nodes that may refuse.
func (c *Cluster) TryStart(i int) error {
	c.t.Helper()
	n, m := c.nodes[i], c.members[i]
	clk, err := clock.System()
	must(c.t, err)
	log := slog.New(slog.NewTextHandler(c.output(), nil)).With("node", m.Name)
	mux := raftfsm.NewMux(listen(c.t, n.addr), TLS(c.t, c.certs, m.Name), log)
	mux.Join(c.id, func(name string) bool {
		for _, m := range c.members {
			if m.Name == name {
				return true
			}
		}
		return false
	})
	options := raftfsm.Options{
		Dir: c.Dir(i), Self: m.ID, Members: slices.Clone(c.members), Mux: mux, Clock: clk, Log: log, Retention: c.keep,
		Placements: c.placements, Join: n.join, Started: n.started,
		Fatal: func(reason string, err error) { panic(fmt.Sprintf("%s: %s: %v", m.Name, reason, err)) },
	}
	for _, f := range c.configure {
		f(i, &options)
	}
	host, err := raftfsm.Open(options, c.groups())
	if err != nil {
		must(c.t, mux.Close())
		return err
	}
	n.mux, n.host, n.started = mux, host, true
	return nil
}

// output shows the nodes' logs with MAESTRO_TEST_LOG=1.
func (c *Cluster) output() io.Writer {
	if os.Getenv("MAESTRO_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}

// AwaitLeader waits until the group has a leader that serves, and returns its node.
func (c *Cluster) AwaitLeader(group string) int {
	c.t.Helper()
	leader := -1
	c.Await("a leader of "+group, func() bool {
		for i, n := range c.nodes {
			if n.host == nil {
				continue
			}
			for _, s := range n.host.Status() {
				if s.Name == group && s.Leader == c.members[i].ID && n.host.Ready() == nil {
					leader = i
					return true
				}
			}
		}
		return false
	})
	return leader
}

// Await polls until ok, or fails the test after Patience.
func (c *Cluster) Await(what string, ok func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			c.t.Fatalf("waited %v for %s", Patience, what)
		case <-tick.C:
		}
	}
}

// Members are the cluster's members.
func (c *Cluster) Members() []raftfsm.Member { return c.members }

// TLS is the configuration of a node whose certificate is in dir.
func TLS(t testing.TB, dir, name string) *tls.Config {
	t.Helper()
	p := certs.NodePaths(dir, name)
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	must(t, err)
	ca, err := os.ReadFile(certs.CAPath(dir))
	must(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no CA certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool}
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	must(t, err)
	return ln
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
