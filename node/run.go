// Package node wires a whole node: configuration, cluster, domains, API, jobs; and takes it
// down again in the reverse order. It is the only package that imports everything.
package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/api/envoymap"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/busiest"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/internal/elastic"
	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/version"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// ExitFatal is the exit status of a process that ended itself because its disk or state can
// no longer be trusted, or that stopped because its disk is nearly full.
const ExitFatal = 70

// Node is one running node.
type Node struct {
	cfg      Config
	log      *slog.Logger
	clock    clock.Clock
	registry *prometheus.Registry
	tls      *tls.Config
	boot     *bootstrap
	envoy    *envoymap.Mapping // nil when Envoy is not served
	services *services
	// started is closed once the groups run and the services stand.
	started chan struct{}
	// disposition signs what retention disposes of; nil on a node without the key.
	disposition ed25519.PrivateKey
	// pacer makes ingest give way to checks.
	pacer *elastic.Pacer
	host  *raftfsm.Host
	// limiters are the machines of the limiter groups, for whose leases their limits are needed here.
	limiters map[raftfsm.GroupID]*limiter.Machine
	// objects is where cold segments are; nil without a store.
	objects *objectstore.Cache
	// shards are those of the index, whose segments are kept whole.
	shards []*index.Machine
	// draining is set once the node has begun to stop; removed once it is no member any more.
	draining, removed atomic.Bool
	// halt ends the node in order, for a reason of its own.
	halt     context.CancelCauseFunc
	stopping sync.Once
}

// Run runs a node until ctx ends, then stops it in order. It returns what went wrong.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	return run(ctx, cfg, log, func(*Node) {})
}

// run is Run, and shows the node before it begins.
func run(ctx context.Context, cfg Config, log *slog.Logger, show func(*Node)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	n, err := newNode(cfg, log)
	if err != nil {
		return err
	}
	show(n)
	log.Info("starting", "node", cfg.Name, "id", n.boot.self(), "region", cfg.Region, "version", version.String())
	ctx, n.halt = context.WithCancelCause(ctx)
	defer n.halt(nil)
	err = n.run(ctx)
	n.boot.mux.Close()
	if cause := context.Cause(ctx); errors.Is(cause, ErrStopped) {
		err = errors.Join(cause, err)
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// newNode opens what must not fail later: identity, certificates and the cluster port.
func newNode(cfg Config, log *slog.Logger) (*Node, error) {
	clk, err := clock.System()
	if err != nil {
		return nil, err
	}
	id, err := openIdentity(cfg.DataDir, cfg.Name)
	if err != nil {
		return nil, err
	}
	if err := openDisk(cfg, log); err != nil {
		return nil, err
	}
	conf, err := loadTLS(cfg.TLS, cfg.Name)
	if err != nil {
		return nil, err
	}
	envoy, err := cfg.loadEnvoyMapping()
	if err != nil {
		return nil, err
	}
	key, err := cfg.loadDispositionKey()
	if err != nil {
		return nil, fmt.Errorf("node: disposition_key: %w", err)
	}
	objects, err := cfg.openCold()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Cluster.Listen)
	if err != nil {
		return nil, fmt.Errorf("node: cluster.listen: %w", err)
	}
	mux := raftfsm.NewMux(ln, conf, log)
	boot, err := newBootstrap(cfg, id, mux, log)
	if err != nil {
		return nil, errors.Join(err, mux.Close())
	}
	n := &Node{cfg: cfg, log: log, clock: clk, registry: prometheus.NewRegistry(), tls: conf, boot: boot, envoy: envoy, started: make(chan struct{}), limiters: map[raftfsm.GroupID]*limiter.Machine{}, disposition: key, objects: objects}
	n.services = &services{node: n}
	n.pacer = newPacer(n)
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	n.registry.MustRegister(memoryGauges(cfg.Memory)...)
	return n, nil
}

// run serves until ctx ends.
func (n *Node) run(ctx context.Context) error {
	apiLn, err := net.Listen("tcp", n.cfg.API.Listen)
	if err != nil {
		return fmt.Errorf("node: api.listen: %w", err)
	}
	adminLn, err := net.Listen("tcp", n.cfg.Admin.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("node: admin.listen: %w", err), apiLn.Close())
	}
	adminSrv := adminServer(n.registry, n.ready, n.warnings, n.states)
	all, ctx := errgroup.WithContext(ctx)
	apiCtx, endAPI := context.WithCancel(context.WithoutCancel(ctx))
	apiEnded := make(chan struct{})
	all.Go(func() error {
		defer close(apiEnded)
		return api.Serve(apiCtx, apiLn, n.apiTLS(), api.NewHandler(n.deps()), n.log)
	})
	all.Go(func() error { return serveAdmin(adminSrv, adminLn) })
	all.Go(func() error {
		err := n.runCluster(ctx, func() { endAPI(); <-apiEnded })
		endAPI()
		// The admin port answers to the end, so that a slow shutdown can be looked at.
		return errors.Join(err, adminSrv.Close())
	})
	return all.Wait()
}

