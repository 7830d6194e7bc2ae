package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// copyView is a group's replicated rows as of one moment, for sending them to followers. Raft
// believes that a follower has what the snapshot it opened is about, so all that are sent from
// a view, first tries and later ones, are at the view's position.
type copyView struct {
	id  copyID
	pos Position
	// it pins the rows and is never moved; what reads is cloned from it.
	it      *pebble.Iterator
	release func() // of the log
	began   time.Time
	// ctx ends when nothing may be sent from the view any more.
	ctx    context.Context
	cancel context.CancelFunc

	// The rest belongs to the copyViews.
	users   int
	dropped bool
	// moved is when a file last arrived; zero while nothing is worth going on with.
	moved time.Time
	sends map[raft.ServerID]*copySend
}

// copyViews keeps the view of a group's running or interrupted transfers. It is safe for use by
// several goroutines.
type copyViews struct {
	store *snapshotStore
	ctx   context.Context
	// hold keeps the log after an index, firstIndex is where it begins.
	hold       func(index uint64) (release func())
	firstIndex func() (uint64, error)

	mu      sync.Mutex
	current *copyView
	idle    *time.Timer
}

// open returns the current view, or one of the state as it is now if that is of no use any
// more. The caller gives it back with done.
func (c *copyViews) open() (*copyView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && !c.usable(c.current) {
		c.dropLocked()
	}
	if c.current == nil {
		v, err := c.make()
		if err != nil {
			return nil, fmt.Errorf("raftfsm: copy state: %w", err)
		}
		c.current = v
	}
	c.current.users++
	if c.idle != nil {
		c.idle.Stop()
	}
	return c.current, nil
}

// usable tells whether a follower that gets the view can go on from the log: Raft also asks for
// the entry at the view's own index.
func (c *copyViews) usable(v *copyView) bool {
	first, err := c.firstIndex()
	if err != nil || first == 0 || first > v.pos.Index || time.Since(v.began) >= copyViewMax {
		return false
	}
	return v.users > 0 || time.Since(v.moved) < copySessionIdle
}

func (c *copyViews) make() (*copyView, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, ErrShutdown
	}
	s := c.store
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: keyPrefix(s.group, spaceHost), UpperBound: keyPrefix(s.group, spaceDerived)})
	if err != nil {
		return nil, err
	}
	pos, err := positionIn(it, join(keyPrefix(s.group, spaceHost), rowPosition))
	if err != nil {
		return nil, errors.Join(err, it.Close())
	}
	v := &copyView{id: newCopyID(), pos: pos, it: it, release: c.hold(pos.Index - 1), began: time.Now(), sends: map[raft.ServerID]*copySend{}}
	v.ctx, v.cancel = context.WithCancel(c.ctx)
	return v, nil
}

func positionIn(it *pebble.Iterator, key []byte) (Position, error) {
	if !it.SeekGE(key) || string(it.Key()) != string(key) {
		return Position{}, errors.Join(errors.New("the group has applied nothing yet"), it.Error())
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return Position{}, err
	}
	return decodePosition(v)
}

// done gives a view back. One of which a part has arrived stays for the next try, for a while
// only: a follower that does not come back must not pin the rows, nor hold the log.
func (c *copyViews) done(v *copyView, arrived bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.users--
	switch {
	case v.users > 0:
		return nil
	case v.dropped:
		return v.it.Close()
	case arrived || v.moved.IsZero():
		return c.dropLocked()
	}
	c.idle = time.AfterFunc(time.Until(v.moved.Add(copySessionIdle)), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.current == v && v.users == 0 {
			_ = c.dropLocked() // an iterator that could not be closed has nothing more to tell
		}
	})
	return nil
}

// drop ends the transfers: this node does not lead, its state is about to be replaced, or it
// stops.
func (c *copyViews) drop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropLocked()
}

func (c *copyViews) dropLocked() error {
	v := c.current
	if v == nil {
		return nil
	}
	c.current, v.dropped = nil, true
	if c.idle != nil {
		c.idle.Stop()
	}
	v.cancel()
	v.release()
	if v.users > 0 {
		return nil
	}
	return v.it.Close()
}

// moved notes that a file has arrived.
func (c *copyViews) moved(v *copyView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.moved = time.Now()
}

// sendTo is what is known of the transfer of v to a follower.
func (c *copyViews) sendTo(v *copyView, id raft.ServerID) *copySend {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := v.sends[id]
	if s == nil {
		s = &copySend{}
		v.sends[id] = s
	}
	return s
}

// openedView is a view as Raft holds it: it can be read as one stream, for followers that know
// nothing else. The rows are written to files when it comes to that.
type openedView struct {
	views   *copyViews
	view    *copyView
	arrived bool
	stream  io.ReadCloser
	once    sync.Once
	err     error
}

// materialise writes the files of the stream and returns how long it is.
func (o *openedView) materialise() (int64, error) {
	it, err := o.view.it.Clone(pebble.CloneOptions{})
	if err != nil {
		return 0, fmt.Errorf("raftfsm: copy state: %w", err)
	}
	stream, size, err := o.views.store.copyOut(it, o.view.pos)
	if err != nil {
		return 0, err
	}
	o.stream = stream
	return size, nil
}

// Read reads the copy as one stream, until the view is dropped.
func (o *openedView) Read(p []byte) (int, error) {
	if err := o.view.ctx.Err(); err != nil {
		return 0, err
	}
	if o.stream == nil {
		if _, err := o.materialise(); err != nil {
			return 0, err
		}
	}
	return o.stream.Read(p)
}

// Close gives the view back; only the first call counts.
func (o *openedView) Close() error {
	o.once.Do(func() {
		if o.stream != nil {
			o.err = o.stream.Close()
		}
		o.err = errors.Join(o.err, o.views.done(o.view, o.arrived))
	})
	return o.err
}
