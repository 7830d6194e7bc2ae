package limiter

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// SourceFailure is the source of a decision that no group has made, because none could be reached: the limits
// that match say what is decided then.
const SourceFailure = "failure"

// awayRetryMs is the retry time of a check that is denied because its group is away: a guess, as nobody knows.
const awayRetryMs = 1000

// verdictAway is what limits say about a request whose group cannot be reached.
type verdictAway struct {
	decision Decision
	// covered is false when some limit leaves the check to fail, or the limits are not known.
	covered bool
}

// coveredSet is the limits by which a group that is away is stood in for: those of its replica here, or else
// the newest of any replica here, since all groups have all limits. It is nil when no limit says anything
// about that case.
func (s *Service) coveredSet(group raftfsm.GroupID) *limitSet {
	if s.leases == nil {
		return nil
	}
	var set *limitSet
	if own := s.leases.table.groups[group]; own != nil {
		set = own.source.Load()
	} else {
		for _, g := range s.leases.table.groups { // any order: the newest is one, whichever comes first
			if other := g.source.Load(); other != nil && (set == nil || other.version > set.version) {
				set = other
			}
		}
	}
	if set == nil || !set.covered {
		return nil
	}
	return set
}

// away is what the limits that match a request say in case their group cannot be reached. A limit that only
// watches denies nothing.
func (set *limitSet) away(mode Mode, r *Request) verdictAway {
	matched := set.matchCounters(nil, r.Tenant, r.Token, r.Key)
	enforced := slices.DeleteFunc(slices.Clone(matched), func(l *limitState) bool { return mode == ModeShadow || l.shadows(r.asker()) })
	deciding := enforced
	if len(enforced) == 0 {
		deciding = matched
	}
	if len(deciding) == 0 || len(matched) > levelsMax ||
		slices.ContainsFunc(deciding, func(l *limitState) bool { return l.OnFailure == "" }) {
		return verdictAway{}
	}
	v := verdictAway{covered: true, decision: Decision{Allow: true, Version: set.version, Mode: mode, Source: SourceFailure}}
	d := &v.decision
	for _, l := range enforced {
		if l.OnFailure == OnFailureDeny {
			d.Allow, d.Reason, d.LimitID, d.RetryAfterMs = false, ReasonAway, l.ID, awayRetryMs
			if l.Access == AccessBanned {
				d.Reason, d.Kind, d.RetryAfterMs = ReasonBanned, KindBanned, 0
			}
			break
		}
	}
	return v
}

// CheckOnFailure decides checks by what their limits say for the case that nobody can be asked, as far as this
// node knows them, and returns the places of those that it leaves open. It is for a node that must not ask
// any group, and leaves all open while limits are not enforced.
func (s *Service) CheckOnFailure(all []Request, out []Outcome) (open []int) {
	for i := range all {
		v := verdictAway{}
		if s.mode() == ModeEnforce && validRequest(all[i]) == nil {
			v = s.awayWithGlobals(&all[i])
		}
		if !v.covered {
			open = append(open, i)
			continue
		}
		out[i] = Outcome{Decision: v.decision}
	}
	return open
}

// awayWithGlobals is what all limits say of a request, global ones included.
func (s *Service) awayWithGlobals(r *Request) verdictAway {
	set := s.coveredSet(s.Group(r.Tenant))
	if set == nil {
		return verdictAway{}
	}
	v := set.away(ModeEnforce, r)
	if v.covered && len(set.globals) > 0 {
		g := set.away(ModeEnforce, &Request{Tenant: globalTenant, Token: r.Tenant, Cost: r.Cost})
		v.covered = g.covered
		v.decision.join(&g.decision)
	}
	return v
}

const (
	// probeAfter is how long a covered check waits for its group before somebody looks whether it is there at
	// all, and probeTimeout bounds the look. Together they are longer than most groups are without a leader.
	probeAfter   = time.Second
	probeTimeout = time.Second
	// probeEvery is how soon after one look comes the next while a group is away.
	probeEvery = 200 * time.Millisecond
)

