package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// gcra decides one check in Redis, by the limits of its key and its tenant.
//
//go:embed gcra.lua
var gcra string

// redisReplicas make three copies with the primary, as many as a region has.
const redisReplicas = 2

// peerConnections are as many as the region's load has, one a node.
const peerConnections = 3

var (
	errNoRedis     = errors.New("no redis-server is named by -redis; make bench-limiter fetches one")
	errNoRatelimit = errors.New("no server of envoyproxy/ratelimit is named by -ratelimit; make bench-limiter fetches one")
	errShape       = errors.New("the peer answered something else than was asked")
)

// measurePeers puts the batches of the world to other limiters, with the same workers and loop. The
// region is ended first. A peer that cannot be had or started is skipped.
func measurePeers(ctx context.Context, b *bench) error {
	if err := b.stop(); err != nil {
		return err
	}
	w := newKeyWorld()
	for _, peer := range []struct {
		name    string
		measure func(ctx context.Context, w *keyWorld, name string) error
	}{
		{"limiter.peer.redis", func(ctx context.Context, w *keyWorld, name string) error { return b.measureGCRA(ctx, w, name, false) }},
		{"limiter.peer.redis_wait", func(ctx context.Context, w *keyWorld, name string) error { return b.measureGCRA(ctx, w, name, true) }},
		{"limiter.peer.ratelimit", b.measureRatelimit},
	} {
		err := peer.measure(ctx, w, peer.name)
		if absent := (unavailableError{}); errors.As(err, &absent) && ctx.Err() == nil {
			b.report.skipped(peer.name, err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", peer.name, err)
		}
	}
	return nil
}

// unavailableError means that a peer is not there to be measured.
type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// loadPeer runs one load, warm, and reports it. What a peer lets pass too much is a figure of it.
func (b *bench) loadPeer(ctx context.Context, w *keyWorld, name string, servers []*process, of bounds, c config, decide decider) error {
	workers := streamWorkers * peerConnections
	if _, _, err := b.batchLoad(ctx, w, workers, b.window/4, decide); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var a *audit
	m, err := withCPUOf(func() (sum time.Duration, err error) {
		for _, s := range servers {
			used, err := cpuOf(s.cmd.Process.Pid)
			if err != nil {
				return 0, fmt.Errorf("processor time of %s: %w", s.name, err)
			}
			sum += used
		}
		return sum, nil
	}, func() (m measured, err error) {
		m, a, err = b.batchLoad(ctx, w, workers, b.window, decide)
		return m, err
	})
	if err != nil {
		return err
	}
	b.reportLoad(name, m, a, of, with(c, "concurrency", workers, "transport", "loopback without TLS"))
	return nil
}

// measureGCRA measures a script in Redis: each check is one call of it, a batch one pipeline. With
// wait a batch is answered when one of the two replicas has it.
func (b *bench) measureGCRA(ctx context.Context, w *keyWorld, name string, wait bool) (err error) {
	set, err := startRedis(ctx, b.redis, filepath.Join(b.dir, name))
	if err != nil {
		return err
	}
	defer set.stop()
	var conns []*redisConn
	defer func() {
		for _, c := range conns {
			_ = c.conn.Close()
		}
	}()
	sha := ""
	for range streamWorkers * peerConnections {
		c, err := dialRedis(ctx, set.addr)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		loaded, err := c.do(ctx, "SCRIPT", "LOAD", gcra)
		if err != nil {
			return err
		}
		sha, _ = loaded.(string)
	}
	c := with(worldConfig(), "redis", set.version, "connections", len(conns), "algorithm", "GCRA in Lua, one call a check",
		"persistence", "AOF everysec", "replicas", redisReplicas, "wait", "off")
	if wait {
		c["wait"] = "1 replica, in memory, once a batch"
	}
	return b.loadPeer(ctx, w, name, set.processes, worldBounds, c, func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error) {
		answers, err := conns[worker].decide(ctx, sha, batch, wait)
		if err != nil {
			_ = conns[worker].conn.Close() // the rest of its replies belongs to no later batch
		}
		return answers, err
	})
}

// levelArgs are the script's arguments for the cost and for both levels.
var levelArgs = []string{
	"1", strconv.Itoa(1_000_000 / keyRate), strconv.Itoa(keyBurst), strconv.Itoa(1_000_000 / tenantRate), strconv.Itoa(tenantBurst),
}

