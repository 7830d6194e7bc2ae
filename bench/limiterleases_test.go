package main

import (
	"errors"
	"testing"
)

// The figures are read from what go test prints, and nothing else counts as one.
func TestParseLeases(t *testing.T) {
	ns, allocs, samples, err := parseLeases([]byte("goos: linux\nBenchmarkCheckOnLeases-2   \t 7692307\t       153.9 ns/op\t       0 B/op\t       1 allocs/op\nPASS\n"))
	if err != nil || ns != 153.9 || allocs != 1 || samples != 7692307 {
		t.Errorf("%v ns, %v allocations, %d samples, %v", ns, allocs, samples, err)
	}
	if _, _, _, err := parseLeases([]byte("PASS\n")); !errors.Is(err, errNoBenchmark) {
		t.Errorf("without a result: %v", err)
	}
}
