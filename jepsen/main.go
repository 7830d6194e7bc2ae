// Command jepsen runs a real region of three processes, does harm to it while clients work,
// and judges from the clients' history whether the region kept its promises. It is a short
// mix of kills and pauses:
//
//	go run ./jepsen -duration 40s -seed 7
//	go run ./jepsen -kills 200          and then kills at random moments
//	go run ./jepsen -upgrade-from FILE  upgrades the nodes from another build first
//	go run ./jepsen -check HISTORY      judges an earlier run again
//
// It exits with 1 and the path of the history when a promise was broken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// healedTraffic is how long the traffic goes on after the last fault.
const healedTraffic = 5 * time.Second

// setupTimeout bounds the way from a ready region to limits in force.
const setupTimeout = 20 * time.Second

// errViolated ends a run that broke a promise, after all was printed.
var errViolated = errors.New("the region broke a promise")

type options struct {
	duration time.Duration
	seed     uint64
	binary   string
	check    string
	keep     bool
	kills    int
	from     string
}

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 40*time.Second, "how long faults go on; longer if not each kind was done once by then")
	flag.StringVar(&o.from, "upgrade-from", "", "start the nodes as this other build `file` and upgrade them one by one first")
	flag.IntVar(&o.kills, "kills", 0, "then kill -9 so many more times at random moments, also of nodes that are just starting")
	flag.Uint64Var(&o.seed, "seed", 0, "chooses faults and traffic; 0 draws one")
	flag.StringVar(&o.binary, "binary", "", "the maestro `file` to test; empty builds it")
	flag.StringVar(&o.check, "check", "", "judge the history in `file` and run nothing")
	flag.BoolVar(&o.keep, "keep", false, "keep the history and the nodes' folders of a good run too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "jepsen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.check != "" {
		h, err := readHistory(o.check)
		if err != nil {
			return err
		}
		return verdict(h, o.check)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	dir, err := os.MkdirTemp("", "maestro-jepsen-")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "history.jsonl")
	fmt.Printf("seed %d, %v of faults and %d kills, history %s\n", o.seed, o.duration, o.kills, path)
	h, err := attack(ctx, o, dir, path)
	if err == nil {
		err = verdict(h, path)
	}
	if err != nil {
		return fmt.Errorf("%w; the nodes' folders and logs are under %s; again with: go run ./jepsen -duration %v -kills %d -seed %d", err, dir, o.duration, o.kills, o.seed)
	}
	if o.keep {
		return nil
	}
	return os.RemoveAll(dir)
}

func verdict(h *History, path string) error {
	good, err := report(os.Stdout, h, judge(h))
	if err != nil {
		return err
	}
	if !good {
		return fmt.Errorf("%w: see %s", errViolated, path)
	}
	fmt.Println("verdict: every promise was kept")
	return nil
}

// attack runs a region with traffic and faults, heals it and reads everything back.
func attack(ctx context.Context, o options, dir, path string) (*History, error) {
	if o.binary == "" {
		o.binary = filepath.Join(dir, "maestro")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "github.com/maestro-conductor/maestro/cmd/maestro")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("build the binary: %w", err)
		}
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, err
	}
	first := binary
	if o.from != "" {
		if first, err = filepath.Abs(o.from); err != nil {
			return nil, err
		}
	}
	region, err := devregion.Start(ctx, devregion.Options{Dir: filepath.Join(dir, "region"), Binary: first, Earlier: o.from != "", NoSeed: true})
	if err != nil {
		return nil, err
	}
	h, err := attackRegion(ctx, o, region, path, binary)
	return h, errors.Join(err, region.Stop())
}

func attackRegion(ctx context.Context, o options, region *devregion.Region, path, binary string) (*History, error) {
	clients, err := clientsOf(region)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	limits := limitModels()
	if o.from != "" { // the earliest builds know token buckets only
		limits = slices.DeleteFunc(limits, LimitModel.isWindow)
	}
	recorder, err := newRecorder(path, Header{Seed: o.seed, DurationNs: o.duration, Kills: o.kills, Upgrade: o.from != "", Binary: binary, Limits: limits})
	if err != nil {
		return nil, err
	}
	if err := setUp(ctx, recorder, clients[0], limits); err != nil {
		_, closeErr := recorder.close()
		return nil, errors.Join(err, closeErr)
	}
	traffic := startTraffic(recorder, o.seed, clients)
	nemesis := newNemesis(region, clients[0], recorder, o.seed)
	if o.from != "" {
		nemesis.upgrade(ctx, binary)
	}
	nemesis.run(ctx, o.duration)
	nemesis.storm(ctx, o.kills)
	recorder.setPhase(phaseHealed)
	probe(recorder, region, clients)
	sleep(ctx, healedTraffic)
	traffic.end()
	recorder.setPhase(phaseFinal)
	readEverything(recorder, clients)
	compareReplicas(recorder, region)
	probeLogs(recorder, region)
	h, err := recorder.close()
	if err == nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return h, err
}

// setUp sets the limits and the registers' first values, and waits until they are in force.
func setUp(ctx context.Context, r *Recorder, c *client.Client, models []LimitModel) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	var limits []*limiterv1.Limit
	for _, m := range models {
		limits = append(limits, m.message())
	}
	for _, name := range registers {
		if err := recordWrite(ctx, r, c, "setup", WriteOp{name, 1}); err != nil {
			return fmt.Errorf("set the first registers: %w", err)
		}
	}
	err := repeat(ctx, func() error {
		resp, err := c.Limiter().SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits}))
		if err == nil && !resp.Msg.GetInForce() {
			err = errors.New("a limiter group has not taken them yet")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set the limits: %w", err)
	}
	return nil
}

// clientsOf returns one client for each node; each goes to another node first and moves on
// when that fails.
func clientsOf(region *devregion.Region) ([]*client.Client, error) {
	where := region.Context()
	token, err := where.ReadToken()
	if err != nil {
		return nil, err
	}
	var out []*client.Client
	for i := range where.Endpoints {
		endpoints := append(append([]string(nil), where.Endpoints[i:]...), where.Endpoints[:i]...)
		c, err := client.New(client.Options{Endpoints: endpoints, CAFile: where.CA, Token: token})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
