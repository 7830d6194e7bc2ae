package raftfsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Placement says where a group's replicas belong.
type Placement struct {
	// Voters are replica ids; the first is the preferred leader.
	Voters []string
	// Learners are replicas that follow and do not vote.
	Learners []string
}

func (p Placement) replicas() []string { return slices.Concat(p.Voters, p.Learners) }

// on is the replica that the placement has on a member, or "".
func (p Placement) on(member string) string {
	for _, id := range p.replicas() {
		if MemberOf(id) == member {
			return id
		}
	}
	return ""
}

// Place says where the replicas of groups belong. The host opens those that are placed here and
// erases those that are not, once the group has let go of them; where it leads a group, it moves
// the group's members towards the placement. Groups that p does not name stay as they are.
// It is idempotent and returns at once.
func (h *Host) Place(p map[GroupID]Placement) {
	h.setPlacements(p)
	select {
	case h.place <- struct{}{}:
	default:
	}
}

func (h *Host) setPlacements(p map[GroupID]Placement) {
	for id, placement := range p {
		if s := h.seats[id]; s != nil {
			s.setPlacement(placement)
		}
	}
}

func (s *seat) setPlacement(p Placement) {
	p = Placement{Voters: slices.Clone(p.Voters), Learners: slices.Clone(p.Learners)}
	s.mu.Lock()
	s.placement = &p
	s.mu.Unlock()
	if g := s.current.Load(); g != nil {
		own := int64(followerTimeout(s.preference()))
		if g.timeout.Swap(own) != own {
			g.adaptHeartbeats()
		}
	}
}

// placed is where the group's replicas belong; false while it has not been said.
func (s *seat) placed() (Placement, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placement == nil {
		return Placement{}, false
	}
	return *s.placement, true
}

// placedAs tells whether a replica with this id belongs here: without a placement every group is
// everywhere.
func (s *seat) placedAs(id string) bool {
	p, ok := s.placed()
	return !ok || slices.Contains(p.replicas(), id)
}

// preference is this node's place in the group's order, 0 being the preferred leader.
func (s *seat) preference() int {
	self := s.host.self.ID
	p, ok := s.placed()
	if !ok {
		return preference(s.conf.ID, self, s.host.Members())
	}
	return max(0, slices.IndexFunc(p.Voters, func(id string) bool { return MemberOf(id) == self }))
}

// configuration is a group's membership as Raft has it.
type configuration struct {
	voters, learners []string
	index            uint64 // 0 when it is not known to be committed
}

func (c configuration) has(id string) bool {
	return slices.Contains(c.voters, id) || slices.Contains(c.learners, id)
}

func configurationOf(r raft.Configuration) configuration {
	var c configuration
	for _, s := range r.Servers {
		if s.Suffrage == raft.Voter {
			c.voters = append(c.voters, string(s.ID))
		} else {
			c.learners = append(c.learners, string(s.ID))
		}
	}
	return c
}

// configuration is the latest membership, which may not be committed yet.
func (g *group) configuration() configuration {
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return configuration{}
	}
	return configurationOf(f.Configuration())
}

// committedConfiguration is the latest membership if it is committed. The order of the looks
// matters: Raft begins a change only when the one before is committed, so if the latest one were
// not, what has been applied by then would be the one before it, which differs.
func (g *group) committedConfiguration(ctx context.Context, ready readiness) (configuration, error) {
	latest := g.configuration()
	if commit := g.raft.CommitIndex(); commit > ready.index {
		if err := g.replica.WaitApplied(ctx, commit); err != nil {
			return configuration{}, err
		}
	}
	applied := g.replica.config.Load()
	if applied == nil || len(applied.config) == 0 {
		return configuration{}, fmt.Errorf("the members are not known yet: %w", ErrNoLeader)
	}
	c := configurationOf(raft.DecodeConfiguration(applied.config))
	if !slices.Equal(c.voters, latest.voters) || !slices.Equal(c.learners, latest.learners) {
		return configuration{}, fmt.Errorf("a change of the members is under way: %w", ErrNoLeader)
	}
	c.index = applied.index
	return c, nil
}

// GroupView is what the leader of a group says about it.
type GroupView struct {
	// Leader is the replica that leads, in Term.
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
	// Commit is the highest committed index.
	Commit uint64 `json:"commit"`
	// Voters and Learners are the replicas of the committed membership.
	Voters   []string `json:"voters"`
	Learners []string `json:"learners,omitempty"`
	// CaughtUp are the other replicas that keep pace with the leader.
	CaughtUp []string `json:"caughtUp,omitempty"`
}

// Describe asks the leader of a group about it. What it says of the membership is committed, and
// was the group's last one at some moment after the call.
func (h *Host) Describe(ctx context.Context, id GroupID) (GroupView, error) {
	s, err := h.seat(id)
	if err != nil {
		return GroupView{}, err
	}
	var v GroupView
	err = h.atLeader(ctx, s, "describe", true, func(ctx context.Context, g *group) error {
		var err error
		v, err = g.describe(ctx)
		return err
	}, func(ctx context.Context, l *link) error {
		var err error
		v, err = s.describeAt(ctx, l)
		return err
	})
	return v, err
}

// describeAt is Describe on a member, which must lead.
func (s *seat) describeAt(ctx context.Context, l *link) (v GroupView, err error) {
	r, err := s.ask(ctx, l, "describe", kindDescribe, nil)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(r.payload, &v); err != nil {
		return v, s.fail("describe", OutcomeDefinite, fmt.Errorf("node %s: malformed answer: %w", l.peer.Name, err))
	}
	return v, nil
}

