package main

import "context"

// measurePackagesVerify runs the benchmark that opens and verifies a package of 1 MiB, half of it text and half noise.
func measurePackagesVerify(ctx context.Context, b *bench) error {
	r, err := runGoBenchmark(ctx, b, "pkgstore/mwpkg", "BenchmarkVerify1MiB")
	if err != nil {
		return err
	}
	c := config{"bytes": 1 << 20, "samples": r.samples, "loop": "one goroutine"}
	b.report.scalar("packages.verify", r.ns/1e6, "ms", c)
	b.report.scalar("packages.verify_allocs", r.allocs, "allocations", c)
	return nil
}