// runCluster joins the cluster, takes part until ctx ends, and leaves it in order; drain ends
// the API after the requests under way.
func (n *Node) runCluster(ctx context.Context, drain func()) error {
	if n.boot.identity().Removed {
		return n.restAsRemoved(ctx)
	}
	rec, err := n.boot.await(ctx)
	if err != nil {
		return nil // told to stop before the region was started
	}
	if err := n.start(rec); err != nil {
		return err
	}
	n.log.Info("running", "api", n.cfg.API.Listen, "groups", len(n.host.Status()))
	// To the end of the drain: requests need it until then.
	fresh := n.services.running.Load().fresh
	freshCtx, endFresh := context.WithCancel(context.WithoutCancel(ctx))
	var jobs sync.WaitGroup
	jobs.Go(func() { fresh.run(freshCtx) })
	jobs.Go(func() { n.pacer.Run(freshCtx) })
	jobs.Go(func() { n.tendHeap(freshCtx) })
	jobs.Go(func() { n.services.running.Load().receipts.run(freshCtx) })
	removed, err := n.follow(ctx)
	switch {
	case removed:
		n.removed.Store(true) // from here on, callers are told
	case err == nil:
		n.log.Info("stopping: handing leaderships over and finishing requests")
		n.draining.Store(true) // callers and load balancers go elsewhere from here on
		n.host.HandOver()
		drain()
	}
	endFresh()
	jobs.Wait()
	n.giveBack()
	err = errors.Join(err, n.host.Close())
	if removed && err == nil {
		return n.restAsRemoved(ctx)
	}
	return err
}

// start opens the groups and puts the services behind the API.
func (n *Node) start(rec *record) error {
	id, err := rec.cluster()
	if err != nil {
		return err
	}
	n.boot.mux.Join(id, func(name string) bool { return n.boot.current().has(name) })
	tables := meta.NewMachine()
	memory := n.cfg.Memory.shares()
	options := raftfsm.Options{
		Dir: n.cfg.DataDir, Self: n.boot.self(), Members: raftMembers(rec.membership()), Mux: n.boot.mux,
		Clock: n.clock, Log: n.log, Fatal: n.fatal, Registry: n.registry,
		Stop: n.stop, DiskLow: n.cfg.Disk.LowBytes, ClockOffsetMax: n.cfg.Clock.OffsetMax,
		Turns: n.pacer.Turns, CompactionTurns: n.pacer.CompactionTurns, Pace: n.pacer.Pace, Told: n.services.told,
		Started: n.boot.identity().Started, CacheBytes: memory.blocks, MemTableBytes: memory.memtable,
		// Who learns of the region from a record that follows meta comes to groups that run.
		Join: rec.NodesVersion > 0,
	}
	if rec.Version >= recordVersion {
		// Such a record is written only when every member speaks the level.
		options.Level, options.Placements = max(raftfsm.LevelMembers, rec.Level), raftPlacements(rec, rec.membership())
	}
	n.host, err = raftfsm.Open(options, n.groups(rec, tables))
	if err != nil {
		return err
	}
	if err := n.boot.mark(func(i *identity) { i.Started = true }); err != nil {
		return errors.Join(err, n.host.Close())
	}
	limiters := limiterGroups(rec.Limiter)
	if !n.cfg.Runs(ServiceLimiter) {
		limiters = nil
	}
	run := &running{tables: tables, limiter: limiter.NewService(n.host, limiters)}
	run.busiest = busiest.New(busyKeysMax, func() time.Duration { return time.Duration(n.clock.Steady()) })
	n.boot.busiest.Store(run.busiest)
	run.limiter.FollowMode(tables.LimiterMode)
	n.registry.MustRegister(modeGauges("mc_rl_mode", "limits", limiter.Modes[:], func() int { return int(tables.LimiterMode()) })...)
	n.registry.MustRegister(modeGauges("mc_prov_index_mode", "index", index.Modes[:], func() int { return int(tables.IndexMode()) })...)
	run.meta = meta.NewService(meta.Options{
		Groups: n.host, Group: groupMeta, Machine: tables, Limiter: run.limiter, LimiterGroups: limiters,
		Clock: n.clock.Now, Region: rec.Region,
	})
	run.index = index.NewService(n.host, indexShards(rec.Index), run.meta.CursorKey, n.pacer)
	n.registry.MustRegister(hedgeCounters(run.index)...)
	run.catalog, run.receipts = n.newCatalog(run)
	run.fresh = newFreshness(n.clock.Steady, run.meta.Confirm, n.log, n.registry)
	if err := n.hold(run); err != nil {
		return errors.Join(err, n.host.Close())
	}
	n.services.running.Store(run)
	n.keepWhole(rec)
	close(n.started)
	return nil
}

