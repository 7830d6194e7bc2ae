package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// Kinds of faults.
const (
	faultKill        = "kill"         // kill -9 of any node
	faultKillLeader  = "kill-leader"  // kill -9 of the node that leads a chosen group
	faultPause       = "pause"        // SIGSTOP of any node, SIGCONT later
	faultPauseLeader = "pause-leader" // the same for the node that leads a chosen group
)

// faultKinds are all of them. A run does each once before it does any twice.
var faultKinds = []string{faultKill, faultKillLeader, faultPause, faultPauseLeader}

const (
	quietTime    = 2 * time.Second // between the end of a fault and the next one
	settleTime   = time.Second     // from the last node's readiness to the end of a fault
	pauseMin     = 500 * time.Millisecond
	pauseMax     = 3 * time.Second
	recoverLimit = 30 * time.Second
	// proofTimeout bounds the wait until a signal is seen to have worked.
	proofTimeout = 5 * time.Second
)

// Nemesis does one fault at a time to the nodes of a region.
type Nemesis struct {
	region   *devregion.Region
	client   *client.Client
	recorder *Recorder
	rand     *rand.Rand
}

func newNemesis(region *devregion.Region, c *client.Client, r *Recorder, seed uint64) *Nemesis {
	return &Nemesis{region: region, client: c, recorder: r, rand: rand.New(rand.NewPCG(seed, 0))}
}

// run does faults for d, and for longer until each kind was done once: a slow machine needs
// more time, but proves as much. It ends early when ctx ends. A fault under way is finished
// and recovered from.
func (n *Nemesis) run(ctx context.Context, d time.Duration) {
	began := time.Now()
	for round := 0; ; round++ {
		for _, i := range n.rand.Perm(len(faultKinds)) {
			if round > 0 && time.Since(began) > d {
				return
			}
			sleep(ctx, quietTime)
			if ctx.Err() != nil {
				return
			}
			n.fault(faultKinds[i])
		}
	}
}

func (n *Nemesis) fault(kind string) {
	f := Fault{Kind: kind}
	var err error
	f.Node, f.Group, err = n.victim(kind)
	f.Started = n.recorder.now()
	if err == nil && (kind == faultKill || kind == faultKillLeader) {
		err = n.kill(f.Node)
	} else if err == nil {
		err = n.pause(f.Node, pauseMin+time.Duration(n.rand.Int64N(int64(pauseMax-pauseMin))))
	}
	n.finish(f, err)
}

// finish waits until the region is whole again and records the fault.
func (n *Nemesis) finish(f Fault, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), recoverLimit)
	defer cancel()
	f.Recovered = n.region.WaitReady(ctx) == nil
	time.Sleep(settleTime)
	f.Ended = n.recorder.now()
	if err != nil {
		f.Error = err.Error()
	}
	n.recorder.fault(f)
}

// victim chooses a node. All choices are drawn whether they are used or not, so that a seed
// gives the same kinds, groups and lengths whoever leads.
func (n *Nemesis) victim(kind string) (node, group string, err error) {
	nodes := n.region.State().Regions[0].Nodes
	node = nodes[n.rand.IntN(len(nodes))].ID
	draw := n.rand.Uint64()
	if kind == faultKill || kind == faultPause {
		return node, "", nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), recoverLimit)
	defer cancel()
	for {
		resp, err := n.client.Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
		if err != nil {
			return node, "", fmt.Errorf("ask who leads: %w", err)
		}
		groups := resp.Msg.GetGroups()
		if len(groups) == 0 {
			return node, "", errors.New("the region reports no groups")
		}
		g := groups[draw%uint64(len(groups))]
		if g.GetLeader() != "" {
			return g.GetLeader(), g.GetName(), nil
		}
		select {
		case <-ctx.Done():
			return node, g.GetName(), fmt.Errorf("group %s has no leader", g.GetName())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kill ends a node, and waits for the proof: the region runs another process for it.
func (n *Nemesis) kill(node string) error {
	before := n.pid(node)
	if err := n.region.Signal(node, syscall.SIGKILL); err != nil {
		return err
	}
	return prove("the process to be replaced", func() bool {
		pid := n.pid(node)
		return pid != 0 && pid != before
	})
}

// pause stops a node for d, and waits for the proof: the kernel reports it as stopped.
func (n *Nemesis) pause(node string, d time.Duration) error {
	pid := n.pid(node)
	if err := n.region.Signal(node, syscall.SIGSTOP); err != nil {
		return err
	}
	err := prove("the process to be stopped", func() bool { return isStopped(pid) })
	time.Sleep(d)
	return errors.Join(err, n.region.Signal(node, syscall.SIGCONT))
}

func (n *Nemesis) pid(node string) int {
	for _, s := range n.region.State().Regions[0].Nodes {
		if s.ID == node {
			return s.PID
		}
	}
	return 0
}

func prove(what string, holds func() bool) error {
	for deadline := time.Now().Add(proofTimeout); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", proofTimeout, what)
		}
	}
	return nil
}

// isStopped reads the state of a process from Linux' /proc/PID/stat: the letter behind the
// command in parentheses.
func isStopped(pid int) bool {
	data, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(rest, "T")
}

func procFile(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }
