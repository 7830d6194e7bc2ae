package raftfsm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// LevelFirst is spoken by builds that know nothing of levels; LevelCurrent by this one.
	LevelFirst   = 1
	LevelCurrent = 8
	// levelCopyFiles is from when on a peer takes transfers of the state by files.
	levelCopyFiles = 2
	// LevelMembers is the level from which on members and replicas can change.
	LevelMembers = 2
	// LevelBackups is the level from which on groups can be read for backups, and restored.
	LevelBackups = 3
	// LevelLimits is the level from which on limits are more than token buckets.
	LevelLimits = 3
	// LevelLeases is the level from which on tokens are lent, reserved and given back.
	LevelLeases = 4
	// LevelAhead is the level from which on tokens are lent ahead of their time.
	LevelAhead = 5
	// LevelSegments is the level from which on sealed documents are replicated as segments,
	// and shards keep the stamps that documents come with.
	LevelSegments = 6
	// LevelFailure is the level from which on limits say what becomes of checks without their group.
	LevelFailure = 6
	// LevelBatches is the level from which on documents that are not sealed are stored in batches.
	LevelBatches = 7
	// LevelRetention is the level from which on documents are disposed of.
	LevelRetention = 7
	// LevelReadings is the level from which on members say how their replicas stand, so that any
	// of them can answer a linearizable read.
	LevelReadings = 7
	// LevelRandomTexts is the level from which on segments have random texts beside their documents.
	LevelRandomTexts = 8
	// LevelBlankets is the level from which on tokens are lent of all counters without a row at once.
	LevelBlankets = 7
	// LevelCatalog is the level from which on there is a catalog of packages.
	LevelCatalog = 8
	// LevelMending is the level from which on replicas can be asked for their segments, and whether they agree.
	LevelMending = 8
	// LevelCold is the level from which on segments can be in an object store.
	LevelCold = 8

	// pulseInterval is how often a node asks each peer how it is. Smaller costs idle CPU;
	// larger lets a leader judge its followers by old news.
	pulseInterval = time.Second
	// pulseTimeout bounds one exchange. It is also the largest error of a clock offset, times two.
	pulseTimeout = 500 * time.Millisecond
	// pulseFresh is how long an answer counts as news of its peer: three intervals, so that one
	// lost exchange changes nothing.
	pulseFresh = 3 * time.Second
	// defaultClockOffsetMax is how far a node's wall clock may be from the others'. NTP keeps
	// clocks within some milliseconds; half a second is out of order anywhere, and still far
	// below the seconds in which tokens expire and documents are dated.
	defaultClockOffsetMax = 500 * time.Millisecond
)

// Disk is the state of a node's disk as it tells its peers.
type Disk string

// States of a disk.
const (
	DiskGood Disk = ""     // enough space, writes in time
	DiskSlow Disk = "slow" // writes took a second or more lately
	DiskLow  Disk = "low"  // writes that add data are refused
)

// pulse is what a node tells a peer about itself. It travels as JSON, so that builds of
// different age understand each other: unknown fields are ignored, missing ones are zero.
type pulse struct {
	// ID is the member that tells.
	ID string `json:"id"`
	// Level is the highest protocol level that it speaks.
	Level int `json:"level"`
	// Wall is its wall clock, in nanoseconds since 1970.
	Wall int64 `json:"wall"`
	// Draining is set once it has begun to stop.
	Draining bool `json:"draining,omitempty"`
	Disk     Disk `json:"disk,omitempty"`
	// ClockWrong is set while its wall clock differs from those of a majority.
	ClockWrong bool `json:"clockWrong,omitempty"`
	// Pace is what it holds work to that can wait, in bytes a second; zero while it does not.
	Pace float64 `json:"pace,omitempty"`
	// Lagging are the replicas that do not keep pace in the groups that it leads.
	Lagging []string `json:"lagging,omitempty"`
	// Groups are the replicas that it hosts.
	Groups map[GroupID]replicaPulse `json:"groups,omitempty"`
}

// replicaPulse is how far a replica has come.
type replicaPulse struct {
	// Replica is its Raft server id.
	Replica string `json:"replica"`
	Term    uint64 `json:"term"`
	// Leader is the replica that it follows, or itself; empty when it knows none.
	Leader string `json:"leader,omitempty"`
	// Last and Applied are the last index of its log and the last one that its state has; 0 until the
	// replica's first entry is noted in the list of replicas, so that nobody counts on it before.
	Last    uint64 `json:"last"`
	Applied uint64 `json:"applied"`
}

