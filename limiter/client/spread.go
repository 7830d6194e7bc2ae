package client

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"
	"sync"
)

// Spread asks a region over one Stream to each endpoint. Checks of the same tenant, token and key go the
// same way as long as that endpoint answers, from every client that names the same endpoints, so that one node
// holds what they spend: a region decides more of them from leases than if each node held a part. It is for
// those who ask very much.
type Spread struct {
	streams []*Stream
	// ends are hashes of the endpoints that the streams prefer.
	ends []uint64
}

// OpenSpread makes a Spread, which does not connect yet. Each stream goes on at the next endpoint
// when its own fails. The error says which option is wrong.
func OpenSpread(o Options) (*Spread, error) {
	s := &Spread{}
	for i := range max(1, len(o.Endpoints)) {
		of, end := o, ""
		if len(o.Endpoints) > 0 {
			of.Endpoints, end = slices.Concat(o.Endpoints[i:], o.Endpoints[:i]), o.Endpoints[i]
		}
		s.ends = append(s.ends, hash(end))
		stream, err := Open(of)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.streams = append(s.streams, stream)
	}
	return s, nil
}

// Close ends the connections. Calls that are under way fail.
func (s *Spread) Close() {
	for _, stream := range s.streams {
		stream.Close()
	}
}

// part is what of a call goes one way.
type part struct {
	requests []Request
	places   []int
	answers  []Answer
	err      error
}

// Checks decides at most MaxChecks requests, each for itself, and returns an answer for each; those of one
// tenant, token and key are decided in their order. Where some of the streams fail, the answers that
// these should have brought have the *Error as their Err. When all do, it is the error of the call.
func (s *Spread) Checks(ctx context.Context, requests []Request) ([]Answer, error) {
	if len(requests) > MaxChecks {
		return nil, refused("batch_too_large", fmt.Sprintf("%d checks in one call, more than the %d allowed", len(requests), MaxChecks))
	}
	parts := make([]part, len(s.streams))
	for i := range requests {
		p := &parts[s.way(&requests[i])]
		p.requests, p.places = append(p.requests, requests[i]), append(p.places, i)
	}
	var all sync.WaitGroup
	for i := range parts {
		if p := &parts[i]; len(p.requests) > 0 {
			all.Go(func() { p.answers, p.err = s.streams[i].Checks(ctx, p.requests) })
		}
	}
	all.Wait()
	return joined(parts, len(requests))
}

// way is the stream for a request, by rendezvous hashing: the order of the endpoints does not matter.
func (s *Spread) way(r *Request) (way int) {
	of, most := hash(r.Tenant, r.Token, r.Key), uint64(0)
	for i, end := range s.ends {
		hi, lo := bits.Mul64(of^end, 0x9e3779b97f4a7c15)
		if mixed := hi ^ lo; mixed >= most {
			way, most = i, mixed
		}
	}
	return way
}

// hash is the same in every process.
func hash(texts ...string) uint64 {
	h := fnv.New64a()
	for _, text := range texts {
		_, _ = h.Write([]byte(text))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

func joined(parts []part, n int) ([]Answer, error) {
	answers, decided := make([]Answer, n), n == 0
	var failed error
	for i := range parts {
		p := &parts[i]
		decided = decided || p.answers != nil
		if e, ok := p.err.(*Error); ok && (failed == nil || e.Outcome == OutcomeUnknown) {
			failed = p.err
		}
		for k, place := range p.places {
			if p.err != nil {
				answers[place].Err = p.err
			} else {
				answers[place] = p.answers[k]
			}
		}
	}
	if !decided {
		return nil, failed
	}
	return answers, nil
}