// probe knows whether a group is away. Only a look at the group says so, never a check that has failed: how
// long that waits is its caller's choice, who must not get a limit to be open by it.
type probe struct {
	away atomic.Bool

	mu     sync.Mutex
	done   chan struct{} // of the look under way, or nil
	looked time.Time     // when the last one ended
}

// look starts a look at a group, unless one is under way, and returns when its end is to be seen. It is nil
// when the leases are closed.
func (s *Service) look(group raftfsm.GroupID) <-chan struct{} {
	p, l := s.probes[group], s.leases
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done != nil {
		return p.done
	}
	done := make(chan struct{})
	if !l.goes(func() {
		ctx, cancel := context.WithTimeout(l.ctx, probeTimeout)
		defer cancel()
		_, err := s.Version(ctx, group, raftfsm.Linearizable)
		p.away.Store(err != nil && unreachable(err))
		p.mu.Lock()
		p.done, p.looked = nil, time.Now()
		p.mu.Unlock()
		close(done)
	}) {
		return nil
	}
	p.done = done
	return done
}

// isAway waits for a look at a group.
func (s *Service) isAway(ctx context.Context, group raftfsm.GroupID) bool {
	done := s.look(group)
	if done == nil {
		return false
	}
	select {
	case <-done:
		return s.probes[group].away.Load()
	case <-ctx.Done():
		return false
	}
}

// knownAway tells whether a group was away at the last look, and sees to it that there is another one.
func (s *Service) knownAway(group raftfsm.GroupID) bool {
	p := s.probes[group]
	if !p.away.Load() {
		return false
	}
	p.mu.Lock()
	due := time.Since(p.looked) >= probeEvery
	p.mu.Unlock()
	if due {
		s.look(group)
	}
	return true
}

