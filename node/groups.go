package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Group ids are part of every key on disk: they never change their meaning.
const (
	groupMeta    raftfsm.GroupID = 1
	groupLimiter raftfsm.GroupID = 0x100 // and up
	groupIndex   raftfsm.GroupID = 0x200 // and up
)

// metaCommitTimeout is how soon followers learn what meta has committed, within a factor of
// two: a revocation must be everywhere well within metaStaleAfter. It costs ten small messages
// more a second in an idle region.
const metaCommitTimeout = 100 * time.Millisecond

// jobRetry is the pause after a leader job failed; sweepInterval is how often idle counters
// are forgotten, and limits compared even though no change was noticed.
const (
	jobRetry      = time.Second
	sweepInterval = time.Minute
	// rollInterval is how often a leader looks whether a calendar period has begun: a period
	// begins at most that much after its boundary. More often costs a local read each.
	rollInterval = time.Second
)

func limiterGroups(n int) []raftfsm.GroupID {
	ids := make([]raftfsm.GroupID, n)
	for i := range ids {
		ids[i] = groupLimiter + raftfsm.GroupID(i)
	}
	return ids
}

func indexShards(n int) []index.Shard {
	shards := make([]index.Shard, n)
	for i := range shards {
		shards[i] = index.Shard{Name: fmt.Sprintf("index-%d", i), Group: groupIndex + raftfsm.GroupID(i)}
	}
	return shards
}

// groupIDs are the groups by name.
func groupIDs(r *record) map[string]raftfsm.GroupID {
	ids := map[string]raftfsm.GroupID{metaName: groupMeta}
	for i, id := range limiterGroups(r.Limiter) {
		ids[fmt.Sprintf("limiter-%d", i)] = id
	}
	for _, s := range indexShards(r.Index) {
		ids[s.Name] = s.Group
	}
	return ids
}

// groupNames are the groups of a region, in the order in which everything lists them.
func groupNames(r *record) []string {
	names := []string{metaName}
	if slices.Contains(r.Services, ServiceLimiter) {
		for i := range r.Limiter {
			names = append(names, fmt.Sprintf("limiter-%d", i))
		}
	}
	if slices.Contains(r.Services, ServiceIndex) {
		for _, s := range indexShards(r.Index) {
			names = append(names, s.Name)
		}
	}
	return names
}

// groups lists the groups of the region; where their replicas are, placements say.
func (n *Node) groups(r *record, tables *meta.Machine) []raftfsm.Group {
	groups := []raftfsm.Group{{
		ID: groupMeta, Name: metaName, Machine: tables, CommitTimeout: metaCommitTimeout,
		OnLeader: func(ctx context.Context) {
			n.ensureSettings(ctx, r)
			var jobs sync.WaitGroup
			jobs.Go(func() { n.sweepUploads(ctx, tables) })
			n.runPlacer(ctx)
			jobs.Wait()
		},
	}}
	if n.cfg.Runs(ServiceLimiter) {
		for i, id := range limiterGroups(r.Limiter) {
			m := limiter.NewMachine()
			n.limiters[id] = m
			groups = append(groups, raftfsm.Group{
				ID: id, Name: fmt.Sprintf("limiter-%d", i), Machine: m,
				OnLeader: func(ctx context.Context) { n.keepLimits(ctx, id) },
				Observe:  n.pacer.Checked,
			})
		}
	}
	if n.cfg.Runs(ServiceIndex) {
		var shards []*index.Machine
		cache := index.NewCache(int(n.cfg.Memory.shares().segments))
		for _, s := range indexShards(r.Index) {
			m := index.NewMachine(n.turnsOf(s.Group), cache)
			m.UseObjects(n.objects)
			groups = append(groups, raftfsm.Group{
				ID: s.Group, Name: s.Name, Machine: m, Bulk: true,
				OnLeader: func(ctx context.Context) {
					var jobs sync.WaitGroup
					jobs.Go(func() { n.keepRetention(ctx, r, s, m) })
					jobs.Go(func() { n.keepCold(ctx, r, s, m) })
					n.keepSegments(ctx, s.Group, m)
					jobs.Wait()
				},
			})
			shards = append(shards, m)
		}
		n.shards = shards
		n.registry.MustRegister(differingSegments(shards), disposedDocuments(shards))
		n.registry.MustRegister(wholeness(shards)...)
		if n.objects != nil {
			n.registry.MustRegister(coldMetrics(shards, n.objects)...)
		}
	}
	return groups
}

// ensureSettings writes the region's settings once, when meta leads for the first time.
func (n *Node) ensureSettings(ctx context.Context, r *record) {
	if !n.awaitStarted(ctx) {
		return
	}
	for ctx.Err() == nil {
		err := n.services.running.Load().meta.EnsureSettings(ctx, r.ClusterID, r.Region)
		if err == nil {
			return
		}
		n.log.Warn("region settings not written yet", "err", err)
		pause(ctx, jobRetry)
	}
}

// keepLimits runs at a limiter group's leader: it brings the group to the current limits
// whenever they change, begins calendar periods, and forgets counters that say nothing any more.
func (n *Node) keepLimits(ctx context.Context, group raftfsm.GroupID) {
	if !n.awaitStarted(ctx) {
		return
	}
	run := n.services.running.Load()
	sweep, roll := time.NewTicker(sweepInterval), time.NewTicker(rollInterval)
	defer sweep.Stop()
	defer roll.Stop()
	for ctx.Err() == nil {
		changed := run.meta.LimitsChanged()
		if err := run.meta.PushLimits(ctx, group); err != nil && ctx.Err() == nil {
			n.log.Warn("limits not pushed yet", "group", group, "err", err)
			pause(ctx, jobRetry)
			continue
		}
		n.rollCalendars(ctx, group) // those of new limits at once
	wait:
		for {
			select {
			case <-roll.C:
				n.rollCalendars(ctx, group)
			case <-sweep.C:
				n.sweepCounters(ctx, group)
				break wait
			case <-changed:
				break wait
			case <-ctx.Done():
				return
			}
		}
	}
}

// sweepCounters forgets the counters of a group that say nothing any more.
func (n *Node) sweepCounters(ctx context.Context, group raftfsm.GroupID) {
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = n.services.running.Load().limiter.Sweep(ctx, group); err != nil {
			n.log.Warn("counters not swept", "group", group, "err", err)
		}
	}
}

// rollCalendars begins the periods that a majority's clocks have reached.
func (n *Node) rollCalendars(ctx context.Context, group raftfsm.GroupID) {
	wall, ok := n.host.MajorityWall()
	if !ok {
		return
	}
	if err := n.services.running.Load().limiter.Roll(ctx, group, wall); err != nil && ctx.Err() == nil {
		n.log.Warn("calendar periods not begun yet", "group", group, "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
