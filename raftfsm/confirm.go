package raftfsm

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
)

// confirmer proves that this node still leads, for reads. Raft's own leader check can be
// satisfied by a reply that was under way before the read began, so a leader that was paused
// and deposed meanwhile would answer from the past. Instead: after the commit index has been
// taken, ask all voters for their current term; if a majority still has at most the leader's
// term, no later leader had been elected when the read began, for its voters would have
// stored the later term first. No clocks are involved. One round serves every group and
// every read that waits for it.
//
// A vote counts only from exactly the replica that this leader's membership names. A member whose
// replica was removed, erased and placed anew has one with another id, which knows nothing of
// the terms that the old one stored, and answers no vote.
type confirmer struct {
	host *Host

	mu      sync.Mutex
	running bool
	next    *confirmRound
}

type confirmRound struct {
	groups map[GroupID]*group
	done   chan struct{}
	// verdict is what the round found for each group; valid once done is closed.
	verdict map[GroupID]termVerdict
}

type termVerdict struct {
	term    uint64 // what this node led when the round began
	granted bool
}

// confirm returns nil if g was led by this node in term at some moment after the call.
func (c *confirmer) confirm(ctx context.Context, g *group, term uint64) error {
	// The only voter decides alone: any other leader needs its vote, and it would know.
	if v := g.voters(); len(v) == 1 && v[g.self] {
		return nil
	}
	c.mu.Lock()
	if c.next == nil {
		c.next = &confirmRound{groups: map[GroupID]*group{}, done: make(chan struct{}), verdict: map[GroupID]termVerdict{}}
	}
	round := c.next
	round.groups[g.id] = g
	if !c.running {
		c.running = true
		c.host.wg.Add(1)
		go c.run()
	}
	c.mu.Unlock()
	select {
	case <-round.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if v := round.verdict[g.id]; !v.granted || v.term != term {
		return ErrNoLeader
	}
	return nil
}

// run does rounds one after the other while somebody waits: reads that arrive during a round
// share the next.
func (c *confirmer) run() {
	defer c.host.wg.Done()
	for {
		c.mu.Lock()
		round := c.next
		c.next = nil
		if round == nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.ask(round)
		close(round.done)
	}
}

// noVote is the answer of a member that does not host the replica it was asked about.
const noVote = math.MaxUint64

// termQuestion asks a member for the term of one of its replicas.
type termQuestion struct {
	group   GroupID
	replica string
}

// ask sends one request to each member with voters, for all groups of the round, and counts the
// answers.
func (c *confirmer) ask(round *confirmRound) {
	counts, voters := map[GroupID]int{}, map[GroupID]int{}
	questions := map[string][]termQuestion{}
	for id, g := range round.groups {
		round.verdict[id] = termVerdict{term: g.raft.CurrentTerm()}
		v := g.voters()
		voters[id] = len(v)
		for replica := range v {
			if replica == g.self {
				counts[id]++
			} else {
				questions[MemberOf(replica)] = append(questions[MemberOf(replica)], termQuestion{group: id, replica: replica})
			}
		}
	}
	ctx, cancel := context.WithTimeout(c.host.ctx, confirmTimeout)
	defer cancel()
	type answer struct {
		asked []termQuestion
		terms []uint64
	}
	links, under := c.host.peerLinks(), 0
	answers := make(chan answer, len(questions))
	for member, asked := range questions {
		l := links[member]
		if l == nil {
			continue
		}
		under++
		go func() { answers <- answer{asked: asked, terms: l.terms(ctx, asked)} }()
	}
	undecided := len(round.groups)
	for ; under > 0 && undecided > 0; under-- {
		a := <-answers
		for i, term := range a.terms {
			id := a.asked[i].group
			v := round.verdict[id]
			if v.granted || term == noVote || term > v.term {
				continue
			}
			counts[id]++
			// This node's own vote counts only while its term still stands.
			if counts[id] > voters[id]/2 && round.groups[id].raft.CurrentTerm() == v.term {
				v.granted = true
				round.verdict[id] = v
				undecided--
			}
		}
	}
}

// terms asks the peer for the current terms of its replicas; nil if there is no answer.
func (l *link) terms(ctx context.Context, asked []termQuestion) []uint64 {
	c, err := l.connect(ctx)
	if err != nil {
		return nil
	}
	kind, payload := kindReplicaTerms, []byte(nil)
	for _, q := range asked {
		payload = binary.BigEndian.AppendUint32(payload, uint32(q.group))
		if c.level >= LevelMembers {
			payload = append(append(payload, byte(len(q.replica))), q.replica...)
		}
	}
	if c.level < LevelMembers {
		// Builds of level 1 host every group under the member's id.
		if slices.ContainsFunc(asked, func(q termQuestion) bool { return q.replica != l.peer.ID }) {
			return nil
		}
		kind = kindTerms
	}
	r, err := l.send(ctx, c, kind, 0, payload)
	if err != nil || r.status != statusOK || len(r.payload) != 8*len(asked) {
		return nil
	}
	terms := make([]uint64, len(asked))
	for i := range terms {
		terms[i] = binary.BigEndian.Uint64(r.payload[8*i:])
	}
	return terms
}

// currentTerms answers a round of a peer of level 1, which means this member's first replicas.
func (h *Host) currentTerms(payload []byte) ([]byte, error) {
	if len(payload)%4 != 0 || len(payload) > 4*GroupsMax {
		return nil, errMalformedTerms
	}
	terms := make([]byte, 0, 2*len(payload))
	for ; len(payload) > 0; payload = payload[4:] {
		terms = binary.BigEndian.AppendUint64(terms, h.term(GroupID(binary.BigEndian.Uint32(payload)), h.self.ID))
	}
	return terms, nil
}

// replicaTerms answers a peer's round.
func (h *Host) replicaTerms(payload []byte) ([]byte, error) {
	var terms []byte
	for len(payload) > 0 {
		if len(payload) < 5 || len(payload) < 5+int(payload[4]) || len(terms) >= 8*GroupsMax {
			return nil, errMalformedTerms
		}
		end := 5 + int(payload[4])
		terms = binary.BigEndian.AppendUint64(terms, h.term(GroupID(binary.BigEndian.Uint32(payload)), string(payload[5:end])))
		payload = payload[end:]
	}
	return terms, nil
}

var errMalformedTerms = errors.New("raftfsm: malformed term request")

// term is the current term of a replica, or noVote if it is not open here.
func (h *Host) term(id GroupID, replica string) uint64 {
	s := h.seats[id]
	if s == nil {
		return noVote
	}
	g := s.current.Load()
	if g == nil || g.self != replica {
		return noVote
	}
	return g.raft.CurrentTerm()
}
