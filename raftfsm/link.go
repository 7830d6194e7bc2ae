package raftfsm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// linkWriteTimeout ends a link whose peer does not read.
	linkWriteTimeout = 5 * time.Second
	// linkDialTimeout bounds one attempt to connect.
	linkDialTimeout = 2 * time.Second
	// linkRedialDelay keeps callers from hammering a peer that is down.
	linkRedialDelay = 100 * time.Millisecond
	// linkQueue is how many frames may wait for the wire on each side of a link.
	linkQueue = 1024
	// linkInFlightMax bounds the requests of one link that run at the same time, and
	// linkInFlightBytesMax what they hold: a quarter of what a group's queues could. One more is
	// refused as overloaded; to stop reading would also hold up the small questions by which a
	// leader proves that it leads.
	linkInFlightMax      = 2048
	linkInFlightBytesMax = 64 << 20
)

// link is this node's client side of the long-lived connection to one peer: many requests
// share it, each answered in its own time.
type link struct {
	mux  *Mux
	peer Member
	// greeted is told after a dial that the peer knows this node, or ErrNotMember.
	greeted func(Member, error)

	mu       sync.Mutex
	conn     *linkConn
	notUntil time.Time // no dial before
	lastErr  error
	closed   bool
	dialing  chan struct{} // closed when the attempt under way ends; nil when there is none

	questions questions
}

// linkConn is one connection of a link.
type linkConn struct {
	net.Conn
	// level is the protocol level of the peer's build.
	level int
	out   *frameWriter
	stop  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	next    uint64
	pending map[uint64]func(response, bool)
	dead    bool
}

// errNotSent marks a request that never reached the wire, so that its outcome is definite.
var errNotSent = errors.New("request not sent")

// call sends one request and waits for its answer.
func (l *link) call(ctx context.Context, kind byte, group GroupID, payload []byte) (response, error) {
	c, err := l.connect(ctx)
	if err != nil {
		return response{}, fmt.Errorf("%w: %w", errNotSent, err)
	}
	if c.level < levelOfKind(kind) {
		return response{}, fmt.Errorf("%w: node %s: %w", errNotSent, l.peer.Name, ErrVersion)
	}
	return l.send(ctx, c, kind, group, payload)
}

// levelOfKind is from when on a peer knows a kind of request.
func levelOfKind(kind byte) int {
	switch {
	case kind >= kindStandings:
		return LevelReadings
	case kind >= kindTell:
		return LevelLeases
	case kind >= kindRestore:
		return LevelBackups
	case kind >= kindReplicaTerms:
		return LevelMembers
	}
	return LevelFirst
}

// send is call on a connection.
func (l *link) send(ctx context.Context, c *linkConn, kind byte, group GroupID, payload []byte) (response, error) {
	answer := make(chan response, 1)
	id, ok := c.register(func(r response, ok bool) {
		if ok {
			answer <- r
		}
	})
	if !ok {
		return response{}, fmt.Errorf("%w: link to %s closed", errNotSent, l.peer.Name)
	}
	defer func() { _ = c.forget(id) }()
	left := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d)
	}
	frame := request{id: id, kind: kind, group: group, left: left, payload: payload}.append(nil)
	select {
	case c.out.frames <- frame:
	case <-c.stop:
		return response{}, fmt.Errorf("%w: link to %s closed", errNotSent, l.peer.Name)
	case <-ctx.Done():
		return response{}, fmt.Errorf("%w: %w", errNotSent, ctx.Err())
	}
	select {
	case r := <-answer:
		return r, nil
	case <-c.stop:
		return response{}, fmt.Errorf("link to %s closed: %w", l.peer.Name, ErrLost)
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
}

// connect returns the open connection or waits for a new one. All callers share one attempt,
// which belongs to none of them.
func (l *link) connect(ctx context.Context) (*linkConn, error) {
	for {
		l.mu.Lock()
		switch {
		case l.closed:
			l.mu.Unlock()
			return nil, ErrShutdown
		case l.conn != nil && !l.conn.closed():
			c := l.conn
			l.mu.Unlock()
			return c, nil
		case l.dialing == nil && time.Now().Before(l.notUntil):
			err := l.lastErr
			l.mu.Unlock()
			return nil, err
		case l.dialing == nil:
			l.dialing = make(chan struct{})
			l.mux.wg.Add(1)
			go l.dial()
		}
		done := l.dialing
		l.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ready is the open connection; nil when there is none.
func (l *link) ready() *linkConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn == nil || l.conn.closed() {
		return nil
	}
	return l.conn
}

// dial makes one attempt to connect.
func (l *link) dial() {
	defer l.mux.wg.Done()
	ctx, cancel := context.WithTimeout(l.mux.ctx, linkDialTimeout)
	defer cancel()
	c, level, err := l.mux.dial(ctx, l.peer, classLink, 0, l.peer.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		close(l.dialing)
		l.dialing = nil
	}()
	if (err == nil || errors.Is(err, ErrNotMember)) && !l.closed {
		l.greeted(l.peer, err)
	}
	if err != nil {
		l.conn, l.lastErr, l.notUntil = nil, err, time.Now().Add(linkRedialDelay)
		return
	}
	if l.closed {
		c.Close()
		return
	}
	l.conn = &linkConn{Conn: c, level: level, stop: make(chan struct{}), pending: map[uint64]func(response, bool){}}
	l.conn.out = newFrameWriter(c, l.conn.stop)
	l.mux.wg.Add(2)
	go l.conn.write(&l.mux.wg)
	go l.conn.read(&l.mux.wg)
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.end()
	}
	l.closed = true
}

