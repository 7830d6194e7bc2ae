package raftfsm

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
)

// confirmer proves that this node still leads, for reads. Raft's own leader check can be
// satisfied by a reply that was under way before the read began, so a leader that was paused
// and deposed meanwhile would answer from the past. Instead: after the commit index has been
// taken, ask all voters for their current term; if a majority still has at most the leader's
// term, no later leader had been elected when the read began, for its voters would have
// stored the later term first. No clocks are involved. One round serves every group and
// every read that waits for it.
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
	if len(g.voters()) == 1 {
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

// ask sends one request to each peer, for all groups of the round, and counts the answers.
func (c *confirmer) ask(round *confirmRound) {
	ids := make([]GroupID, 0, len(round.groups))
	counts := map[GroupID]int{}
	voters := map[GroupID]map[string]bool{}
	for id, g := range round.groups {
		ids = append(ids, id)
		round.verdict[id] = termVerdict{term: g.raft.CurrentTerm()}
		voters[id] = g.voters()
		if voters[id][c.host.self.ID] {
			counts[id] = 1
		}
	}
	payload := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		payload = binary.BigEndian.AppendUint32(payload, uint32(id))
	}
	ctx, cancel := context.WithTimeout(c.host.ctx, confirmTimeout)
	defer cancel()
	type answer struct {
		peer  string
		terms []byte
	}
	answers := make(chan answer, len(c.host.links))
	for _, l := range c.host.links {
		go func() {
			r, err := l.call(ctx, kindTerms, 0, payload)
			if err != nil || r.status != statusOK || len(r.payload) != 8*len(ids) {
				r.payload = nil
			}
			answers <- answer{peer: l.peer.ID, terms: r.payload}
		}()
	}
	undecided := len(ids)
	for range c.host.links {
		a := <-answers
		for i, id := range ids {
			v := round.verdict[id]
			if a.terms == nil || v.granted || !voters[id][a.peer] {
				continue
			}
			if binary.BigEndian.Uint64(a.terms[8*i:]) <= v.term {
				counts[id]++
			}
			// This node's own vote counts only while its term still stands.
			if counts[id] > len(voters[id])/2 && round.groups[id].raft.CurrentTerm() == v.term {
				v.granted = true
				round.verdict[id] = v
				undecided--
			}
		}
		if undecided == 0 {
			return
		}
	}
}

// currentTerms answers a peer's round.
func (h *Host) currentTerms(payload []byte) ([]byte, error) {
	if len(payload)%4 != 0 || len(payload) > 4*GroupsMax {
		return nil, errors.New("raftfsm: malformed term request")
	}
	terms := make([]byte, 0, 2*len(payload))
	for ; len(payload) > 0; payload = payload[4:] {
		g, err := h.group(GroupID(binary.BigEndian.Uint32(payload)))
		if err != nil {
			return nil, err
		}
		terms = binary.BigEndian.AppendUint64(terms, g.raft.CurrentTerm())
	}
	return terms, nil
}
