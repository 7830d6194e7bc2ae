package raftfsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// reconcileInterval is how often a node compares the placements with what is there. It is the
	// pulse's: sooner, there is nothing new to judge by.
	reconcileInterval = pulseInterval
	// changeTimeout bounds one change of a group's members. A healthy group commits in
	// milliseconds; one that lacks a majority never does, and is looked at anew after this.
	changeTimeout = 5 * time.Second
	// caughtUpRounds is how many times in a row a replica must have applied, by the time of one
	// pulse, what the leader had committed at the one before, until it counts as caught up. One
	// could be luck under a bursty load; more only delays every move by another second each.
	caughtUpRounds = 3
)

// catchUp is how a replica keeps pace with this leader.
type catchUp struct {
	at     int64  // of the pulse that was judged last
	goal   uint64 // the leader's commit index when it came
	rounds int    // pulses in a row that reached the goal of the one before
}

// runReconciler looks at every group once in a while, and when placements change, until the host
// closes. Each group has at most one step under way, and does not wait for the others.
func (h *Host) runReconciler() {
	defer h.wg.Done()
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.place:
		case <-h.ctx.Done():
			return
		}
		for _, s := range h.order {
			if !s.busy.CompareAndSwap(false, true) {
				continue
			}
			h.wg.Go(func() {
				defer s.busy.Store(false)
				if err := s.reconcile(h.ctx); err != nil && h.ctx.Err() == nil {
					h.notices.say("reconcile "+s.conf.Name, func() { s.log.Warn("replicas are not where they belong yet", "err", err) })
				}
			})
		}
	}
}

// reconcile takes one step from what is there towards the group's placement.
func (s *seat) reconcile(ctx context.Context) error {
	g := s.current.Load()
	if g != nil {
		g.noteFirstLeader()
		if err := s.noteFirstEntry(g); err != nil {
			return err
		}
	}
	p, ok := s.placed()
	if !ok || s.host.level() < LevelMembers {
		return nil
	}
	own := p.on(s.host.self.ID)
	switch {
	case g == nil && own != "":
		return s.openNew(own)
	case g == nil:
		return nil
	}
	if g.self != own && g.raft.State() != raft.Leader {
		return s.leave(ctx, g)
	}
	ready, err := g.leading()
	if err != nil {
		s.forgetProgress()
		return nil
	}
	return g.reconcileMembers(ctx, ready, p)
}

// noteFirstEntry lists a replica that has got its first entry as one that has a log.
func (s *seat) noteFirstEntry(g *group) error {
	if !s.host.replicas.waits(s.conf.Name) || g.raft.LastIndex() == 0 {
		return nil
	}
	return s.host.replicas.put(map[string]listedReplica{s.conf.Name: {ID: g.self}})
}

// openNew opens a replica that has been placed here. It waits until the leader adds it.
func (s *seat) openNew(id string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if s.current.Load() != nil || s.host.ctx.Err() != nil {
		return nil
	}
	if l, listed := s.host.replicas.get(s.conf.Name); listed && l.ID != id || !s.host.replicas.usable(s.conf.Name, id) {
		return fmt.Errorf("replica %s had a log on this node before; place it under a new id", id)
	}
	if err := s.host.replicas.put(map[string]listedReplica{s.conf.Name: {ID: id, Waits: true}}); err != nil {
		return err
	}
	if err := s.open(id, opening{waits: true}); err != nil {
		return err
	}
	s.log.Info("a new replica waits to be added to the group", "replica", id)
	return nil
}

