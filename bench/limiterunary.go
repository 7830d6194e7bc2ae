package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/maestro-conductor/maestro/internal/client"
)

// unaryRounds take turns between checks and no-ops, so that what else the machine does falls on both.
const unaryRounds = 3

// measureUnary puts single checks beside a bare handler of the same server that does nothing: the
// same client, connections and message sizes, all calls to one endpoint. Then an open loop asks for
// half of what the checks reached.
func measureUnary(ctx context.Context, b *bench) error {
	if err := b.setLimits(ctx); err != nil {
		return err
	}
	endpoint, stop, err := startNoop(ctx, noopConnect, filepath.Dir(b.region.Context().CA))
	if err != nil {
		return err
	}
	err = b.compareUnary(ctx, endpoint)
	return errors.Join(err, stop())
}

func (b *bench) compareUnary(ctx context.Context, noop string) error {
	const workers = 64
	checkers, err := b.newClients(connections, false)
	if err != nil {
		return err
	}
	idle, err := b.noopClients(connections, noop)
	if err != nil {
		return err
	}
	var check, nothing measured
	for range unaryRounds {
		for _, of := range []struct {
			sum     *measured
			clients []*client.Client
		}{{&check, checkers}, {&nothing, idle}} {
			if _, err := closedLoop(ctx, workers, 0, warmUp, checkOf(of.clients, 1)); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
			m, err := b.withCPU(func() (measured, error) {
				return closedLoop(ctx, workers, 0, b.window/unaryRounds, checkOf(of.clients, 1))
			})
			if err != nil {
				return err
			}
			of.sum.add(m)
		}
	}
	nothing.cpu = 0 // the nodes have nothing to do with it
	c := config{"concurrency": workers, "connections": connections, "loop": "closed", "call": "Check cost=1, one matching limit", "rounds": unaryRounds}
	b.report.latency("limiter.unary.check", check, c)
	b.report.latency("limiter.unary.noop", nothing, c)
	b.report.scalar("limiter.unary_ratio_to_noop", check.throughput()/nothing.throughput(), "times the throughput", c)
	b.report.scalar("limiter.unary_p99_ratio_to_noop", percentile(check.samples, 0.99).Seconds()/percentile(nothing.samples, 0.99).Seconds(), "times the p99", c)
	return b.openUnary(ctx, checkers, openLoopPart*check.throughput())
}

// openUnary offers a rate of checks whatever the answers do.
func (b *bench) openUnary(ctx context.Context, clients []*client.Client, rate float64) error {
	m, err := b.withCPU(func() (measured, error) { return openLoop(ctx, rate, b.window, checkOf(clients, 1)) })
	if err != nil {
		return err
	}
	b.report.latency("limiter.unary.open", m, config{
		"loop": "open", "offered_per_s": int(rate), "connections": len(clients), "call": "Check cost=1, one matching limit",
	})
	return nil
}

// add joins two windows of one load.
func (m *measured) add(other measured) {
	m.samples = append(m.samples, other.samples...)
	slices.Sort(m.samples)
	m.errors += other.errors
	m.elapsed += other.elapsed
	m.cpu += other.cpu
	m.client += other.client
}
