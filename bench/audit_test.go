package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// simulate lets batches pass through an exact bucket of the rate and burst given, seen by callers
// that ask a while before and hear a while after.
func simulate(rate, burst float64, batches int) *admissions {
	random := rand.New(rand.NewPCG(1, 2))
	l := &admissions{}
	level, now := burst, 0.0
	for range batches {
		step := random.Float64() * 0.01
		now += step
		level = min(burst, level+rate*step)
		n := min(int64(level), int64(random.IntN(50)))
		if n == 0 {
			continue
		}
		level -= float64(n)
		at := func(d float64) time.Duration { return time.Duration((now + d) * float64(time.Second)) }
		l.all = append(l.all, admission{at(-0.02 * random.Float64()), at(0.02 * random.Float64()), n})
	}
	return l
}

// The audit finds nothing where a bucket was kept, however late callers learn of it, and finds a
// bucket that lets more pass.
func TestExcess(t *testing.T) {
	if over := simulate(1000, 100, 5000).excess(1000, 100); over > 0 {
		t.Errorf("an exact bucket admits %v tokens too many", over)
	}
	if over := simulate(1000, 400, 5000).excess(1000, 100); over < 100 {
		t.Errorf("a burst of 400 instead of 100 is only %v tokens too many", over)
	}
	if over := simulate(1100, 100, 5000).excess(1000, 100); over < 100 {
		t.Errorf("a rate of 1100 instead of 1000 is only %v tokens too many", over)
	}
	if over := (&admissions{}).excess(1, 1); over != 0 {
		t.Errorf("nothing is %v tokens too many", over)
	}
}

// What is admitted counts for its key and its tenant; what failed counts for neither.
func TestAuditNotes(t *testing.T) {
	a := newAudit(2, 1)
	ranks := []uint32{0, 0, 1, limitedTenants, 5, 0}
	answers := []client.Answer{{Allow: true}, {LimitID: keyLimit}, {Allow: true}, {Allow: true}, {Allow: true}, {Err: &client.Error{}}}
	a.note(ranks, answers, 1, 2)
	b := newAudit(2, 1)
	b.note(ranks, answers, 3, 4)
	a.join(b)
	if k := a.byKey[0]; k.denied != 2 || k.since != 2 || len(k.all) != 2 || k.all[1] != (admission{3, 4, 1}) {
		t.Errorf("key 0: %+v", k)
	}
	if tenant := a.byTenant[0]; tenant.denied != 0 || tenant.all[0].n != 2 || a.failed != 2 {
		t.Errorf("tenant 0: %+v, %d failed", tenant, a.failed)
	}
}
