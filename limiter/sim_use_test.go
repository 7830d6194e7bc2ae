package limiter

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// A seed replays exactly.
func TestSimulationReplays(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		var first *sim
		for range 2 {
			s := newSim(t, seed, simPlanOf(seed), flawNone)
			s.run()
			if first == nil {
				first = s
				continue
			}
			if s.now != first.now || s.stats != first.stats || !reflect.DeepEqual(s.taken, first.taken) {
				t.Errorf("seed %d: %+v, then %+v", seed, first.stats, s.stats)
			}
		}
	}
}

// Without faults, and with more demand than the limit, at least 97 % of it is used.
func TestLeasesUseTheirLimits(t *testing.T) {
	bucket := func(rate string, burst uint32) Limit { return limit("a", ScopeTenant, "acme", rate, burst) }
	for _, c := range []struct {
		name string
		plan simPlan
	}{
		{"a bucket", simPlan{limits: []Limit{bucket("1000/s", 100)}, holders: 3, demand: 1000, cost: 1}},
		{"a bucket and one holder", simPlan{limits: []Limit{bucket("1000/s", 100)}, holders: 1, demand: 3000, cost: 1}},
		{"a little more than a bucket has", simPlan{limits: []Limit{bucket("1000/s", 100)}, holders: 3, demand: 380, cost: 1}},
		{"a bucket and many holders", simPlan{limits: []Limit{bucket("300/s", 60)}, holders: 8, demand: 100, cost: 1}},
		{"costs of several tokens", simPlan{limits: []Limit{bucket("1000/s", 200)}, holders: 3, demand: 400, cost: 5}},
		{"a large bucket", simPlan{limits: []Limit{bucket("1000/s", 2000)}, holders: 3, demand: 800, cost: 1, lasts: 10 * time.Second}},
		{"a window", simPlan{limits: []Limit{windowed("w", "acme", 2000, "2s")}, holders: 3, demand: 1000, cost: 1, lasts: 10 * time.Second}},
		{"demand that comes and goes", simPlan{limits: []Limit{bucket("300/s", 60)}, holders: 6, demand: 300, cost: 1, breaks: time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.plan.lasts == 0 {
				c.plan.lasts = 5 * time.Second
			}
			s := newSim(t, 1, c.plan, flawNone)
			s.run()
			if err := s.judge(); err != nil {
				t.Fatal(err)
			}
			used := float64(0)
			for _, p := range s.taken[simCounter{1, "acme", ""}] {
				used += float64(p.cost)
			}
			l := c.plan.limits[0]
			can := float64(0)
			if l.hasBucket() {
				rate, _ := perMicro(l).Float64()
				can = float64(l.TokenBucket.Burst) + rate*float64(c.plan.lasts.Microseconds())
			} else {
				can = float64(l.Window.Limit) * float64(c.plan.lasts.Microseconds()) / float64(microsOf(l.Window.Length))
			}
			t.Logf("%.3f of what the limit allows, %+v", used/can, s.stats)
			if used < 0.97*can {
				t.Errorf("%s used of %.0f", fmt.Sprint(used), can)
			}
		})
	}
}
