package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	probePause     = 5 * time.Millisecond
	probersAGroup  = 2
	beforeKill     = time.Second
	afterKillLeast = 4 * time.Second
	afterKillMost  = 30 * time.Second
	placementLimit = 5 * time.Second
	probeChecks    = 40 // what tells a tenant's group from the others
)

// probed is one group and a call that it must answer.
type probed struct {
	group string
	what  string
	call  func(ctx context.Context, c *client.Client) error
}

// measureFailover kills leaders under light traffic, and takes the longest time that a client
// went without a good answer from each group. Clients fail over between the nodes.
func measureFailover(ctx context.Context, b *bench) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	groups, err := b.probedGroups(ctx)
	if err != nil {
		return err
	}
	var led, others []time.Duration
	byKind := map[string][]time.Duration{}
	for k := range b.kills {
		gaps, victims, err := b.killOneLeader(ctx, groups, groups[k%len(groups)].group)
		if err != nil {
			return err
		}
		for i, g := range groups {
			if slices.Contains(victims, g.group) {
				led = append(led, gaps[i])
				kind, _, _ := strings.Cut(g.group, "-")
				byKind[kind] = append(byKind[kind], gaps[i])
			} else {
				others = append(others, gaps[i])
			}
		}
	}
	c := config{"kills": b.kills, "probe_interval_ms": milliseconds(probePause), "probers_a_group": probersAGroup, "documents": b.held()}
	b.gaps("failover.gap", led, with(c, "groups", "those that the killed node led"))
	for _, kind := range []string{"meta", "limiter", "index"} {
		b.gaps("failover.gap."+kind, byKind[kind], with(c, "groups", kind+", where the killed node led"))
	}
	b.gaps("failover.gap.other", others, with(c, "groups", "those led by other nodes"))
	return nil
}

// held is how many documents the region holds.
func (b *bench) held() int {
	if b.loaded {
		return b.documents
	}
	return 0
}

func (b *bench) gaps(name string, gaps []time.Duration, c config) {
	if len(gaps) == 0 {
		return
	}
	slices.Sort(gaps)
	median, longest := summary(gaps)
	c["samples"] = len(gaps)
	b.report.scalar(name+".median", milliseconds(median), "ms", c)
	b.report.scalar(name+".max", milliseconds(longest), "ms", c)
}

// killOneLeader probes all groups, kills the leader of target, and returns the longest gap of
// each group and the names of all groups that the node led.
func (b *bench) killOneLeader(ctx context.Context, groups []probed, target string) ([]time.Duration, []string, error) {
	clients, err := b.newClients(len(groups)*probersAGroup, true)
	if err != nil {
		return nil, nil, err
	}
	probers := make([]*prober, len(clients))
	probing, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i, c := range clients {
		probers[i] = &prober{
			call: groups[i/probersAGroup].call, client: func() *client.Client { return c }, pause: probePause, limit: callTimeout,
		}
		all.Go(func() { probers[i].run(probing) })
	}
	defer all.Wait()
	defer stop()
	time.Sleep(beforeKill)
	leader, led, err := leaderOf(ctx, clients[0], target)
	if err != nil {
		return nil, nil, err
	}
	nodes := b.nodes()
	for i := range nodes {
		if nodes[i].ID != leader {
			continue
		}
		killed := time.Now()
		if err := b.kill(ctx, nodes[i]); err != nil {
			return nil, nil, err
		}
		time.Sleep(afterKillLeast)
		_, err := until(ctx, afterKillMost, "every group to answer after the kill of "+leader, func() bool {
			return !slices.ContainsFunc(probers, func(p *prober) bool { return !p.answeredAfter(killed.Add(afterKillLeast)) })
		})
		if err != nil {
			return nil, nil, err
		}
	}
	stop()
	all.Wait()
	gaps := make([]time.Duration, len(groups))
	for i, p := range probers {
		gaps[i/probersAGroup] = max(gaps[i/probersAGroup], p.gap)
	}
	return gaps, led, b.whole(ctx)
}

// prober calls one group again and again: for each call, a client repeats it until limit.
type prober struct {
	call   func(ctx context.Context, c *client.Client) error
	client func() *client.Client
	// pause follows each answer.
	pause, limit time.Duration

	mu     sync.Mutex
	last   time.Time // of the latest good answer
	gap    time.Duration
	ended  time.Time // when the gap did
	failed int
	err    error // of the first call that failed
}

func (p *prober) run(ctx context.Context) {
	for ctx.Err() == nil {
		callCtx, cancel := context.WithTimeout(ctx, p.limit)
		err := p.call(callCtx, p.client())
		cancel()
		if err == nil {
			p.answered(time.Now())
		} else if ctx.Err() == nil {
			p.refused(err)
		}
		time.Sleep(p.pause)
	}
}

func (p *prober) refused(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed++; p.err == nil {
		p.err = fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err)
	}
}