// peerState is what this node knows of a peer.
type peerState struct {
	pulse
	// at is this node's steady clock when the answer came, in nanoseconds.
	at int64
	// offset is how far the peer's wall clock is ahead of this node's, give or take error.
	offset, error time.Duration
	// commits are this node's commit indexes when the answer came.
	commits map[GroupID]uint64
}

// pulses keeps the latest answer of every peer. It is safe for use by several goroutines.
type pulses struct {
	mu    sync.Mutex
	peers map[string]peerState // by member id
}

func (p *pulses) set(id string, s peerState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers == nil {
		p.peers = map[string]peerState{}
	}
	p.peers[id] = s
}

// last returns a peer's latest answer, however old.
func (p *pulses) last(id string) (peerState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.peers[id]
	return s, ok
}

// known returns all answers, however old.
func (p *pulses) known() map[string]peerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.peers)
}

// keep forgets peers that are not in ids.
func (p *pulses) keep(ids map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.peers, func(id string, _ peerState) bool { return !ids[id] })
}

// PeerStatus is what a node knows of a peer.
type PeerStatus struct {
	// ID is the member.
	ID string
	// Level is the protocol level of its build.
	Level int
	// Draining is set while it stops in order.
	Draining bool
	Disk     Disk
	// ClockWrong is set while its wall clock differs from those of a majority.
	ClockWrong bool
	// ClockOffset is how far its wall clock is ahead of this node's.
	ClockOffset time.Duration
	// Age is how old the news is.
	Age time.Duration
	// Reachable is true when the news is fresh.
	Reachable bool
}

// Peers returns what this node knows of every peer that has ever answered, by member id.
func (h *Host) Peers() []PeerStatus {
	var out []PeerStatus
	known := h.pulses.known()
	for _, id := range slices.Sorted(maps.Keys(known)) {
		s := known[id]
		age := time.Duration(h.clock.Steady() - s.at)
		out = append(out, PeerStatus{
			ID: id, Level: s.Level, Draining: s.Draining, Disk: s.Disk, ClockWrong: s.ClockWrong,
			ClockOffset: s.offset, Age: age, Reachable: age < pulseFresh,
		})
	}
	return out
}

// peer returns the news of a member while they are fresh.
func (h *Host) peer(id string) (peerState, bool) {
	s, ok := h.pulses.last(id)
	return s, ok && time.Duration(h.clock.Steady()-s.at) < pulseFresh
}

// lags tells whether a member has a replica that does not keep pace, as far as this node and fresh
// news of the other leaders say.
func (h *Host) lags(member string) bool {
	of := func(replica string) bool { return MemberOf(replica) == member }
	for _, s := range h.order {
		if slices.ContainsFunc(s.lagging(), of) {
			return true
		}
	}
	for id := range h.peerLinks() {
		if s, ok := h.peer(id); ok && slices.ContainsFunc(s.Lagging, of) {
			return true
		}
	}
	return false
}

// PeersPace is the least pace that a peer holds work to that can wait, in bytes a second; +Inf when
// none does, as far as fresh news say.
func (h *Host) PeersPace() float64 {
	least := math.Inf(1)
	for id := range h.peerLinks() {
		if s, ok := h.peer(id); ok && s.Pace > 0 {
			least = min(least, s.Pace)
		}
	}
	return least
}

// MayRest tells whether background work on a group's state may rest: while this node leads the group
// or hears its leader. While it loads a state that it received it cannot vote, so then only for a
// part of the time that the leader waits for it, and while all other voters are there.
func (h *Host) MayRest(id GroupID) bool {
	s := h.seats[id]
	if s == nil {
		return false
	}
	g := s.current.Load()
	return g != nil && g.mayRest()
}

// ClockError says how far this node's wall clock is off, if it differs from those of so many
// peers that this node must be the one that is wrong; nil otherwise. A single peer that
// differs proves nothing about who is right.
func (h *Host) ClockError() error {
	members, beyond, worst := 1+len(h.peerLinks()), 0, time.Duration(0)
	for id := range h.peerLinks() {
		s, ok := h.peer(id)
		if !ok || s.offset.Abs()-s.error <= h.clockOffsetMax {
			continue
		}
		beyond++
		if s.offset.Abs() > worst.Abs() {
			worst = s.offset
		}
	}
	if beyond < members/2+1 {
		return nil
	}
	direction := "behind"
	if worst < 0 {
		direction = "ahead of"
	}
	return fmt.Errorf("this node's wall clock is %v %s those of %d other nodes, at most %v is allowed; set it right (NTP)",
		worst.Abs().Round(time.Millisecond), direction, beyond, h.clockOffsetMax)
}

