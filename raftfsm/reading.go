package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// behindPause is how long QueryOther waits before it asks replicas again that were behind: they learn
// what is committed with the next message of their leader.
const behindPause = 5 * time.Millisecond

// errBehind means that a replica has not applied what the caller needs.
var errBehind = errors.New("the replica has not applied enough yet")

// Reading is a linearizable read of several groups that any of their replicas can answer. One question
// to each member with voters, shared by all readings that wait for it, tells who leads, what the leader
// has committed, and the terms which prove that no later leader had been elected when the reading began:
// the proof of the confirmer, except that who reads counts the votes, not the leader. It holds as long as
// everything is looked up after the beginning, in whatever order; the membership that counts is the
// leader's. A replica that has applied what the leader had committed answers as the leader would.
type Reading struct {
	host   *Host
	groups []*groupReading

	mu    sync.Mutex
	said  map[string]standings // by member, of those that have answered
	asked map[string][]GroupID // by member, of those that have not
}

// groupReading is one group of a reading.
type groupReading struct {
	seat    *seat
	decided chan struct{}
	// The rest is valid once decided is closed.
	err    error
	leader standing

	mu    sync.Mutex
	asked string // the member that Query asked
}

// BeginRead begins a reading of groups.
func (h *Host) BeginRead(ids []GroupID) *Reading {
	r := &Reading{host: h, groups: make([]*groupReading, len(ids)), said: map[string]standings{}, asked: map[string][]GroupID{}}
	for i, id := range ids {
		r.groups[i] = &groupReading{seat: h.seats[id], decided: make(chan struct{})}
		for _, replica := range r.groups[i].seat.knownVoters() {
			if member := MemberOf(replica); member != h.self.ID {
				r.asked[member] = append(r.asked[member], id)
			}
		}
	}
	r.decide() // the only voter alone
	links := h.peerLinks()
	for member, asked := range maps.Clone(r.asked) { // any order
		if l := links[member]; l != nil {
			l.questions.add(h, l, asked, r)
		} else {
			r.heard(member, nil)
		}
	}
	return r
}

// knownVoters are the replicas that vote as far as this node knows, by its own or by where they are placed.
func (s *seat) knownVoters() []string {
	if s == nil {
		return nil
	}
	if g := s.current.Load(); g != nil {
		return g.configuration().voters
	}
	p, _ := s.placed()
	return p.Voters
}

// heard takes what a member says; nil when there is no answer.
func (r *Reading) heard(member string, said standings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.asked, member)
	if said != nil {
		r.said[member] = said
	}
	r.decide()
}

// decide finds the leaders that can be proven by now. The caller holds mu, or is alone.
func (r *Reading) decide() {
	for _, gr := range r.groups {
		select {
		case <-gr.decided:
			continue
		default:
		}
		if leader, ok := r.proven(gr.seat); ok {
			gr.leader = leader
		} else if !r.open(gr.seat) {
			gr.err = ErrNoLeader
		} else {
			continue
		}
		close(gr.decided)
	}
}

// open tells whether a member may still say more of a group.
func (r *Reading) open(s *seat) bool {
	for _, asked := range r.asked { // any order
		if s != nil && slices.Contains(asked, s.conf.ID) {
			return true
		}
	}
	return false
}

// proven is the leader of a group that a majority of its voters knows no later one than.
func (r *Reading) proven(s *seat) (standing, bool) {
	if s == nil {
		return standing{}, false
	}
	id := s.conf.ID
	own := r.host.standing(id)
	of := func(member string) standing {
		if member == r.host.self.ID {
			return own
		}
		return r.said[member][id]
	}
	counts := func(claim standing) bool {
		votes := 0
		for _, replica := range claim.voters {
			if v := of(MemberOf(replica)); v.replica == replica && v.term <= claim.term {
				votes++
			}
		}
		return claim.leads && votes > len(claim.voters)/2
	}
	if counts(own) {
		return own, true
	}
	for _, said := range r.said { // any order: two leaders cannot both be proven
		if claim := said[id]; counts(claim) {
			return claim, true
		}
	}
	return standing{}, false
}

// of is the reading of one group, once its leader is known or known not to be.
func (r *Reading) of(ctx context.Context, id GroupID) (*groupReading, error) {
	for _, gr := range r.groups {
		if gr.seat == nil || gr.seat.conf.ID != id {
			continue
		}
		select {
		case <-gr.decided:
		case <-ctx.Done():
			return nil, gr.seat.fail("query", OutcomeDefinite, ctx.Err())
		}
		return gr, gr.err
	}
	return nil, &Error{Op: "query", Group: fmt.Sprint(id), Err: ErrUnknownGroup}
}