func (p *prober) answered(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() {
		if gap := now.Sub(p.last); gap > p.gap {
			p.gap, p.ended = gap, now
		}
	}
	p.last = now
}

// take returns what was seen since it was called last. A gap that lasts counts with what follows,
// as a whole.
func (p *prober) take() (gap time.Duration, ended time.Time, failed int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gap, ended, failed, err = p.gap, p.ended, p.failed, p.err
	p.gap, p.ended, p.failed, p.err = 0, time.Time{}, 0, nil
	return gap, ended, failed, err
}

func (p *prober) answeredAfter(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last.After(t)
}

// leaderOf returns the leader of a group and all groups that it leads.
func leaderOf(ctx context.Context, c *client.Client, group string) (leader string, led []string, err error) {
	groups, err := status(ctx, c)
	if err != nil {
		return "", nil, err
	}
	for _, g := range groups {
		if g.GetName() == group {
			leader = g.GetLeader()
		}
	}
	if leader == "" {
		return "", nil, fmt.Errorf("group %s has no leader", group)
	}
	for _, g := range groups {
		if g.GetLeader() == leader {
			led = append(led, g.GetName())
		}
	}
	return leader, led, nil
}

func status(ctx context.Context, c *client.Client) ([]*clusterv1.GroupStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetGroups(), nil
}

// probedGroups finds, from outside, a call for every group: a tenant that each limiter group
// decides for, a document that each shard holds, and for meta the list of limits.
func (b *bench) probedGroups(ctx context.Context) ([]probed, error) {
	clients, err := b.newClients(1, false)
	if err != nil {
		return nil, err
	}
	tenants, err := limiterTenants(ctx, clients[0])
	if err != nil {
		return nil, err
	}
	shards, err := shardDocuments(ctx, clients[0])
	if err != nil {
		return nil, err
	}
	groups, err := status(ctx, clients[0])
	if err != nil {
		return nil, err
	}
	var out []probed
	for _, g := range groups {
		p := probed{group: g.GetName()}
		if tenant, ok := tenants[p.group]; ok {
			p.what, p.call = "check", func(ctx context.Context, c *client.Client) error {
				_, err := c.Limiter().Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: 1, RequestId: client.NewRequestID()}))
				return err
			}
		} else if doc, ok := shards[p.group]; ok {
			p.what, p.call = "ingest", func(ctx context.Context, c *client.Client) error { return ingestOne(ctx, c, doc, nil) }
		} else if p.group == "meta" {
			p.what, p.call = "list limits", func(ctx context.Context, c *client.Client) error {
				_, err := c.Limiter().ListLimits(ctx, connect.NewRequest(&limiterv1.ListLimitsRequest{Ids: []string{benchTenant(0)}}))
				return err
			}
		} else {
			return nil, fmt.Errorf("no call found that group %s answers", p.group)
		}
		out = append(out, p)
	}
	return out, nil
}

// limiterTenants finds a tenant for each limiter group: the group whose log grows by a
// tenant's checks.
func limiterTenants(ctx context.Context, c *client.Client) (map[string]string, error) {
	out := map[string]string{}
	for i := range benchTenants {
		before, err := status(ctx, c)
		if err != nil {
			return nil, err
		}
		check := checkOf([]*client.Client{c}, 1)
		for range probeChecks {
			if err := check(ctx, 0, i); err != nil {
				return nil, err
			}
		}
		var failed error
		_, err = until(ctx, placementLimit, "the log of "+benchTenant(i)+"'s group to grow", func() bool {
			after, err := status(ctx, c)
			if err != nil {
				failed = err
				return true
			}
			for k, g := range after {
				if strings.HasPrefix(g.GetName(), "limiter-") && g.GetCommitIndex() >= before[k].GetCommitIndex()+probeChecks {
					out[g.GetName()] = benchTenant(i)
					return true
				}
			}
			return false
		})
		if err := errors.Join(err, failed); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// shardDocuments finds a document for each shard, as the answers to their ingests tell.
func shardDocuments(ctx context.Context, c *client.Client) (map[string]*provenancev1.Document, error) {
	out := map[string]*provenancev1.Document{}
	for i := range 100 {
		d := &provenancev1.Document{Id: fmt.Sprintf("probe-%d", i), Kind: "event", Tenant: "probe"}
		var shard string
		if err := ingestOne(ctx, c, d, &shard); err != nil {
			return nil, err
		}
		out[shard] = d
	}
	return out, nil
}

// ingestOne stores a document, or has it recognised, which takes an entry of the shard's log
// too; shard, if not nil, is set to where it is.
func ingestOne(ctx context.Context, c *client.Client, d *provenancev1.Document, shard *string) error {
	resp, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{Documents: []*provenancev1.Document{d}}))
	if err == nil && resp.Msg.GetIndexed()+resp.Msg.GetExisting() != 1 {
		err = fmt.Errorf("the document was refused: %v", resp.Msg)
	}
	if err == nil && shard != nil {
		*shard = resp.Msg.GetPositions()[0].GetShard()
	}
	return err
}
