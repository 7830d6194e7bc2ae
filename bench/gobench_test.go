package main

import (
	"errors"
	"testing"
)

// The figures are read from what go test prints of that benchmark, and nothing else counts as one.
func TestParseGoBenchmark(t *testing.T) {
	out := []byte("goos: linux\nBenchmarkCheckOnLeasesToo-2   \t 1\t       1 ns/op\t       0 B/op\t       0 allocs/op\n" +
		"BenchmarkCheckOnLeases-2   \t 7692307\t       153.9 ns/op\t       0 B/op\t       1 allocs/op\nPASS\n")
	r, err := parseGoBenchmark(out, "BenchmarkCheckOnLeases")
	if want := (goBenchmark{153.9, 1, 7692307}); err != nil || r != want {
		t.Errorf("%+v, %v; want %+v", r, err, want)
	}
	if _, err := parseGoBenchmark(out, "BenchmarkCheck"); !errors.Is(err, errNoBenchmark) {
		t.Errorf("without a result: %v", err)
	}
}
