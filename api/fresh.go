package api

import "context"

// fresh tells whether identities found from now on are good. It is asked before the identity
// is looked up: what the node hears later must not count for what it looked up before.
func (s *server) fresh() bool { return s.deps.Freshness == nil || s.deps.Freshness.Fresh() }

// awaitFresh holds a request on a node that may not know of revocations until it does, and
// then looks the identity up again; or it refuses the request. The wait spares callers the
// change of meta's leader. The request keeps its place meanwhile, which bounds how many wait.
func (s *server) awaitFresh(ctx context.Context, c *call) *fault {
	switch c.route.cutOff {
	case cutOffAll:
		return nil
	case cutOffCertificate:
		if c.credentials.admin != nil {
			return nil
		}
	}
	wait, cancel := context.WithTimeout(ctx, maxFreshWait)
	defer cancel()
	if err := s.deps.Freshness.AwaitFresh(wait); err != nil {
		return c.note(s, err)
	}
	return s.admitIdentity(ctx, c)
}