// decide has the script decide every check of a batch in one pipeline.
func (c *redisConn) decide(ctx context.Context, sha string, batch []client.Request, wait bool) ([]client.Answer, error) {
	for i := range batch {
		c.add(slices.Concat([]string{"EVALSHA", sha, "2", "k:" + batch[i].Tenant + "/" + batch[i].Key, "t:" + batch[i].Tenant}, levelArgs)...)
	}
	if wait {
		c.add("WAIT", "1", strconv.FormatInt(callTimeout.Milliseconds(), 10))
	}
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	answers := make([]client.Answer, len(batch))
	for i := range answers {
		reply, err := c.reply()
		if failed := redisError(""); errors.As(err, &failed) {
			answers[i].Err = &client.Error{Message: failed.Error()}
			continue
		}
		if err != nil {
			return nil, err
		}
		pair, ok := reply.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("%w: %v", errShape, reply)
		}
		level, _ := pair[0].(int64)
		after, _ := pair[1].(int64)
		answers[i] = denial(int(level), uint32(after))
	}
	if wait {
		have, err := c.reply()
		if err != nil {
			return nil, err
		}
		if n, _ := have.(int64); n < 1 {
			return nil, fmt.Errorf("%w: no replica has the batch", errShape)
		}
	}
	return answers, nil
}

// denial is the answer of a check that a level denied: 1 is its key's, 2 its tenant's, 0 none.
func denial(level int, retryAfterMs uint32) client.Answer {
	a := client.Answer{Allow: level == 0}
	switch level {
	case 1:
		a.LimitID, a.RetryAfterMs = keyLimit, retryAfterMs
	case 2:
		a.LimitID, a.RetryAfterMs = tenantLimit, retryAfterMs
	}
	return a
}

// ratelimitConfig has the world's rates; there is no burst that could be set.
var ratelimitConfig = fmt.Sprintf(`domain: bench
descriptors:
  - key: key
    rate_limit: {unit: second, requests_per_unit: %d}
  - key: tenant
    rate_limit: {unit: second, requests_per_unit: %d}
`, keyRate, tenantRate)

// windowBounds are what windows of a second admit: an interval of d seconds touches d+2 of them at most.
var windowBounds = bounds{key: bucket{keyRate, 2 * keyRate}, tenant: bucket{tenantRate, 2 * tenantRate}}

// measureRatelimit measures envoyproxy/ratelimit. A batch is one request, with two descriptors for
// each check.
func (b *bench) measureRatelimit(ctx context.Context, w *keyWorld, name string) error {
	if b.ratelimit == "" {
		return unavailableError{errNoRatelimit}
	}
	dir := filepath.Join(b.dir, name)
	set, err := startRedis(ctx, b.redis, filepath.Join(dir, "redis"))
	if err != nil {
		return err
	}
	defer set.stop()
	configs := filepath.Join(dir, "ratelimit", "config")
	if err := os.MkdirAll(configs, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(configs, "bench.yaml"), []byte(ratelimitConfig), 0o644); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	p, err := startProcess(ctx, "ratelimit", dir, b.ratelimit, append(os.Environ(),
		"RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false", "USE_STATSD=false",
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+set.addr,
		"HOST=127.0.0.1", "PORT="+ports[0], "DEBUG_HOST=127.0.0.1", "DEBUG_PORT="+ports[1], "GRPC_HOST=127.0.0.1", "GRPC_PORT="+ports[2],
	))
	if err != nil {
		return unavailableError{err}
	}
	defer p.stop()
	var services []rlsv3.RateLimitServiceClient
	for range peerConnections {
		conn, err := grpc.NewClient("127.0.0.1:"+ports[2], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		services = append(services, rlsv3.NewRateLimitServiceClient(conn))
	}
	probe := []client.Request{{Tenant: "probe", Key: "probe"}}
	if _, err := until(ctx, startLimit, "ratelimit to answer by its limits", func() bool {
		_, err := askRatelimit(ctx, services[0], probe)
		return err == nil
	}); err != nil {
		return unavailableError{p.explain(err)}
	}
	c := with(worldConfig(), "redis", set.version, "connections", len(services), "algorithm", "fixed windows of 1 s, one request a batch, two descriptors a check",
		"key_limit", perSecond(keyRate)+", no burst", "tenant_limit", perSecond(tenantRate)+", no burst", "persistence", "AOF everysec",
		"replicas", redisReplicas, "wait", "off", "local_cache", "off")
	return b.loadPeer(ctx, w, name, append(set.processes, p), windowBounds, c, func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error) {
		return askRatelimit(ctx, services[worker%len(services)], batch)
	})
}

func askRatelimit(ctx context.Context, service rlsv3.RateLimitServiceClient, batch []client.Request) ([]client.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := service.ShouldRateLimit(ctx, ratelimitMessage(batch))
	if err != nil {
		return nil, err
	}
	return ratelimitAnswers(resp, len(batch))
}

