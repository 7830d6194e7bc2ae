package raftfsm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// Group time runs a thousandth slower than the steady clock and ignores the wall clock.
func TestGroupTimeFollowsTheSteadyClock(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	k := &timekeeper{clock: clk}
	k.lead(5_000_000)
	if got := k.now(); got != 5_000_000 {
		t.Fatalf("time starts at %d, want the applied 5000000", got)
	}
	clk.Advance(10 * time.Second)
	if got, want := k.now(), int64(5_000_000+10_000_000-10_000); got != want {
		t.Fatalf("after 10 s: %d, want %d", got, want)
	}
	for _, year := range []int{1971, 2200} {
		clk.SetWall(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		if got, want := k.now(), int64(5_000_000+10_000_000-10_000); got != want {
			t.Fatalf("wall clock in %d: %d, want %d", year, got, want)
		}
	}
}

// A new leader continues from the moment at which it appended the last stamped entry, so a
// failover loses at most what passed between the stamp and the append.
func TestNewLeaderAnchorsAtItsLastEntry(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	k := &timekeeper{clock: clk}
	k.appended(7, 1_000_000, clk.Steady())
	clk.Advance(3 * time.Second)
	k.lead(1_000_000)
	if got, want := k.now(), int64(1_000_000+3_000_000-3_000); got != want {
		t.Fatalf("time after the failover: %d, want %d", got, want)
	}
}

// Own commits of a term do not move its anchor: re-anchoring would lose the part of a
// microsecond that rounding took, again and again, and with it time itself.
func TestOwnCommitsKeepTheAnchor(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	k := &timekeeper{clock: clk}
	k.lead(0)
	for i := range 1000 {
		clk.Advance(time.Millisecond)
		k.appended(uint64(i+1), k.now(), clk.Steady())
	}
	if got, want := k.now(), int64(1_000_000-1000); got != want {
		t.Fatalf("after 1000 commits in one second: %d, want %d", got, want)
	}
}

// After a reboot the note's clock means nothing: time stands where it stood.
func TestRebootAddsNoTime(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	n := note{index: 3, stamp: 9_000_000, boot: clk.Boot(), steady: clk.Steady()}
	clk.Advance(time.Hour)
	clk.Reboot()
	k := &timekeeper{clock: clk}
	k.reset(n)
	k.lead(9_000_000)
	if got := k.now(); got != 9_000_000 {
		t.Fatalf("time after the reboot: %d, want 9000000", got)
	}
	// Within one boot, a restart of the process does count the time that passed.
	k.reset(note{index: 3, stamp: 9_000_000, boot: clk.Boot(), steady: clk.Steady()})
	clk.Advance(2 * time.Second)
	k.lead(9_000_000)
	if got, want := k.now(), int64(9_000_000+2_000_000-2_000); got != want {
		t.Fatalf("time after the restart: %d, want %d", got, want)
	}
}

// Whatever the leaders do, stamps of the committed log never go back and never outrun real
// time, even when a deposed leader's entries are thrown away.
func TestGroupTimeNeverOutrunsRealTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clk := clock.NewManual(time.Unix(1_700_000_000, 0))
		replicas := []*timekeeper{{clock: clk}, {clock: clk}, {clock: clk}}
		type entry struct{ stamp, steady int64 }
		var log []entry // committed by all for simplicity; a discarded one never enters
		leader := 0
		replicas[leader].lead(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			clk.Advance(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "pause")))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // another leader, whose log is the committed one
				leader = rapid.IntRange(0, 2).Draw(t, "leader")
				applied := int64(0)
				if len(log) > 0 {
					applied = log[len(log)-1].stamp
				}
				replicas[leader].lead(applied)
			case 1: // an entry that only its leader appends and that is then discarded
				k := replicas[leader]
				before := k.last
				k.appended(uint64(len(log)+1), k.now(), clk.Steady())
				k.reset(before)
				leader = (leader + 1) % 3
				applied := int64(0)
				if len(log) > 0 {
					applied = log[len(log)-1].stamp
				}
				replicas[leader].lead(applied)
			default:
				e := entry{replicas[leader].now(), clk.Steady()}
				if len(log) > 0 {
					last := log[len(log)-1]
					if e.stamp < last.stamp {
						t.Fatalf("stamp went back from %d to %d", last.stamp, e.stamp)
					}
				}
				for _, old := range log {
					// Stamps are whole microseconds, rounded down.
					if gained, real := e.stamp-old.stamp, (e.steady-old.steady)/1000; gained > real+1 {
						t.Fatalf("%d us of group time in %d us of real time", gained, real)
					}
				}
				log = append(log, e)
				for _, k := range replicas {
					k.appended(uint64(len(log)), e.stamp, clk.Steady())
				}
			}
		}
	})
}
