package raftfsm

import "sync"

// linkRoom counts what runs for one peer.
type linkRoom struct {
	mu       sync.Mutex
	requests int
	bytes    int
}

// take makes room for a request; false when there is none. The questions of nodes among
// themselves always have room: there are few, and leadership depends on them.
func (r *linkRoom) take(q request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	bounded := q.kind == kindPropose || q.kind == kindQuery || q.kind == kindBounded || q.kind == kindTell
	if bounded && (r.requests >= linkInFlightMax || r.bytes+len(q.payload) > linkInFlightBytesMax) {
		return false
	}
	r.requests++
	r.bytes += len(q.payload)
	return true
}

// give returns the room of a request that is answered.
func (r *linkRoom) give(q request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests--
	r.bytes -= len(q.payload)
}

// refusal answers a request that there was no room for; nothing of it was done.
func refusal(q request) response {
	return response{id: q.id, status: statusError, payload: errorPayload(&Error{Op: "accept", Outcome: OutcomeDefinite, Err: ErrOverloaded})}
}
