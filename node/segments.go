package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// differingSegments counts segments of this node that are not the leader's to the byte.
func differingSegments(shards []*index.Machine) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mc_prov_segments_differing_total",
		Help: "Segments that went into the state with other bytes than the leader's: it has another build, or one of the two a fault.",
	}, func() float64 {
		n := uint64(0)
		for _, m := range shards {
			n += m.Differing()
		}
		return float64(n)
	})
}

// keepSegments runs at an index shard's leader: it has the log move what is sealed into the state.
func (n *Node) keepSegments(ctx context.Context, id raftfsm.GroupID, m *index.Machine) {
	if !n.awaitStarted(ctx) {
		return
	}
	m.Lead(ctx, func() byte { return index.LayoutAt(n.host.Level()) }, func(ctx context.Context, command []byte) error {
		_, err := n.host.Propose(ctx, id, raftfsm.Command{Data: command})
		return err
	})
}