// MajorityWall is a moment that the wall clocks of a majority of the members have passed, as far as
// this node knows; false when it has fresh news of no majority.
func (h *Host) MajorityWall() (time.Time, bool) {
	ahead := []time.Duration{0} // at least, of this node's clock
	for id := range h.peerLinks() {
		if s, ok := h.peer(id); ok {
			ahead = append(ahead, s.offset-s.error)
		}
	}
	majority := (1+len(h.peerLinks()))/2 + 1
	if len(ahead) < majority {
		return time.Time{}, false
	}
	slices.SortFunc(ahead, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return h.clock.Now().Add(ahead[majority-1]), true
}

// level is the protocol level of the region: the highest that every member is known to speak.
// It never goes down: a node that speaks less is not taken into a region.
func (h *Host) level() int {
	known, level := h.pulses.known(), LevelCurrent
	for id := range h.peerLinks() {
		level = min(level, max(LevelFirst, known[id].Level))
	}
	for {
		floor := h.levelFloor.Load()
		if int32(level) <= floor {
			return int(floor)
		}
		if h.levelFloor.CompareAndSwap(floor, int32(level)) {
			return level
		}
	}
}

// Level is the protocol level of the region: the highest that every member is known to have
// spoken at some time.
func (h *Host) Level() int { return h.level() }

// AwaitLevel tells whether every member is known to speak a level. It waits for some pulses
// before it denies: a node that has just started has not heard the others yet.
func (h *Host) AwaitLevel(ctx context.Context, level int) bool {
	ctx, cancel := context.WithTimeout(ctx, newsWait)
	defer cancel()
	tick := time.NewTicker(pulseInterval / 4)
	defer tick.Stop()
	for h.level() < level {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ownPulse describes this node.
func (h *Host) ownPulse() pulse {
	p := pulse{
		ID: h.self.ID, Level: LevelCurrent, Wall: h.clock.Now().UnixNano(), Draining: h.draining.Load(),
		Disk: h.diskState(), ClockWrong: h.ClockError() != nil, Pace: h.pace(), Groups: map[GroupID]replicaPulse{},
	}
	for _, s := range h.order {
		p.Lagging = append(p.Lagging, s.lagging()...)
	}
	for _, g := range h.open() {
		_, leader := g.raft.LeaderWithID()
		r := replicaPulse{Replica: g.self, Term: g.raft.CurrentTerm(), Leader: string(leader)}
		if !h.replicas.waits(g.name) {
			r.Last, r.Applied = g.raft.LastIndex(), g.appliedIndex()
		}
		p.Groups[g.id] = r
	}
	return p
}

// runPulse asks every peer in turn until the host closes.
func (h *Host) runPulse() {
	defer h.wg.Done()
	tick := time.NewTicker(pulseInterval)
	defer tick.Stop()
	for {
		var round sync.WaitGroup
		for id, l := range h.peerLinks() {
			round.Go(func() { h.exchangePulse(id, l) })
		}
		round.Wait()
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// exchangePulse asks one peer. A failure leaves what was known, which grows old.
func (h *Host) exchangePulse(id string, l *link) {
	ctx, cancel := context.WithTimeout(h.ctx, pulseTimeout)
	defer cancel()
	if _, err := l.connect(ctx); err != nil {
		return // a dial would count as travel time of the clocks
	}
	began, wall := h.clock.Steady(), h.clock.Now()
	r, err := l.call(ctx, kindPulse, 0, nil)
	if err != nil {
		return
	}
	now := h.clock.Steady()
	s := peerState{pulse: pulse{ID: id, Level: LevelFirst, Wall: wall.UnixNano()}, at: now, commits: map[GroupID]uint64{}}
	for _, g := range h.open() {
		s.commits[g.id] = g.raft.CommitIndex()
	}
	// A build that does not know the question is alive, and of the first level.
	if r.status == statusOK {
		if json.Unmarshal(r.payload, &s.pulse) != nil || s.ID != id {
			return
		}
		travel := time.Duration(now - began)
		s.offset, s.error = time.Unix(0, s.Wall).Sub(wall)-travel/2, travel/2
	}
	h.pulses.set(id, s)
}
