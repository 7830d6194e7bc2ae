package raftfsm

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// idleReadTimeout ends a Raft connection on which nothing arrived for so long. Heartbeats
// come several times a second, pooled connections are idle for longer; a peer that finds its
// pooled connection closed dials again.
const idleReadTimeout = 30 * time.Second

// streamLayer is one group's view of the cluster port, as Raft's network transport wants it.
type streamLayer struct {
	mux   *Mux
	group GroupID
	// locate finds the member that hosts the replica at a Raft address.
	locate func(raft.ServerAddress) (Member, error)

	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once
}

func newStreamLayer(mux *Mux, group GroupID, locate func(raft.ServerAddress) (Member, error)) *streamLayer {
	return &streamLayer{mux: mux, group: group, locate: locate, accepted: make(chan net.Conn, 16), done: make(chan struct{})}
}

// offer hands over an incoming connection; false when the group is closed or busy.
func (s *streamLayer) offer(c net.Conn) bool {
	select {
	case <-s.done:
		return false
	default:
	}
	select {
	case s.accepted <- &rollingConn{Conn: c}:
		return true
	default:
		return false
	}
}

// Accept waits for the next incoming connection.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (s *streamLayer) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// drop ends the connections that wait for Accept.
func (s *streamLayer) drop() {
	for {
		select {
		case c := <-s.accepted:
			c.Close()
		default:
			return
		}
	}
}

// Addr is the address of the cluster port.
func (s *streamLayer) Addr() net.Addr { return s.mux.ln.Addr() }

// Dial connects to the group's replica at address, which is its id.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	m, err := s.locate(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.mux.ctx, timeout)
	defer cancel()
	c, _, err := s.mux.dial(ctx, m, classRaft, s.group, string(address))
	if err != nil {
		return nil, fmt.Errorf("raftfsm: group %d: %w", s.group, err)
	}
	return c, nil
}

// rollingConn gives every read its own deadline, so that a peer that died in the middle of a
// transfer cannot hold a goroutine of Raft for ever.
type rollingConn struct {
	net.Conn
}

func (c *rollingConn) Read(b []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(idleReadTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
