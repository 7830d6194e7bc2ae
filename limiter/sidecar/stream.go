package sidecar

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter/client"
)

const (
	// streamMessagesMax is how many messages of a stream are decided at the same time, and streamIdle how
	// long a stream may stay without one; both are as at nodes.
	streamMessagesMax = 16
	streamIdle        = 2 * time.Minute
	// messageTimeout bounds the checks of a message that names no time, messageTimeoutMax of any.
	messageTimeout    = 5 * time.Second
	messageTimeoutMax = time.Minute
)

// reading lets a stream wait for messages, of which the server's own timeout for requests knows nothing.
type reading struct {
	control *http.ResponseController
	ends    context.Context // done once the sidecar stops

	mu   sync.Mutex
	over bool // the handler is done with control
}

type readingKey struct{}

// withReading gives handlers of streams what they need of the connection.
func withReading(next http.Handler, ends context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := &reading{control: http.NewResponseController(w), ends: ends}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), readingKey{}, read)))
	})
}

func (r *reading) until(at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil
	}
	return r.control.SetReadDeadline(at)
}

// wake ends the wait for the next message.
func (r *reading) wake() { _ = r.until(time.Now()) }

func (r *reading) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// CheckStream decides messages of checks in columns, some at the same time, and answers them in their order. What
// cannot be done of a message is said in its answer; what is read before the sidecar stops is answered.
func (s *server) CheckStream(ctx context.Context, stream *connect.BidiStream[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse]) error {
	read, ok := ctx.Value(readingKey{}).(*reading)
	if !ok {
		return connect.NewError(connect.CodeInternal, errors.New("the handler was not made by Handler"))
	}
	defer read.stop()
	defer context.AfterFunc(read.ends, read.wake)()
	// A place in queue is one of a message under way; who sends keeps one in its hands.
	queue := make(chan chan *limiterv1.CheckStreamResponse, streamMessagesMax-1)
	sent := make(chan error, 1)
	go func() { sent <- sendAnswers(stream, read, queue) }()
	err := s.readChecks(ctx, stream, read, queue)
	close(queue)
	if failed := <-sent; err == nil {
		err = failed
	}
	return err
}

func (s *server) readChecks(ctx context.Context, stream *connect.BidiStream[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse], read *reading, queue chan<- chan *limiterv1.CheckStreamResponse) error {
	for {
		if err := read.until(time.Now().Add(streamIdle)); err != nil {
			return err
		}
		if read.ends.Err() != nil { // after the deadline, which would undo what wake did
			return stopping()
		}
		m, err := stream.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && read.ends.Err() != nil:
			return stopping()
		case err != nil:
			return err
		}
		answer := make(chan *limiterv1.CheckStreamResponse, 1)
		queue <- answer
		go func() { answer <- s.answerChecks(ctx, m) }()
	}
}

// sendAnswers sends until queue is closed. After the first failure it only waits for what is under way, and ends
// the reading.
func sendAnswers(stream *connect.BidiStream[limiterv1.CheckStreamRequest, limiterv1.CheckStreamResponse], read *reading, queue <-chan chan *limiterv1.CheckStreamResponse) (failed error) {
	for answer := range queue {
		if m := <-answer; failed == nil {
			if failed = stream.Send(m); failed != nil {
				read.wake()
			}
		}
	}
	return failed
}

// answerChecks decides the checks of a message, each for itself, or refuses them all.
func (s *server) answerChecks(ctx context.Context, m *limiterv1.CheckStreamRequest) *limiterv1.CheckStreamResponse {
	timeout := messageTimeout
	if ms := m.GetTimeoutMs(); ms > 0 {
		timeout = min(time.Duration(ms)*time.Millisecond, messageTimeoutMax)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := s.requests(m)
	if err != nil {
		return refusedChecks(err)
	}
	out, err := s.limiter.CheckBatch(ctx, all)
	if err != nil {
		return refusedChecks(err)
	}
	return columns(out, m.GetLevels())
}

func stopping() error {
	return wire(&client.Error{Code: connect.CodeUnavailable, Reason: "shutting_down", Message: "the sidecar stops", Outcome: client.OutcomeDefinite})
}
