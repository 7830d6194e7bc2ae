package index

import (
	"slices"
	"sync"
	"time"
)

// A search is answered when its slowest shard is, and a leader may be slow alone: its disk hangs, or
// it merges segments. So a query that takes longer than most is sent to another replica too, and the
// first answer counts (J. Dean, L. A. Barroso: The Tail at Scale, 2013). The other replica is as
// fresh: it answers once it has applied what the leader had committed when the search began.
const (
	// hedgeFirst is the delay while there are few samples, hedgeLeast and hedgeMost bound what is
	// learned from them: a hedge costs two messages, and shardGrace ends the wait for a shard.
	hedgeFirst = 50 * time.Millisecond
	hedgeLeast = 5 * time.Millisecond
	hedgeMost  = 150 * time.Millisecond
	// hedgeSamples is how many latencies the delay is learned from; it is their 95th percentile.
	hedgeSamples = 256
	hedgeLearn   = 32 // samples between two computations
	// hedgeShare bounds the hedges: one for so many queries, and hedgeBurst at once. When everything
	// is slow, more queries would make it slower.
	hedgeShare = 10
	hedgeBurst = 16
)

// hedger decides when a query is sent to another replica.
type hedger struct {
	mu      sync.Mutex
	samples [hedgeSamples]time.Duration
	taken   int // samples so far
	after   time.Duration
	budget  int // hedges allowed now, times hedgeShare
	counts  HedgeCounts
}

// HedgeCounts are queries that were sent to another replica, and those of them whose other answer
// came first.
type HedgeCounts struct{ Sent, Won uint64 }

// Hedges counts since the start.
func (s *Service) Hedges() HedgeCounts {
	s.hedger.mu.Lock()
	defer s.hedger.mu.Unlock()
	return s.hedger.counts
}

// begin counts queries and returns how long to wait for them before other replicas are asked.
func (h *hedger) begin(queries int) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.budget = min(h.budget+queries, hedgeBurst*hedgeShare)
	if h.after == 0 {
		return hedgeFirst
	}
	return h.after
}

// spend takes a hedge from the budget.
func (h *hedger) spend() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.budget < hedgeShare {
		return false
	}
	h.budget -= hedgeShare
	h.counts.Sent++
	return true
}

// answered learns from the time that a query took.
func (h *hedger) answered(took time.Duration, hedged bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hedged {
		h.counts.Won++
	}
	h.samples[h.taken%hedgeSamples] = took
	if h.taken++; h.taken%hedgeLearn == 0 {
		all := slices.Clone(h.samples[:min(h.taken, hedgeSamples)])
		slices.Sort(all)
		h.after = min(max(all[len(all)*95/100], hedgeLeast), hedgeMost)
	}
}
