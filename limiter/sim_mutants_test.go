package limiter

import "testing"

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
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				s := newSim(t, seed, simPlanOf(seed), c.flaw)
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
