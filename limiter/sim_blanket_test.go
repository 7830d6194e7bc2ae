package limiter

import (
	"math/rand/v2"
	"testing"
	"time"
)

// covers is what the holder's replica says, which is late by up to 300 ms, at each question by another time.
func (h *simHolder) covers(limit uint64, holder Holder, epoch uint64, key []byte) bool {
	asOf := h.sim.now - int64(h.between(0, 300*time.Millisecond))
	lent, ok := h.lentAt[blanketCommand{holder, limit, epoch}]
	if !ok || lent > asOf && h.flaw != flawAdoptsUnseenBlanket {
		return false
	}
	born, ok := h.born[string(key)]
	return !ok || born > asOf || h.flaw == flawAdoptsAnyCounter
}

// noteRows notes which counters of all limits have rows now.
func (s *sim) noteRows(tenant string, subjects ...string) {
	m := s.group.Machine().(*Machine)
	for uid := range m.set.byUID { // any order
		for _, subject := range subjects {
			key := string(appendCounterKey(nil, uid, tenant, subject))
			if _, ok := s.born[key]; ok {
				continue
			}
			if _, err := m.store.Get([]byte(key)); err == nil {
				s.born[key] = s.now
			}
		}
	}
}

// askBlanket asks for blankets of all limits again and again, through a network that loses messages.
func (h *simHolder) askBlanket() {
	if h.dead {
		return
	}
	for uid := uint64(1); uid <= uint64(len(h.plan.limits)); uid++ {
		c := blanketCommand{holder: h.table.holder, limit: uid, epoch: h.table.newEpoch()}
		sent := h.local()
		for range 1 + boolInt(h.chance(5)) {
			if h.chance(h.plan.loss) {
				continue
			}
			h.after(h.between(0, 100*time.Millisecond), func() {
				g := h.group.apply(h.groupTime(), appendBlanket(nil, c)).blanket
				if _, known := h.lentAt[c]; !known && g.tokens > 0 {
					h.lentAt[c] = h.sim.now
				}
				h.after(h.between(0, 100*time.Millisecond), func() {
					h.table.groups[testGroup].blanketsOf(uid).asked(c.epoch, &g, sent, h.local())
				})
			})
		}
	}
	h.after(h.between(300*time.Millisecond, 2*time.Second), h.askBlanket)
}

// forgetAdopted is a bug: what was opened by a blanket is opened again.
func (h *simHolder) forgetAdopted() {
	for i := range h.table.shards {
		for class := range h.table.shards[i].leases {
			for _, l := range h.table.shards[i].leases[class].slots {
				if l != nil && l.silent && h.random.IntN(10) == 0 {
					l.end()
					l.adopted = 0
				}
			}
		}
	}
}

// blanketPlanOf draws a plan in which keys are exhausted that nobody had asked for a moment before.
func blanketPlanOf(seed uint64) simPlan {
	random := rand.New(rand.NewPCG(seed, 3))
	bucket := func() Limit {
		return limit("b", ScopeKey, "acme/*", []string{"250/s", "1000/s"}[random.IntN(2)], blanketBurstMin+random.Uint32N(3000))
	}
	p := simPlan{
		limits: []Limit{bucket()}, holders: 2 + random.IntN(3), demand: 50 << random.IntN(3), cost: 200, lasts: 4 * time.Second, blankets: true,
		faults: true, loss: []int{0, 5, 20}[random.IntN(3)], slow: []int{2, 25}[random.IntN(2)],
	}
	if random.IntN(3) == 0 {
		p.changed = []Limit{bucket()}
	}
	return p
}

// What blankets lend is within the limits, whatever fails.
func TestBlanketsNeverExceedTheirLimits(t *testing.T) {
	seeds, allowed, adopted := uint64(500), 0, uint64(0)
	if raceDetector {
		seeds = 50
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run("", func(t *testing.T) {
			s := newSim(t, seed, blanketPlanOf(seed), flawNone)
			s.run()
			if err := s.judge(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			allowed += s.stats.allowed
			for _, h := range s.holders {
				sum, _ := h.table.sum()
				adopted += sum.adopted
			}
		})
	}
	t.Logf("%d checks passed, %d leases were opened by blankets", allowed, adopted)
	if adopted < seeds {
		t.Error("blankets were hardly used")
	}
}

func TestSimulationCatchesMutantsOfBlankets(t *testing.T) {
	for _, c := range []struct {
		name string
		flaw simFlaw
	}{
		{"a counter with a row is opened by a blanket", flawAdoptsAnyCounter},
		{"a blanket is used that the replica does not have yet", flawAdoptsUnseenBlanket},
		{"a lease that a blanket has opened is forgotten and opened again", flawForgetsAdopted},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				s := newSim(t, seed, blanketPlanOf(seed), c.flaw)
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
