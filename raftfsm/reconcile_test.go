package raftfsm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// A replica that follows a steady load keeps pace, and one that falls behind does not, at whatever
// moment between two pulses the leader looks. The leader commits an entry each millisecond.
func TestKeepingPaceWheneverTheLeaderLooks(t *testing.T) {
	const self, other = "node-1.a", "node-2.a"
	for _, look := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
		for _, tc := range []struct {
			name    string
			applied func(committed uint64) uint64
			want    bool
		}{
			{"20 ms behind", func(c uint64) uint64 { return c - 20 }, true},
			{"two pulses behind", func(c uint64) uint64 { return c - 2000 }, false},
			{"at half the pace", func(c uint64) uint64 { return c / 2 }, false},
		} {
			t.Run(fmt.Sprintf("%s, looked at after %v", tc.name, look), func(t *testing.T) {
				clk := clock.NewManual(time.Unix(1_700_000_000, 0))
				s := &seat{conf: Group{ID: 1}, host: &Host{clock: clk}}
				committed := uint64(10_000)
				pass := func(d time.Duration) {
					clk.Advance(d)
					committed += uint64(d / time.Millisecond)
				}
				c := configuration{voters: []string{self, other}}
				for range 2 * caughtUpRounds {
					s.host.pulses.set(other, peerState{
						pulse:   pulse{Groups: map[GroupID]replicaPulse{1: {Replica: other, Last: committed, Applied: tc.applied(committed)}}},
						at:      clk.Steady(),
						commits: map[GroupID]uint64{1: committed},
					})
					pass(look)
					s.observe(self, committed, c)
					s.observe(self, committed, c) // the same pulse counts once
					pass(pulseInterval - look)
				}
				if got := slices.Contains(s.caughtUp(), other); got != tc.want {
					t.Errorf("keeps pace: %v, want %v", got, tc.want)
				}
				s.host.order = []*seat{s}
				s.host.roster.Store(&roster{})
				if got := s.host.lags(other); got == tc.want {
					t.Errorf("lags: %v, want %v", got, !tc.want)
				}
			})
		}
	}
}
