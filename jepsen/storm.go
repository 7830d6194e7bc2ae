package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// faultStorm is a row of kill -9 at random moments: of nodes that serve, that start, and that
// still recover from the kill before. It is done only when kills are asked for.
const faultStorm = "kill-storm"

const (
	// stormKills is how many kills a storm has before the region is given time to be whole.
	stormKills = 10
	// stormGapMax is the longest pause between two kills of a storm. A node takes about a
	// second to be ready, so kills hit every stage of a start.
	stormGapMax = 2 * time.Second
)

// storm kills nodes until kills of them have died, in storms of stormKills.
func (n *Nemesis) storm(ctx context.Context, kills int) {
	for left := kills; left > 0 && ctx.Err() == nil; left -= stormKills {
		f := Fault{Kind: faultStorm, Started: n.recorder.now()}
		var errs []error
		var nodes []string
		for f.Kills < min(stormKills, left) && ctx.Err() == nil && len(errs) == 0 {
			time.Sleep(time.Duration(n.rand.Int64N(int64(stormGapMax))))
			victims := n.stormVictims(min(stormKills, left) - f.Kills)
			if err := n.killTogether(victims); err != nil {
				errs = append(errs, err)
			}
			f.Kills += len(victims)
			nodes = append(nodes, strings.Join(victims, "+"))
		}
		f.Node = strings.Join(nodes, " ")
		n.finish(f, errors.Join(errs...))
	}
}

// stormVictims draws one node mostly, sometimes two or all, at most most.
func (n *Nemesis) stormVictims(most int) []string {
	nodes := n.region.State().Regions[0].Nodes
	count := 1
	switch draw := n.rand.IntN(10); {
	case draw == 9:
		count = len(nodes)
	case draw >= 7:
		count = 2
	}
	var out []string
	for _, i := range n.rand.Perm(len(nodes))[:min(count, most)] {
		out = append(out, nodes[i].ID)
	}
	return out
}

// killTogether ends nodes at the same time.
func (n *Nemesis) killTogether(nodes []string) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, node := range nodes {
		all.Go(func() {
			// The one before may have died so recently that nothing runs yet.
			if err := prove("a process of "+node, func() bool { return n.pid(node) != 0 }); err != nil {
				errs[i] = err
				return
			}
			if err := n.kill(node); err != nil {
				errs[i] = fmt.Errorf("%s: %w", node, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
