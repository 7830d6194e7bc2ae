package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// measureKeys asks for every key of the world once: what a cold key costs, what a live one takes of
// memory, and how long a node takes to come back with all of them.
func measureKeys(ctx context.Context, b *bench) error {
	if err := b.limitWorld(ctx); err != nil {
		return err
	}
	streams, closeStreams, err := b.openStreams(b.region.Context().Endpoints)
	if err != nil {
		return err
	}
	defer closeStreams()
	keys := limitedKeys
	if b.quick {
		keys /= 20
	}
	w := newKeyWorld()
	before, err := b.rss()
	if err != nil {
		return err
	}
	var next atomic.Int64
	workers := streamWorkers * len(streams)
	m, err := b.withCPU(func() (measured, error) {
		return closedLoop(ctx, workers, (keys/batchChecks+workers-1)/workers, time.Hour, func(ctx context.Context, worker, _ int) error {
			from := int(next.Add(batchChecks)) - batchChecks
			if from >= keys {
				return nil
			}
			answers, err := streams[worker%len(streams)].Checks(ctx, w.requests[from:from+batchChecks])
			for i := range answers {
				if err == nil && answers[i].Err != nil {
					err = fmt.Errorf("key %d: %w", from+i, answers[i].Err)
				}
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	after, err := b.rss()
	if err != nil {
		return err
	}
	c := config{"keys": keys, "tenants": limitedTenants, "batch": client.MaxChecks, "concurrency": workers, "key_limit": limitText(keyRate, keyBurst)}
	b.report.latency("limiter.cold.batch", m, c)
	b.report.scalar("limiter.cold.checks_per_s", float64(keys)/m.elapsed.Seconds(), "checks/s", c)
	b.report.scalar("limiter.memory_per_live_key", float64(after-before)/float64(keys), "bytes", with(c, "of", "the largest node's resident memory"))
	node := b.nodes()[0]
	if err := b.kill(ctx, node); err != nil {
		return err
	}
	took, err := until(ctx, backLimit, node.ID+" to be ready", func() bool { return isReady(ctx, node.Admin) })
	if err != nil {
		return err
	}
	b.report.scalar("limiter.recovery", milliseconds(took), "ms", with(c, "from", "start of the process after SIGKILL", "to", "/readyz 200"))
	return b.whole(ctx)
}

func limitText(rate, burst int) string { return fmt.Sprintf("%d/s burst %d", rate, burst) }