// leave erases a replica that does not belong here any more, once the group has let go of it: the
// leader has confirmed a committed membership without it, and no placement brings it back, so no
// majority will ever need its votes or its log.
func (s *seat) leave(ctx context.Context, g *group) error {
	if s.host.removed.Load() {
		return nil // nobody answers; it was said once
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	v, err := s.describeElsewhere(ctx)
	if err != nil {
		return fmt.Errorf("replica %s is surplus, and the leader cannot be asked whether the group still needs it: %w", g.self, err)
	}
	if slices.Contains(v.Voters, g.self) || slices.Contains(v.Learners, g.self) || s.placedAs(g.self) {
		return nil
	}
	s.log.Info("the replica is erased: the group has let go of it", "replica", g.self)
	return s.erase(g.self)
}

// describeElsewhere asks the placed members about the group, because a replica that was let go
// does not learn who leads.
func (s *seat) describeElsewhere(ctx context.Context) (GroupView, error) {
	err := error(ErrNoLeader)
	for _, l := range s.candidates() {
		var v GroupView
		if v, err = s.describeAt(ctx, l); err == nil {
			return v, nil
		}
	}
	return GroupView{}, err
}

// reconcileMembers takes one step of the leader: add who is missing, promote who has caught up,
// and only when all wanted voters vote, remove who is surplus; a leader that is surplus itself
// hands over first. Every step begins from a committed membership, so a majority of the old
// members and one of the new ones always have a replica in common.
func (g *group) reconcileMembers(ctx context.Context, ready readiness, p Placement) error {
	ctx, cancel := context.WithTimeout(ctx, 2*changeTimeout)
	defer cancel()
	c, err := g.committedConfiguration(ctx, ready)
	if err != nil {
		return err
	}
	g.seat.observe(g.self, g.raft.CommitIndex(), c)
	for _, id := range p.replicas() {
		if !c.has(id) {
			return g.change(ctx, "add", id, func(id raft.ServerID) raft.IndexFuture {
				return g.raft.AddNonvoter(id, raft.ServerAddress(id), c.index, changeTimeout)
			})
		}
	}
	caughtUp := g.seat.caughtUp()
	waiting := ""
	for _, id := range p.Voters {
		if slices.Contains(c.voters, id) {
			continue
		}
		if !slices.Contains(caughtUp, id) {
			waiting = id
			continue
		}
		return g.change(ctx, "promote", id, func(id raft.ServerID) raft.IndexFuture {
			return g.raft.AddVoter(id, raft.ServerAddress(id), c.index, changeTimeout)
		})
	}
	if waiting != "" {
		g.host.notices.say("catch up "+g.name, func() { g.log.Info("waiting for a replica to catch up", "replica", waiting) })
		return nil
	}
	if len(p.Voters) == 0 {
		return errors.New("the placement has no voters")
	}
	if !slices.Contains(p.Voters, g.self) {
		return g.handOverTo(ctx, p.Voters)
	}
	for _, id := range c.voters {
		if slices.Contains(p.Learners, id) {
			return g.change(ctx, "demote", id, func(id raft.ServerID) raft.IndexFuture {
				return g.raft.DemoteVoter(id, c.index, changeTimeout)
			})
		}
	}
	for _, id := range slices.Concat(c.learners, c.voters) {
		if !slices.Contains(p.replicas(), id) {
			return g.change(ctx, "remove", id, func(id raft.ServerID) raft.IndexFuture {
				return g.raft.RemoveServer(id, c.index, changeTimeout)
			})
		}
	}
	return g.balance(ctx, p)
}

// change makes one change of the members. Whether a change that failed has happened shows at the
// next look: it names the membership that it begins from, so it never acts on another one.
func (g *group) change(ctx context.Context, what, id string, f func(raft.ServerID) raft.IndexFuture) error {
	if err := await(ctx, f(raft.ServerID(id))); err != nil {
		return fmt.Errorf("%s replica %s: %w", what, id, err)
	}
	g.log.Info("members of the group changed", "change", what, "replica", id)
	select {
	case g.host.place <- struct{}{}: // look again at once
	default:
	}
	return nil
}

// handOverTo hands the leadership to one of the replicas that keep pace, the first one first.
func (g *group) handOverTo(ctx context.Context, voters []string) error {
	caughtUp := g.seat.caughtUp()
	for _, id := range voters {
		if slices.Contains(caughtUp, id) && g.fit(id) {
			g.log.Info("leadership is handed over", "reason", "this replica is moved away", "to", id)
			return g.transfer(ctx, id)
		}
	}
	return errors.New("the leader is moved away, and none of those that stay can take over")
}

// observe judges how the replicas of the group other than self, which leads it and has committed so
// much, keep pace.
func (s *seat) observe(self string, commit uint64, c configuration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]*catchUp{}
	for _, id := range slices.Concat(c.voters, c.learners) {
		if id == self {
			continue
		}
		u := s.watched[id]
		if u == nil {
			u = &catchUp{goal: commit}
		}
		next[id] = u
		news, ok := s.host.peer(MemberOf(id))
		r, hosts := news.Groups[s.conf.ID]
		switch {
		case !ok || !hosts || r.Replica != id || r.Last == 0:
			u.rounds = 0
		default:
			u.judge(news.at, r.Applied, cmp.Or(news.commits[s.conf.ID], commit))
		}
	}
	s.watched = next
}

// judge takes a pulse by which the replica had applied so much, once. What the leader had committed
// when it came is the goal for the next one; what it has committed by now, maybe just before the next
// one, would be a goal that a replica under load misses.
func (u *catchUp) judge(at int64, applied, commit uint64) {
	if at == u.at {
		return
	}
	if applied >= u.goal {
		u.rounds++
	} else {
		u.rounds = 0
	}
	u.at, u.goal = at, commit
}

// caughtUp are the other replicas that keep pace with this leader.
func (s *seat) caughtUp() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id, u := range s.watched {
		if u.rounds >= caughtUpRounds {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// lagging are the other replicas that missed their latest goal.
func (s *seat) lagging() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id, u := range s.watched {
		if u.at != 0 && u.rounds == 0 {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// forgetProgress ends what this node knew as leader.
func (s *seat) forgetProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched, s.preferred = nil, time.Time{}
}
