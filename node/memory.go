package node

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// memoryLeast is the smallest budget in which the caches are of use.
	memoryLeast = 256 << 20
	// heapEvery is how often the heap's limit is looked at.
	heapEvery = 5 * time.Second
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

// holdHeap has the collector keep the heap within its share until ctx ends. What lives there may need more: heads
// and filters grow with the groups and documents of a node. Then the limit is above that, since a node that only
// collects garbage serves nobody, and the metrics say so. A limit in the environment is left alone.
func (n *Node) holdHeap(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	share := n.cfg.Memory.shares().heap
	tick := time.NewTicker(heapEvery)
	defer tick.Stop()
	for {
		live := liveHeap()
		debug.SetMemoryLimit(max(share, live+live/heapRoom))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
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
