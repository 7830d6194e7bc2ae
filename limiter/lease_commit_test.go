package limiter

import "testing"

// A grant that is answered before its entry is committed is lost with a leader; so is a decision that is served from
// entries that are not committed. The checker finds either.
func TestCheckerCatchesAnswersBeforeTheirCommit(t *testing.T) {
	window := windowed("a", "acme", 100, "1600ms")
	bucket := limit("a", ScopeTenant, "acme", "100/s", 100)
	for _, l := range []Limit{window, bucket} {
		for _, lost := range []bool{false, true} {
			flaw := leaseFlaw{}
			if lost {
				flaw.after = func(_ *limitState, was, c *counter, _ Holder, r Renewal, _ *Grant) {
					if r.Want > 0 {
						*c = *was // what the next leader knows
					}
				}
			}
			group := &mutant{leasedMachine(t, limit("a", ScopeTenant, "acme", "1/s", 1)), flaw}
			h := historyOf(l, group)
			at := int64(1000)
			if g := group.renew(at, 1, Renewal{Epoch: 1, Seq: 1, Want: 60}); g.Granted > 0 {
				h.passed = append(h.passed, passed{at, int64(g.Granted)})
			}
			for range 100 {
				if ok, _ := group.check(at+1, Request{Tenant: "acme", Cost: 1}); ok {
					h.passed = append(h.passed, passed{at + 1, 1})
				}
			}
			if v := h.violation(); (v != "") != lost {
				t.Errorf("lost with the leader %v: found %q", lost, v)
			}
		}
	}
}
