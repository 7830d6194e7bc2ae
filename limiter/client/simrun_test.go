package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/limiter"
)

func simBucket(id, scope, selector, rate string, burst uint32) limiter.Limit {
	return limiter.Limit{ID: id, Scope: scope, Selector: selector, TokenBucket: limiter.TokenBucket{Rate: rate, Burst: burst}}
}

// simPlanOf draws a plan with every fault.
func simPlanOf(seed uint64) simPlan {
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	bucket := func(id, scope, selector string) limiter.Limit {
		return simBucket(id, scope, selector, pick("100/s", "250/s", "1000/s"), 32+random.Uint32N(40<<random.IntN(3)))
	}
	p := simPlan{
		clients: 1 + random.IntN(4), demand: 25 << random.IntN(6), cost: 1 + random.Uint32N(4), keys: 1 + random.IntN(3), lasts: 4 * time.Second,
		gaps:   time.Duration(random.IntN(3)) * 400 * time.Millisecond,
		faults: true, breaks: []int{0, 3, 3, 15}[random.IntN(4)], slow: []int{2, 5, 25}[random.IntN(3)], named: []int{0, 0, 10}[random.IntN(3)], open: random.IntN(3) == 0,
	}
	p.limits = append(p.limits, bucket("a", limiter.ScopeTenant, simTenant))
	if random.IntN(2) == 0 {
		p.limits = append(p.limits, bucket("b", limiter.ScopeKey, simTenant+"/*"))
	}
	if random.IntN(2) == 0 {
		p.limits = append(p.limits, limiter.Limit{ID: "w", Scope: limiter.ScopeTenant, Selector: simTenant, Window: limiter.Window{Limit: 100 + random.Uint32N(400), Length: pick("2s", "4s")}})
	}
	if random.IntN(3) == 0 {
		for _, l := range p.limits {
			if l.TokenBucket.Rate != "" {
				l.TokenBucket = limiter.TokenBucket{Rate: pick("100/s", "250/s", "1000/s"), Burst: 40 + random.Uint32N(200)}
			} else {
				l.Window.Limit = 100 + random.Uint32N(400)
			}
			p.changed = append(p.changed, l)
		}
	}
	return p
}

