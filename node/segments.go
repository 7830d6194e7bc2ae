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

// replicas are those of an index shard on other nodes.
type replicas struct {
	host  *raftfsm.Host
	group raftfsm.GroupID
}

// Others implements index.Peers.
func (r replicas) Others() []string { return r.host.OtherReplicas(r.group) }

// Ask implements index.Peers.
func (r replicas) Ask(ctx context.Context, member string, query []byte) ([]byte, error) {
	a, err := r.host.QueryMember(ctx, r.group, member, query)
	return a.Data, err
}

// keepWhole has the replicas of this node find and mend damaged segments.
func (n *Node) keepWhole(rec *record) {
	for i, s := range indexShards(rec.Index) {
		if i >= len(n.shards) {
			return // the node does not run the index
		}
		n.shards[i].Attend(&index.Keeper{
			Shard: s.Name, Peers: replicas{n.host, s.Group}, Every: index.ScrubEvery, BytesPerSecond: index.ScrubBytesPerSecond, Log: n.log,
			Propose: func(ctx context.Context, command []byte) error {
				_, err := n.host.Propose(ctx, s.Group, raftfsm.Command{Data: command})
				return err
			},
		})
	}
}

// wholeness tells of damaged segments.
func wholeness(shards []*index.Machine) []prometheus.Collector {
	sum := func(of func(index.Wholeness) uint64) func() float64 {
		return func() float64 {
			n := uint64(0)
			for _, m := range shards {
				n += of(m.Wholeness())
			}
			return float64(n)
		}
	}
	counter := func(name, help string, of func(index.Wholeness) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, sum(of))
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mc_prov_segments_damaged", Help: "Segments of this node that are damaged and not mended yet; other replicas answer for them.",
		}, sum(func(w index.Wholeness) uint64 { return uint64(w.Unsound) })),
		counter("mc_prov_segments_damaged_total", "Segments of this node that were found damaged since it started.", func(w index.Wholeness) uint64 { return w.Damaged }),
		counter("mc_prov_segments_mended_total", "Damaged segments of this node that were made whole by another replica's bytes.", func(w index.Wholeness) uint64 { return w.Mended }),
		counter("mc_prov_scrubbed_bytes_total", "Bytes of segments that this node has read in search of damage.", func(w index.Wholeness) uint64 { return w.Scrubbed }),
	}
}