// ratelimitMessage asks for the key's and then the tenant's limit of every check.
func ratelimitMessage(batch []client.Request) *rlsv3.RateLimitRequest {
	entries := make([]descriptorv3.RateLimitDescriptor_Entry, 2*len(batch))
	descriptors := make([]descriptorv3.RateLimitDescriptor, 2*len(batch))
	m := &rlsv3.RateLimitRequest{Domain: "bench", HitsAddend: 1, Descriptors: make([]*descriptorv3.RateLimitDescriptor, 2*len(batch))}
	for i := range batch {
		entries[2*i].Key, entries[2*i].Value = "key", batch[i].Tenant+"/"+batch[i].Key
		entries[2*i+1].Key, entries[2*i+1].Value = "tenant", batch[i].Tenant
	}
	for i := range descriptors {
		descriptors[i].Entries = []*descriptorv3.RateLimitDescriptor_Entry{&entries[i]}
		m.Descriptors[i] = &descriptors[i]
	}
	return m
}

// ratelimitAnswers are the checks' answers: allowed is what neither descriptor is over.
func ratelimitAnswers(resp *rlsv3.RateLimitResponse, checks int) ([]client.Answer, error) {
	all := resp.GetStatuses()
	if len(all) != 2*checks {
		return nil, fmt.Errorf("%w: %d statuses for %d checks", errShape, len(all), checks)
	}
	answers := make([]client.Answer, checks)
	for i := range answers {
		answers[i].Allow = true
		for level, s := range all[2*i : 2*i+2] {
			if s.GetCurrentLimit() == nil {
				return nil, fmt.Errorf("%w: no limit applied to check %d", errShape, i)
			}
			if s.GetCode() == rlsv3.RateLimitResponse_OVER_LIMIT && answers[i].Allow {
				answers[i] = denial(level+1, uint32(s.GetDurationUntilReset().AsDuration().Milliseconds()))
			}
		}
	}
	return answers, nil
}

// redisSet is a primary with its replicas.
type redisSet struct {
	addr, version string
	processes     []*process
}

func (s *redisSet) stop() {
	for _, p := range s.processes {
		p.stop()
	}
}

// startRedis starts a primary and its replicas, each with an append-only file that is synced every
// second, and waits until they replicate.
func startRedis(ctx context.Context, binary, dir string) (_ *redisSet, err error) {
	if binary == "" {
		return nil, unavailableError{errNoRedis}
	}
	ports, err := freePorts(1 + redisReplicas)
	if err != nil {
		return nil, err
	}
	set := &redisSet{addr: "127.0.0.1:" + ports[0]}
	defer func() {
		if err != nil {
			set.stop()
		}
	}()
	for i, port := range ports {
		args := []string{
			"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0",
		}
		if i > 0 {
			args = append(args, "--replicaof", "127.0.0.1", ports[0])
		}
		p, err := startProcess(ctx, "redis-"+strconv.Itoa(i+1), filepath.Join(dir, strconv.Itoa(i+1)), binary, os.Environ(), args...)
		if err != nil {
			return nil, unavailableError{err}
		}
		set.processes = append(set.processes, p)
	}
	if _, err := until(ctx, startLimit, "Redis to replicate", func() bool { return set.ready(ctx) }); err != nil {
		return nil, unavailableError{set.processes[0].explain(err)}
	}
	return set, nil
}

// ready says whether all replicas follow the primary, and notes the version.
func (s *redisSet) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := dialRedis(ctx, s.addr)
	if err != nil {
		return false
	}
	defer c.conn.Close()
	info, err := c.do(ctx, "INFO", "everything")
	text, _ := info.(string)
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "redis_version:"); ok {
			s.version = strings.TrimSpace(v)
		}
	}
	return err == nil && strings.Count(text, "state=online") == redisReplicas
}

// process is a server that this program started. Its output goes to a file in its folder.
type process struct {
	name, log string
	cmd       *exec.Cmd
	end       context.CancelFunc
}

func startProcess(ctx context.Context, name, dir, binary string, env []string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &process{name: name, log: filepath.Join(dir, name+".log")}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	ctx, p.end = context.WithCancel(ctx)
	p.cmd = exec.CommandContext(ctx, binary, args...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, env, out, out
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopPatient
	if err := p.cmd.Start(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// stop ends the process; how it takes that is its own affair.
func (p *process) stop() {
	p.end()
	_ = p.cmd.Wait()
}

// explain adds the end of the process's output to an error.
func (p *process) explain(err error) error {
	out, _ := os.ReadFile(p.log) // without it the error stands alone
	return fmt.Errorf("%w; %s said at last: %q", err, p.name, out[max(0, len(out)-500):])
}

// freePorts are ports of loopback that nobody listens on.
func freePorts(n int) (ports []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
