package limiter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

var (
	// ErrReservationUnknown means that a tenant has no reservation of an id: it never had, or the
	// reservation ended more than ten minutes ago, or before a restore.
	ErrReservationUnknown = errors.New("limiter: there is no such reservation")
	// ErrSlotUnknown means that nothing is held under an id: it has expired, or was released.
	ErrSlotUnknown = errors.New("limiter: no such slot is held")
	// ErrRequestUnknown means that nothing is known to have been taken under a request id.
	ErrRequestUnknown = errors.New("limiter: no check with this request id is known to have taken anything")
	// ErrTooManyHeld means that a tenant has 100,000 open reservations and held slots.
	ErrTooManyHeld = errors.New("limiter: the tenant holds too many reservations and slots")
	// ErrLevel means that a member of the region runs a build that does not know this yet.
	ErrLevel = errors.New("limiter: a member runs a build that is too old for this")
)

// Hold is the answer to Reserve and Acquire.
type Hold struct {
	Decision
	// ID names the reservation or slot to its tenant; empty when denied.
	ID string
	// TTL is how long it lasts from the decision on, at least. A retry with a request id gets
	// that of the first answer.
	TTL time.Duration
}

// Reserve takes r.Cost, at least 1, as Check does, for something whose cost is known only
// afterwards; Commit tells it then. What it takes from global limits stays spent. After ttl (from HoldMin to HoldMax in whole milliseconds, 0 for
// HoldUsual) the reservation counts as spent. Errors are as from Check, ErrTooManyHeld and ErrLevel.
func (s *Service) Reserve(ctx context.Context, r Request, ttl time.Duration) (Hold, error) {
	if r.Cost == 0 {
		return Hold{}, &InvalidError{Field: "cost", Message: "must be at least 1: reserve what it will cost, as far as known"}
	}
	if err := errors.Join(validRequest(r), validTTL(ttl)); err != nil {
		return Hold{}, err
	}
	some, canaries, err := s.globals(ctx)
	if err != nil {
		return Hold{}, err
	}
	mode := s.mode()
	if !some || mode == ModeOff {
		return s.take(ctx, opReserve, opNameReserve, r, ttl)
	}
	var h Hold
	err = s.withGlobals(ctx, opNameReserve, mode, &r, &h.Decision, canaries, func() (err error) {
		h, err = s.take(ctx, opReserve, opNameReserve, r, ttl)
		return err
	}, func(ctx context.Context) {
		_, _ = s.Cancel(ctx, r.Tenant, h.ID) // else it stays spent, which admits less
		h.ID, h.TTL = "", 0
	})
	return h, err
}

// Acquire takes a slot of the weight r.Cost, 0 meaning 1, of every limit that matches and has a
// concurrency, or of none. The slot frees itself after ttl, or after the TTL of a limit if that is
// shorter; 0 asks for as long as the limits allow, or HoldUsual when none matches. RetryAfterMs is
// when enough slots have freed themselves: a Release frees them earlier, a renewal later.
func (s *Service) Acquire(ctx context.Context, r Request, ttl time.Duration) (Hold, error) {
	r.Cost = max(r.Cost, 1)
	return s.take(ctx, opAcquire, "limiter.acquire", r, ttl)
}

func (s *Service) take(ctx context.Context, op byte, name string, r Request, ttl time.Duration) (Hold, error) {
	if err := errors.Join(validRequest(r), validTTL(ttl)); err != nil {
		return Hold{}, err
	}
	c := holdCommand{Request: r, ttl: uint64(ttl.Milliseconds())}
	mode, kind := s.mode(), name
	if mode != ModeEnforce {
		mode, kind = ModeShadow, name+".shadow" // without limits too: what is held must be known
	}
	var id raftfsm.RequestID
	if r.RequestID == "" {
		_, _ = rand.Read(c.id[:]) // it never fails
	} else {
		id = raftfsm.NewRequestID(kind, r.Tenant, r.RequestID)
		c.id = holdID(id)
	}
	res, err := s.proposeHold(ctx, op, name, c, id, mode)
	if err == nil && s.askAgain(ctx, r.Tenant, r.RequestID != "", &res) {
		if r.RequestID != "" { // under a name of its own, as in Check
			id = raftfsm.NewRequestID(kind+".recalled", r.Tenant, r.RequestID)
		}
		res, err = s.proposeHold(ctx, op, name, c, id, mode)
	}
	if err != nil {
		return Hold{}, err
	}
	return holdOf(res, op, r.Tenant, mode)
}

// Renew holds a slot for ttl from now on, as in Acquire, unless it is held for longer already. It asks
// no limit: what is held may stay held. An id that is not held any more is ErrSlotUnknown.
func (s *Service) Renew(ctx context.Context, tenant, id string, ttl time.Duration) (Hold, error) {
	if err := validTTL(ttl); err != nil {
		return Hold{}, err
	}
	res, err := s.proposeByID(ctx, opAcquire, "limiter.renew", tenant, id, holdCommand{ttl: uint64(ttl.Milliseconds()), renew: true})
	if err != nil {
		return Hold{}, err
	}
	if res.outcome == outcomeUnknown {
		return Hold{}, fmt.Errorf("tenant %s, slot %s: %w", tenant, id, ErrSlotUnknown)
	}
	return holdOf(res, opAcquire, tenant, ModeEnforce)
}

