package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// underwayMax is how many messages of a stream a node decides at the same time.
	underwayMax = 16
	// idleAfter ends a stream before the node does, which would take a message that crosses its end
	// for one that came too late.
	idleAfter = 90 * time.Second
)

// link is one stream to one node. Its goroutines are send and receive; both end with it.
type link struct {
	stream *connect.BidiStreamForClient[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse]
	where  *client.Pinned
	cancel context.CancelFunc

	// out hands calls over to send.
	out chan *call
	// pending are those that were sent, in order; send closes it when it ends.
	pending chan *call
	// retired is closed when the link takes no more calls, dead when it answers none any more.
	retired chan struct{}
	retire  func()
	dead    chan struct{}
	// failure is why, once dead is closed.
	failure *Error
}

func newLink(stream *connect.BidiStreamForClient[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse], where *client.Pinned, cancel context.CancelFunc) *link {
	l := &link{
		stream: stream, where: where, cancel: cancel, out: make(chan *call), pending: make(chan *call, underwayMax),
		retired: make(chan struct{}), dead: make(chan struct{}),
	}
	l.retire = sync.OnceFunc(func() { close(l.retired) })
	return l
}

// send sends calls until the link is dead, or idle for long.
func (l *link) send() {
	defer close(l.pending)
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	for {
		select {
		case c := <-l.out:
			select {
			case l.pending <- c:
			case <-l.dead:
				c.fail(l.unsent())
				return
			}
			if err := l.stream.Send(c.message); err != nil {
				if !errors.Is(err, io.EOF) { // which means that receive learns why
					l.cancel()
				}
				<-l.dead
				return
			}
			idle.Reset(idleAfter)
		case <-l.dead:
			return
		case <-idle.C:
			l.retire()
			_ = l.stream.CloseRequest() // receive learns if that fails
			return
		}
	}
}

// receive gives answers to the calls that wait for them, until there are none any more.
func (l *link) receive() {
	err := l.answers()
	l.failure = l.where.Explain(err)
	l.where.MoveOn()
	l.retire()
	close(l.dead)
	for c := range l.pending {
		c.fail(l.failure)
	}
	l.cancel()
	_ = l.stream.CloseResponse() // nothing is left to learn
}

func (l *link) answers() error {
	for {
		answer, err := l.stream.Receive()
		if err != nil {
			return err
		}
		select {
		case c := <-l.pending:
			if c == nil {
				return errAnswer
			}
			c.take(answer, l.where.Endpoint())
		default:
			return errAnswer
		}
	}
}

// errAnswer means that the node does not speak the protocol.
var errAnswer = errors.New("the node sent an answer that fits no question")

// unsent is the failure for a call that this link did not send any more.
func (l *link) unsent() *Error {
	e := *l.failure
	e.Code, e.Outcome = connect.CodeUnavailable, OutcomeDefinite
	return &e
}

// ended is the failure of a call whose context is done.
func (l *link) ended(ctx context.Context, outcome string) *Error {
	e := &Error{
		Code: connect.CodeDeadlineExceeded, Reason: client.ReasonTimeout, Endpoint: l.where.Endpoint(), Outcome: outcome,
		Message: l.where.Endpoint() + " did not answer in time", Hint: "see which nodes answer with: maestro cluster status",
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		e.Code, e.Reason, e.Message, e.Hint = connect.CodeCanceled, client.ReasonInterrupted, "interrupted", ""
	}
	return e
}

// call is one message on its way. Whoever has it last fills it in and signals done.
type call struct {
	message *limiterv1.CheckStreamRequest
	answers []Answer
	failure *Error
	done    chan struct{} // holds one signal for each try
}

func (c *call) fail(e *Error) {
	c.failure = e
	c.done <- struct{}{}
}

func (c *call) take(m *limiterv1.CheckStreamResponse, endpoint string) {
	c.failure = nil
	switch r := m.GetRefused(); {
	case r != nil:
		c.failure = &Error{
			Message: r.GetMessage(), Reason: r.GetError().GetReason(), Hint: r.GetError().GetHint(),
			Outcome: r.GetError().GetOutcome(), RetryAfterMs: r.GetError().GetRetryAfterMs(), Endpoint: endpoint,
		}
		if err := c.failure.Code.UnmarshalText([]byte(r.GetCode())); err != nil {
			c.failure.Code = connect.CodeUnknown
		}
	default:
		if err := decode(m, c.answers, endpoint); err != nil {
			c.failure = &Error{
				Code: connect.CodeInternal, Reason: connect.CodeInternal.String(), Endpoint: endpoint,
				Message: fmt.Sprintf("the answer of %s cannot be read: %v", endpoint, err), Outcome: OutcomeUnknown,
			}
		}
	}
	c.done <- struct{}{}
}
