// Package client asks a region whether requests may pass, many at a time over one connection.
//
//	stream, err := client.Open(client.Options{Endpoints: []string{"https://node-1:7400"}, CAFile: "ca.pem", Token: token})
//	...
//	defer stream.Close()
//	answers, err := stream.Checks(ctx, []client.Request{{Tenant: "acme", Token: "ana", Key: "export", Cost: 1}})
//
// What is promised:
//   - Checks is safe for many goroutines. Calls share one stream and are decided by the node at the
//     same time, up to 16 of them; more wait for a place. Their order among each other is open; the
//     checks of one call are decided in their order for each tenant.
//   - An error of Checks is an *Error, and its Outcome says whether tokens may have been taken:
//     OutcomeDefinite means that nothing of the call was done, OutcomeUnknown that any of its checks may
//     have been, as when the connection breaks under it. A call that certainly did nothing is
//     repeated, at the next endpoint if need be, until its context ends or the answer is final. One
//     whose outcome is unknown is never repeated: that could debit twice.
//   - The stream connects when it is needed, and again after it broke, at the next endpoint.
//   - An Answer with an Err was not decided; its Outcome is that of the one check.
//   - A context that ends while a call is under way ends the call with OutcomeUnknown. Its deadline
//     goes along, so that the node does not decide much later.
package client

import (
	"context"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/internal/client"
)

// MaxChecks bounds the checks of one call.
const MaxChecks = 1000

// Outcomes of an Error.
const (
	// OutcomeDefinite means that nothing was done.
	OutcomeDefinite = client.OutcomeDefinite
	// OutcomeUnknown means that tokens may have been taken.
	OutcomeUnknown = client.OutcomeUnknown
)

type (
	// Options say where a region is and who asks.
	Options = client.Options
	// Error is a call, or one check, that was not decided. Its Reason is listed in docs/errors.md, or
	// is one of the client's own: unreachable, tls_untrusted, timeout, interrupted, broken_link.
	Error = client.Error
)

// Request asks whether one request may pass.
type Request struct {
	// Tenant is whose limits count; empty means that of the token in the Options.
	Tenant string
	// Token and Key are at most 256 bytes of UTF-8 each and may be empty.
	Token string
	Key   string
	// Cost is how many tokens it takes; 0 asks without taking any.
	Cost uint32
	// RequestID makes a repeated check return the first decision; at most 128 bytes. Streams do not take
	// it.
	RequestID string
}

// Answer is the decision about one Request.
type Answer struct {
	Allow bool
	// WouldDeny is true when a limit that only watches would have denied.
	WouldDeny bool
	// RetryAfterMs is when a denied request would pass if nobody else asked, in milliseconds; 0 when it
	// can never pass.
	RetryAfterMs uint32
	// Reason is empty when allowed; LimitID and Kind name the level that denies for longest.
	Reason  string
	LimitID string
	Kind    string
	// OnFailure is true when no group has decided, because one could not be reached, and the limits say
	// what is decided then: what is allowed so is counted nowhere.
	OnFailure bool
	// Err is an *Error when the check could not be decided, and nil otherwise.
	Err error
}

// Stream asks one region. Use Close when nothing is under way any more.
type Stream struct {
	client *client.Client
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	link *link // nil while there is no connection
	ends sync.WaitGroup
}

// Open makes a Stream; it does not connect yet. The error says which option is wrong.
func Open(o Options) (*Stream, error) {
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	return newStream(c), nil
}

// OpenLocal is Open to a sidecar of this machine: at HOST:PORT of the loopback interface, or at the absolute
// path of its socket.
func OpenLocal(address string) (*Stream, error) {
	c, err := client.NewLocal(address)
	if err != nil {
		return nil, err
	}
	return newStream(c), nil
}

func newStream(c *client.Client) *Stream {
	s := &Stream{client: c}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends the connection. Calls that are under way fail.
func (s *Stream) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.ends.Wait()
	s.client.Close()
}

// Checks decides at most MaxChecks requests, each for itself, and returns an answer for each. The
// error is an *Error; see the package for what it means.
func (s *Stream) Checks(ctx context.Context, requests []Request) ([]Answer, error) {
	if len(requests) > MaxChecks {
		return nil, refused("batch_too_large", fmt.Sprintf("%d checks in one call, more than the %d allowed", len(requests), MaxChecks))
	}
	c, e := newCall(ctx, requests)
	if e != nil {
		return nil, e
	}
	if e := s.client.Failover(ctx, false, func() *Error { return s.try(ctx, c) }); e != nil {
		return nil, e
	}
	return c.answers, nil
}

// try asks once, over the connection there is or a new one.
func (s *Stream) try(ctx context.Context, c *call) *Error {
	for {
		l, e := s.connection()
		if e != nil {
			return e
		}
		select {
		case l.out <- c:
			select {
			case <-c.done:
				return c.failure
			case <-ctx.Done(): // the answer goes nowhere
				return l.ended(ctx, OutcomeUnknown)
			}
		case <-l.retired:
			s.forget(l)
		case <-ctx.Done():
			return l.ended(ctx, OutcomeDefinite)
		}
	}
}

// connection is the live one, or a new one.
func (s *Stream) connection() (*link, *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, &Error{Code: connect.CodeCanceled, Reason: client.ReasonInterrupted, Message: "the stream was closed by its owner", Outcome: OutcomeDefinite}
	}
	if s.link == nil {
		ctx, cancel := context.WithCancel(s.ctx)
		pinned, where := s.client.Pin(ctx)
		stream := s.client.Limiter().CheckStream(pinned)
		// HTTP/2 of the standard library looks at the context only once the request's body has ended.
		context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })
		s.link = newLink(stream, where, cancel)
		s.ends.Add(2)
		go func(l *link) { defer s.ends.Done(); l.send() }(s.link)
		go func(l *link) { defer s.ends.Done(); l.receive() }(s.link)
	}
	return s.link, nil
}

func (s *Stream) forget(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l {
		s.link = nil
	}
}

// refused is what the client finds wrong itself.
func refused(reason, message string) *Error {
	return &Error{Code: connect.CodeInvalidArgument, Reason: reason, Message: message, Outcome: OutcomeDefinite}
}
