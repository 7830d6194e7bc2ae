package meta

import (
	"bytes"
	"testing"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func TestSettingsAreFoundedOnce(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	if _, ok := s.Settings(); ok {
		t.Error("settings before they are founded")
	}
	if _, ok := s.CursorKey(); ok {
		t.Error("a cursor key before it is founded")
	}
	if err := s.EnsureSettings(t.Context(), "c1", "us-west"); err != nil {
		t.Fatal(err)
	}
	key, ok := s.CursorKey()
	if !ok || len(key) != cursorKeyBytes || bytes.Equal(key, make([]byte, cursorKeyBytes)) {
		t.Errorf("cursor key %x, %v; want 32 random bytes", key, ok)
	}
	if err := s.EnsureSettings(t.Context(), "c1", "us-west"); err != nil {
		t.Errorf("again: %v", err)
	}
	wantError(t, "another cluster", s.EnsureSettings(t.Context(), "c2", "us-west"), ErrOtherCluster)
	wantError(t, "another region", s.EnsureSettings(t.Context(), "c1", "eu-central"), ErrOtherCluster)
	r.meta.Restart()
	s = r.service()
	if again, _ := s.CursorKey(); !bytes.Equal(again, key) {
		t.Errorf("cursor key %x, was %x", again, key)
	}
	if got, ok := s.Settings(); !ok || got != (Settings{ClusterID: "c1", Region: "us-west"}) {
		t.Errorf("settings %+v, %v", got, ok)
	}
}

// The mode of the limits is there for every check, survives a restart, and waits for members that do
// not know it.
func TestModeOfTheLimits(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	want := func(mode limiter.Mode) {
		t.Helper()
		if got, err := s.LimiterMode(t.Context()); err != nil || got != mode || r.meta.Machine().(*Machine).LimiterMode() != mode {
			t.Errorf("mode %v, %v; this replica says %v; want %v", got, err, r.meta.Machine().(*Machine).LimiterMode(), mode)
		}
	}
	want(limiter.ModeEnforce)
	r.level = raftfsm.LevelLimits
	_, err := s.SetLimiterMode(t.Context(), limiter.ModeOff)
	wantError(t, "with an old member", err, api.ErrLevel)
	want(limiter.ModeEnforce)
	r.level = raftfsm.LevelLeases
	for _, step := range [][2]limiter.Mode{{limiter.ModeEnforce, limiter.ModeShadow}, {limiter.ModeShadow, limiter.ModeOff}, {limiter.ModeOff, limiter.ModeOff}} {
		if before, err := s.SetLimiterMode(t.Context(), step[1]); err != nil || before != step[0] {
			t.Errorf("to %v: was %v, %v", step[1], before, err)
		}
		want(step[1])
	}
	r.meta.Restart()
	s = r.service()
	want(limiter.ModeOff)
	if _, err := s.SetLimiterMode(t.Context(), limiter.ModeEnforce); err != nil {
		t.Error(err)
	}
	want(limiter.ModeEnforce)
}
