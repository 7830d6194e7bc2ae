package node

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"time"
)

const (
	// heapGrowth is how much a node's heap may always grow between two garbage collections. A collection
	// takes every processor that is free, which other processes see as busy, and each request that comes
	// meanwhile waits; a small heap, collected whenever it has doubled, would be collected every
	// second beside ingest. Larger saves little more and is memory that an idle node keeps.
	heapGrowth = 128 << 20
	// heapLook is how often the size of the heap is looked at: it changes within minutes.
	heapLook = time.Second
)

// runCollector gives the heap room to grow until ctx ends. GOGC in the environment goes before; the limit of
// holdHeap holds in any case.
func runCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(heapLook)
	defer tick.Stop()
	percent := 100
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		// Setting it stops everything for a moment.
		if want := collectAt(uint64(liveHeap())); math.Abs(float64(want-percent)) > float64(percent)/10 {
			percent = want
			debug.SetGCPercent(want)
		}
	}
}

// collectAt is by how many per cent the heap may grow when so many bytes of it are alive.
func collectAt(live uint64) int {
	return int(max(100, 100*heapGrowth/max(live, heapGrowth/16)))
}
