package raftfsm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

func (h *Host) seat(id GroupID) (*seat, error) {
	s := h.seats[id]
	if s == nil {
		return nil, &Error{Op: "find", Group: fmt.Sprint(id), Err: ErrUnknownGroup}
	}
	return s, nil
}

// hosted returns the open replica of a group, for work that must happen where it arrives.
func (h *Host) hosted(id GroupID) (*group, error) {
	s, err := h.seat(id)
	if err != nil {
		return nil, err
	}
	g := s.current.Load()
	if g == nil {
		return nil, s.fail("find", OutcomeDefinite, ErrNoLeader)
	}
	return g, nil
}

// open are the replicas that this node has open now, in the order of the groups.
func (h *Host) open() []*group {
	out := make([]*group, 0, len(h.order))
	for _, s := range h.order {
		if g := s.current.Load(); g != nil {
			out = append(out, g)
		}
	}
	return out
}

// GroupStatus describes a group as this node sees it.
type GroupStatus struct {
	ID   GroupID
	Name string
	// Hosted is true while this node has a replica of the group, whose id is Replica. Term and
	// indexes are those of that replica, and zero without one.
	Hosted  bool
	Replica string
	// Leader is the member that leads; empty when none is known.
	Leader       string
	Term         uint64
	CommitIndex  uint64
	AppliedIndex uint64
	// Voters and Learners are replica ids: as the replica's Raft has them, or as they are placed
	// where this node hosts none.
	Voters, Learners []string
}

// Status describes every group, in the order they were given to Open.
func (h *Host) Status() []GroupStatus {
	out := make([]GroupStatus, 0, len(h.order))
	for _, s := range h.order {
		st := GroupStatus{ID: s.conf.ID, Name: s.conf.Name, Leader: s.leaderMember()}
		if g := s.current.Load(); g != nil {
			st.Hosted, st.Replica, st.Term = true, g.self, g.raft.CurrentTerm()
			st.AppliedIndex = g.replica.AppliedIndex()
			// After a start, Raft learns the commit index only from the leader.
			st.CommitIndex = max(g.raft.CommitIndex(), st.AppliedIndex)
			c := g.configuration()
			st.Voters, st.Learners = c.voters, c.learners
		} else if p, ok := s.placed(); ok {
			st.Voters, st.Learners = p.Voters, p.Learners
		}
		out = append(out, st)
	}
	return out
}

// errLoading keeps a node from being ready.
var errLoading = errors.New("a copy of the state is being loaded, meanwhile this node does not vote")

// Ready returns nil when every group has a leader that this node knows of, so that any
// request can be served or forwarded, and no vote of this node is missed.
func (h *Host) Ready() error {
	for _, s := range h.order {
		if s.leaderMember() == "" {
			return &Error{Op: "ready", Group: s.conf.Name, Err: ErrNoLeader}
		}
		g := s.current.Load()
		if g == nil {
			continue
		}
		if g.loading.Load() != 0 && g.voters()[g.self] {
			return &Error{Op: "ready", Group: s.conf.Name, Err: errLoading}
		}
		if g.raft.State() == raft.Leader {
			if _, err := g.leading(); err != nil {
				return &Error{Op: "ready", Group: s.conf.Name, Err: err}
			}
		}
	}
	return nil
}

// StateHash is the hash of a group's replicated state on this node, for comparing replicas
// while nothing is written.
func (h *Host) StateHash(id GroupID) ([32]byte, error) {
	g, err := h.hosted(id)
	if err != nil {
		return [32]byte{}, err
	}
	return g.replica.StateHash()
}

// ReplicaState says what a replica of this node holds.
type ReplicaState struct {
	Group   string `json:"group"`
	Replica string `json:"replica"`
	// Applied is the index of the last applied entry, and Hash the hash of the replicated state
	// after it, in hex. Replicas of a group are equal at equal indexes.
	Applied uint64 `json:"applied"`
	Hash    string `json:"hash"`
}

// States hashes the replicated state of every replica of this node, which reads all of it.
func (h *Host) States() ([]ReplicaState, error) {
	out := []ReplicaState{}
	for _, g := range h.open() {
		applied, hash, err := g.replica.StateHashAt()
		if err != nil {
			return nil, g.fail("hash", OutcomeDefinite, err)
		}
		out = append(out, ReplicaState{Group: g.name, Replica: g.self, Applied: applied, Hash: hex.EncodeToString(hash[:])})
	}
	return out, nil
}

// HandOver gives this node's leaderships to others, so that a planned stop costs no election.
func (h *Host) HandOver() {
	h.draining.Store(true)
	var wg sync.WaitGroup
	for _, g := range h.open() {
		wg.Go(g.handOver)
	}
	wg.Wait()
}
