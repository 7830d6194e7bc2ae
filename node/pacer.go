package node

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/internal/elastic"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// newPacer makes what paces this node's ingest and background work. It is run once the groups are.
func newPacer(n *Node) *elastic.Pacer {
	p := elastic.NewPacer(elastic.Sources{
		Steady: n.clock.Steady,
		Wall:   n.clock.Now,
		Work: func() uint64 {
			var ids []raftfsm.GroupID
			for _, s := range indexShards(n.boot.current().Index) {
				ids = append(ids, s.Group)
			}
			return n.host.AppliedSum(ids)
		},
		L0: func() int { return n.host.L0Sublevels() },
		Peers: func() float64 {
			if !n.isStarted() {
				return math.Inf(1)
			}
			return n.host.PeersPace()
		},
	})
	gauge := func(name, help string, value func(elastic.State) float64) {
		n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(p.State()) }))
	}
	gauge("mc_ingest_pace_bytes_per_second", "What ingest through this node is held to so that checks and searches, here and at peers, do not suffer; +Inf when it is not.",
		func(s elastic.State) float64 { return s.Rate })
	gauge("mc_ingest_queued_bytes", "Bytes of the batches that have been admitted here and are not yet proposed.",
		func(s elastic.State) float64 { return float64(s.Queued) })
	gauge("mc_check_commit_seconds", "A high percentile of the time to commit a check here lately; 0 when few were.",
		func(s elastic.State) float64 { return s.Commit.Seconds() })
	gauge("mc_check_commit_base_seconds", "A high percentile of the time to commit a check here while nothing is ingested, as far as known; 0 when not.",
		func(s elastic.State) float64 { return s.CommitBase.Seconds() })
	gauge("mc_check_felt_seconds", "High percentiles of the time to answer a check here and of how late a goroutine wakes, together; 0 without checks.",
		func(s elastic.State) float64 { return s.Felt.Seconds() })
	gauge("mc_check_felt_base_seconds", "The same while nothing is ingested, as far as known; 0 when not.",
		func(s elastic.State) float64 { return s.FeltBase.Seconds() })
	gauge("mc_search_felt_seconds", "A high percentile of the time to answer a search here lately, those that count apart; 0 when few were.",
		func(s elastic.State) float64 { return s.Search.Seconds() })
	gauge("mc_search_felt_base_seconds", "The same while nothing is ingested, as far as known; 0 when not.",
		func(s elastic.State) float64 { return s.SearchBase.Seconds() })
	n.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mc_ingest_refused_total", Help: "Batches refused because those before them would take too long at the pace.",
	}, func() float64 { return float64(p.State().Refused) }))
	return p
}

// turnsOf is for background work on a group's state. It rests only while the group can do without
// this node: while a state is loaded that was received, this node cannot vote, and when it starts it
// serves nobody.
func (n *Node) turnsOf(id raftfsm.GroupID) func() (rest func()) {
	return func() func() {
		rest := n.pacer.Turns()
		return func() {
			if n.isStarted() && n.host.MayRest(id) {
				rest()
			}
		}
	}
}

// isStarted tells whether the groups run; background work begins while they are opened.
func (n *Node) isStarted() bool {
	select {
	case <-n.started:
		return true
	default:
		return false
	}
}
