package raftfsm

import "context"

// L0Sublevels is how many sublevels the top level of the state has: a figure that grows while
// compaction does not keep up with writes.
func (h *Host) L0Sublevels() int { return int(h.db.Metrics().Levels[0].Sublevels) }

// AppliedSum is the sum of the applied indexes of this node's replicas of the given groups: it
// grows while they are written to.
func (h *Host) AppliedSum(ids []GroupID) uint64 {
	var sum uint64
	for _, id := range ids {
		if g, err := h.hosted(id); err == nil {
			sum += g.replica.AppliedIndex()
		}
	}
	return sum
}

// AwaitApplied waits until this node's replica of a group has applied the entry at index, for
// reading here what was seen elsewhere.
func (h *Host) AwaitApplied(ctx context.Context, id GroupID, index uint64) error {
	g, err := h.hosted(id)
	if err != nil {
		return err
	}
	if err := g.replica.WaitApplied(ctx, index); err != nil {
		return g.fail("await", OutcomeDefinite, err)
	}
	return nil
}
