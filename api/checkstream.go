package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

type (
	checksMessage = frame[limiterv1.CheckStreamRequest]
	checksBidi    = connect.BidiStream[checksMessage, limiterv1.CheckStreamResponse]
)

// underway is one message of a stream of checks on its way to its answer.
type underway struct {
	start time.Time
	// bytes of the message are given back with its answer.
	bytes int64
	// held is the room that the answer takes until it is sent; nil for one that takes none.
	held *meter
	// turn is closed once all answers before this one are sent.
	turn chan struct{}
	// answer is there once decided is closed.
	answer  *limiterv1.CheckStreamResponse
	decided chan struct{}
}

// hold takes room for the answer.
func (u *underway) hold(g *gate, tenant string, bytes int64) *fault {
	if f := g.enter(tenant); f != nil {
		return f
	}
	if f := g.charge(tenant, bytes); f != nil {
		g.leave(tenant)
		return f
	}
	u.held = &meter{gate: g, tenant: tenant, taken: bytes}
	return nil
}

// free gives back what hold took.
func (u *underway) free() {
	if u.held != nil {
		u.held.release()
		u.held.gate.leave(u.held.tenant)
	}
}

// checkStream reads on while messages are decided, up to MaxStreamMessages of them, and sends the
// answers in the messages' order. What cannot be done of a message is said in its answer, since
// other messages share the stream; it ends when the identity or the stream itself is not good
// any more, after the answers to everything that was read before.
func (s *server) checkStream(ctx context.Context, stream *checksBidi) error {
	c := callFrom(ctx)
	c.entered = true
	if s.deps.Checker == nil {
		return c.note(s, ErrServiceOff).wire()
	}
	idle := watchIdle(ctx, c.control)
	defer idle.stop()
	// A place in queue is one of a message under way; who sends keeps one in its hands.
	queue := make(chan *underway, MaxStreamMessages-1)
	sent := make(chan error, 1)
	go func() { sent <- s.sendAnswers(c, stream, idle, queue) }()
	err := s.readChecks(ctx, c, stream, idle, queue)
	close(queue)
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err != nil {
		return c.note(s, err).wire()
	}
	return nil
}

// readChecks starts the deciding of every message, until the client sends no more.
func (s *server) readChecks(ctx context.Context, c *call, stream *checksBidi, idle *idleWatch, queue chan<- *underway) error {
	for {
		if err := idle.extend(); err != nil {
			return err
		}
		message, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return idle.explain(err)
		}
		if message.fault != nil {
			return message.fault
		}
		u := &underway{start: time.Now(), bytes: c.meter.handOver(), turn: make(chan struct{}), decided: make(chan struct{})}
		if f := s.admitMessage(ctx, c); f != nil {
			c.meter.giveBack(u.bytes)
			return f
		}
		queue <- u
		// Before anything is taken, and in order: who does not read the answers gets no more of them.
		room := answerRoom(min(int(message.msg.GetChecks()), MaxBatchChecks), message.msg.GetLevels())
		if f := u.hold(s.gates[classCheckAnswer], c.principal.Tenant, room); f != nil {
			<-u.turn // then what this stream held itself is free
			if f = u.hold(s.gates[classCheckAnswer], c.principal.Tenant, room); f != nil {
				s.metrics.shed.WithLabelValues(classLimits[classCheckAnswer].name, f.name).Inc()
				u.answer = refusedChecks(f)
				close(u.decided)
				continue
			}
		}
		own := c.fork()
		go func() {
			defer close(u.decided)
			u.answer = s.answerChecks(ctx, own, &message.msg, u)
		}()
	}
}

// sendAnswers sends what is decided until queue is closed. After the first failure it only waits
// for what is under way, and ends the reading.
func (s *server) sendAnswers(c *call, stream *checksBidi, idle *idleWatch, queue <-chan *underway) (failed error) {
	for u := range queue {
		close(u.turn)
		<-u.decided
		if failed == nil {
			if failed = stream.Send(u.answer); failed != nil {
				idle.wake()
			}
		}
		c.meter.giveBack(u.bytes)
		u.free()
		c.route.metrics.observe(0, time.Since(u.start))
	}
	return failed
}

// answerChecks decides the checks of a message, each for itself, or refuses them all.
func (s *server) answerChecks(ctx context.Context, c *call, m *limiterv1.CheckStreamRequest, u *underway) (res *limiterv1.CheckStreamResponse) {
	defer func() {
		if p := recover(); p != nil {
			f := s.explain(c.route, c.principal, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			res = refusedChecks(f)
		}
	}()
	res, err := s.decideChecks(ctx, c, m, u)
	if err != nil {
		return refusedChecks(s.explain(c.route, c.principal, err))
	}
	return res
}

func refusedChecks(f *fault) *limiterv1.CheckStreamResponse {
	return &limiterv1.CheckStreamResponse{Refused: &limiterv1.RefusedChecks{Code: f.code.String(), Message: f.message, Error: f.detail()}}
}

func (s *server) decideChecks(ctx context.Context, c *call, m *limiterv1.CheckStreamRequest, u *underway) (*limiterv1.CheckStreamResponse, error) {
	who, timeout := c.principal, c.route.deadline
	if ms := m.GetTimeoutMs(); ms > 0 {
		timeout = min(time.Duration(ms)*time.Millisecond, MaxDeadline)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g := s.gates[classBatch]
	if f := g.enter(who.Tenant); f != nil {
		s.metrics.shed.WithLabelValues(g.name, f.name).Inc()
		return nil, f
	}
	defer g.leave(who.Tenant)
	b := checkBuffers.Get().(*checkBuffer)
	defer b.free()
	if f := b.read(who, m); f != nil {
		return nil, f
	}
	if err := s.checkMany(ctx, c, b.requests, b.outcomes); err != nil {
		return nil, err
	}
	s.deps.Load.AnsweredMany()
	s.metrics.decidedAll(b.outcomes)
	if m.GetLevels() {
		for i := range b.outcomes {
			hideGlobals(who, &b.outcomes[i].Decision)
		}
	}
	u.held.set(b.answerBytes(m.GetLevels()))
	return b.answer(m.GetLevels(), func(err error) *fault { return s.explain(c.route, who, err) }), nil
}
