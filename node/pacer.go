package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/internal/elastic"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// newPacer makes what paces this node's ingest. It is run once the groups are.
func newPacer(n *Node) *elastic.Pacer {
	p := elastic.NewPacer(elastic.Sources{
		Steady: n.clock.Steady,
		Wall:   n.clock.Now,
		Work: func() uint64 {
			var ids []raftfsm.GroupID
			for _, s := range indexShards(n.rec.Index) {
				ids = append(ids, s.Group)
			}
			return n.host.AppliedSum(ids)
		},
		L0: func() int { return n.host.L0Sublevels() },
	})
	gauge := func(name, help string, value func(elastic.State) float64) {
		n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(p.State()) }))
	}
	gauge("mc_ingest_pace_bytes_per_second", "What ingest through this node is held to so that checks do not suffer; +Inf when it is not.",
		func(s elastic.State) float64 { return s.Rate })
	gauge("mc_ingest_queued_bytes", "Bytes of the batches that have been admitted here and are not yet proposed.",
		func(s elastic.State) float64 { return float64(s.Queued) })
	gauge("mc_check_commit_base_seconds", "A high percentile of the time to commit a check here while nothing is ingested, as far as known; 0 when not.",
		func(s elastic.State) float64 { return s.Base.Seconds() })
	n.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mc_ingest_refused_total", Help: "Batches refused because those before them would take too long at the pace.",
	}, func() float64 { return float64(p.State().Refused) }))
	return p
}
