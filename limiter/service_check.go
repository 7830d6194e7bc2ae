package limiter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// CheckInto is Check for callers that use a Decision, and the memory of its Levels, again and again.
// On an error, d means nothing.
func (s *Service) CheckInto(ctx context.Context, r Request, d *Decision) error {
	mode := s.mode()
	if mode == ModeOff {
		*d = Decision{Allow: true, Mode: mode}
		return validRequest(r)
	}
	some, canaries, err := s.globals(ctx)
	if err != nil {
		return err
	}
	if some {
		return s.withGlobals(ctx, opNameCheck, mode, &r, d, canaries, func() error { return s.checkTenant(ctx, mode, r, d) },
			func(ctx context.Context) { _, _ = s.refundTenant(ctx, r.Tenant, r.RequestID, 0) }) // else it stays spent, which admits less
	}
	return s.checkTenant(ctx, mode, r, d)
}

// checkTenant decides what the tenant's limits say.
func (s *Service) checkTenant(ctx context.Context, mode Mode, r Request, d *Decision) error {
	if set := s.coveredSet(s.Group(r.Tenant)); set != nil && validRequest(r) == nil {
		if v := set.away(mode, &r); v.covered {
			return s.checkTenantAway(ctx, mode, r, d, &v)
		}
	}
	return s.askTenant(ctx, mode, r, d)
}

// askTenant decides from leases, or by the tenant's group.
func (s *Service) askTenant(ctx context.Context, mode Mode, r Request, d *Decision) error {
	if l := s.holding(); l != nil && mode == ModeEnforce && leasable(&r) {
		decided, err := l.check(ctx, &r, d)
		if err != nil {
			return fmt.Errorf("limiter: check for tenant %s: %w", r.Tenant, err)
		}
		if decided {
			return nil
		}
	}
	return s.checkCentrally(ctx, mode, r, d)
}

// holding are the leases, while they may be used.
func (s *Service) holding() *Leases {
	if l := s.leases; l != nil && l.active.Load() {
		return l
	}
	return nil
}

// checkCentrally lets the group decide.
func (s *Service) checkCentrally(ctx context.Context, mode Mode, r Request, d *Decision) error {
	if err := validRequest(r); err != nil {
		return err
	}
	sent := s.steady()
	res, err := s.askGroup(ctx, mode, r, opNameCheck)
	if err == nil && s.askAgain(ctx, r.Tenant, r.RequestID != "", &res) {
		// Under a name of its own, so that a retry goes the same way and finds both answers.
		sent = s.steady()
		res, err = s.askGroup(ctx, mode, r, opNameCheck+".recalled")
	}
	if err != nil {
		return fmt.Errorf("limiter: check for tenant %s: %w", r.Tenant, err)
	}
	if *d, err = decisionOf(res, outcomeDecided, r.Tenant, mode); err == nil {
		s.decided(&r, d, sent, len(res.recalls) > 0)
	}
	return err
}

// askAgain has leases of a tenant returned that are in the way of a request, and tells whether to ask the
// group once more. A named request, one with an id, always does: a first try of it, here or elsewhere, may
// have, and what that took is under the second name.
func (s *Service) askAgain(ctx context.Context, tenant string, named bool, denied *result) bool {
	if len(denied.recalls) == 0 {
		return false
	}
	l := s.holding()
	returned := l != nil && denied.passesSoon() && l.recall(ctx, s.Group(tenant), tenant, denied.recalls)
	return returned || named
}

// passesSoon tells whether a denied request passes soon with all back that is lent, as its advice says. If not,
// that would be taken from its holders for nothing.
func (r *result) passesSoon() bool {
	return len(r.recalls) > 0 && r.decision.RetryAfterMs <= uint32(scarceMax.Milliseconds())
}

// askGroup sends one check. A request id is remembered under the name of op, and the check can be
// refunded, unless a member is of an older level. A decision to deny must not be remembered for a mode
// that denies nothing: a retry after the mode has changed is another request.
func (s *Service) askGroup(ctx context.Context, mode Mode, r Request, op string) (result, error) {
	group, plain := s.Group(r.Tenant), inMode(mode, appendCheck(nil, r))
	if r.Cost == 0 && r.RequestID == "" {
		return s.query(ctx, group, plain, raftfsm.Linearizable)
	}
	cmd, id := raftfsm.Command{Data: plain}, holdID{}
	if r.RequestID != "" {
		if mode == ModeShadow {
			op += ".shadow"
		}
		cmd.RequestID, id = raftfsm.NewRequestID(op, r.Tenant, r.RequestID), checkID(r.Tenant, r.RequestID)
	}
	if s.groups.Level() >= raftfsm.LevelLeases && (s.holding() != nil || r.RequestID != "") {
		cmd.Data = inMode(mode, appendRecallingCheck(nil, r, id))
	}
	res, err := s.propose(ctx, group, cmd)
	if errors.Is(err, raftfsm.ErrRequestReused) {
		// The first try may have been before the region came to this level.
		cmd.Data = plain
		res, err = s.propose(ctx, group, cmd)
	}
	return res, err
}

func (s *Service) encodeBatch(all []Request) []byte {
	if s.holding() != nil {
		return appendRecallingBatch(nil, all)
	}
	return appendBatch(nil, all)
}

// steady is the time by which denials are remembered.
func (s *Service) steady() int64 {
	if s.leases == nil {
		return 0
	}
	return s.leases.options.Clock.Steady()
}

// decided learns from a decision of a group about a check that was sent at a time. lent is set if leases
// were in its way.
func (s *Service) decided(r *Request, d *Decision, sent int64, lent bool) {
	if l := s.holding(); l != nil {
		l.metrics.leader.Add(1)
		if leasable(r) {
			l.table.deny(r, d, sent, lent)
		}
	}
}

// lentBatch are the checks of a batch that leases were in the way of.
type lentBatch struct {
	places  []int
	recalls map[string][]Recall // by tenant
	sent    int64               // when the first of them was
}

// add takes a check, and tells whether it may pass once leases are back.
func (b *lentBatch) add(place int, tenant string, denied *result, sent int64) bool {
	if !denied.passesSoon() {
		return false
	}
	if b.recalls == nil {
		b.recalls, b.sent = map[string][]Recall{}, sent
	}
	b.places = append(b.places, place)
	b.recalls[tenant] = append(b.recalls[tenant], denied.recalls...)
	return true
}

// recall asks for all leases at once, and tells whether to ask the group again.
func (b *lentBatch) recall(ctx context.Context, l *Leases, group raftfsm.GroupID) bool {
	var all sync.WaitGroup
	var again atomic.Bool
	for tenant, recalls := range b.recalls { // any order
		all.Go(func() {
			if l.recall(ctx, group, tenant, recalls) {
				again.Store(true)
			}
		})
	}
	all.Wait()
	return again.Load()
}
