package node

import (
	"context"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// giveBackTimeout bounds how long a node that stops waits until its groups know of the tokens that it
// gives back: what they do not hear of is missing until its lease ends.
const giveBackTimeout = time.Second

// hold lets checks be decided from leases. Of groups without a replica here nothing is held.
func (n *Node) hold(run *running) (err error) {
	if !n.cfg.Runs(ServiceLimiter) {
		return nil
	}
	run.leases, err = run.limiter.NewLeases(limiter.LeaseOptions{
		Groups: n.host, Recaller: n.host, Clock: clock.NewFast(n.clock), Machines: n.limiters,
		Follows: n.host.Follows, Registry: n.registry,
	})
	return err
}

// giveBack ends the leases, before the groups end.
func (n *Node) giveBack() {
	if leases := n.services.running.Load().leases; leases != nil {
		ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
		defer cancel()
		leases.Close(ctx)
	}
}

// told takes what another member says about a group: that it lacks what is held here.
func (s *services) told(ctx context.Context, group raftfsm.GroupID, message []byte) {
	run := s.running.Load()
	if run == nil || run.leases == nil {
		return
	}
	if err := run.leases.Recalled(ctx, message); err != nil {
		s.node.log.Warn("recall of leases not understood", "group", group, "err", err)
	}
}
