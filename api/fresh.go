package api

import (
	"context"
	"time"

	"github.com/maestro-conductor/maestro/limiter"
)

// fresh tells whether identities found from now on are good. It is asked before the identity
// is looked up: what the node hears later must not count for what it looked up before.
func (s *server) fresh() bool {
	if s.deps.Freshness != nil && !s.deps.Freshness.Fresh() {
		if s.stale.Load() == nil {
			now := time.Now()
			s.stale.CompareAndSwap(nil, &now)
		}
		return false
	}
	if s.stale.Load() != nil {
		s.stale.Store(nil)
	}
	return true
}

// coveredWait is for how long after a node was found cut off checks wait for it although their limits say what
// is decided then: most changes of meta's leader end within it.
const coveredWait = time.Second

// awaitCovered is awaitFresh for checks of which the limits say what is decided on a node that is cut off:
// that is what becomes of them if it tells so.
func (s *server) awaitCovered(ctx context.Context, c *call) (away bool, f *fault) {
	left := coveredWait
	if since := s.stale.Load(); since != nil {
		left -= time.Since(*since)
	}
	if left > 0 {
		wait, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		if s.deps.Freshness.AwaitFresh(wait) == nil {
			return false, s.admitIdentity(ctx, c)
		}
		if err := ctx.Err(); err != nil {
			return false, c.note(s, err)
		}
	}
	return true, nil
}

// admitCutOff is what becomes of a request on a node that may not know of revocations: it waits until the
// node does, or, for what leases may decide, goes on, and waits where they do not.
func (s *server) admitCutOff(ctx context.Context, c *call) *fault {
	switch c.route.cutOff {
	case cutOffAll:
		return nil
	case cutOffCertificate:
		if c.credentials.admin != nil {
			return nil
		}
	case cutOffLeases:
		c.cutOff = true
		return nil
	}
	return s.awaitFresh(ctx, c)
}

// awaitFresh holds a request on a node that may not know of revocations until it does, and
// then looks the identity up again; or it refuses the request. The wait spares callers the
// change of meta's leader. The request keeps its place meanwhile, which bounds how many wait.
func (s *server) awaitFresh(ctx context.Context, c *call) *fault {
	wait, cancel := context.WithTimeout(ctx, maxFreshWait)
	defer cancel()
	if err := s.deps.Freshness.AwaitFresh(wait); err != nil {
		return c.note(s, err)
	}
	return s.admitIdentity(ctx, c)
}

// fork is c for a part of the request that others run beside.
func (c *call) fork() *call {
	return &call{route: c.route, credentials: c.credentials, principal: c.principal, cutOff: c.cutOff}
}

// checkOne decides a check: on a node that is cut off from its leases, or once it is not any more, or by what
// its limits say for that case.
func (s *server) checkOne(ctx context.Context, c *call, q limiter.Request) (limiter.Decision, error) {
	if !c.cutOff {
		return s.deps.Checker.Check(ctx, q)
	}
	one := [1]limiter.Outcome{}
	if err := s.checkMany(ctx, c, []limiter.Request{q}, one[:]); err != nil {
		return limiter.Decision{}, err
	}
	return one[0].Decision, one[0].Err
}

// checkMany is checkOne for many. What is refused because the node is cut off is so check by check, unless
// all of it is.
func (s *server) checkMany(ctx context.Context, c *call, all []limiter.Request, out []limiter.Outcome) error {
	if !c.cutOff {
		return s.deps.Checker.CheckBatchInto(ctx, all, out)
	}
	rest := s.deps.Checker.CheckHeld(all, out)
	covered, open := s.covered(all, rest)
	if len(covered) > 0 {
		away, f := s.awaitCovered(ctx, c)
		switch {
		case f != nil:
			return f
		case !away: // it is not cut off any more
			return s.decideOpen(ctx, all, rest, out, nil)
		}
		for i, d := range covered {
			out[i] = limiter.Outcome{Decision: d}
		}
	}
	if len(open) == 0 {
		return nil
	}
	f := s.awaitFresh(ctx, c)
	if f != nil && len(open) == len(all) {
		return f
	}
	return s.decideOpen(ctx, all, open, out, f)
}

// covered are the checks at places of which the limits say what is decided while nobody can be asked, with
// that, and the other places.
func (s *server) covered(all []limiter.Request, places []int) (covered map[int]limiter.Decision, open []int) {
	if len(places) == 0 {
		return nil, nil
	}
	asked, said := make([]limiter.Request, len(places)), make([]limiter.Outcome, len(places))
	for at, i := range places {
		asked[at] = all[i]
	}
	still := map[int]bool{}
	for _, at := range s.deps.Checker.CheckOnFailure(asked, said) {
		still[at] = true
		open = append(open, places[at])
	}
	covered = map[int]limiter.Decision{}
	for at, i := range places {
		if !still[at] {
			covered[i] = said[at].Decision
		}
	}
	return covered, open
}

// decideOpen decides the checks at places as on any node, or refuses them.
func (s *server) decideOpen(ctx context.Context, all []limiter.Request, places []int, out []limiter.Outcome, f *fault) error {
	if f == nil && len(places) == len(all) {
		return s.deps.Checker.CheckBatchInto(ctx, all, out)
	}
	rest, outcomes := make([]limiter.Request, len(places)), make([]limiter.Outcome, len(places))
	for at, i := range places {
		rest[at] = all[i]
	}
	var err error
	if f != nil {
		err = f
	} else {
		err = s.deps.Checker.CheckBatchInto(ctx, rest, outcomes)
	}
	for at, i := range places {
		if out[i] = outcomes[at]; err != nil {
			out[i] = limiter.Outcome{Err: err}
		}
	}
	return nil
}

// checkTogether decides parts of one tenant that pass together.
func (s *server) checkTogether(ctx context.Context, c *call, parts []limiter.Part) ([]limiter.Decision, error) {
	if c.cutOff {
		all := make([]limiter.Request, len(parts))
		for i := range parts {
			all[i] = parts[i].Request
		}
		if covered, open := s.covered(all, everyPlace(len(all))); len(open) == 0 && len(parts) > 0 {
			away, f := s.awaitCovered(ctx, c)
			if f != nil {
				return nil, f
			}
			if away {
				out := make([]limiter.Decision, len(parts))
				for i := range out {
					out[i] = covered[i]
				}
				return out, nil
			}
		} else if f := s.awaitFresh(ctx, c); f != nil {
			return nil, f
		}
	}
	return s.deps.Checker.CheckTogether(ctx, parts)
}

func everyPlace(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
