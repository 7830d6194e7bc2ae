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
var errNoBenchmark = errors.New("no result of the benchmark")

// goBenchmark is what a benchmark of a package says of one operation.
type goBenchmark struct {
	ns, allocs float64
	samples    int
}

// runGoBenchmark runs one benchmark of a package of the project: no region, no network.
func runGoBenchmark(ctx context.Context, b *bench, pkg, name string) (goBenchmark, error) {
	span := "5s"
	if b.quick {
		span = "1s"
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", span,
		"github.com/maestro-conductor/maestro/"+pkg).Output()
	if err != nil {
		return goBenchmark{}, fmt.Errorf("go test: %w: %s", err, out)
	}
	return parseGoBenchmark(out, name)
}

func parseGoBenchmark(out []byte, name string) (goBenchmark, error) {
	result := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `(?:-\d+)?\s+(\d+)\s+([0-9.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op`)
	m := result.FindSubmatch(out)
	if m == nil {
		return goBenchmark{}, fmt.Errorf("%w: %s", errNoBenchmark, name)
	}
	samples, countErr := strconv.Atoi(string(m[1]))
	ns, nsErr := strconv.ParseFloat(string(m[2]), 64)
	allocs, allocsErr := strconv.ParseFloat(string(m[4]), 64)
	return goBenchmark{ns, allocs, samples}, errors.Join(countErr, nsErr, allocsErr)
}
