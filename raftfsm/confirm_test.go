package raftfsm

import (
	"encoding/binary"
	"testing"
)

// A member counts only for exactly the replica that it has open: one that was made anew under
// another id, or that is not there, gives no vote.
func TestTermsAreThoseOfTheReplicaAsked(t *testing.T) {
	h := &Host{self: Member{ID: "n.a"}, seats: map[GroupID]*seat{1: {}, 2: {}}}
	for name, payload := range map[string][]byte{
		"a group without a replica": append([]byte{0, 0, 0, 1, 3}, "n.a"...),
		"a group that is unknown":   append([]byte{0, 0, 0, 9, 3}, "n.a"...),
	} {
		terms, err := h.replicaTerms(payload)
		if err != nil || len(terms) != 8 || binary.BigEndian.Uint64(terms) != noVote {
			t.Errorf("%s: %x, %v", name, terms, err)
		}
	}
	h.seats[2].current.Store(&group{self: "n.a.1"})
	terms, err := h.replicaTerms(append([]byte{0, 0, 0, 2, 3}, "n.a"...))
	if err != nil || binary.BigEndian.Uint64(terms) != noVote {
		t.Errorf("a replica that was made anew: %x, %v", terms, err)
	}
	if terms, err := h.currentTerms([]byte{0, 0, 0, 2}); err != nil || binary.BigEndian.Uint64(terms) != noVote {
		t.Errorf("a replica that was made anew, asked by a build of level 1: %x, %v", terms, err)
	}
	for name, payload := range map[string][]byte{
		"short":       {0, 0, 0},
		"cut in text": {0, 0, 0, 1, 9, 'n'},
	} {
		if terms, err := h.replicaTerms(payload); err == nil {
			t.Errorf("%s: %x", name, terms)
		}
	}
}
