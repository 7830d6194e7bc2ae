package raftfsm

import "context"

// AwaitApplied waits until this node's replica of a group has applied the entry at index, for
// reading here what was seen elsewhere.
func (h *Host) AwaitApplied(ctx context.Context, id GroupID, index uint64) error {
	g, err := h.group(id)
	if err != nil {
		return err
	}
	if err := g.replica.WaitApplied(ctx, index); err != nil {
		return g.fail("await", OutcomeDefinite, err)
	}
	return nil
}