// describe is Describe on this node, which must lead.
func (g *group) describe(ctx context.Context) (GroupView, error) {
	ready, err := g.leading()
	if err != nil {
		return GroupView{}, g.fail("describe", OutcomeDefinite, err)
	}
	commit := g.raft.CommitIndex()
	c, err := g.committedConfiguration(ctx, ready)
	if err == nil {
		err = g.host.confirmer.confirm(ctx, g, ready.term)
	}
	if err != nil {
		return GroupView{}, g.fail("describe", OutcomeDefinite, err)
	}
	return GroupView{
		Leader: g.self, Term: ready.term, Commit: commit, Voters: c.voters, Learners: c.learners, CaughtUp: g.seat.caughtUp(),
	}, nil
}

// Transfer hands the leadership of a group over to a member's replica, which must vote, wherever
// the leader is. It returns nil once the leader has let go, or if that member leads already.
func (h *Host) Transfer(ctx context.Context, id GroupID, member string) error {
	s, err := h.seat(id)
	if err != nil {
		return err
	}
	return h.atLeader(ctx, s, "transfer", false, func(ctx context.Context, g *group) error {
		return g.transferTo(ctx, member)
	}, func(ctx context.Context, l *link) error {
		if l.peer.ID == member && s.leaderMember() == member {
			return nil
		}
		_, err := s.ask(ctx, l, "transfer", kindTransfer, []byte(member))
		return err
	})
}

// transferTo is Transfer on this node, which must lead.
func (g *group) transferTo(ctx context.Context, member string) error {
	if _, err := g.leading(); err != nil {
		return g.fail("transfer", OutcomeDefinite, err)
	}
	if MemberOf(g.self) == member {
		return nil
	}
	for id := range g.voters() {
		if MemberOf(id) != member {
			continue
		}
		g.log.Info("leadership is handed over", "reason", "requested", "to", id)
		if err := g.transfer(ctx, id); err != nil {
			return g.fail("transfer", OutcomeDefinite, fmt.Errorf("leadership not handed over to %s: %w", id, err))
		}
		return nil
	}
	return g.fail("transfer", OutcomeDefinite, fmt.Errorf("%w: %s", ErrNotVoter, member))
}

// ask sends a request of this build's level to a member.
func (s *seat) ask(ctx context.Context, l *link, op string, kind byte, payload []byte) (response, error) {
	r, err := l.call(ctx, kind, s.conf.ID, payload)
	if err != nil {
		return r, s.linkError(op, err)
	}
	if r.status == statusError {
		return r, decodeError(r.payload, op, s.conf.Name, l.peer.Name)
	}
	return r, nil
}

func (s *seat) linkError(op string, err error) error {
	if errors.Is(err, errNotSent) {
		return &Error{Op: op, Group: s.conf.Name, Outcome: OutcomeDefinite, Err: errors.Join(ErrNoLeader, err)}
	}
	return &Error{Op: op, Group: s.conf.Name, Outcome: OutcomeUnknown, Err: err}
}

// leaderMember is the member that leads, as far as this node knows, or "".
func (s *seat) leaderMember() string {
	if g := s.current.Load(); g != nil {
		if _, leader := g.raft.LeaderWithID(); leader != "" {
			return MemberOf(string(leader))
		}
		if g.votes() {
			return ""
		}
	}
	if _, ok := s.placed(); !ok {
		return ""
	}
	// Peers say whom they follow; the latest term is right.
	leader, term := "", uint64(0)
	for id, p := range s.host.pulses.known() {
		r, ok := p.Groups[s.conf.ID]
		if ok && r.Leader != "" && r.Term > term && time.Duration(s.host.clock.Steady()-p.at) < pulseFresh && s.host.peerLinks()[id] != nil {
			leader, term = MemberOf(r.Leader), r.Term
		}
	}
	return leader
}

// votes tells whether this replica votes, by its own latest membership.
func (g *group) votes() bool { return g.voters()[g.self] }

// route is where the group's leader may be: here, or at the member behind a link, or nowhere that
// is known. Tries count up while a call fails, and go round the members that host the group.
func (s *seat) route(try int) (*group, *link) {
	h := s.host
	g := s.current.Load()
	if g != nil {
		_, leader := g.raft.LeaderWithID()
		switch {
		case string(leader) == g.self:
			return g, nil
		case leader != "":
			return nil, h.linkTo(string(leader))
		case g.votes():
			return nil, nil // an election is under way; nobody else knows better
		}
	}
	candidates := s.candidates()
	if len(candidates) == 0 {
		return nil, nil
	}
	return nil, candidates[try%len(candidates)]
}

// candidates are the links to the members that may lead a group which this node cannot tell of
// itself: the one that answered last, the one that others follow, and those that are placed.
func (s *seat) candidates() []*link {
	p, _ := s.placed()
	s.mu.Lock()
	hint := s.leader
	s.mu.Unlock()
	links := s.host.peerLinks()
	var out []*link
	for _, id := range append([]string{hint, s.leaderMember()}, p.Voters...) {
		if l := links[MemberOf(id)]; l != nil && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// remember keeps the member that answered for the group, or forgets it.
func (s *seat) remember(l *link, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.leader = l.peer.ID
	} else if s.leader == l.peer.ID && errors.Is(err, ErrNoLeader) {
		s.leader = ""
	}
}
