package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// benchTenants is enough tenants for every limiter group to hold some.
	benchTenants = 12
	// connections is how many connections a load uses at most, as many services would share a
	// few each.
	connections = 6
	// warmUp precedes every load.
	warmUp = 500 * time.Millisecond
	// openLoopPart of the throughput of the closed loop is what the open loop asks for.
	openLoopPart = 0.5
)

var concurrencies = []int{1, 64, 256}

func benchTenant(i int) string { return fmt.Sprintf("bench-%d", i%benchTenants) }

// setLimits gives every tenant a limit that never denies.
func (b *bench) setLimits(ctx context.Context) error {
	if err := b.up(ctx); err != nil {
		return err
	}
	clients, err := b.newClients(1, false)
	if err != nil {
		return err
	}
	req := &limiterv1.SetLimitsRequest{}
	for i := range benchTenants {
		req.Limits = append(req.Limits, &limiterv1.Limit{
			Id: benchTenant(i), Scope: "tenant", Selector: benchTenant(i),
			TokenBucket: &limiterv1.TokenBucket{Rate: "1000000/s", Burst: 1_000_000},
		})
	}
	return inForce(ctx, clients[0], req)
}

// inForce sets limits and waits until all groups apply them.
func inForce(ctx context.Context, c *client.Client, req *limiterv1.SetLimitsRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		resp, err := c.Limiter().SetLimits(ctx, connect.NewRequest(req))
		if err != nil || resp.Msg.GetInForce() {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// checkOf is a load of checks that every worker spreads over the tenants. All must be
// allowed, by one limit.
func checkOf(clients []*client.Client, cost uint32) operation {
	return func(ctx context.Context, worker, n int) error {
		resp, err := clients[worker%len(clients)].Limiter().Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{
			Tenant: benchTenant(worker + n), Token: "bench", Key: "bench", Cost: cost,
		}))
		if err == nil && (!resp.Msg.GetAllow() || len(resp.Msg.GetLevels()) != 1) {
			err = fmt.Errorf("the check was not decided by one limit: %v", resp.Msg)
		}
		return err
	}
}

// measureCommit measures checks that debit a limit: each is one entry of a Raft log,
// committed by a majority and applied before the answer.
func measureCommit(ctx context.Context, b *bench) error {
	return b.measureChecks(ctx, "commit", 1, config{"call": "Check cost=1, one matching limit"})
}

// measureRead measures linearizable reads: a check that takes nothing asks the group's leader,
// which confirms with a majority that it still leads.
func measureRead(ctx context.Context, b *bench) error {
	return b.measureChecks(ctx, "read", 0, config{"call": "Check cost=0, one matching limit"})
}

func (b *bench) measureChecks(ctx context.Context, name string, cost uint32, c config) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	best := 0.0
	for _, n := range concurrencies {
		clients, err := b.newClients(min(n, connections), true)
		if err != nil {
			return err
		}
		m, err := b.warm(ctx, n, checkOf(clients, cost))
		if err != nil {
			return err
		}
		best = max(best, m.throughput())
		b.report.latency(fmt.Sprintf("%s.c%d", name, n), m, with(c, "concurrency", n, "connections", len(clients), "loop", "closed"))
	}
	clients, err := b.newClients(connections, true)
	if err != nil {
		return err
	}
	rate := openLoopPart * best
	m, err := b.withCPU(func() (measured, error) { return openLoop(ctx, rate, b.window, checkOf(clients, cost)) })
	if err != nil {
		return err
	}
	b.report.latency(name+".open", m, with(c, "loop", "open", "offered_per_s", int(rate), "connections", len(clients)))
	return nil
}

// warm runs a closed loop twice, first without looking.
func (b *bench) warm(ctx context.Context, workers int, op operation) (measured, error) {
	if _, err := closedLoop(ctx, workers, 0, warmUp, op); err != nil {
		return measured{}, fmt.Errorf("warm up: %w", err)
	}
	return b.withCPU(func() (measured, error) { return closedLoop(ctx, workers, 0, b.window, op) })
}

// with adds pairs of key and value to a copy of c.
func with(c config, pairs ...any) config {
	c = maps.Clone(c)
	for i := 0; i+1 < len(pairs); i += 2 {
		c[pairs[i].(string)] = pairs[i+1]
	}
	return c
}
