package meta

import (
	"fmt"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Rules of retention are kept one by one under a version that grows with each change of them, survive a
// restart, and wait for members that do not know them.
func TestRulesOfRetention(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	event, acme, hold := index.RetentionRule{Kind: "event", Age: time.Hour}, index.RetentionRule{Tenant: "acme", Age: 24 * time.Hour}, index.RetentionRule{Tenant: "beta", Hold: true}
	r.level = raftfsm.LevelSegments
	_, err := s.SetRetention(t.Context(), []index.RetentionRule{event})
	wantError(t, "with an old member", err, api.ErrLevel)
	r.level = raftfsm.LevelRetention
	want := func(version uint64, rules ...index.RetentionRule) {
		t.Helper()
		p, err := s.Retention(t.Context())
		if err != nil || p.Version != version || fmt.Sprint(p.Rules) != fmt.Sprint(rules) {
			t.Errorf("policy %+v, %v; want version %d, %v", p, err, version, rules)
		}
	}
	want(0)
	if _, err := s.SetRetention(t.Context(), []index.RetentionRule{hold, event, acme}); err != nil {
		t.Fatal(err)
	}
	want(1, event, acme, hold)
	if _, err := s.SetIndexMode(t.Context(), index.ModeReadOnly); err != nil { // another setting
		t.Fatal(err)
	}
	want(1, event, acme, hold)
	event.Age = 0
	if _, err := s.SetRetention(t.Context(), []index.RetentionRule{event}); err != nil {
		t.Fatal(err)
	}
	want(3, event, acme, hold)
	for _, names := range [][]string{{"gamma/*"}, {""}, {"acme/*", "acme/*"}, {"acme/*", "nobody/hold"}} {
		_, err := s.RemoveRetention(t.Context(), names)
		wantError(t, fmt.Sprint(names), err, index.ErrRetention)
	}
	_, err = s.SetRetention(t.Context(), []index.RetentionRule{{Age: time.Second}})
	wantError(t, "too short", err, index.ErrRetention)
	if _, err := s.RemoveRetention(t.Context(), []string{"beta/hold"}); err != nil {
		t.Fatal(err)
	}
	want(4, event, acme)
	r.meta.Restart()
	s = r.service()
	want(4, event, acme)
	if m, err := s.IndexMode(t.Context()); err != nil || m != index.ModeReadOnly {
		t.Errorf("mode %v, %v", m, err)
	}
}
