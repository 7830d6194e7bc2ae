package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter/client"
)

// The world of the limiter's steps: every key belongs to one tenant and has a limit of its own, and
// so has every tenant. Keys are drawn by Zipf's law, so that a few are far above their limit and
// most are cold.
const (
	limitedKeys    = 1_000_000
	limitedTenants = 1_000
	zipfExponent   = 1.1
	// drawCount draws are made before a load and used in turn: more would not fit the caches better
	// than what a service receives.
	drawCount = 1 << 22

	// A key's bucket fills in half a minute, as a limit for one user of an API would: what is lent
	// of it may be held for that long, and a key that is asked for every few seconds is not asked for
	// in its group each time.
	keyRate, keyBurst       = 100, 3_000
	tenantRate, tenantBurst = 100_000, 100_000

	keyLimit, tenantLimit = "zipf-key", "zipf-tenant"

	// streamWorkers keep as many messages under way on each of three connections.
	streamWorkers = 8
	// hotKeys are few enough to be asked for all the time, so that leases decide nearly every check.
	hotKeys     = 10_000
	batchChecks = client.MaxChecks
)

// keyWorld are the requests that a load draws from.
type keyWorld struct {
	requests []client.Request // by rank
	draws    []uint32
}

func newKeyWorld() *keyWorld {
	w := &keyWorld{requests: make([]client.Request, limitedKeys)}
	for k := range w.requests {
		w.requests[k] = client.Request{Tenant: limitedTenant(k), Key: "key-" + strconv.Itoa(k), Cost: 1}
	}
	w.draw(limitedKeys)
	return w
}

// draw makes the draws from the first keys.
func (w *keyWorld) draw(keys uint64) {
	w.draws = make([]uint32, drawCount)
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), zipfExponent, 1, keys-1)
	for i := range w.draws {
		w.draws[i] = uint32(zipf.Uint64())
	}
}

func limitedTenant(key int) string { return "zipf-" + strconv.Itoa(key%limitedTenants) }

// fill draws a batch and returns where the next one begins.
func (w *keyWorld) fill(batch []client.Request, ranks []uint32, at int) int {
	for i := range batch {
		k := w.draws[at]
		ranks[i], batch[i] = k, w.requests[k]
		if at++; at == len(w.draws) {
			at = 0
		}
	}
	return at
}

// limitWorld sets the limits of the world.
func (b *bench) limitWorld(ctx context.Context) error {
	if err := b.up(ctx); err != nil {
		return err
	}
	clients, err := b.newClients(1, false)
	if err != nil {
		return err
	}
	req := &limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{
			Id: tenantLimit, Scope: "tenant", Selector: "*",
			TokenBucket: &limiterv1.TokenBucket{Rate: perSecond(tenantRate), Burst: tenantBurst},
		},
		{
			Id: keyLimit, Scope: "key", Selector: "*/key-*",
			TokenBucket: &limiterv1.TokenBucket{Rate: perSecond(keyRate), Burst: keyBurst},
		},
	}}
	return inForce(ctx, clients[0], req)
}

func perSecond(n int) string { return strconv.Itoa(n) + "/s" }

// decider decides a batch, as one of the ways to ask does.
type decider func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error)

// batchLoad lets workers decide batches one after the other for the window, and audits what passed.
func (b *bench) batchLoad(ctx context.Context, w *keyWorld, workers int, window time.Duration, decide decider) (measured, *audit, error) {
	all := newAudit(auditedKeys, auditedTenants)
	type scratch struct {
		batch []client.Request
		ranks []uint32
		at    int
		audit *audit
	}
	of := make([]scratch, workers)
	for i := range of {
		of[i] = scratch{
			batch: make([]client.Request, batchChecks), ranks: make([]uint32, batchChecks), at: i * (drawCount / workers),
			audit: newAudit(auditedKeys, auditedTenants),
		}
	}
	began := time.Now()
	m, err := closedLoop(ctx, workers, 0, window, func(ctx context.Context, worker, _ int) error {
		s := &of[worker]
		s.at = w.fill(s.batch, s.ranks, s.at)
		asked := time.Since(began)
		answers, err := decide(ctx, worker, s.batch)
		if err != nil {
			return err
		}
		s.audit.note(s.ranks, answers, asked, time.Since(began))
		return nil
	})
	for i := range of {
		all.join(of[i].audit)
	}
	all.window = m.elapsed
	return m, all, err
}

// worldConfig is what the figures of the world's batches depend on.
func worldConfig() config {
	return config{
		"keys": limitedKeys, "tenants": limitedTenants, "zipf": zipfExponent, "batch": batchChecks, "loop": "closed",
		"key_limit": limitText(keyRate, keyBurst), "tenant_limit": limitText(tenantRate, tenantBurst),
	}
}

