package raftfsm

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// questions are what readings want to know of one member: while one question is under way, those that
// come share the next. No goroutine waits for the answer: who reads from the link hands it on.
type questions struct {
	mu    sync.Mutex
	under bool
	next  *question
}

type question struct {
	groups   []GroupID
	readings []*Reading
}

// add has a reading hear what the member says of groups.
func (q *questions) add(h *Host, l *link, groups []GroupID, r *Reading) {
	q.mu.Lock()
	if q.next == nil {
		q.next = &question{}
	}
	for _, id := range groups {
		if !slices.Contains(q.next.groups, id) {
			q.next.groups = append(q.next.groups, id)
		}
	}
	q.next.readings = append(q.next.readings, r)
	begin := !q.under
	q.under = true
	q.mu.Unlock()
	if begin {
		q.ask(h, l)
	}
}

// ask asks the next question, if anyone wants to know. The caller has set under.
func (q *questions) ask(h *Host, l *link) {
	q.mu.Lock()
	next := q.next
	q.next = nil
	q.under = next != nil
	q.mu.Unlock()
	if next == nil {
		return
	}
	answered := func(r response, ok bool) {
		var said standings
		if ok && r.status == statusOK {
			said, _ = decodeStandings(r.payload, next.groups) // a malformed answer is none
		}
		for _, r := range next.readings {
			r.heard(l.peer.ID, said)
		}
		q.ask(h, l)
	}
	if c := l.ready(); c != nil {
		l.question(c, next, answered)
		return
	}
	go func() { // it ends with the attempt to connect, which ends with the host
		ctx, cancel := context.WithTimeout(h.ctx, confirmTimeout)
		defer cancel()
		c, err := l.connect(ctx)
		if err != nil {
			answered(response{}, false)
			return
		}
		l.question(c, next, answered)
	}()
}

// question sends one, and has answered called once.
func (l *link) question(c *linkConn, next *question, answered func(response, bool)) {
	if c.level < LevelReadings {
		answered(response{}, false)
		return
	}
	payload := make([]byte, 0, 4*len(next.groups))
	for _, id := range next.groups {
		payload = binary.BigEndian.AppendUint32(payload, uint32(id))
	}
	var mu sync.Mutex // of timer
	var timer *time.Timer
	mu.Lock()
	id, ok := c.register(func(r response, ok bool) {
		mu.Lock()
		timer.Stop()
		mu.Unlock()
		answered(r, ok)
	})
	giveUp := func() {
		if f := c.forget(id); f != nil {
			f(response{}, false)
		}
	}
	if ok {
		timer = time.AfterFunc(confirmTimeout, giveUp)
	}
	mu.Unlock()
	if !ok {
		answered(response{}, false)
		return
	}
	frame := request{id: id, kind: kindStandings, left: confirmTimeout, payload: payload}.append(nil)
	if !c.out.now(frame) && !c.out.queue(frame) {
		giveUp()
	}
}
