package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	soakGroups  = 3
	soakWorkers = 3 * 512
	soakTenants = 1000
	soakKeys    = 100 // of each tenant
	// soakRequestIDs is the share, one in so many, of checks that the group must remember.
	soakRequestIDs = 20
	soakSamples    = 8
	soakSweep      = time.Minute
	soakTimeout    = 3 * time.Hour
)

// measureSoak writes millions of entries through three hosts in this process, with the
// limiter's real machine, logs and state, and no API in front: what does the disk hold, and
// what the memory, at the end compared to the beginning?
func measureSoak(ctx context.Context, b *bench) (err error) {
	ctx, cancel := context.WithTimeout(ctx, soakTimeout)
	defer cancel()
	s, err := startSoak(filepath.Join(b.dir, "soak"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.configure(ctx); err != nil {
		return err
	}
	c := config{
		"commands": b.soakCommands, "groups": soakGroups, "replicas": 3, "tenants": soakTenants, "keys": soakTenants * soakKeys,
		"workers": soakWorkers, "with_request_id": "1/" + strconv.Itoa(soakRequestIDs), "process": "one, three hosts",
	}
	began := time.Now()
	var done atomic.Int64
	sampled := make(chan error, 1)
	go func() { sampled <- s.sample(ctx, b, &done, c) }()
	// No loop of load.go: it would keep the latency of every command in the memory that is
	// looked at.
	work, ending := errgroup.WithContext(ctx)
	for worker := range soakWorkers {
		work.Go(func() error {
			for done.Add(1) <= int64(b.soakCommands) {
				if err := s.check(ending, worker); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	if err := <-sampled; err != nil {
		return err
	}
	b.report.scalar("soak.commands", float64(b.soakCommands)/time.Since(began).Seconds(), "commands/s", c)
	entries, err := s.entries()
	if err != nil {
		return err
	}
	b.report.scalar("soak.entries", entries, "Raft log entries", c)
	return s.compare(b, c)
}

// soak is three hosts in this process.
type soak struct {
	dir      string
	ids      []raftfsm.GroupID
	muxes    []*raftfsm.Mux
	hosts    []*raftfsm.Host
	services []*limiter.Service
}

func startSoak(dir string) (*soak, error) {
	s := &soak{dir: dir}
	if err := certs.CreateCA(dir); err != nil {
		return nil, err
	}
	for i := range soakGroups {
		s.ids = append(s.ids, raftfsm.GroupID(0x100+i))
	}
	var members []raftfsm.Member
	var listeners []net.Listener
	for i := range 3 {
		name := fmt.Sprintf("node-%d", i+1)
		if err := certs.IssueNode(dir, name, []string{"127.0.0.1"}); err != nil {
			return nil, err
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
		members = append(members, raftfsm.Member{ID: name + ".a", Name: name, Address: ln.Addr().String()})
	}
	for i, m := range members {
		if err := s.open(m, members, listeners[i]); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *soak) open(m raftfsm.Member, members []raftfsm.Member, ln net.Listener) error {
	clk, err := clock.System()
	if err != nil {
		return err
	}
	p := certs.NodePaths(s.dir, m.Name)
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(certs.CAPath(s.dir))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	mux := raftfsm.NewMux(ln, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool}, log)
	s.muxes = append(s.muxes, mux)
	mux.Join(raftfsm.ClusterID{1}, func(string) bool { return true })
	var groups []raftfsm.Group
	for i, id := range s.ids {
		groups = append(groups, raftfsm.Group{ID: id, Name: fmt.Sprintf("limiter-%d", i), Machine: limiter.NewMachine()})
	}
	h, err := raftfsm.Open(raftfsm.Options{
		Dir: s.nodeDir(m.Name), Self: m.ID, Members: members, Mux: mux, Clock: clk, Log: log, Registry: prometheus.NewRegistry(),
		Fatal: func(reason string, err error) { panic(fmt.Sprintf("%s: %s: %v", m.Name, reason, err)) },
	}, groups)
	if err != nil {
		return err
	}
	s.hosts = append(s.hosts, h)
	s.services = append(s.services, limiter.NewService(h, s.ids))
	return nil
}

func (s *soak) nodeDir(name string) string { return filepath.Join(s.dir, "data-"+name) }

func (s *soak) close() error {
	var errs []error
	for _, h := range s.hosts {
		errs = append(errs, h.Close())
	}
	for _, m := range s.muxes {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// configure gives every key a limit that is never reached.
func (s *soak) configure(ctx context.Context) error {
	l := limiter.Limit{ID: "soak", Scope: limiter.ScopeKey, Selector: "*/*", TokenBucket: limiter.TokenBucket{Rate: "1000000/s", Burst: 1_000_000}}
	for _, id := range s.ids {
		if _, _, err := s.services[0].Configure(ctx, id, limiter.Change{To: 1, Puts: []limiter.Limit{l}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) check(ctx context.Context, worker int) error {
	r := limiter.Request{
		Tenant: fmt.Sprintf("tenant-%d", rand.IntN(soakTenants)), Key: fmt.Sprintf("key-%d", rand.IntN(soakKeys)), Cost: 1,
	}
	if rand.IntN(soakRequestIDs) == 0 {
		r.RequestID = strconv.FormatUint(rand.Uint64(), 36)
	}
	d, err := s.services[worker%len(s.services)].Check(ctx, r)
	if err == nil && (!d.Allow || len(d.Levels) != 1) {
		err = fmt.Errorf("the check was not decided by one limit: %+v", d)
	}
	return err
}

// sample reports disk and memory at equal distances, and sweeps counters as a region does.
func (s *soak) sample(ctx context.Context, b *bench, done *atomic.Int64, c config) error {
	swept := time.Now()
	for i := 1; i <= soakSamples; i++ {
		for due := int64(b.soakCommands * i / soakSamples); done.Load() < due; time.Sleep(100 * time.Millisecond) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if time.Since(swept) > soakSweep {
				swept = time.Now()
				for _, id := range s.ids {
					if _, err := s.services[0].Sweep(ctx, id); err != nil {
						return err
					}
				}
			}
		}
		bolt, all, err := s.disk()
		if err != nil {
			return err
		}
		mapped, err := statusOf(os.Getpid(), "RssFile")
		if err != nil {
			return err
		}
		own, err := statusOf(os.Getpid(), "RssAnon")
		if err != nil {
			return err
		}
		runtime.GC()
		var heap runtime.MemStats
		runtime.ReadMemStats(&heap)
		at := with(c, "after_commands", b.soakCommands*i/soakSamples)
		b.report.scalar("soak.bolt", float64(bolt)/(1<<20), "MiB, largest log file", at)
		b.report.scalar("soak.disk", float64(all)/(1<<20), "MiB, largest data folder", at)
		b.report.scalar("soak.heap", float64(heap.HeapAlloc)/(1<<20), "MiB of live objects, three hosts", at)
		b.report.scalar("soak.rss_anon", float64(own)/(1<<20), "MiB, heap and caches of three hosts", at)
		b.report.scalar("soak.rss_file", float64(mapped)/(1<<20), "MiB, mapped log files of three hosts and the program", at)
	}
	return nil
}

// disk is the largest bolt file and the largest data folder, in bytes of occupied blocks.
func (s *soak) disk() (bolt, folder int64, err error) {
	for i := range s.hosts {
		total := int64(0)
		err := filepath.WalkDir(s.nodeDir(fmt.Sprintf("node-%d", i+1)), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			use, err := blocksOf(d)
			total += use.occupied
			if strings.HasSuffix(path, ".bolt") {
				bolt = max(bolt, use.occupied)
			}
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		folder = max(folder, total)
	}
	return bolt, folder, nil
}

// entries is the number of log entries of all groups.
func (s *soak) entries() (float64, error) {
	n := uint64(0)
	for _, g := range s.hosts[0].Status() {
		n += g.CommitIndex
	}
	return float64(n), nil
}

// compare waits until all replicas have applied everything, and compares them.
func (s *soak) compare(b *bench, c config) error {
	for _, id := range s.ids {
		equal := func() bool {
			first, err := s.hosts[0].StateHash(id)
			if err != nil {
				return false
			}
			for _, h := range s.hosts[1:] {
				if other, err := h.StateHash(id); err != nil || other != first {
					return false
				}
			}
			return true
		}
		if _, err := until(context.Background(), time.Minute, "equal states", equal); err != nil {
			return err
		}
	}
	b.report.scalar("soak.equal", soakGroups, "groups whose three replicas have equal state hashes", c)
	return nil
}
