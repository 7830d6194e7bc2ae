package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/raftfsm"
)

type (
	ingestMessage = frame[provenancev1.IngestStreamRequest]
	ingestBidi    = connect.BidiStream[ingestMessage, provenancev1.IngestStreamResponse]
)

// ingestStream answers the batches of a stream one by one. It reads the next batch only when
// the last is answered, so the client's flow control bounds what the server holds. The first
// batch that fails as a whole ends the stream; all earlier ones have their answers.
func (s *server) ingestStream(ctx context.Context, stream *ingestBidi) error {
	c := callFrom(ctx)
	c.entered = true
	idle := watchIdle(ctx, c.control)
	defer idle.stop()
	for {
		if err := idle.extend(); err != nil {
			return c.note(s, err).wire()
		}
		message, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.note(s, idle.explain(err)).wire()
		}
		start := time.Now()
		answer, err := s.ingestMessage(ctx, c, message)
		if err != nil {
			return c.note(s, err).wire()
		}
		if err := stream.Send(answer); err != nil {
			return c.note(s, err).wire()
		}
		c.meter.release()
		c.route.metrics.observe(0, time.Since(start))
	}
}

// admitMessage takes a message of a stream through the steps that depend on time: a token may
// have been revoked since the stream began.
func (s *server) admitMessage(ctx context.Context, c *call) *fault {
	fresh := s.fresh()
	f := s.admitIdentity(ctx, c)
	if c.cutOff = false; f == nil && !fresh {
		f = s.admitCutOff(ctx, c)
	}
	return f
}

func (s *server) ingestMessage(ctx context.Context, c *call, m *ingestMessage) (*provenancev1.IngestStreamResponse, error) {
	if m.fault != nil {
		return nil, m.fault
	}
	ctx, cancel := context.WithTimeout(ctx, c.route.deadline)
	defer cancel()
	if f := s.admitMessage(ctx, c); f != nil {
		return nil, f
	}
	batch := m.msg.GetBatch()
	if batch == nil {
		batch = &provenancev1.IngestRequest{}
	}
	res, err := guarded(ctx, c, batch, s.ingest)
	if err != nil {
		return nil, err
	}
	return &provenancev1.IngestStreamResponse{Batch: res}, nil
}

// idleWatch ends a stream that sends nothing for StreamIdle, or once the server drains.
type idleWatch struct {
	drain    context.Context
	stopHook func() bool

	mu      sync.Mutex
	control *http.ResponseController // nil once the handler is done with it
}

func watchIdle(ctx context.Context, control *http.ResponseController) *idleWatch {
	w := &idleWatch{drain: drainOf(ctx), control: control}
	w.stopHook = context.AfterFunc(w.drain, w.wake)
	return w
}

// extend starts the wait for the next message.
func (w *idleWatch) extend() error {
	now := time.Now()
	if err := w.set(now.Add(StreamIdle)); err != nil {
		return err
	}
	// After setting the deadline, as the hook may have run before it.
	if w.drain.Err() != nil {
		return raftfsm.ErrShutdown
	}
	return nil
}

func (w *idleWatch) set(read time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.control == nil {
		return nil
	}
	if err := w.control.SetReadDeadline(read); err != nil {
		return err
	}
	return w.control.SetWriteDeadline(read.Add(writeTimeout))
}

// wake ends the wait for the next message.
func (w *idleWatch) wake() { _ = w.set(time.Now()) }

// explain says why a message did not come.
func (w *idleWatch) explain(err error) error {
	if w.drain.Err() != nil {
		return raftfsm.ErrShutdown
	}
	return err
}

func (w *idleWatch) stop() {
	w.stopHook()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.control = nil
}
