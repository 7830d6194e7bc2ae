package limiter

import (
	"testing"
	"time"
)

// Each of these bugs admits more than a limit or reports what was not spent, and the checker must
// see it within some hundred runs.
func TestSimulationCatchesMutants(t *testing.T) {
	for _, c := range []struct {
		name string
		flaw simFlaw
	}{
		{"no second look at the deadline after the debit", flawNoRecheck},
		{"deadline from receipt", flawDeadlineFromReceipt},
		{"deadline from the latest resend", flawDeadlineFromResend},
		{"restart adopts the lease of its predecessor", flawAdoptsLease},
		{"refused renewal extends", flawRefusalExtends},
		{"provisional debits are reported", flawProvisionalReported},
		{"grant of an old epoch is accepted", flawOldEpoch},
		{"what comes later is spent at once", flawSpendsAhead},
		{"what comes later is awaited from the first sending", flawDelayFromSending},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				plan := simPlanOf(seed)
				if seed%5 == 0 { // without faults, at the limit all the time
					plan = simPlan{limits: []Limit{limit("a", ScopeTenant, "acme", "1000/s", 100)}, holders: 3, demand: 1000, cost: 1, lasts: 2 * time.Second}
				}
				s := newSim(t, seed, plan, c.flaw)
				s.run()
				if err := s.judge(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("not caught")
		})
	}
}
