package main

import (
	"context"
	"os"

	"github.com/maestro-conductor/maestro/internal/devregion"
)

// faultUpgrade is the stop of one node and its start as another build, while the others go on.
const faultUpgrade = "upgrade"

// upgrade brings the nodes to a build one after the other, and kills a leader in every mix of
// the two builds on the way.
func (n *Nemesis) upgrade(ctx context.Context, binary string) {
	for _, node := range n.region.State().Regions[0].Nodes {
		if ctx.Err() != nil {
			return
		}
		sleep(ctx, quietTime)
		f := Fault{Kind: faultUpgrade, Node: node.ID, Started: n.recorder.now()}
		n.finish(f, n.upgradeNode(node, binary))
		sleep(ctx, quietTime)
		n.fault(faultKillLeader)
	}
}

func (n *Nemesis) upgradeNode(node devregion.NodeState, binary string) error {
	before := n.pid(node.ID)
	if err := n.region.Upgrade(node.ID, binary); err != nil {
		return err
	}
	err := prove("the process to be replaced", func() bool {
		pid := n.pid(node.ID)
		return pid != 0 && pid != before
	})
	if err != nil {
		return err
	}
	return prove("the process to run the other build", func() bool { return runs(n.pid(node.ID), binary) })
}

// runs tells whether a process is of a binary, by the file that the kernel says it executes.
func runs(pid int, binary string) bool {
	exe, err := os.Stat(procFile(pid, "exe"))
	if err != nil {
		return false
	}
	want, err := os.Stat(binary)
	return err == nil && os.SameFile(exe, want)
}

// checkUpgrade demands that every node came to the new build.
func checkUpgrade(h *History, f *Finding) {
	if !h.Header.Upgrade {
		return
	}
	if n := faultCount(h, faultUpgrade); n < 3 {
		f.violate("%d of 3 nodes were upgraded", n)
	}
}