// Whatever fails, no more passes than the limits allow, what is reported was spent, retries get the first decision, and once
// all is quiet the advice is exact.
func TestClientLeasesNeverExceedTheirLimits(t *testing.T) {
	var sum simStats
	seeds := uint64(1000)
	if testing.Short() || raceDetector {
		seeds = 100
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run("", func(t *testing.T) {
			s := newSim(t, seed, simPlanOf(seed), flawNone)
			defer s.close()
			s.run()
			if err := s.judge(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if err := s.adviseAtTheEnd(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			sum.local += s.stats.local
			sum.asked += s.stats.asked
			sum.denied += s.stats.denied
			sum.failed += s.stats.failed
			sum.crashes += s.stats.crashes
		})
	}
	t.Logf("%+v", sum)
}

// adviseAtTheEnd exhausts the limits once nobody asks any more, whatever silent clients still hold, and tells whether the
// advice is exact: denied a millisecond before it, allowed at it.
func (s *sim) adviseAtTheEnd() error {
	s.over = true
	s.stamp, s.from, s.rate = max(s.groupTime(), s.driver.Time.Microseconds()), s.now.Load(), 1
	for i, c := range s.clients {
		if i%2 == 0 {
			c.dead = true // and what it holds is missing until its leases end
			continue
		}
		c.table.giveAllBack()
		c.pump()
	}
	s.play(50 * time.Millisecond)
	s.stamp = max(s.groupTime(), s.driver.Time.Microseconds())
	pass := func(ms uint32) { // by a leader's clock that is right, but for the thousandth by which group time is slower
		s.now.Add(int64(ms) * int64(time.Millisecond))
		s.stamp, s.from = s.stamp+999*int64(ms), s.now.Load()
	}
	pass(0)
	ask := func(cost uint32) (limiter.Decision, error) {
		return s.asker.Check(context.Background(), limiter.Request{Tenant: simTenant, Key: "k0", Cost: cost})
	}
	for cost := uint32(1); cost <= 16; cost *= 4 {
		d, err := ask(cost)
		for ; err == nil && d.Allow; d, err = ask(cost) {
			s.pass(&Request{Key: "k0", Cost: cost})
		}
		if err != nil {
			return err
		}
		if d.RetryAfterMs == 0 {
			return fmt.Errorf("no advice: %+v", d)
		}
		pass(d.RetryAfterMs - 1)
		if early, err := ask(cost); err != nil || early.Allow {
			return fmt.Errorf("passes a millisecond before the advice of %d ms for cost %d: %+v, %w", d.RetryAfterMs, cost, early, err)
		}
		pass(1)
		late, err := ask(cost)
		if err != nil || !late.Allow {
			return fmt.Errorf("denied at the advice of %d ms for cost %d: %+v, %w", d.RetryAfterMs, cost, late, err)
		}
		s.pass(&Request{Key: "k0", Cost: cost})
	}
	return s.judge()
}

// A seed replays exactly.
func TestClientSimulationReplays(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		var first *sim
		for range 2 {
			s := newSim(t, seed, simPlanOf(seed), flawNone)
			s.run()
			s.close()
			if first == nil {
				first = s
				continue
			}
			if s.now.Load() != first.now.Load() || s.stats != first.stats || !reflect.DeepEqual(s.passed, first.passed) {
				t.Errorf("seed %d: %+v, then %+v", seed, first.stats, s.stats)
			}
		}
	}
}

// Without faults, and with more demand than the limit, at least 97 % of it is used by clients, and a node that has asked
// them for what they hold denies nothing that has room.
func TestClientLeasesUseTheirLimits(t *testing.T) {
	window := func(most uint32, length string) limiter.Limit {
		return limiter.Limit{ID: "a", Scope: limiter.ScopeTenant, Selector: simTenant, Window: limiter.Window{Limit: most, Length: length}}
	}
	bucket := func(rate string, burst uint32) limiter.Limit {
		return simBucket("a", limiter.ScopeTenant, simTenant, rate, burst)
	}
	for _, c := range []struct {
		name string
		plan simPlan
	}{
		{"a bucket", simPlan{limits: []limiter.Limit{bucket("1000/s", 100)}, clients: 3, demand: 1000, cost: 1}},
		{"one client", simPlan{limits: []limiter.Limit{bucket("1000/s", 100)}, clients: 1, demand: 3000, cost: 1}},
		{"many clients", simPlan{limits: []limiter.Limit{bucket("250/s", 60)}, clients: 8, demand: 100, cost: 1}},
		{"a large bucket", simPlan{limits: []limiter.Limit{bucket("1000/s", 2000)}, clients: 3, demand: 800, cost: 1, lasts: 10 * time.Second}},
		{"a window", simPlan{limits: []limiter.Limit{window(2000, "2s")}, clients: 3, demand: 1000, cost: 1, lasts: 10 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.plan.keys = 1
			if c.plan.lasts == 0 {
				c.plan.lasts = 5 * time.Second
			}
			s := newSim(t, 1, c.plan, flawNone)
			defer s.close()
			s.run()
			if err := s.judge(); err != nil {
				t.Fatal(err)
			}
			l, used, can := c.plan.limits[0], int64(0), float64(0)
			for _, p := range s.passed[simCounter{limit: "a"}] {
				used += p.cost
			}
			if l.TokenBucket.Rate != "" {
				can = float64(l.TokenBucket.Burst) + float64(c.plan.lasts)/float64(nanosPerToken(l))
			} else {
				can = float64(l.Window.Limit) * float64(c.plan.lasts) / float64(2*time.Second)
			}
			// What a bucket does not fill while tokens are lent may be missing at any moment, not only at the end.
			n, first := s.falseDenials(func(d simDenial) int64 {
				if l.TokenBucket.Rate == "" {
					return int64(l.Window.Limit) * 3 / 100
				}
				return (int64(l.TokenBucket.Burst) + (d.at-int64(time.Second))/nanosPerToken(l)) * 3 / 100
			})
			t.Logf("%.3f of what the limit allows, %+v; %d of %d denials false: %s", float64(used)/can, s.stats, n, len(s.denials), first)
			if float64(used) < 0.97*can {
				t.Errorf("%d used of %.0f", used, can)
			}
			if n > 0 {
				t.Errorf("%d of %d denials of checks that had room: %s", n, len(s.denials), first)
			}
		})
	}
}
