package raftfsm

import (
	"encoding/binary"
	"errors"
)

// standing is what a member says of a replica that it has open; zero where it has none.
type standing struct {
	replica string
	term    uint64
	// leads is set while the replica leads in that term and is ready to serve. index is then what has to
	// be applied to know all that it had committed, and voters are those of its latest membership.
	leads  bool
	index  uint64
	voters []string
}

// standings are what one member says of the groups that it was asked about.
type standings map[GroupID]standing

// standing describes this node's replica of a group.
func (h *Host) standing(id GroupID) standing {
	s := h.seats[id]
	if s == nil {
		return standing{}
	}
	g := s.current.Load()
	if g == nil {
		return standing{}
	}
	out := standing{replica: g.self}
	ready, err := g.leading()
	if err == nil {
		if out.index = g.raft.CommitIndex(); out.index <= ready.index {
			// What came before the term's barrier is applied; the barrier itself is no part of the state.
			out.index = g.replica.AppliedIndex()
		}
		out.voters = g.configuration().voters
	}
	// Terms only rise: if it is still that one, nothing above is of a later leader.
	out.term = g.raft.CurrentTerm()
	out.leads = err == nil && out.term == ready.term
	return out
}

var errMalformedStandings = errors.New("raftfsm: malformed standings")

// encodeStandings answers a question about groups.
func (h *Host) encodeStandings(payload []byte) ([]byte, error) {
	if len(payload)%4 != 0 || len(payload) > 4*GroupsMax {
		return nil, errMalformedStandings
	}
	b := make([]byte, 0, 64*len(payload)/4)
	for ; len(payload) > 0; payload = payload[4:] {
		b = h.standing(GroupID(binary.BigEndian.Uint32(payload))).append(b)
	}
	return b, nil
}

func (s *standing) leadsByte() byte {
	if s.leads {
		return 1
	}
	return 0
}

func (s standing) append(b []byte) []byte {
	b = append(append(b, byte(len(s.replica))), s.replica...)
	b = append(binary.BigEndian.AppendUint64(b, s.term), s.leadsByte())
	if !s.leads {
		return b
	}
	b = append(binary.BigEndian.AppendUint64(b, s.index), byte(len(s.voters)))
	for _, v := range s.voters {
		b = append(append(b, byte(len(v))), v...)
	}
	return b
}

func decodeStandings(b []byte, groups []GroupID) (standings, error) {
	bad := false
	take := func(n int) []byte {
		if bad || n > len(b) {
			bad = true
			return make([]byte, n)
		}
		out := b[:n]
		b = b[n:]
		return out
	}
	text := func() string { return string(take(int(take(1)[0]))) }
	out := standings{}
	for _, id := range groups {
		s := standing{replica: text(), term: binary.BigEndian.Uint64(take(8)), leads: take(1)[0] == 1}
		if s.leads {
			s.index = binary.BigEndian.Uint64(take(8))
			for n := take(1)[0]; n > 0 && !bad; n-- {
				s.voters = append(s.voters, text())
			}
		}
		out[id] = s
	}
	if bad || len(b) > 0 {
		return nil, errMalformedStandings
	}
	return out, nil
}