// register has answered called once with the answer to a request, or false when the connection ends, unless the
// request is forgotten before. It must be quick.
func (c *linkConn) register(answered func(response, bool)) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return 0, false
	}
	c.next++
	c.pending[c.next] = answered
	return c.next, true
}

// forget returns what would have been called; nil when it was.
func (c *linkConn) forget(id uint64) func(response, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered := c.pending[id]
	delete(c.pending, id)
	return answered
}

func (c *linkConn) closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func (c *linkConn) end() {
	c.once.Do(func() {
		c.mu.Lock()
		c.dead = true
		pending := c.pending
		c.pending = nil
		c.mu.Unlock()
		close(c.stop)
		c.Close()
		for _, answered := range pending { // any order
			answered(response{}, false)
		}
	})
}

func (c *linkConn) write(wg *sync.WaitGroup) {
	defer wg.Done()
	defer c.end()
	_ = c.out.run() // the reader and the callers learn of it by end
}

func (c *linkConn) read(wg *sync.WaitGroup) {
	defer wg.Done()
	defer c.end()
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		b, err := readFrame(r)
		if err != nil {
			return
		}
		resp, err := decodeResponse(b)
		if err != nil {
			return
		}
		if answered := c.forget(resp.id); answered != nil {
			answered(resp, true)
		}
	}
}

// serveLink answers one peer's requests until the connection ends.
func (h *Host) serveLink(conn net.Conn) {
	defer h.wg.Done()
	ctx, cancel := context.WithCancel(h.ctx)
	var running sync.WaitGroup
	stop := make(chan struct{})
	out := newFrameWriter(conn, stop)
	running.Add(1)
	go func() {
		defer running.Done()
		defer conn.Close()
		_ = out.run()
		cancel()
	}()
	var room linkRoom
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		b, err := readFrame(r)
		if err != nil {
			break
		}
		req, err := decodeRequest(b)
		if err != nil {
			h.log.Warn("link closed: malformed frame", "from", conn.RemoteAddr().String(), "err", err)
			break
		}
		if !room.take(req) {
			out.send(ctx, refusal(req).append(nil))
			continue
		}
		if quick(req.kind) {
			if frame := h.answer(ctx, req).append(nil); !out.now(frame) {
				out.send(ctx, frame)
			}
			room.give(req)
			continue
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer room.give(req)
			rctx, done := context.WithTimeout(ctx, req.left)
			defer done()
			out.send(ctx, h.answer(rctx, req).append(nil))
		}()
	}
	cancel()
	close(stop)
	conn.Close()
	running.Wait()
}

// quick tells whether a request is answered from memory, so that a goroutine for it would only cost time.
func quick(kind byte) bool {
	return kind == kindTerms || kind == kindReplicaTerms || kind == kindStandings
}

// answer executes one forwarded request on this node, and only here: a request that came
// over a link is never forwarded again.
func (h *Host) answer(ctx context.Context, req request) response {
	resp := response{id: req.id}
	fail := func(err error) response {
		resp.status, resp.payload = statusError, errorPayload(err)
		return resp
	}
	switch req.kind {
	case kindTerms:
		terms, err := h.currentTerms(req.payload)
		if err != nil {
			return fail(err)
		}
		resp.payload = terms
		return resp
	case kindReplicaTerms:
		terms, err := h.replicaTerms(req.payload)
		if err != nil {
			return fail(err)
		}
		resp.payload = terms
		return resp
	case kindStandings:
		said, err := h.encodeStandings(req.payload)
		if err != nil {
			return fail(err)
		}
		resp.payload = said
		return resp
	case kindPulse:
		own, err := json.Marshal(h.ownPulse())
		if err != nil {
			return fail(err)
		}
		resp.payload = own
		return resp
	case kindTell:
		h.told(ctx, req.group, req.payload)
		return resp
	}
	g, err := h.hosted(req.group)
	if err != nil {
		return fail(err)
	}
	switch req.kind {
	case kindPropose:
		if len(req.payload) < len(RequestID{}) {
			return fail(errors.New("raftfsm: short proposal"))
		}
		cmd := Command{RequestID: RequestID(req.payload), Data: req.payload[len(RequestID{}):]}
		start := time.Now()
		res, err := g.propose(ctx, cmd)
		g.seat.committed(start, err)
		if err != nil {
			return fail(err)
		}
		resp.index, resp.payload = res.Index, res.Data
		if res.Repeated {
			resp.status = statusRepeated
		}
	case kindRestore:
		res, err := g.proposeHost(ctx, Command{Data: req.payload, host: true})
		if err != nil {
			return fail(err)
		}
		resp.index, resp.payload = res.Index, res.Data
	case kindBackup:
		if resp.payload, err = g.readBackup(ctx, req.payload); err != nil {
			return fail(err)
		}
	case kindDescribe:
		v, err := g.describe(ctx)
		if err != nil {
			return fail(err)
		}
		if resp.payload, err = json.Marshal(v); err != nil {
			return fail(err)
		}
	case kindTransfer:
		if err := g.transferTo(ctx, string(req.payload)); err != nil {
			return fail(err)
		}
	case kindQuery, kindBounded:
		var a Answer
		if req.kind == kindQuery {
			a, err = g.queryLeader(ctx, req.payload)
		} else {
			a, err = g.seat.queryLocal(ctx, req.payload, g)
		}
		if err != nil {
			return fail(err)
		}
		if len(a.Data)+responseHeader > FrameBytesMax {
			return fail(&Error{Op: "query", Group: g.name, Err: ErrTooLarge})
		}
		resp.index, resp.payload = a.Applied, a.Data
	default:
		return fail(fmt.Errorf("raftfsm: unknown request kind %d", req.kind))
	}
	return resp
}
