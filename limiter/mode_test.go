package limiter

import (
	"testing"
	"time"
)

// In the mode shadow nothing is denied, bans included; what each limit has room for is counted, and
// the levels say what they would have denied.
func TestShadowModeDeniesNothingAndCounts(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("small", ScopeTenant, "acme", "1/d", 2), windowed("large", "acme", 5, "1h"),
		Limit{ID: "ban", Scope: ScopeTenant, Selector: "globex", Access: AccessBanned})
	s, mode := d.service(), ModeShadow
	s.FollowMode(func() Mode { return mode })
	for i := range 4 {
		got, err := s.Check(t.Context(), Request{Tenant: "acme", Cost: 1})
		if err != nil || !got.Allow || got.Mode != ModeShadow || got.WouldDeny() != (i >= 2) || got.Reason != "" || got.RetryAfterMs != 0 {
			t.Fatalf("check %d: %v, %v", i+1, got, err)
		}
	}
	batch, err := s.CheckBatch(t.Context(), []Request{{Tenant: "acme", Cost: 1}, {Tenant: "globex", Cost: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range batch {
		if o.Err != nil || !o.Decision.Allow || !o.Decision.WouldDeny() {
			t.Errorf("check %d of the batch: %v, %v", i, o.Decision, o.Err)
		}
	}
	if got, err := s.Peek(t.Context(), Request{Tenant: "acme", Cost: 1}); err != nil || !got.Allow || !got.WouldDeny() {
		t.Errorf("peek: %v, %v", got, err)
	}
	mode = ModeEnforce
	got, err := s.Check(t.Context(), Request{Tenant: "acme", Cost: 1})
	const want = `deny limited by small, retry after 86486487 ms
large window (tenant): 0 of 5 left
small (tenant): 0 of 2 left`
	if err != nil || got.String() != want {
		t.Errorf("enforced again: %v, %v", got, err)
	}
}

// A retry of what was denied before limits ceased to be enforced passes; in one mode it has one answer.
func TestRememberedDenialDoesNotOutliveEnforcement(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("none", ScopeTenant, "acme", "1/d", 0))
	s, mode := d.service(), ModeEnforce
	s.FollowMode(func() Mode { return mode })
	r := Request{Tenant: "acme", Cost: 1, RequestID: "r"}
	if got, err := s.Check(t.Context(), r); err != nil || got.Allow {
		t.Fatalf("enforced: %v, %v", got, err)
	}
	mode = ModeShadow
	got, err := s.Check(t.Context(), r)
	again, errAgain := s.Check(t.Context(), r)
	if err != nil || errAgain != nil || !got.Allow || !got.WouldDeny() || again.String() != got.String() {
		t.Errorf("in shadow: %v, %v; again: %v, %v", got, err, again, errAgain)
	}
}

// With the mode off, checks reach no group and nothing is counted; what is malformed still is, and a
// peek shows what is used.
func TestOffModeAsksNobody(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("one", ScopeTenant, "acme", "1/d", 1))
	d.check(0, Request{Tenant: "acme", Cost: 1})
	before := d.StateHash()
	s := d.service()
	s.groups = readOnly{d}
	s.FollowMode(func() Mode { return ModeOff })
	if got, err := s.Check(t.Context(), Request{Tenant: "acme", Cost: 9}); err != nil || !got.Allow || got.Mode != ModeOff || got.Levels != nil {
		t.Errorf("check: %v, %v", got, err)
	}
	if got, err := s.CheckBatch(t.Context(), []Request{{Tenant: "acme", Cost: 9}}); err != nil || got[0].Err != nil || !got[0].Decision.Allow {
		t.Errorf("batch: %v, %v", got, err)
	}
	if got, err := s.CheckTogether(t.Context(), []Part{{Request: Request{Tenant: "acme", Cost: 9}}}); err != nil || !got[0].Allow {
		t.Errorf("together: %v, %v", got, err)
	}
	if _, err := s.Check(t.Context(), Request{Tenant: "Acme"}); err == nil {
		t.Error("a malformed check passed")
	}
	if got, err := s.Peek(t.Context(), Request{Tenant: "acme", Cost: 1}); err != nil || !got.Allow || !got.WouldDeny() || got.Levels[0].Used != 1 {
		t.Errorf("peek: %v, %v", got, err)
	}
	if d.StateHash() != before {
		t.Error("the state changed")
	}
}

// What a limit counts does not depend on whether it, or the mode, makes it a shadow.
func TestShadowModeCountsLikeShadows(t *testing.T) {
	watched, shadows := drive(t, 8), drive(t, 8)
	a, b := limit("a", ScopeTenant, "acme", "1/s", 3), windowed("b", "acme", 4, "10s")
	watched.set(a, b)
	a.Enforcement, b.Enforcement = EnforcementShadow, EnforcementShadow
	shadows.set(a, b)
	s := watched.service()
	s.FollowMode(func() Mode { return ModeShadow })
	for i := range 20 {
		r, at := Request{Tenant: "acme", Cost: uint32(i % 3)}, time.Duration(i)*300*time.Millisecond
		want := shadows.check(at, r)
		watched.Time = at
		watched.Apply([]byte{codecFirst, opSweep}) // what takes nothing is as of the last entry
		got, err := s.Check(t.Context(), r)
		if got.Version = want.Version; err != nil || got.String() != want.String() {
			t.Fatalf("check %d: %v, %v\nwant %v", i, got, err, want)
		}
	}
}

// Reservations and slots are known in every mode, so that they can be ended; nothing is denied but where
// limits are enforced.
func TestModesOfWhatIsHeld(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("none", ScopeTenant, "acme", "1/d", 0), running("slots", 0))
	s, mode := d.service(), ModeEnforce
	s.FollowMode(func() Mode { return mode })
	r := Request{Tenant: "acme", Cost: 1, RequestID: "r"}
	for _, mode = range []Mode{ModeEnforce, ModeShadow, ModeOff} {
		reserved, err := s.Reserve(t.Context(), r, 0)
		if err != nil || reserved.Decision.Allow != (mode != ModeEnforce) {
			t.Fatalf("%v: reserved %+v, %v", mode, reserved, err)
		}
		acquired, err := s.Acquire(t.Context(), r, 0)
		if err != nil || acquired.Decision.Allow != (mode != ModeEnforce) {
			t.Fatalf("%v: acquired %+v, %v", mode, acquired, err)
		}
		if mode == ModeEnforce {
			continue
		}
		if _, err := s.Commit(t.Context(), "acme", reserved.ID, 1); err != nil {
			t.Errorf("%v: commit: %v", mode, err)
		}
		if held, err := s.Release(t.Context(), "acme", acquired.ID); err != nil || held != (mode == ModeShadow) {
			t.Errorf("%v: release: %v, %v", mode, held, err) // with the mode off it is the same slot, a retry
		}
	}
}
