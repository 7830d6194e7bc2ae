// Command bench measures a real region of three node processes on this machine, from outside:
//
//	go run ./bench                    everything, on a million documents
//	go run ./bench -quick             the same on 50,000 documents, shorter
//	go run ./bench -run 'commit|read' some of it
//
// It prints a table. With BENCH_OUT=FILE it also appends one JSON line for each figure:
// {"name", "value", "unit", "config"}. DESIGN.md says what is measured, how, and how far to
// trust it. Nothing outside a temporary folder is touched and only loopback is used.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// options are the sizes of a run.
type options struct {
	run        *regexp.Regexp
	everything bool // no step was named
	quick      bool
	binary     string
	documents  int
	// window is how long a load lasts, idle how long the idle region is watched.
	window, idle time.Duration
	starts       int // runs of maestro dev
	draws        int // searches of each kind
	kills        int
	restarts     int
	soakCommands int
	behindBytes  int64 // how far a node falls behind in catchup
	replaced     int   // documents that move in replace
	// redis and ratelimit are the programs that limiter-peers measures; empty skips them.
	redis, ratelimit string
	keep             string // the folder of a region that stays; empty for none
	indexPeers       string // the folder of the engines that index-peers measures; empty skips them
	indexDraws       int    // queries of each class of make bench-index
}

// step is one group of figures.
type step struct {
	name string
	run  func(ctx context.Context, b *bench) error
	// long steps run only when they are named.
	long bool
}

// steps are in the order of a run: what needs an empty region first.
var steps = []step{
	{name: "start", run: measureStart},
	{name: "idle", run: measureIdle},
	{name: "commit", run: measureCommit},
	{name: "read", run: measureRead},
	{name: "noop", run: measureNoop},
	{name: "ingest", run: measureIngest},
	{name: "disk", run: measureDisk},
	{name: "search", run: measureSearch},
	{name: "restart", run: measureRestart},
	{name: "failover", run: measureFailover},
	{name: "mixed", run: measureMixed},
	{name: "catchup", run: measureCatchUp, long: true},
	{name: "catchup-kills", run: measureCatchUpKills, long: true},
	{name: "replace", run: measureReplace, long: true},
	{name: "soak", run: measureSoak, long: true},
	{name: "limiter-leases", run: measureLeases, long: true},
	{name: "limiter-unary", run: measureUnary, long: true},
	{name: "limiter-keys", run: measureKeys, long: true},
	{name: "limiter-batches", run: measureBatches, long: true},
	// It ends the region, so that the peers have the machine.
	{name: "limiter-peers", run: measurePeers, long: true},
	{name: "packages-verify", run: measurePackagesVerify, long: true},
	{name: "packages-publish", run: measurePackagesPublish, long: true},
	{name: "packages-list", run: measurePackagesList, long: true},
	{name: "policies-decide", run: measurePoliciesDecide, long: true},
	{name: "index-load", run: measureIndexLoad, long: true},
	{name: "index-search", run: measureIndexSearch, long: true},
	{name: "index-kill", run: measureIndexKill, long: true},
	{name: "index-restart", run: measureIndexRestart, long: true},
	// It adds documents; the steps after it end the region.
	{name: "index-beside", run: measureIndexBeside, long: true},
	{name: "index-single", run: measureIndexSingle, long: true},
	{name: "index-quorum", run: measureIndexQuorum, long: true},
	{name: "index-peers", run: measureIndexPeers, long: true},
}

func main() {
	pattern := flag.String("run", "", "only the steps whose whole name matches this regular `expression`: start, idle, commit, read, noop, ingest, disk, search, restart, failover, mixed; and, only when named, catchup, catchup-kills, replace, soak and those of make bench-limiter, bench-index, bench-packages and bench-policies")
	quick := flag.Bool("quick", false, "50,000 documents and short windows: shows that it works, not how fast it is")
	documents := flag.Int("documents", 0, "how many documents to ingest; 0 means a million, or 50,000 with -quick; for replace a fifth of that")
	behind := flag.Int64("behind", 0, "how many `megabytes` a node falls behind in catchup; 0 means 1024, or 64 with -quick")
	binary := flag.String("binary", "", "the maestro `file` to measure; empty builds it")
	redis := flag.String("redis", "", "the redis-server `file` for limiter-peers; empty skips what needs it")
	ratelimit := flag.String("ratelimit", "", "the `file` of the server of envoyproxy/ratelimit for limiter-peers; empty skips it")
	indexPeers := flag.String("index-peers", "", "the `folder` of the engines that scripts/indexpeers.sh fetches, for index-peers; empty skips them")
	region := flag.String("region", "", "a `folder` that keeps the region of make bench-index; one with documents is used again, and one whose ingest was interrupted goes on")
	noop := flag.String("noop", "", "serve a no-op API, `connect` or `api`, on stdin's terms; the benchmark starts itself so")
	certs := flag.String("noop-certs", "", "the certificates' `folder` for -noop")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, *pattern, *quick, *documents, *behind, *binary, *redis, *ratelimit, *indexPeers, *region, *noop, *certs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, pattern string, quick bool, documents int, behind int64, binary, redis, ratelimit, indexPeers, region, noop, certs string) error {
	if noop != "" {
		return serveNoop(ctx, noop, certs)
	}
	o := options{
		keep: region, indexPeers: indexPeers, binary: binary, redis: redis, ratelimit: ratelimit, quick: quick, documents: 1_000_000, window: 10 * time.Second, idle: 20 * time.Second,
		starts: 5, draws: 400, kills: 10, restarts: 3, soakCommands: 24_000_000, indexDraws: 500, behindBytes: 1 << 30, replaced: 200_000,
	}
	if quick {
		o.documents, o.window, o.idle, o.starts, o.draws, o.kills, o.restarts = 50_000, 2*time.Second, 5*time.Second, 2, 200, 3, 1
		o.indexDraws = 100
		o.soakCommands, o.behindBytes, o.replaced = 1_000_000, 64<<20, 10_000
	}
	if documents > 0 {
		o.documents, o.replaced = documents, documents
	}
	if behind > 0 {
		o.behindBytes = behind << 20
	}
	o.everything = pattern == ""
	if o.everything {
		pattern = ".*"
	}
	var err error
	if o.run, err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	dir, err := os.MkdirTemp("", "maestro-bench-")
	if err != nil {
		return err
	}
	return errors.Join(runAll(ctx, o, dir), os.RemoveAll(dir))
}

// runAll runs the chosen steps on one region. A step that fails ends the run; what was
// measured before is printed all the same.
func runAll(ctx context.Context, o options, dir string) (err error) {
	if o.binary == "" {
		o.binary = filepath.Join(dir, "maestro")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "github.com/maestro-conductor/maestro/cmd/maestro")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the binary: %w", err)
		}
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	report, err := newReport(os.Getenv("BENCH_OUT"), o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.close(os.Stdout)) }()
	b := &bench{options: o, dir: dir, report: report, regionFolder: o.keep}
	defer func() { err = errors.Join(err, b.stop()) }()
	for _, s := range steps {
		if !o.run.MatchString(s.name) || s.long && o.everything {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s ...\n", time.Now().Format(time.TimeOnly), s.name)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}
