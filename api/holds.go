package api

import (
	"context"
	"errors"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (s *server) reserve(ctx context.Context, c *call, r *limiterv1.ReserveRequest) (*limiterv1.ReserveResponse, error) {
	if s.deps.Holder == nil {
		return nil, ErrServiceOff
	}
	q, ttl, f := holdRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	q.Cost = r.GetCost()
	h, err := s.deps.Holder.Reserve(ctx, q, ttl)
	if err != nil {
		return nil, malformedField(err)
	}
	s.metrics.decided(&h.Decision)
	hideGlobals(c.principal, &h.Decision)
	return &limiterv1.ReserveResponse{Decision: checkResponse(&h.Decision), Id: h.ID, ExpiresInMs: uint32(h.TTL.Milliseconds())}, nil
}

// holdMessage is what asks for something to be held.
type holdMessage interface {
	subjectMessage
	GetTtlMs() uint32
	GetRequestId() string
}

func holdRequest(who Principal, m holdMessage) (limiter.Request, time.Duration, *fault) {
	q, f := subjectOf(who, m)
	if f == nil {
		f = withinBytes("request_id", m.GetRequestId(), MaxRequestIDBytes)
	}
	q.RequestID = m.GetRequestId()
	return q, time.Duration(m.GetTtlMs()) * time.Millisecond, f
}

func (s *server) commit(ctx context.Context, c *call, r *limiterv1.CommitRequest) (*limiterv1.CommitResponse, error) {
	m, err := s.settle(ctx, c, r, r.GetActual())
	if err != nil {
		return nil, err
	}
	return &limiterv1.CommitResponse{Settlement: m}, nil
}

func (s *server) cancel(ctx context.Context, c *call, r *limiterv1.CancelRequest) (*limiterv1.CancelResponse, error) {
	m, err := s.settle(ctx, c, r, 0)
	if err != nil {
		return nil, err
	}
	return &limiterv1.CancelResponse{Settlement: m}, nil
}

// heldMessage names something that a tenant holds.
type heldMessage interface {
	GetTenant() string
	GetId() string
}

func (s *server) settle(ctx context.Context, c *call, m heldMessage, actual uint32) (*limiterv1.Settlement, error) {
	tenant, err := s.holderOf(c.principal, m.GetTenant())
	if err != nil {
		return nil, err
	}
	got, err := s.deps.Holder.Commit(ctx, tenant, m.GetId(), actual)
	if err != nil {
		return nil, malformedField(err)
	}
	return &limiterv1.Settlement{Actual: got.Actual, Refunded: got.Refunded, Overdrawn: got.Overdrawn, Late: got.Late}, nil
}

// holderOf is the tenant whose reservations and slots a caller reaches.
func (s *server) holderOf(who Principal, named string) (string, error) {
	if s.deps.Holder == nil {
		return "", ErrServiceOff
	}
	tenant, f := oneTenant(who, named)
	if f != nil {
		return "", f
	}
	return tenant, nil
}

func (s *server) refund(ctx context.Context, c *call, r *limiterv1.RefundRequest) (*limiterv1.RefundResponse, error) {
	tenant, err := s.holderOf(c.principal, r.GetTenant())
	if err != nil {
		return nil, err
	}
	if f := withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes); f != nil {
		return nil, f
	}
	n, err := s.deps.Holder.Refund(ctx, tenant, r.GetRequestId(), r.GetCost())
	if err != nil {
		return nil, malformedField(err)
	}
	return &limiterv1.RefundResponse{Refunded: n}, nil
}

func (s *server) acquire(ctx context.Context, c *call, r *limiterv1.AcquireRequest) (*limiterv1.AcquireResponse, error) {
	if s.deps.Holder == nil {
		return nil, ErrServiceOff
	}
	q, ttl, f := holdRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	q.Cost = r.GetWeight()
	var h limiter.Hold
	var err error
	if r.GetId() == "" {
		h, err = s.deps.Holder.Acquire(ctx, q, ttl)
	} else {
		h, err = s.deps.Holder.Renew(ctx, q.Tenant, r.GetId(), ttl)
	}
	if err != nil {
		return nil, malformedField(err)
	}
	s.metrics.decided(&h.Decision)
	hideGlobals(c.principal, &h.Decision)
	return &limiterv1.AcquireResponse{Decision: checkResponse(&h.Decision), Id: h.ID, ExpiresInMs: uint32(h.TTL.Milliseconds())}, nil
}

func (s *server) release(ctx context.Context, c *call, r *limiterv1.ReleaseRequest) (*limiterv1.ReleaseResponse, error) {
	tenant, err := s.holderOf(c.principal, r.GetTenant())
	if err != nil {
		return nil, err
	}
	held, err := s.deps.Holder.Release(ctx, tenant, r.GetId())
	if err != nil {
		return nil, malformedField(err)
	}
	return &limiterv1.ReleaseResponse{Released: held}, nil
}

// malformedField gives what the limiter finds wrong with a field the reason of the API's own findings.
func malformedField(err error) error {
	var invalid *limiter.InvalidError
	if errors.As(err, &invalid) {
		return refuse(reasonFieldMalformed, "%s", invalid)
	}
	return err
}
