package meta

import (
	"reflect"
	"testing"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// A restored region has the old one's limits and tokens beside its own tokens, is still itself,
// and its limiter groups take the next change, though they knew a later version than this region
// had.
func TestRestoredMetaAnswersTheSame(t *testing.T) {
	old := newRegion(t, regionRules)
	s := old.service()
	check(t, s.EnsureSettings(t.Context(), "old-cluster", "us-west"))
	token := func(s *Service, tenant string) (string, api.Token) {
		t.Helper()
		secret, made, err := s.CreateToken(t.Context(), api.Token{Tenant: tenant, Role: api.RoleRunner})
		check(t, err)
		return secret, made
	}
	good, _ := token(s, "acme")
	ended, endedToken := token(s, "acme")
	check(t, s.RevokeToken(t.Context(), endedToken.ID))
	for i := range uint32(4) {
		_, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("a", "acme", 10+i), limit("gone", "*", 1+i)}, "")
		check(t, err)
	}
	_, err := s.DeleteLimits(t.Context(), "*", []string{"gone"}, "")
	check(t, err)

	now := newRegion(t, regionRules)
	check(t, now.service().EnsureSettings(t.Context(), "new-cluster", "us-east"))
	own, _ := token(now.service(), "*")
	for _, g := range []raftfsm.GroupID{limitGroup, otherGroup} {
		check(t, now.groups[g].Restore(old.groups[g].Backup(2)...))
	}
	// Groups that are ahead do not have the region's limits.
	if err := now.service().PushLimits(t.Context(), limitGroup); err == nil {
		t.Error("a group ahead of meta has been brought to its limits")
	}
	begin := raftfsm.RestoreStep{Op: raftfsm.RestoreBegin, Backup: raftfsm.BackupID{1}}
	_, err = raftfsm.DecodeRestoreResult(now.meta.Propose(begin.Command())[0].Data)
	check(t, err)
	_, err = now.service().SetLimits(t.Context(), "*", []limiter.Limit{limit("b", "acme", 1)}, "once")
	wantError(t, "limits meanwhile", err, raftfsm.ErrRestoring)
	check(t, now.meta.Restore(old.meta.Backup(2)...))
	for range 2 {
		s := now.service()
		for _, secret := range []string{good, own} {
			if _, err := s.Authenticate(t.Context(), secret); err != nil {
				t.Errorf("a good token: %v", err)
			}
		}
		_, err := s.Authenticate(t.Context(), ended)
		wantError(t, "a revoked token", err, api.ErrTokenRevoked)
		want, version, _ := old.service().ListLimits(t.Context())
		if got, v, err := s.ListLimits(t.Context()); err != nil || v <= version || !reflect.DeepEqual(got, want) {
			t.Errorf("limits %v of version %d, %v; want %v above version %d", got, v, err, want, version)
		}
		if got, ok := s.Settings(); !ok || got.ClusterID != "new-cluster" {
			t.Errorf("settings %+v", got)
		}
		now.meta.Restart()
	}
	s = now.service()
	check(t, s.PushLimits(t.Context(), limitGroup))
	if c, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("a", "acme", 99)}, ""); err != nil || !c.InForce || now.version(limitGroup) != c.Version {
		t.Errorf("the next change: %+v %v, the group is at %d", c, err, now.version(limitGroup))
	}
	token(s, "acme")
	it, err := now.meta.Machine().(*Machine).store.NewIter([]byte{spaceStaged}, []byte{spaceStaged + 1})
	check(t, err)
	if it.First() {
		t.Errorf("the row %x is left aside", it.Key())
	}
	check(t, it.Close())
}

func TestRestoreOfMetaRefuses(t *testing.T) {
	old := newRegion(t, regionRules)
	_, err := old.service().SetLimits(t.Context(), "*", []limiter.Limit{limit("a", "*", 1)}, "")
	check(t, err)
	chunks := old.meta.Backup(10)
	wantError(t, "a region with limits", old.meta.Restore(chunks...), raftfsm.ErrNotEmpty)
	rec := appendRecord(nil, record{key: "x", value: []byte("?"), version: 1, tableVersion: 1})
	for what, row := range map[string][]byte{
		"a member":         raftfsm.AppendRow(nil, recordKey(tableNodes, "x"), rec),
		"a bad limit":      raftfsm.AppendRow(nil, recordKey(tableLimits, "x"), rec),
		"an index":         raftfsm.AppendRow(nil, changeKey(spaceChange, tableLimits, 1, "x"), nil),
		"a bad counter":    raftfsm.AppendRow(nil, []byte{spaceTable, byte(tableLimits)}, nil),
		"nothing readable": {1},
	} {
		wantError(t, what, newRegion(t, regionRules).meta.Restore(row), raftfsm.ErrRestoreRefused)
	}
}
