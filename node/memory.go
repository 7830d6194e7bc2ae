package node

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// memoryLeast is the smallest budget in which the caches are of use.
	memoryLeast = 256 << 20
	// heapEvery is how often the size of the heap is looked at: it changes within minutes.
	heapEvery = time.Second
	// heapGrowth is how much the heap may always grow between two garbage collections, within its share. A
	// collection takes every processor that is free, which other processes see as busy, and each request that
	// comes meanwhile waits; a small heap, collected whenever it has doubled, would be collected every
	// second beside ingest. Larger saves little more and is memory that an idle node keeps.
	heapGrowth = 128 << 20
	// heapRoom is how much garbage there must be room for beside what lives, as a share of it: with less
	// the collector would take the processor.
	heapRoom = 4
)

// memoryShares say what parts of the budget are for.
type memoryShares struct {
	// blocks are of the state, outside of the heap, segments what was read of the index, in the heap.
	blocks, segments int64
	// memtable is one of them, outside of the heap: one is written and one flushed, and four there are at most
	// while flushes lag.
	memtable uint64
	// heap is what is left for the heap: a twelfth is for pages of mapped files and the program.
	heap int64
}

// shares cuts the budget. What was read of segments is worth more than blocks of the state, which hold
// the same bytes and are in the system's cache of files too.
func (c MemoryConfig) shares() memoryShares {
	b := int64(c.BudgetBytes)
	s := memoryShares{blocks: b / 12, segments: b * 3 / 16, memtable: uint64(max(4<<20, min(32<<20, b/24)))}
	s.heap = b - s.blocks - 2*int64(s.memtable) - b/12
	return s
}

// tendHeap sets how much the heap may grow between two collections, and keeps it within its share, until ctx
// ends. What lives there may need more: heads and filters grow with the groups and documents of a node. Then
// the limit is above that, since a node that only collects garbage serves nobody, and the metrics say so. GOGC
// and GOMEMLIMIT in the environment go before.
func (n *Node) tendHeap(ctx context.Context) {
	share, percent := n.cfg.Memory.shares().heap, 100
	tick := time.NewTicker(heapEvery)
	defer tick.Stop()
	for {
		live := liveHeap()
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(max(share, live+live/heapRoom))
		}
		// Setting it stops everything for a moment.
		if want := collectAt(live); os.Getenv("GOGC") == "" && math.Abs(float64(want-percent)) > float64(percent)/10 {
			percent = want
			debug.SetGCPercent(want)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// collectAt is by how many per cent the heap may grow when so many bytes of it are alive.
func collectAt(live int64) int {
	return int(max(100, 100*heapGrowth/max(live, heapGrowth/16)))
}

// liveHeap is what the last collection found alive, in bytes.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}

// memoryGauges show the budget and what of it can be told from inside.
func memoryGauges(c MemoryConfig) []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("mc_memory_budget_bytes", "What the node is to keep resident at most: memory.budget_bytes.", func() float64 { return float64(c.BudgetBytes) }),
		gauge("mc_memory_heap_share_bytes", "How much of that is for the heap.", func() float64 { return float64(c.shares().heap) }),
		gauge("mc_memory_heap_live_bytes", "What the last collection found alive in the heap; if a quarter more than that exceeds the share, so does the heap.", func() float64 { return float64(liveHeap()) }),
	}
}
