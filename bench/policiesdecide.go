package main

import "context"

// measurePoliciesDecide runs the benchmark of an allowed decision of the packs that come with Maestro, over three levels of limits.
func measurePoliciesDecide(ctx context.Context, b *bench) error {
	r, err := runGoBenchmark(ctx, b, "policies", "BenchmarkAuthorize")
	if err != nil {
		return err
	}
	c := config{"packs": 3, "limits": 3, "samples": r.samples, "loop": "one goroutine"}
	b.report.scalar("policies.decide", r.ns/1e3, "us", c)
	b.report.scalar("policies.decide_allocs", r.allocs, "allocations", c)
	return nil
}