// Query reads from this node's replica where it has applied enough, else from the leader. Without a
// proven leader it waits for one, as Host.Query does.
func (r *Reading) Query(ctx context.Context, id GroupID, query []byte) (Answer, error) {
	gr, err := r.of(ctx, id)
	if errors.Is(err, ErrNoLeader) {
		return r.host.queryLeaderOrOther(ctx, id, query)
	}
	if err != nil {
		return Answer{}, err
	}
	h, leader := r.host, MemberOf(gr.leader.replica)
	gr.asks(h.self.ID)
	if leader == h.self.ID {
		if err := gr.seat.replica.WaitApplied(ctx, gr.leader.index); err != nil {
			return Answer{}, gr.seat.fail("query", OutcomeDefinite, err)
		}
	}
	ans, err := gr.seat.queryApplied(ctx, gr.leader.index, query)
	if err == nil || ctx.Err() != nil {
		return ans, err
	}
	if leader != h.self.ID { // this replica is behind, or its disk fails
		gr.asks(leader)
		if l := h.peerLinks()[leader]; l != nil {
			if ans, err = gr.seat.askApplied(ctx, l, gr.leader.index, query); err == nil {
				return ans, nil
			}
		}
	}
	if errors.Is(err, errBehind) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrLost) {
		return h.queryLeaderOrOther(ctx, id, query)
	}
	// The leader fails: its disk does, say. Another replica may not, once it has applied enough.
	other, otherErr := gr.awaitOther(ctx, leader, query)
	if otherErr == nil {
		return other, nil
	}
	return ans, err
}

// queryLeaderOrOther waits for a leader and reads from it, or from another replica if the leader fails.
func (h *Host) queryLeaderOrOther(ctx context.Context, id GroupID, query []byte) (Answer, error) {
	ans, err := h.Query(ctx, id, query, Linearizable)
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrNoLeader) {
		return ans, err
	}
	gr, readErr := h.BeginRead([]GroupID{id}).of(ctx, id)
	if readErr != nil {
		return ans, err
	}
	other, otherErr := gr.awaitOther(ctx, MemberOf(gr.leader.replica), query)
	if otherErr == nil {
		return other, nil
	}
	return ans, err
}

func (gr *groupReading) asks(member string) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	gr.asked = member
}

// QueryOther reads from a replica that Query did not ask, or has not asked yet, and that has applied
// enough. It is for when Query takes long.
func (r *Reading) QueryOther(ctx context.Context, id GroupID, query []byte) (Answer, error) {
	gr, err := r.of(ctx, id)
	if err != nil {
		return Answer{}, err
	}
	gr.mu.Lock()
	asked := gr.asked
	gr.mu.Unlock()
	return gr.awaitOther(ctx, asked, query)
}

// awaitOther reads from a replica of another member than asked, and waits while there is one that has not applied enough.
func (gr *groupReading) awaitOther(ctx context.Context, asked string, query []byte) (Answer, error) {
	for {
		ans, err := gr.queryOther(ctx, asked, query)
		if err == nil || !errors.Is(err, errBehind) {
			return ans, err
		}
		select {
		case <-ctx.Done():
			return Answer{}, gr.seat.fail("query", OutcomeDefinite, errors.Join(err, ctx.Err()))
		case <-time.After(behindPause):
		}
	}
}

func (gr *groupReading) queryOther(ctx context.Context, asked string, query []byte) (ans Answer, err error) {
	s, behind := gr.seat, error(nil)
	err = s.fail("query", OutcomeDefinite, fmt.Errorf("no other replica: %w", ErrNoLeader))
	for _, replica := range gr.leader.voters { // any of them is as good
		member := MemberOf(replica)
		l := s.host.peerLinks()[member]
		switch {
		case member == asked:
			continue
		case member == s.host.self.ID:
			ans, err = s.queryApplied(ctx, gr.leader.index, query)
		case l != nil:
			ans, err = s.askApplied(ctx, l, gr.leader.index, query)
		}
		if err == nil {
			return ans, nil
		}
		if errors.Is(err, errBehind) {
			behind = err
		}
	}
	if behind != nil { // it is the one that may answer yet
		err = behind
	}
	return Answer{}, err
}

// queryApplied answers from this node's replica if it has applied the entry at least.
func (s *seat) queryApplied(ctx context.Context, least uint64, query []byte) (Answer, error) {
	if s.replica.AppliedIndex() < least {
		return Answer{}, s.fail("query", OutcomeDefinite, errBehind)
	}
	// While its rows are replaced, others answer sooner.
	if !s.replacing.TryRLock() {
		return Answer{}, s.fail("query", OutcomeDefinite, errBehind)
	}
	defer s.replacing.RUnlock()
	if s.replica.AppliedIndex() < least {
		return Answer{}, s.fail("query", OutcomeDefinite, errBehind)
	}
	return s.queryLoaded(ctx, query, nil)
}

// askApplied asks a member's replica, which must have applied the entry at least.
func (s *seat) askApplied(ctx context.Context, l *link, least uint64, query []byte) (Answer, error) {
	r, err := s.ask(ctx, l, "query", kindBounded, query)
	switch {
	case err != nil:
		return Answer{}, err
	case r.index < least:
		return Answer{}, s.fail("query", OutcomeDefinite, errBehind)
	}
	return Answer{Data: r.payload, Applied: r.index}, nil
}