// states are what this node's replicas hold.
func (n *Node) states() ([]raftfsm.ReplicaState, error) {
	select {
	case <-n.started:
		return n.host.States()
	default:
		return nil, api.ErrNotReady
	}
}

// awaitStarted waits for the services; false when ctx ended first.
func (n *Node) awaitStarted(ctx context.Context) bool {
	select {
	case <-n.started:
		return true
	case <-ctx.Done():
		return false
	}
}

// deps are what the API serves. A service that is switched off stays nil.
func (n *Node) deps() api.Deps {
	d := api.Deps{
		Authenticator: n.services, Freshness: n.services, Tokens: n.services, Cluster: n.services, Backups: n.services,
		Packages: n.services.Packages,
		Region:   n.cfg.Region, Now: n.clock.Now, Logger: n.log, Metrics: n.registry,
		Serving: func(service string) bool { return n.ready() == nil },
	}
	if n.cfg.Runs(ServiceLimiter) {
		d.Checker, d.Holder, d.Lender, d.Limits, d.Envoy = n.services, n.services, n.services, n.services, n.envoy
		d.Load = n.pacer
	}
	if n.cfg.Runs(ServiceIndex) {
		d.Index = n.services
	}
	return d
}

// ready returns nil when this node can serve or forward any request.
func (n *Node) ready() error {
	run, err := n.services.get()
	if err != nil {
		return err
	}
	if n.draining.Load() {
		return raftfsm.ErrShutdown
	}
	if err := n.host.Ready(); err != nil {
		return err
	}
	if !run.fresh.Fresh() {
		return api.ErrMetaStale
	}
	if _, ok := run.meta.CursorKey(); !ok {
		return errors.New("the region's settings have not reached this node yet")
	}
	return nil
}

// fatal ends the process at once: after a failed write nobody knows what the disk holds, and
// going on could acknowledge what is not there.
func (n *Node) fatal(reason string, err error) {
	n.log.Error("fatal: the node ends itself", "reason", reason, "err", err)
	os.Exit(ExitFatal)
}

// loadTLS reads the node's certificate and the CA.
func loadTLS(files TLSFiles, name string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, fmt.Errorf("node: tls.cert and tls.key: %w", err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}
	if got, err := raftfsm.PeerName(state); err != nil || got != name {
		return nil, fmt.Errorf("node: tls.cert %s is not the certificate of node %q (it names %q); make one with: maestro certs create", files.Cert, name, got)
	}
	ca, err := os.ReadFile(filepath.Clean(files.CA))
	if err != nil {
		return nil, fmt.Errorf("node: tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("node: tls.ca: no certificate in %s", files.CA)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return nil, fmt.Errorf("node: tls.cert is not usable with tls.ca: %w", certs.Explain(err, files.Cert))
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// apiTLS lets callers come without a certificate; tokens identify them. One that is shown
// must be the cluster's own.
func (n *Node) apiTLS() *tls.Config {
	c := n.tls.Clone()
	c.ClientAuth = tls.VerifyClientCertIfGiven
	return c
}

// modeGauges show which mode of something this node follows.
func modeGauges(metric, of string, names []string, mode func() int) []prometheus.Collector {
	var all []prometheus.Collector
	for i, name := range names {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metric, Help: fmt.Sprintf("1 for the mode of the %s that this node follows: %s.", of, strings.Join(names, ", ")),
			ConstLabels: prometheus.Labels{"mode": name},
		}, func() float64 {
			if mode() == i {
				return 1
			}
			return 0
		}))
	}
	return all
}

// hedgeCounters count the queries of searches that were sent to a second replica.
func hedgeCounters(s *index.Service) []prometheus.Collector {
	counter := func(outcome string, of func(index.HedgeCounts) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mc_prov_hedged_total", Help: "Queries of searches sent to a second replica since the first was slow, and those whose second answer came first.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(of(s.Hedges())) })
	}
	return []prometheus.Collector{
		counter("sent", func(c index.HedgeCounts) uint64 { return c.Sent }),
		counter("won", func(c index.HedgeCounts) uint64 { return c.Won }),
	}
}

func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mc_build_info", Help: "1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "commit": version.Commit()},
	}, func() float64 { return 1 })
}