// unreachable tells whether err means that a group could not be reached, or did not answer in time.
func unreachable(err error) bool {
	return errors.Is(err, raftfsm.ErrNoLeader) || errors.Is(err, raftfsm.ErrLost) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// standIn asks a group about what limits cover, and tells whether they must stand in for it: then ask was not
// called, or has failed with err. What it asked for is lost, or taken although nobody waits.
func (s *Service) standIn(ctx context.Context, group raftfsm.GroupID, ask func(context.Context) error) (away bool, err error) {
	if s.knownAway(group) {
		return true, nil
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(probeAfter, func() {
		if s.isAway(within, group) {
			cancel()
		}
	}).Stop()
	if err = ask(within); err == nil || !unreachable(err) {
		return false, err
	}
	if ctx.Err() != nil {
		s.look(group) // for those who come after this caller
		return false, err
	}
	return s.probes[group].away.Load() || s.isAway(ctx, group), err
}

// checkTenantAway is checkTenant for a request of which the limits may say what becomes of it without its
// group.
func (s *Service) checkTenantAway(ctx context.Context, mode Mode, r Request, d *Decision, v *verdictAway) error {
	stand, err := s.standIn(ctx, s.Group(r.Tenant), func(ctx context.Context) error { return s.askTenant(ctx, mode, r, d) })
	if !stand {
		return err
	}
	if err == nil && s.heldHere(mode, &r, d) {
		return nil
	}
	*d = v.decision
	return nil
}

// heldHere decides a request from what this node holds alone.
func (s *Service) heldHere(mode Mode, r *Request, d *Decision) bool {
	l := s.holding()
	if l == nil || mode != ModeEnforce || !leasable(r) {
		return false
	}
	c := heldCheck{request: r, decision: d, only: true}
	l.table.check(&c)
	return c.answer == heldSpent || c.answer == heldDenied
}

// coveredPlaces parts places into those whose limits cover the case that their group is away, with what they
// say, and the others.
func (s *Service) coveredPlaces(mode Mode, all []Request, places []int) (covered map[int]*verdictAway, others []int) {
	sets := map[raftfsm.GroupID]*limitSet{}
	for _, i := range places {
		group := s.Group(all[i].Tenant)
		set, known := sets[group]
		if !known {
			set = s.coveredSet(group)
			sets[group] = set
		}
		if set != nil {
			if v := set.away(mode, &all[i]); v.covered {
				if covered == nil {
					covered = map[int]*verdictAway{}
				}
				covered[i] = &v
				continue
			}
		}
		others = append(others, i)
	}
	return covered, others
}

// decideManyAway is decideMany for checks of one group that are covered.
func (s *Service) decideManyAway(ctx context.Context, mode Mode, group raftfsm.GroupID, all []Request, places []int, covered map[int]*verdictAway, out []Outcome) {
	stand, err := s.standIn(ctx, group, func(ctx context.Context) error {
		s.askMany(ctx, mode, all, places, out)
		for _, i := range places {
			if out[i].Err != nil && unreachable(out[i].Err) {
				return out[i].Err
			}
		}
		return nil
	})
	if !stand {
		return
	}
	for _, i := range places {
		if err != nil && (out[i].Err == nil || !unreachable(out[i].Err)) {
			continue // decided before the group went away, or refused
		}
		out[i].Err = nil
		if err == nil && s.heldHere(mode, &all[i], &out[i].Decision) {
			continue
		}
		out[i].Decision = covered[i].decision
	}
}

// decideTogetherAway is decideTogether, with what limits say of each part where all of them are covered.
func (s *Service) decideTogetherAway(ctx context.Context, mode Mode, parts []Part) (out []Decision, err error) {
	group := s.Group(parts[0].Tenant)
	set := s.coveredSet(group)
	if set == nil {
		return s.decideTogether(ctx, mode, parts)
	}
	said := make([]Decision, len(parts))
	for i := range parts {
		v := set.away(mode, &parts[i].Request)
		if !v.covered {
			return s.decideTogether(ctx, mode, parts)
		}
		said[i] = v.decision
	}
	stand, err := s.standIn(ctx, group, func(ctx context.Context) (err error) {
		out, err = s.decideTogether(ctx, mode, parts)
		return err
	})
	if stand {
		return said, nil
	}
	return out, err
}

// takeGlobalAway is takeGlobal, with what the global limits say of a check while their group is away.
func (s *Service) takeGlobalAway(ctx context.Context, mode Mode, r *Request, g *globalPart) error {
	set := s.coveredSet(s.Group(globalTenant))
	if set == nil {
		return s.takeGlobal(ctx, mode, r, g)
	}
	asked := g.request
	asked.Token = r.Tenant
	v := set.away(mode, &asked)
	if !v.covered {
		return s.takeGlobal(ctx, mode, r, g)
	}
	stand, err := s.standIn(ctx, s.Group(globalTenant), func(ctx context.Context) error { return s.takeGlobal(ctx, mode, r, g) })
	if !stand {
		return err
	}
	if err == nil && leasable(r) && s.holding() != nil && mode == ModeEnforce {
		g.held.only = true
		s.leases.table.check(&g.held)
		g.held.only = false
		if g.leased = g.held.answer == heldSpent; g.leased || g.held.answer == heldDenied {
			return nil
		}
	}
	g.leased, g.id = false, holdID{} // what was asked for under it may be taken, and stays so
	g.decision = v.decision
	return nil
}

// covers tells whether some limit may say what becomes of checks without their group.
func (s *Service) covers() bool {
	return slices.ContainsFunc(s.ids, func(id raftfsm.GroupID) bool { return s.coveredSet(id) != nil })
}

// coverGlobal is takeGlobalAway for a part that could not be decided where no limit denies.
func (s *Service) coverGlobal(g *globalPart, o *Outcome) {
	group := s.Group(globalTenant)
	set := s.coveredSet(group)
	if o.Err == nil || set == nil || !unreachable(o.Err) || !s.knownAway(group) {
		return
	}
	if v := set.away(ModeShadow, &g.request); v.covered {
		g.decision, o.Err = v.decision, nil
	}
}
