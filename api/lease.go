package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

type (
	leaseMessage = frame[limiterv1.LeaseRequest]
	leaseBidi    = connect.BidiStream[leaseMessage, limiterv1.LeaseResponse]
)

// leaseSession is one stream of a holder outside the nodes.
type leaseSession struct {
	server *server
	call   *call
	stream *leaseBidi
	idle   *idleWatch

	// number is the holder's, once a message has named it; only who reads looks at it.
	number uint64
	ends   sync.WaitGroup

	mu     sync.Mutex // held to send
	failed error
}

// leaseStream answers messages each for itself, up to MaxStreamMessages at the same time, and sends
// events in between.
func (s *server) leaseStream(ctx context.Context, stream *leaseBidi) error {
	c := callFrom(ctx)
	c.entered = true
	if s.deps.Lender == nil {
		return c.note(s, ErrServiceOff).wire()
	}
	l := &leaseSession{server: s, call: c, stream: stream, idle: watchIdle(ctx, c.control)}
	defer l.idle.stop()
	events, cancel := context.WithCancel(ctx)
	err := l.read(ctx, events)
	cancel()
	l.ends.Wait()
	if err == nil {
		err = l.failed
	}
	if err != nil {
		return c.note(s, err).wire()
	}
	return nil
}

func (l *leaseSession) read(ctx, events context.Context) error {
	places := make(chan struct{}, MaxStreamMessages)
	for {
		if err := l.idle.extend(); err != nil {
			return err
		}
		message, err := l.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return l.idle.explain(err)
		}
		if message.fault != nil {
			return message.fault
		}
		start, bytes := time.Now(), l.call.meter.handOver()
		f := l.server.admitMessage(ctx, l.call)
		if f == nil {
			f = l.attend(events, &message.msg)
		}
		if f != nil {
			l.call.meter.giveBack(bytes)
			return f
		}
		places <- struct{}{}
		who := l.call.principal
		l.ends.Go(func() {
			l.send(l.answer(ctx, who, &message.msg))
			l.call.meter.giveBack(bytes)
			l.call.route.metrics.observe(0, time.Since(start))
			<-places
		})
	}
}

// attend begins to send events once a message has named the holder.
func (l *leaseSession) attend(ctx context.Context, m *limiterv1.LeaseRequest) *fault {
	switch {
	case m.GetHolder() == 0:
		return refuse(reasonFieldMalformed, "holder: must be a random number above 0")
	case l.number == m.GetHolder():
		return nil
	case l.number != 0:
		return refuse(reasonFieldMalformed, "holder: a stream is of one holder")
	}
	l.number = m.GetHolder()
	outside := l.server.deps.Lender.Attend(limiter.OutsideHolder(l.call.principal.Tenant, l.number))
	if outside == nil {
		return nil
	}
	l.ends.Go(func() {
		defer outside.Leave()
		for {
			select {
			case <-outside.Ready:
				l.send(eventMessage(outside.Take()))
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

func eventMessage(e limiter.OutsideEvents) *limiterv1.LeaseResponse {
	m := &limiterv1.LeaseResponse{Changed: e.Changed}
	for _, r := range e.Recalls {
		m.Recalls = append(m.Recalls, &limiterv1.LeaseRecall{Tenant: r.Tenant, Limit: r.Limit, Subject: r.Subject})
	}
	return m
}

// send ends the reading after the first failure.
func (l *leaseSession) send(m *limiterv1.LeaseResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		if l.failed = l.stream.Send(m); l.failed != nil {
			l.idle.wake()
		}
	}
}

// answer answers a message, or refuses it as a whole.
func (l *leaseSession) answer(ctx context.Context, who Principal, m *limiterv1.LeaseRequest) (res *limiterv1.LeaseResponse) {
	res = &limiterv1.LeaseResponse{Number: m.GetNumber(), Tenant: who.Tenant}
	rt := l.call.route
	refused := func(err error) {
		f := l.server.explain(rt, who, err)
		res.Answers, res.Refused = nil, &limiterv1.RefusedChecks{Code: f.code.String(), Message: f.message, Error: f.detail()}
	}
	defer func() {
		if p := recover(); p != nil {
			refused(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	if len(m.GetAsks()) == 0 && m.GetTenant() == "" {
		return res
	}
	ctx, cancel := context.WithTimeout(ctx, rt.deadline)
	defer cancel()
	tenant, asks, err := readAsks(who, m)
	if err != nil {
		refused(err)
		return res
	}
	routes, lendErr := l.server.deps.Lender.Lend(ctx, limiter.OutsideHolder(who.Tenant, m.GetHolder()), tenant, asks)
	if lendErr != nil {
		refused(lendErr)
		return res
	}
	for i := range routes {
		res.Answers = append(res.Answers, routeMessage(&routes[i]))
	}
	return res
}

// readAsks checks what a message asks, and for whom.
func readAsks(who Principal, m *limiterv1.LeaseRequest) (tenant string, asks []limiter.Ask, f error) {
	tenant, bad := oneTenant(who, m.GetTenant())
	if bad == nil {
		bad = withinItems("asks", len(m.GetAsks()), MaxLeaseAsks)
	}
	if bad != nil {
		return "", nil, bad
	}
	for i, a := range m.GetAsks() {
		if bad := firstFault(withinBytes("token", a.GetToken(), MaxTokenBytes), withinBytes("key", a.GetKey(), MaxKeyBytes),
			withinItems("reports", len(a.GetReports()), MaxLeaseReports)); bad != nil {
			return "", nil, refuse(bad.reason, "asks[%d]: %s", i, bad.message)
		}
		ask := limiter.Ask{Token: a.GetToken(), Key: a.GetKey()}
		for _, r := range a.GetReports() {
			if r.GetSpent() > maxLeaseTokens || r.GetReturned() > maxLeaseTokens {
				return "", nil, refuse(reasonFieldMalformed, "asks[%d]: a report of more than %d tokens", i, uint64(maxLeaseTokens))
			}
			ask.Reports = append(ask.Reports, limiter.Renewal{
				Limit: r.GetLimit(), Epoch: r.GetEpoch(), Seq: r.GetSeq(), Spent: r.GetSpent(), Returned: r.GetReturned(), Want: uint64(r.GetWant()),
			})
		}
		asks = append(asks, ask)
	}
	return tenant, asks, nil
}

func routeMessage(r *limiter.Route) *limiterv1.LeaseAnswer {
	m := &limiterv1.LeaseAnswer{LimitsVersion: r.Version, Lent: r.Lent}
	for _, l := range r.Levels {
		m.Levels = append(m.Levels, &limiterv1.LeaseLevel{
			Limit: l.Limit, Subject: l.Subject, SpanUs: uint64(l.Span.Microseconds()), Most: l.Most, Chunk: l.Chunk, Parts: levelMessages(l.Parts),
		})
	}
	for _, g := range r.Grants {
		m.Grants = append(m.Grants, &limiterv1.LeaseGrant{
			Refused: g.Refused, Granted: g.Granted, TtlUs: uint64(g.TTL.Microseconds()), Remaining: g.Remaining,
		})
	}
	return m
}
