package raftfsm

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// tidyFrom is how much of a log must be too old before a snapshot is taken so that it can go.
const tidyFrom = 2 << 20

// tidyLog takes a snapshot whenever enough bytes were written, for Raft itself counts entries only, which may
// have half a megabyte each; and later on removes what has become too old to stay behind one.
func (g *group) tidyLog() {
	defer g.wg.Done()
	tick := time.NewTicker(g.logs.sizes.keep.TidyInterval)
	defer tick.Stop()
	for {
		select {
		case <-g.logs.sizes.full:
			g.snapshot()
		case <-tick.C:
			if err := g.tidy(); err != nil && g.ctx.Err() == nil {
				g.log.Warn("the log keeps more than it need", "err", err)
			}
		case <-g.ctx.Done():
			return
		}
	}
}

func (g *group) snapshot() {
	if err := await(g.ctx, g.raft.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && g.ctx.Err() == nil {
		g.log.Warn("no snapshot taken", "err", err)
	}
}

// tidy removes entries that need not stay, and then the room that they have left.
func (g *group) tidy() error {
	lower, upper := groupSpan(g.id)
	state, err := g.host.db.EstimateDiskUsage(lower, upper)
	if err != nil {
		return err
	}
	g.logs.sizes.stateIs(int64(state))
	if err := g.logs.measure(); err != nil {
		return err
	}
	first, last, err := g.logs.bounds()
	if err != nil {
		return err
	}
	if g.logs.sizes.surplus(last) >= tidyFrom {
		if g.logs.sizes.keepFrom(last) > g.logs.covered()+1 {
			g.snapshot()
		}
		if hi := min(g.logs.covered(), last-1); first <= hi {
			if err := g.cache.DeleteRange(first, hi); err != nil {
				return err
			}
		}
	}
	rest := g.host.turns()
	err = g.logs.shrink(func() error {
		rest()
		return g.ctx.Err()
	})
	if errors.Is(err, errLogChanged) {
		return nil // later
	}
	return err
}
