package client_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/limiter/client"
)

// BenchmarkChecks is the wire alone: calls of 1000 checks over TLS to a limiter that thinks of
// nothing. Client and node share the processors.
func BenchmarkChecks(b *testing.B) {
	nodes, s := startRegion(b, 1)
	nodes[0].decide = func(_ context.Context, all []limiter.Request, out []limiter.Outcome) error {
		for i := range out {
			out[i].Decision.Allow, out[i].Err = true, nil
		}
		return nil
	}
	requests := make([]client.Request, client.MaxChecks)
	for i := range requests {
		requests[i] = client.Request{Tenant: "acme", Key: fmt.Sprintf("key-%d", i*997%1_000_000), Cost: 1}
	}
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Checks(b.Context(), requests); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N*len(requests))/b.Elapsed().Seconds(), "checks/s")
}