// measureBatches measures CheckStream and CheckBatch against the region, and a stream of plain
// messages to servers that only look into a map.
func measureBatches(ctx context.Context, b *bench) error {
	if err := b.limitWorld(ctx); err != nil {
		return err
	}
	w := newKeyWorld()
	c := worldConfig()
	streams, closeStreams, err := b.openStreams(b.region.Context().Endpoints)
	if err != nil {
		return err
	}
	defer closeStreams()
	workers := streamWorkers * len(streams)
	stream := func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error) {
		return streams[worker%len(streams)].Checks(ctx, batch)
	}
	if err := b.reportBatches(ctx, w, "limiter.stream", workers, with(c, "connections", len(streams)), stream); err != nil {
		return fmt.Errorf("CheckStream: %w", err)
	}
	o, err := b.limiterOptions(b.region.Context().Endpoints)
	if err != nil {
		return err
	}
	spread, err := client.OpenSpread(o)
	if err != nil {
		return err
	}
	defer spread.Close()
	bySpread := func(ctx context.Context, _ int, batch []client.Request) ([]client.Answer, error) {
		return spread.Checks(ctx, batch)
	}
	if err := b.reportBatches(ctx, w, "limiter.spread", workers, with(c, "connections", len(streams), "each_key", "at one node"), bySpread); err != nil {
		return fmt.Errorf("CheckStream, each key at one node: %w", err)
	}
	w.draw(hotKeys)
	if err := b.reportBatches(ctx, w, "limiter.stream_hot", workers, with(c, "connections", len(streams), "keys", hotKeys), stream); err != nil {
		return fmt.Errorf("CheckStream of hot keys: %w", err)
	}
	w.draw(limitedKeys)
	clients, err := b.newClients(len(streams), true)
	if err != nil {
		return err
	}
	unary := func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error) {
		resp, err := clients[worker%len(clients)].Limiter().CheckBatch(ctx, connect.NewRequest(batchMessage(batch)))
		if err != nil {
			return nil, err
		}
		return batchAnswers(resp.Msg), nil
	}
	if err := b.reportBatches(ctx, w, "limiter.checkbatch", workers, with(c, "connections", len(clients)), unary); err != nil {
		return fmt.Errorf("CheckBatch: %w", err)
	}
	return b.measureMaps(ctx, w, workers, c)
}

// reportBatches runs one load, warm, and reports what it came to.
func (b *bench) reportBatches(ctx context.Context, w *keyWorld, name string, workers int, c config, decide decider) error {
	c = with(c, "concurrency", workers)
	if _, _, err := b.batchLoad(ctx, w, workers, b.window/4, decide); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	before, err := b.limiterCounts(ctx)
	if err != nil {
		return err
	}
	var a *audit
	m, err := b.withCPU(func() (m measured, err error) {
		m, a, err = b.batchLoad(ctx, w, workers, b.window, decide)
		return m, err
	})
	if err != nil {
		return err
	}
	after, err := b.limiterCounts(ctx)
	if err != nil {
		return err
	}
	checks := float64(len(m.samples) * batchChecks)
	over := b.reportLoad(name, m, a, worldBounds, c)
	b.report.scalar(name+".raft_commands_per_check", (after.commands-before.commands)/checks, "commands", c)
	if decided := after.decided - before.decided; decided > 0 {
		b.report.scalar(name+".decided_by_groups", (after.byGroups-before.byGroups)/decided, "of the checks", c)
	}
	if over > 0 {
		return fmt.Errorf("%s: %v tokens more than the limits admit have passed", name, over)
	}
	return nil
}

// reportLoad reports what a load of batches came to, whoever answered, and returns how many tokens
// too many passed.
func (b *bench) reportLoad(name string, m measured, a *audit, of bounds, c config) float64 {
	checks := float64(len(m.samples) * batchChecks)
	b.report.latency(name+".batch", m, c)
	b.report.scalar(name+".batch_checks_per_s", checks/m.elapsed.Seconds(), "checks/s", c)
	b.report.scalar(name+".server_cpu_per_check", float64(m.cpu.Nanoseconds())/checks, "ns", c)
	b.report.scalar(name+".client_cpu_per_check", float64(m.client.Nanoseconds())/checks, "ns", c)
	b.report.scalar(name+".failed", float64(a.failed)/checks, "of the checks", c)
	over, use := a.verdict(of)
	b.report.scalar(name+".over_admission", over, "tokens", with(c, "audited_keys", a.keys, "audited_tenants", a.tenants))
	if use.limits > 0 {
		b.report.scalar(name+".utilisation", use.mean, "of what the limits admit", with(c, "saturated_limits", use.limits, "least", fmt.Sprintf("%.3f", use.least)))
	}
	return over
}

