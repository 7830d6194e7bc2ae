package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// errNoBenchmark means that the test binary has no such benchmark, or printed something else.
var errNoBenchmark = errors.New("no result of BenchmarkCheckOnLeases in package limiter")

var leasesResult = regexp.MustCompile(`(?m)^BenchmarkCheckOnLeases\S*\s+(\d+)\s+([0-9.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op`)

// measureLeases runs the benchmark of a check of three levels whose tokens the node holds: no
// network, no log.
func measureLeases(ctx context.Context, b *bench) error {
	span := "5s"
	if b.quick {
		span = "1s"
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkCheckOnLeases$", "-benchtime", span,
		"github.com/maestro-conductor/maestro/limiter").Output()
	if err != nil {
		return fmt.Errorf("go test: %w: %s", err, out)
	}
	ns, allocs, samples, err := parseLeases(out)
	if err != nil {
		return err
	}
	c := config{"levels": 3, "samples": samples, "loop": "one goroutine"}
	b.report.scalar("limiter.lease_check", ns, "ns", c)
	b.report.scalar("limiter.lease_check_allocs", allocs, "allocations", c)
	return nil
}

func parseLeases(out []byte) (ns, allocs float64, samples int, err error) {
	m := leasesResult.FindSubmatch(out)
	if m == nil {
		return 0, 0, 0, errNoBenchmark
	}
	samples, countErr := strconv.Atoi(string(m[1]))
	ns, nsErr := strconv.ParseFloat(string(m[2]), 64)
	allocs, allocsErr := strconv.ParseFloat(string(m[4]), 64)
	return ns, allocs, samples, errors.Join(countErr, nsErr, allocsErr)
}
