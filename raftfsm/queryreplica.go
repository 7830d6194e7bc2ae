package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// behindPause is how long QueryReplica waits before it asks replicas again that were behind: they
// learn what is committed with the next message of their leader.
const behindPause = 5 * time.Millisecond

// errBehind means that a replica has not applied what the caller needs.
var errBehind = errors.New("the replica has not applied enough yet")

// QueryReplica reads from a replica that does not lead the group, this node's where it has one, and
// that has applied the entry at index least. With the applied index of a linearizable Query as least,
// the answer is as fresh as if the leader had given it after that query.
func (h *Host) QueryReplica(ctx context.Context, id GroupID, least uint64, query []byte) (Answer, error) {
	s, err := h.seat(id)
	if err != nil {
		return Answer{}, err
	}
	for {
		ans, err := s.queryFollower(ctx, least, query)
		if err == nil || !errors.Is(err, errBehind) {
			return ans, err
		}
		select {
		case <-ctx.Done():
			return Answer{}, s.fail("query", OutcomeDefinite, errors.Join(err, ctx.Err()))
		case <-time.After(behindPause):
		}
	}
}

func (s *seat) queryFollower(ctx context.Context, least uint64, query []byte) (Answer, error) {
	leader := s.leaderMember()
	if g := s.current.Load(); g != nil && MemberOf(g.self) != leader {
		if err := g.replica.WaitApplied(ctx, least); err != nil {
			return Answer{}, s.fail("query", OutcomeDefinite, err)
		}
		return s.queryLocal(ctx, query, g)
	}
	err := s.fail("query", OutcomeDefinite, fmt.Errorf("no replica beside the leader: %w", ErrNoLeader))
	for _, l := range s.followers() {
		if l.peer.ID == leader {
			continue
		}
		r, failure := s.ask(ctx, l, "query", kindBounded, query)
		switch {
		case failure != nil:
			err = failure
		case r.index < least:
			err = s.fail("query", OutcomeDefinite, errBehind)
		default:
			return Answer{Data: r.payload, Applied: r.index}, nil
		}
	}
	return Answer{}, err
}

// followers are the links to the members that may have a replica: those that this node's replica knows
// to vote, or those that are placed.
func (s *seat) followers() []*link {
	g := s.current.Load()
	if g == nil {
		return s.candidates()
	}
	var out []*link
	for replica := range g.voters() { // any order: each is as good
		if l := s.host.linkTo(replica); l != nil {
			out = append(out, l)
		}
	}
	return out
}
