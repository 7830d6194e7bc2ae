package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/maestro-conductor/maestro/internal/devregion"
)

// backLimit bounds how long a killed node may take to be ready again.
const backLimit = 5 * time.Minute

// measureRestart kills one node after the other, and takes the time from the start of its next
// process to its readiness. The supervisor's own pause before it starts one is not counted.
func measureRestart(ctx context.Context, b *bench) error {
	if err := b.load(ctx); err != nil {
		return err
	}
	return b.restartNodes(ctx, "restart.ready", b.documents)
}

func (b *bench) restartNodes(ctx context.Context, name string, documents int) error {
	var took []time.Duration
	for i := range b.restarts {
		node := b.nodes()[i%len(b.nodes())]
		if err := b.kill(ctx, node); err != nil {
			return err
		}
		d, err := until(ctx, backLimit, node.ID+" to be ready", func() bool { return isReady(ctx, node.Admin) })
		if err != nil {
			return err
		}
		took = append(took, d)
		if err := b.whole(ctx); err != nil {
			return err
		}
	}
	slices.Sort(took)
	median, longest := summary(took)
	c := config{"documents": documents, "runs": len(took), "from": "start of the process", "to": "/readyz 200"}
	b.report.scalar(name+".median", milliseconds(median), "ms", c)
	b.report.scalar(name+".max", milliseconds(longest), "ms", c)
	return nil
}

// kill ends a node with SIGKILL and waits for the process that follows it.
func (b *bench) kill(ctx context.Context, node devregion.NodeState) error {
	if err := b.region.Signal(node.ID, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := until(ctx, backLimit, node.ID+" to be started again", func() bool {
		pid := b.pid(node.ID)
		return pid != 0 && pid != node.PID
	})
	return err
}

func (b *bench) pid(node string) int {
	nodes := b.nodes()
	i := slices.IndexFunc(nodes, func(n devregion.NodeState) bool { return n.ID == node })
	return nodes[i].PID
}

// whole waits until every node is ready, and a little for leaders to settle.
func (b *bench) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, backLimit)
	defer cancel()
	if err := b.region.WaitReady(ctx); err != nil {
		return fmt.Errorf("after a kill: %w", err)
	}
	time.Sleep(2 * time.Second)
	return nil
}