// Release gives a slot back, and tells whether it was held. Repeating it does no harm.
func (s *Service) Release(ctx context.Context, tenant, id string) (held bool, err error) {
	res, err := s.proposeByID(ctx, opRelease, "limiter.release", tenant, id, holdCommand{})
	if err == nil && res.outcome != outcomeReleased {
		err = unexpected(res)
	}
	return res.hold.released, err
}

// Commit ends a reservation with what was really spent. Less than was reserved is refunded; more is
// taken in addition, whether there is room or not. The first Commit counts, and every later one
// gets its answer. After the reservation has expired only what exceeds it counts; ten minutes later it is
// ErrReservationUnknown.
func (s *Service) Commit(ctx context.Context, tenant, id string, actual uint32) (Settlement, error) {
	res, err := s.proposeByID(ctx, opSettle, "limiter.commit", tenant, id, holdCommand{Request: Request{Cost: actual}})
	switch {
	case err != nil:
		return Settlement{}, err
	case res.outcome == outcomeUnknown:
		return Settlement{}, fmt.Errorf("tenant %s, reservation %s: %w", tenant, id, ErrReservationUnknown)
	case res.outcome != outcomeSettled:
		return Settlement{}, unexpected(res)
	}
	return res.hold.settlement, nil
}

// Cancel is Commit of nothing spent.
func (s *Service) Cancel(ctx context.Context, tenant, id string) (Settlement, error) {
	return s.Commit(ctx, tenant, id, 0)
}

// Refund gives back what a Check with a request id took up to ten minutes ago, or cost of it if that is
// less and not 0, and tells how much. It does so once, and every later call gets that answer. Limits
// get of it what has not flowed back by itself.
func (s *Service) Refund(ctx context.Context, tenant, requestID string, cost uint32) (refunded uint32, err error) {
	if requestID == "" {
		return 0, &InvalidError{Field: "request_id", Message: "is missing: it says which check is refunded"}
	}
	if err := validRequest(Request{Tenant: tenant, RequestID: requestID}); err != nil {
		return 0, err
	}
	if refunded, err = s.refundTenant(ctx, tenant, requestID, cost); err != nil {
		return 0, err
	}
	some, _, err := s.globals(ctx)
	if some && err == nil {
		err = s.refundGlobal(ctx, globalID(opNameCheck, &Request{Tenant: tenant, RequestID: requestID}), cost)
	}
	return refunded, err
}

// refundTenant is Refund of what a check took from its tenant's limits.
func (s *Service) refundTenant(ctx context.Context, tenant, requestID string, cost uint32) (refunded uint32, err error) {
	c := holdCommand{Request: Request{Tenant: tenant, Cost: cost}, id: checkID(tenant, requestID)}
	res, err := s.proposeHold(ctx, opRefund, "limiter.refund", c, raftfsm.RequestID{}, ModeEnforce)
	switch {
	case err != nil:
		return 0, err
	case res.outcome == outcomeUnknown:
		return 0, fmt.Errorf("tenant %s, request %q: %w", tenant, requestID, ErrRequestUnknown)
	case res.outcome != outcomeRefunded:
		return 0, unexpected(res)
	}
	return res.hold.settlement.Refunded, nil
}

// checkID is under which a check with a request id is remembered.
func checkID(tenant, requestID string) holdID {
	return holdID(raftfsm.NewRequestID(opNameCheck, tenant, requestID))
}

func (s *Service) proposeByID(ctx context.Context, op byte, name, tenant, text string, c holdCommand) (result, error) {
	id, ok := parseHoldID(text)
	switch {
	case !ValidName(tenant):
		return result{}, &InvalidError{Field: "tenant", Message: nameRule}
	case !ok:
		return result{}, &InvalidError{Field: "id", Message: "must be an id as it was returned: 32 of the characters 0-9 a-f"}
	}
	c.Tenant, c.id = tenant, id
	return s.proposeHold(ctx, op, name, c, raftfsm.RequestID{}, ModeEnforce)
}

func (s *Service) proposeHold(ctx context.Context, op byte, name string, c holdCommand, id raftfsm.RequestID, mode Mode) (result, error) {
	if s.groups.Level() < raftfsm.LevelLeases {
		return result{}, ErrLevel
	}
	res, err := s.propose(ctx, s.Group(c.Tenant), raftfsm.Command{Data: inMode(mode, appendHold(nil, op, c)), RequestID: id})
	if err != nil {
		return result{}, fmt.Errorf("%s for tenant %s: %w", name, c.Tenant, err)
	}
	return res, nil
}

func holdOf(res result, op byte, tenant string, mode Mode) (Hold, error) {
	want := outcomeReserved
	if op == opAcquire {
		want = outcomeAcquired
	}
	if res.outcome == outcomeFull {
		return Hold{}, fmt.Errorf("tenant %s: %w", tenant, ErrTooManyHeld)
	}
	if res.outcome == outcomeScarce {
		want = outcomeDecided
	}
	d, err := decisionOf(res, want, tenant, mode)
	if err != nil || !d.Allow {
		return Hold{Decision: d}, err
	}
	return Hold{Decision: d, ID: res.hold.id.String(), TTL: time.Duration(res.hold.ttl) * time.Millisecond}, nil
}

func validTTL(ttl time.Duration) error {
	if ttl != 0 && (ttl < HoldMin || ttl > HoldMax || ttl%time.Millisecond != 0) {
		return &InvalidError{Field: "ttl_ms", Message: fmt.Sprintf("must be from %d to %d, or 0 for what is usual", HoldMin.Milliseconds(), HoldMax.Milliseconds())}
	}
	return nil
}
