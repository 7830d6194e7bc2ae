package index

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Replicas is what Groups may be able to do besides: read from replicas that do not lead.
type Replicas interface {
	// QueryReplica reads from a replica that does not lead and has applied the entry at least.
	QueryReplica(ctx context.Context, group raftfsm.GroupID, least uint64, query []byte) (raftfsm.Answer, error)
}

// A search is answered when its slowest shard is, and a leader may be slow alone: its disk hangs, or
// it merges segments. So a query that takes longer than most is sent to another replica too, and the
// first answer counts (J. Dean, L. A. Barroso: The Tail at Scale, 2013). The other replica is as
// fresh: it answers once it has applied what the leader says is committed after the query began.
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

// begin counts a query and returns how long to wait for it before another replica is asked.
func (h *hedger) begin() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.budget = min(h.budget+1, hedgeBurst*hedgeShare)
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

// query asks a shard's leader, and another replica when that takes too long. The error is the
// leader's.
func (s *Service) query(ctx context.Context, shard Shard, query []byte) (raftfsm.Answer, error) {
	replicas, ok := s.groups.(Replicas)
	if !ok {
		return s.groups.Query(ctx, shard.Group, query, raftfsm.Linearizable)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer raftfsm.Answer
		err    error
		hedged bool
	}
	start, done := time.Now(), make(chan result, 2)
	go func() {
		a, err := s.groups.Query(ctx, shard.Group, query, raftfsm.Linearizable)
		done <- result{a, err, false}
	}()
	timer := time.NewTimer(s.hedger.begin())
	defer timer.Stop()
	under := 1
	var failure error
	for {
		select {
		case <-timer.C:
			if !s.hedger.spend() {
				continue
			}
			under++
			go func() {
				a, err := s.askReplica(ctx, replicas, shard, query)
				done <- result{a, err, true}
			}()
		case r := <-done:
			if r.err == nil {
				s.hedger.answered(time.Since(start), r.hedged)
				return r.answer, nil
			}
			if !r.hedged {
				failure = r.err
			}
			if under--; under == 0 {
				return raftfsm.Answer{}, failure
			}
		}
	}
}

// askReplica reads from a replica that has applied what the leader has now.
func (s *Service) askReplica(ctx context.Context, replicas Replicas, shard Shard, query []byte) (raftfsm.Answer, error) {
	var nothing uint64
	probe := shardQuery{limit: 1, bound: &nothing} // of no documents: what counts is the applied index
	now, err := s.groups.Query(ctx, shard.Group, probe.encode(), raftfsm.Linearizable)
	if err != nil {
		return raftfsm.Answer{}, errors.Join(errors.New("hedge"), err)
	}
	return replicas.QueryReplica(ctx, shard.Group, now.Applied, query)
}
