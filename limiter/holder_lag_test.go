package limiter

import (
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A replica that lags learns neither of what was given back nor of other limits. What its node remembers of denials ends by
// itself: after denialMax, however long the leader's advice was, and after scarceMin where leases were in the way; and at
// once when it is known that the replica lags, or once it has caught up with other limits.
func TestALaggingReplicaDeniesFromMemoryForASecondAtMost(t *testing.T) {
	limits := []Limit{windowed("w", "acme", 1000, "1h")}
	g := newMachineGroup(t, limits...)
	now := int64(time.Hour)
	table := newHolderTable(1, 1, func() int64 { return now }, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: g.published()})
	r := Request{Tenant: "acme", Cost: 1000}
	answer := func() heldAnswer {
		c := heldCheck{request: &r, decision: &Decision{}, only: true}
		table.check(&c)
		return c.answer
	}
	denied := func(version uint32, lent bool) {
		table.deny(&r, &Decision{Reason: ReasonLimited, LimitID: "w", Kind: KindWindow, RetryAfterMs: 3_600_000, Version: version}, now, lent)
	}
	for _, c := range []struct {
		lent bool
		most time.Duration
	}{{false, denialMax}, {true, scarceMin}} {
		denied(1, c.lent)
		began := now
		if now = began + int64(c.most) - 1; answer() != heldDenied {
			t.Errorf("leases in the way %v: not remembered for %v", c.lent, c.most)
		}
		if now = began + int64(c.most); answer() != heldNot {
			t.Errorf("leases in the way %v: still denied after %v", c.lent, c.most)
		}
	}
	// The leader has other limits already: what it says is not kept beside those that are known here.
	if denied(2, false); answer() != heldNot {
		t.Error("a denial by limits that are not known here is remembered")
	}
	denied(1, false)
	table.groups[testGroup].shut.Store(true)
	if answer() != heldNot {
		t.Error("denied although the replica is known to lag")
	}
	table.groups[testGroup].shut.Store(false)
	if answer() != heldDenied {
		t.Error("forgotten although the replica follows")
	}
	limits[0].Window.Limit = 2000
	g.configure(2_000_000, limits...)
	if answer() != heldNot {
		t.Error("denied by limits of before")
	}
}
