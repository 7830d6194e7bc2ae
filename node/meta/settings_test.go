package meta

import (
	"bytes"
	"testing"
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
