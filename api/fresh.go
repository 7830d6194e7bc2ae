package api

import (
	"context"

	"github.com/maestro-conductor/maestro/limiter"
)

// fresh tells whether identities found from now on are good. It is asked before the identity
// is looked up: what the node hears later must not count for what it looked up before.
func (s *server) fresh() bool { return s.deps.Freshness == nil || s.deps.Freshness.Fresh() }

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

// checkOne decides a check: on a node that is cut off from its leases, or once it is not any more.
func (s *server) checkOne(ctx context.Context, c *call, q limiter.Request) (limiter.Decision, error) {
	if c.cutOff {
		one := [1]limiter.Outcome{}
		if open := s.deps.Checker.CheckHeld([]limiter.Request{q}, one[:]); len(open) == 0 {
			return one[0].Decision, one[0].Err
		}
		if f := s.awaitFresh(ctx, c); f != nil {
			return limiter.Decision{}, f
		}
	}
	return s.deps.Checker.Check(ctx, q)
}

// checkMany is checkOne for many. What is refused because the node is cut off is so check by check, unless
// all of it is.
func (s *server) checkMany(ctx context.Context, c *call, all []limiter.Request, out []limiter.Outcome) error {
	if !c.cutOff {
		return s.deps.Checker.CheckBatchInto(ctx, all, out)
	}
	open := s.deps.Checker.CheckHeld(all, out)
	if len(open) == 0 {
		return nil
	}
	f := s.awaitFresh(ctx, c)
	if len(open) == len(all) {
		if f != nil {
			return f
		}
		return s.deps.Checker.CheckBatchInto(ctx, all, out)
	}
	rest, outcomes := make([]limiter.Request, len(open)), make([]limiter.Outcome, len(open))
	for at, i := range open {
		rest[at] = all[i]
	}
	var err error
	if f != nil {
		err = f
	} else {
		err = s.deps.Checker.CheckBatchInto(ctx, rest, outcomes)
	}
	for at, i := range open {
		if out[i] = outcomes[at]; err != nil {
			out[i] = limiter.Outcome{Err: err}
		}
	}
	return nil
}
