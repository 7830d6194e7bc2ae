package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

const (
	// messagesMax is how many messages are under way. More would only make them smaller.
	messagesMax = 4
	// keepEvery is how often something is said to a node: it ends streams that are silent for long.
	keepEvery = 30 * time.Second
	// Between two tries to connect passes a random time, at least from the first of these; it doubles
	// up to the second while no node lends.
	againMin = 50 * time.Millisecond
	againMax = 5 * time.Second
)

// connect keeps a stream to a node until Close.
func (l *Limiter) connect() {
	again := againMin
	for l.ctx.Err() == nil {
		if l.session() {
			again = againMin
		}
		select {
		case <-time.After(again + rand.N(again)):
		case <-l.ctx.Done():
		}
		again = min(2*again, againMax)
	}
}

// session is one stream about leases.
type session struct {
	limiter *Limiter
	stream  *connect.BidiStreamForClient[limiterv1.LeaseRequest, limiterv1.LeaseResponse]
	// places are those of messages under way.
	places chan struct{}

	mu   sync.Mutex
	last uint64
	sent map[uint64]*sentMessage
}

// session runs a stream to its end, and tells whether a node has lent.
func (l *Limiter) session() (lent bool) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	pinned, where := l.client.Pin(ctx)
	defer where.MoveOn()
	s := &session{limiter: l, stream: l.client.Limiter().Lease(pinned), places: make(chan struct{}, messagesMax), sent: map[uint64]*sentMessage{}}
	// HTTP/2 of the standard library looks at the context only once the request's body has ended.
	context.AfterFunc(ctx, func() { _ = s.stream.CloseRequest() })
	if s.send(&sentMessage{}, &limiterv1.LeaseRequest{}) != nil {
		cancel()
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		defer cancel()
		s.sends(ctx)
	})
	lent, err := s.receive()
	cancel()
	sender.Wait()
	_ = s.stream.CloseResponse() // nothing is left to learn
	l.table.disconnected(where.Explain(err).Error())
	for _, m := range s.sent { // any order
		l.table.answer(m, nil)
	}
	return lent
}

// sends says what is to be told, until ctx ends or nothing can be sent.
func (s *session) sends(ctx context.Context) {
	keep := time.NewTicker(keepEvery)
	defer keep.Stop()
	for {
		select {
		case <-s.limiter.table.kick:
		case <-keep.C:
			if s.send(&sentMessage{}, &limiterv1.LeaseRequest{}) != nil {
				return
			}
			continue
		case <-ctx.Done():
			return
		}
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		m, out := s.limiter.table.prepare()
		if m == nil {
			<-s.places
			continue
		}
		if s.send(m, out) != nil {
			return
		}
	}
}

// send sends a message that is remembered until it is answered.
func (s *session) send(m *sentMessage, out *limiterv1.LeaseRequest) error {
	s.mu.Lock()
	s.last++
	out.Number, out.Holder = s.last, s.limiter.holder
	s.sent[s.last] = m
	s.mu.Unlock()
	return s.stream.Send(out)
}

// receive takes answers and events until the stream ends.
func (s *session) receive() (lent bool, err error) {
	for {
		m, err := s.stream.Receive()
		if err != nil {
			return lent, err
		}
		if m.GetNumber() == 0 {
			s.limiter.table.event(m)
			continue
		}
		s.mu.Lock()
		sent := s.sent[m.GetNumber()]
		delete(s.sent, m.GetNumber())
		s.mu.Unlock()
		switch {
		case sent == nil:
			return lent, errAnswer
		case sent.asks == nil:
			if !lent && m.GetRefused() == nil {
				lent = true
				s.limiter.table.connected(m.GetTenant())
			}
		default:
			s.limiter.table.answer(sent, m.GetAnswers())
			<-s.places
		}
	}
}

// upkeep looks after leases until Close. The more there are the seldomer, so that it stays a small part
// of what a processor does.
func (l *Limiter) upkeep() {
	wait := tickIdle
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return
		}
		began := l.clock.Sync()
		busy := l.table.tick(wait)
		if wait = tickIdle; busy {
			wait = max(tickEvery, time.Duration(20*(l.clock.Steady()-began)))
		}
		timer.Reset(wait)
	}
}
