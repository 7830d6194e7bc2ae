package limiter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// In runs with global limits every check is one of these alone, and what a tenant's limits say of it is
// drawn, and known only a while later: it passes, is denied, or its node has died meanwhile. What passes
// counts at the moment when its tokens were taken.

// simPending is a check whose tokens are pending.
type simPending struct {
	request Request
	at      int64 // when they were taken
	check   heldCheck
	// epochs are those from which they were taken.
	epochs []simEpoch
}

func (h *simHolder) askGlobally(r Request, asked uint64, tries int) {
	p := &simPending{request: r}
	p.check = heldCheck{request: &p.request, decision: &Decision{}, holds: true, asked: asked}
	h.table.check(&p.check)
	switch p.check.answer {
	case heldSpent:
		h.stats.local++
		p.at = h.sim.now
		h.pend(p)
		h.after(h.deciding(), func() { h.settle(p) })
	case heldDenied:
		h.stats.denied++
	case heldLacks:
		if tries < waitsMax {
			h.waiting = append(h.waiting, simWaiter{p.check.batch, func() { h.askGlobally(r, p.check.asked, tries+1) }})
			break
		}
		h.centralGlobally(r, true)
	default:
		h.centralGlobally(r, true)
	}
	h.pump()
}

// deciding is how long a tenant's group takes.
func (h *simHolder) deciding() time.Duration {
	if h.chance(10) {
		return h.between(0, 2*time.Second)
	}
	return h.between(0, 5*time.Millisecond)
}

// pend notes what a check took, which must be lent beside all that was spent or is pending.
func (h *simHolder) pend(p *simPending) {
	for i := 0; ; i++ {
		l := p.check.route.lease(i)
		if l == nil {
			return
		}
		key := simEpoch{simCounter{l.limit.uid, globalTenant, l.subject}, h.table.holder, l.epoch}
		p.epochs = append(p.epochs, key)
		h.pending[key] += uint64(p.request.Cost)
		if granted := h.group.lent(h.groupTime(), key); h.spent[key]+h.pending[key] > granted && h.lost == nil {
			h.lost = fmt.Errorf("at %d: holder %d has spent %d of limit %d in epoch %d, and %d are pending; it was lent %d",
				h.sim.now, h.table.holder, h.spent[key], l.limit.uid, l.epoch, h.pending[key], granted)
		}
	}
}

// settle ends a pending check as its tenant's limits have decided.
func (h *simHolder) settle(p *simPending) {
	if h.dead {
		return
	}
	keep := h.random.IntN(3) > 0
	if keep {
		h.passedAt(p.request, p.at)
	}
	for _, key := range p.epochs {
		h.pending[key] -= uint64(p.request.Cost)
		if keep {
			h.spent[key] += uint64(p.request.Cost)
		}
	}
	g := &globalPart{held: p.check}
	told := keep
	switch h.flaw {
	case flawSettlesOldEpoch:
		g.held.epochs = math.MaxUint64
	case flawPassedGoesBack:
		told = false
	}
	h.table.settle([]*globalPart{g}, func(*globalPart) bool { return told })
	h.pump()
}

// centralGlobally lets the group take tokens under an id, by which they are refunded if the tenant denies.
func (h *simHolder) centralGlobally(r Request, again bool) {
	sent, id := h.local(), holdID{}
	for i := range id {
		id[i] = byte(h.random.Uint32())
	}
	h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
		res := h.group.apply(h.groupTime(), appendRecallingCheck(nil, r, id))
		at := h.sim.now
		h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
			switch d := res.decision; {
			case h.dead:
			case d.Allow:
				h.after(h.deciding(), func() { h.settleCentrally(r, id, at) })
			case len(res.recalls) > 0 && again:
				h.recall(r.Tenant, res.recalls)
				h.after(10*time.Millisecond, func() { h.centralGlobally(r, false) })
			default:
				h.stats.denied++
				h.table.deny(&r, &d, sent, len(res.recalls) > 0)
			}
		})
	})
}

func (h *simHolder) settleCentrally(r Request, id holdID, at int64) {
	switch {
	case h.dead:
	case h.random.IntN(3) > 0:
		h.passedAt(r, at)
	case !h.chance(h.plan.loss):
		refund := appendHold(nil, opRefund, holdCommand{Request: Request{Tenant: globalTenant}, id: id})
		for range 1 + boolInt(h.chance(10)) { // it may come twice
			h.after(h.between(300*time.Microsecond, 3*time.Millisecond), func() {
				h.group.apply(h.groupTime(), refund)
				h.table.forget(globalTenant)
			})
		}
	}
}

// simGlobalPlanOf makes the limits of a plan global, and some of them so small that they are lent to one check
// at a time.
func simGlobalPlanOf(seed uint64) simPlan {
	p, random := simPlanOf(seed), rand.New(rand.NewPCG(seed, 2))
	p.globals = true
	small := random.IntN(3) == 0
	for _, limits := range [][]Limit{p.limits, p.changed} {
		for i := range limits {
			l := &limits[i]
			l.Scope, l.Selector = ScopeGlobal, anyTenant
			if small && l.hasBucket() {
				l.TokenBucket.Burst = 5 + random.Uint32N(25)
			} else if small {
				l.Window.Limit = 5 + random.Uint32N(60)
			}
		}
	}
	return p
}

// Whatever fails, no more passes than global limits allow, and what is reported has passed.
func TestGlobalLeasesNeverExceedTheirLimits(t *testing.T) {
	var allowed, local int
	seeds := uint64(500)
	if raceDetector {
		seeds = 50
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		s := newSim(t, seed, simGlobalPlanOf(seed), flawNone)
		s.run()
		if err := s.judge(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		allowed += s.stats.allowed
		local += s.stats.local
	}
	t.Logf("%d checks passed; %d took tokens of leases", allowed, local)
}

// The checker sees these bugs of pending tokens.
func TestGlobalSimulationCatchesMutants(t *testing.T) {
	for _, c := range []struct {
		name string
		flaw simFlaw
	}{
		{"what was taken in an epoch that is over is settled in the next", flawSettlesOldEpoch},
		{"what has passed goes back", flawPassedGoesBack},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= 300; seed++ {
				s := newSim(t, seed, simGlobalPlanOf(seed), c.flaw)
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
