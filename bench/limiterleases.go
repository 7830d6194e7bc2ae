package main

import "context"

// measureLeases runs the benchmark of a check of three levels whose tokens the node holds: no
// network, no log.
func measureLeases(ctx context.Context, b *bench) error {
	r, err := runGoBenchmark(ctx, b, "limiter", "BenchmarkCheckOnLeases")
	if err != nil {
		return err
	}
	c := config{"levels": 3, "samples": r.samples, "loop": "one goroutine"}
	b.report.scalar("limiter.lease_check", r.ns, "ns", c)
	b.report.scalar("limiter.lease_check_allocs", r.allocs, "allocations", c)
	return nil
}
