package raftfsm

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// hostKnowing is a host of three members that has heard from its two peers.
func hostKnowing(clk clock.Clock, b, c peerState) *Host {
	h := &Host{clock: clk, clockOffsetMax: defaultClockOffsetMax}
	h.levelFloor.Store(LevelFirst)
	h.roster.Store(&roster{links: map[string]*link{"b": {}, "c": {}}})
	for id, s := range map[string]peerState{"b": b, "c": c} {
		if s.Level != 0 {
			s.at = clk.Steady()
			h.pulses.set(id, s)
		}
	}
	return h
}

func said(level int, offset, err time.Duration) peerState {
	return peerState{pulse: pulse{Level: level}, offset: offset, error: err}
}

// A node's clock is wrong when a majority differs from it; one peer proves nothing, and
// neither do old news or an offset within the error of its measurement.
func TestClockError(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		b, c peerState
		want string
	}{
		"all alike":            {said(2, 3*ms, ms), said(2, -2*ms, ms), ""},
		"one peer differs":     {said(2, 10*s, ms), said(2, 0, ms), ""},
		"one peer, one silent": {said(2, 10*s, ms), peerState{}, ""},
		"behind both":          {said(2, 10*s, ms), said(2, 9*s, ms), "10s behind those of 2 other nodes"},
		"ahead of both":        {said(2, -700*ms, ms), said(2, -800*ms, ms), "800ms ahead of those of 2"},
		"within the error":     {said(2, 600*ms, 200*ms), said(2, 600*ms, 200*ms), ""},
	} {
		clk := clock.NewManual(time.Unix(1_700_000_000, 0))
		h := hostKnowing(clk, c.b, c.c)
		err := h.ClockError()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		clk.Advance(pulseFresh)
		if err := h.ClockError(); err != nil {
			t.Errorf("%s, from old news: %v", name, err)
		}
	}
}

// Something new may be sent only once every member has said that it understands; a member
// that was never heard counts as the oldest build.
func TestLevel(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	for name, c := range map[string]struct {
		b, c  peerState
		floor int
		want  int
	}{
		"all new":              {said(2, 0, 0), said(2, 0, 0), LevelFirst, 2},
		"one old":              {said(2, 0, 0), said(1, 0, 0), LevelFirst, 1},
		"one unknown":          {said(2, 0, 0), peerState{}, LevelFirst, 1},
		"one newer":            {said(LevelCurrent, 0, 0), said(9, 0, 0), LevelFirst, LevelCurrent},
		"one unknown, settled": {said(2, 0, 0), peerState{}, 2, 2},
	} {
		h := hostKnowing(clk, c.b, c.c)
		h.levelFloor.Store(int32(c.floor))
		if got := h.level(); got != c.want {
			t.Errorf("%s: level %d, want %d", name, got, c.want)
		}
	}
}

// A peer is asked nothing that its level does not know.
func TestLevelOfKinds(t *testing.T) {
	for kind, want := range map[byte]int{
		kindPropose: LevelFirst, kindPulse: LevelFirst, kindReplicaTerms: LevelMembers, kindBounded: LevelMembers,
		kindRestore: LevelBackups, kindBackup: LevelBackups, kindTell: LevelLeases, kindStandings: LevelReadings,
	} {
		if got := levelOfKind(kind); got != want {
			t.Errorf("kind %d: level %d, want %d", kind, got, want)
		}
	}
}

// A member lags while a fresh pulse of a leader names one of its replicas.
func TestLaggingMembers(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	h := hostKnowing(clk, peerState{pulse: pulse{Level: 2, Lagging: []string{"c.1.2"}}}, said(2, 0, 0))
	for member, want := range map[string]bool{"c.1": true, "c.2": false, "b.1": false} {
		if got := h.lags(member); got != want {
			t.Errorf("%s lags: %v, want %v", member, got, want)
		}
	}
	clk.Advance(pulseFresh)
	if h.lags("c.1") {
		t.Error("old news count")
	}
}

// The least pace of the peers counts, while the news are fresh.
func TestPeersPace(t *testing.T) {
	paced := func(pace float64) peerState { return peerState{pulse: pulse{Level: 2, Pace: pace}} }
	inf := math.Inf(1)
	for _, c := range []struct {
		b, c peerState
		want float64
	}{
		{paced(0), paced(0), inf},
		{paced(0), peerState{}, inf},
		{paced(1000), paced(0), 1000},
		{paced(2000), paced(1000), 1000},
	} {
		clk := clock.NewManual(time.Unix(1_700_000_000, 0))
		h := hostKnowing(clk, c.b, c.c)
		if got := h.PeersPace(); got != c.want {
			t.Errorf("%v and %v: a pace of %v", c.b.Pace, c.c.Pace, got)
		}
		clk.Advance(pulseFresh)
		if got := h.PeersPace(); got != inf {
			t.Errorf("%v and %v, from old news: a pace of %v", c.b.Pace, c.c.Pace, got)
		}
	}
}

// A moment has come when the clocks of two of three members say so, less the error of looking.
func TestMajorityWall(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		b, c peerState
		want time.Duration // against this node's clock
		none bool
	}{
		"all alike":                 {said(2, 0, 0), said(2, 0, 0), 0, false},
		"this one ahead":            {said(2, -2*s, ms), said(2, -3*s, ms), -2*s - ms, false},
		"this one behind":           {said(2, 5*s, 2*ms), said(2, 3*s, 2*ms), 3*s - 2*ms, false},
		"one far ahead":             {said(2, time.Hour, ms), said(2, -1*s, ms), 0, false},
		"one silent":                {peerState{}, said(2, -1*s, ms), -1*s - ms, false},
		"one silent, the other off": {peerState{}, said(2, time.Hour, ms), 0, false},
		"both silent":               {peerState{}, peerState{}, 0, true},
	} {
		clk := clock.NewManual(time.Unix(1_700_000_000, 0))
		wall, ok := hostKnowing(clk, c.b, c.c).MajorityWall()
		if ok == c.none || ok && wall.Sub(clk.Now()) != c.want {
			t.Errorf("%s: %v, %v; want %v", name, wall.Sub(clk.Now()), ok, c.want)
		}
	}
}
