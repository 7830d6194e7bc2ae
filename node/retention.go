package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// keepRetention runs at an index shard's leader: it has the log dispose of what has expired.
func (n *Node) keepRetention(ctx context.Context, r *record, s index.Shard, m *index.Machine) {
	if !n.awaitStarted(ctx) {
		return
	}
	run := n.services.running.Load()
	m.Retain(ctx, &index.Retainer{
		Region: r.Region, Shard: s.Name, Level: n.host.Level, Policy: run.meta.Retention, Key: n.disposition, Log: n.log,
		Peers:   replicas{n.host, s.Group},
		Stopped: func() bool { return run.tables.IndexMode() != index.ModeReadWrite },
		Propose: func(ctx context.Context, command []byte) ([]byte, error) {
			res, err := n.host.Propose(ctx, s.Group, raftfsm.Command{Data: command})
			return res.Data, err
		},
	})
}

// disposedDocuments counts what retention has disposed of.
func disposedDocuments(shards []*index.Machine) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "mc_prov_disposed_total",
		Help: "Documents that retention has disposed of in the shards of this node since it started.",
	}, func() float64 {
		n := uint64(0)
		for _, m := range shards {
			n += m.Disposed()
		}
		return float64(n)
	})
}

// Retention is how long documents are kept.
func (s *services) Retention(ctx context.Context) (index.RetentionPolicy, error) {
	r, err := s.get()
	if err != nil {
		return index.RetentionPolicy{}, err
	}
	return r.meta.Retention(ctx)
}

// SetRetention makes or replaces rules. The node that is asked has the key, so that it is not forgotten.
func (s *services) SetRetention(ctx context.Context, rules []index.RetentionRule) (index.RetentionPolicy, error) {
	r, err := s.get()
	if err != nil {
		return index.RetentionPolicy{}, err
	}
	if s.node.disposition == nil {
		return index.RetentionPolicy{}, index.ErrRetentionKey
	}
	return r.meta.SetRetention(ctx, rules)
}

// RemoveRetention removes rules.
func (s *services) RemoveRetention(ctx context.Context, names []string) (index.RetentionPolicy, error) {
	r, err := s.get()
	if err != nil {
		return index.RetentionPolicy{}, err
	}
	return r.meta.RemoveRetention(ctx, names)
}
