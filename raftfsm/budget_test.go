package raftfsm

import (
	"errors"
	"testing"
)

// A group's queue is bounded in proposals and in bytes; what has left it makes room.
func TestQueueIsBounded(t *testing.T) {
	g := &group{name: "a", host: &Host{}, queue: make(chan *proposal, proposalQueueMax)}
	var err error
	if g.host.metrics, err = newHostMetrics(g.host, nil); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	fill := func(size int) (n int) {
		for g.enqueue(&proposal{ctx: ctx, cmd: Command{Data: make([]byte, size)}}) {
			n++
		}
		return n
	}
	if n := fill(CommandBytesMax); n != proposalQueueBytesMax/CommandBytesMax {
		t.Errorf("the queue took %d of the largest commands", n)
	}
	for len(g.queue) > 0 {
		p := <-g.queue
		g.dequeued(p)
		g.gather(p)
	}
	if got := g.queueBytes.Load(); got != 0 {
		t.Fatalf("an empty queue counts %d bytes", got)
	}
	if n := fill(1); n != proposalQueueMax {
		t.Errorf("the queue took %d small commands", n)
	}
}

// What one peer may have under way is bounded in requests and in bytes, but for what nodes ask
// for themselves; a refusal is definite.
func TestLinkRoom(t *testing.T) {
	big := request{kind: kindPropose, payload: make([]byte, CommandBytesMax)}
	var r linkRoom
	n := 0
	for r.take(big) {
		n++
	}
	if n != linkInFlightBytesMax/CommandBytesMax {
		t.Errorf("%d of the largest requests found room", n)
	}
	if !r.take(request{kind: kindTerms, payload: make([]byte, 64)}) {
		t.Error("a question for terms found no room")
	}
	r.give(big)
	if !r.take(big) {
		t.Error("there was no room for a request after another had left")
	}
	r = linkRoom{}
	for n = 0; r.take(request{kind: kindQuery}); n++ {
	}
	if n != linkInFlightMax {
		t.Errorf("%d small requests found room", n)
	}
	err := decodeError(refusal(big).payload, "propose", "a", "node-2")
	if !errors.Is(err, ErrOverloaded) || OutcomeOf(err) != OutcomeDefinite {
		t.Errorf("the refusal arrives as %v", err)
	}
}