// openStreams opens a stream to each endpoint; the others are where it goes when that one fails.
func (b *bench) openStreams(endpoints []string) ([]*client.Stream, func(), error) {
	o, err := b.limiterOptions(endpoints)
	if err != nil {
		return nil, nil, err
	}
	var streams []*client.Stream
	stop := func() {
		for _, s := range streams {
			s.Close()
		}
	}
	for i := range endpoints {
		o.Endpoints = slices.Concat(endpoints[i:], endpoints[:i])
		s, err := client.Open(o)
		if err != nil {
			stop()
			return nil, nil, err
		}
		streams = append(streams, s)
	}
	return streams, stop, nil
}

// limiterOptions are how the region's endpoints are asked.
func (b *bench) limiterOptions(endpoints []string) (client.Options, error) {
	where := b.region.Context()
	token, err := where.ReadToken()
	return client.Options{Endpoints: endpoints, CAFile: where.CA, Token: token}, err
}

func batchMessage(batch []client.Request) *limiterv1.CheckBatchRequest {
	all := make([]limiterv1.CheckRequest, len(batch))
	m := &limiterv1.CheckBatchRequest{Checks: make([]*limiterv1.CheckRequest, len(batch))}
	for i := range batch {
		all[i].Tenant, all[i].Token, all[i].Key, all[i].Cost = batch[i].Tenant, batch[i].Token, batch[i].Key, batch[i].Cost
		m.Checks[i] = &all[i]
	}
	return m
}

func batchAnswers(m *limiterv1.CheckBatchResponse) []client.Answer {
	out := make([]client.Answer, len(m.GetResults()))
	for i, r := range m.GetResults() {
		out[i] = client.Answer{
			Allow: r.GetDecision().GetAllow(), RetryAfterMs: r.GetDecision().GetRetryAfterMs(),
			Reason: r.GetDecision().GetReason(), LimitID: r.GetDecision().GetLimitId(), Kind: r.GetDecision().GetKind(),
		}
		if e := r.GetError(); e != nil {
			out[i].Err = &client.Error{Reason: e.GetReason(), Outcome: e.GetOutcome(), Message: e.GetReason()}
		}
	}
	return out
}

// limiterCounts are what the nodes counted so far.
type limiterCounts struct {
	// commands were committed in limiter groups.
	commands float64
	// decided are all checks, byGroups those that leases did not decide; 0 where nodes do not count
	// them.
	decided, byGroups float64
}

func (b *bench) limiterCounts(ctx context.Context) (sum limiterCounts, err error) {
	for _, n := range b.nodes() {
		m, err := metrics(ctx, n.Admin)
		if err != nil {
			return sum, err
		}
		for name, v := range m {
			switch {
			case strings.HasPrefix(name, `mc_raft_proposals_total{group="limiter`):
				sum.commands += v
			case strings.HasPrefix(name, "mc_rl_checks_total{"):
				sum.decided += v
				if strings.Contains(name, `source="leader"`) {
					sum.byGroups += v
				}
			}
		}
	}
	return sum, nil
}

// measureMaps is the yardstick: messages of plain checks on a stream, and behind it, in as many
// processes as the region has nodes, one map under one mutex.
func (b *bench) measureMaps(ctx context.Context, w *keyWorld, workers int, c config) (err error) {
	var all []decider
	for range len(b.region.Context().Endpoints) {
		endpoint, stop, startErr := startNoop(ctx, noopMap, filepath.Dir(b.region.Context().CA))
		if startErr != nil {
			return startErr
		}
		defer func() { _ = stop() }()
		m, mapErr := b.dialMap(ctx, endpoint)
		if mapErr != nil {
			return mapErr
		}
		defer m.close()
		all = append(all, m.decide)
	}
	decide := func(ctx context.Context, worker int, batch []client.Request) ([]client.Answer, error) {
		return all[worker%len(all)](ctx, worker, batch)
	}
	if _, _, err := b.batchLoad(ctx, w, workers, b.window/4, decide); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	m, _, err := b.batchLoad(ctx, w, workers, b.window, decide)
	if err != nil {
		return err
	}
	c = with(c, "concurrency", workers, "connections", len(all), "servers", "a map under a mutex, no limiter")
	b.report.latency("limiter.map.batch", m, c)
	b.report.scalar("limiter.map.batch_checks_per_s", float64(len(m.samples)*batchChecks)/m.elapsed.Seconds(), "checks/s", c)
	return nil
}
