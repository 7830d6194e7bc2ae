package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// audit is what one load was allowed, limit by limit, as its callers saw it. It knows nothing of
// how the limiter works: an admission happened at some time between the call and its answer.
type audit struct {
	keys, tenants int
	// byKey and byTenant are those of the first ranks, which are drawn most.
	byKey, byTenant []admissions
	failed          int // checks without a decision
	window          time.Duration
	// counts are of the batch at hand.
	counts []int32
	asked  []int32
}

// admissions are what one limit let pass.
type admissions struct {
	all []admission
	// offered and admitted are tokens.
	offered, admitted int64
}

// admission is n tokens of one batch.
type admission struct {
	asked, answered time.Duration
	n               int64
}

// auditedKeys and auditedTenants are the ranks that are looked at: the hottest, which alone can
// exceed their limits, and as many as the audit costs little.
const (
	auditedKeys    = 512
	auditedTenants = 64
)

func newAudit(keys, tenants int) *audit {
	return &audit{
		keys: keys, tenants: tenants, byKey: make([]admissions, keys), byTenant: make([]admissions, tenants),
		counts: make([]int32, keys+tenants), asked: make([]int32, keys+tenants),
	}
}

// note enters one batch.
func (a *audit) note(ranks []uint32, answers []client.Answer, asked, answered time.Duration) {
	clear(a.counts)
	clear(a.asked)
	for i, rank := range ranks {
		// What failed may have been admitted and is not known to be: it counts as neither.
		if answers[i].Err != nil {
			a.failed++
			continue
		}
		admitted := int32(0)
		if answers[i].Allow {
			admitted = 1
		}
		if int(rank) < a.keys {
			a.asked[rank]++
			a.counts[rank] += admitted
		}
		if tenant := int(rank % limitedTenants); tenant < a.tenants {
			a.asked[a.keys+tenant]++
			a.counts[a.keys+tenant] += admitted
		}
	}
	for i, n := range a.asked {
		if n == 0 {
			continue
		}
		of := &a.byKey
		place := i
		if i >= a.keys {
			of, place = &a.byTenant, i-a.keys
		}
		limit := &(*of)[place]
		limit.offered += int64(n)
		limit.admitted += int64(a.counts[i])
		if a.counts[i] > 0 {
			limit.all = append(limit.all, admission{asked, answered, int64(a.counts[i])})
		}
	}
}

// join adds what another worker saw.
func (a *audit) join(other *audit) {
	a.failed += other.failed
	for i := range a.byKey {
		a.byKey[i].join(&other.byKey[i])
	}
	for i := range a.byTenant {
		a.byTenant[i].join(&other.byTenant[i])
	}
}

func (l *admissions) join(other *admissions) {
	l.all = append(l.all, other.all...)
	l.offered += other.offered
	l.admitted += other.admitted
}

// utilisation is how much of what they admit was taken from limits that were asked for far more.
type utilisation struct {
	limits      int
	mean, least float64
}

// verdict is how many tokens too many passed, at the limit where they were most, and how much of
// the saturated limits was used. The limits may have been spent when the load began, so only what
// flows back counts as admissible for the utilisation.
func (a *audit) verdict() (over float64, use utilisation) {
	for _, of := range []struct {
		limits      []admissions
		rate, burst float64
	}{{a.byKey, keyRate, keyBurst}, {a.byTenant, tenantRate, tenantBurst}} {
		for i := range of.limits {
			l := &of.limits[i]
			over = max(over, l.excess(of.rate, of.burst))
			admissible := of.rate * a.window.Seconds()
			if float64(l.offered) < 2*(admissible+of.burst) {
				continue
			}
			part := min(float64(l.admitted)/admissible, 1)
			if use.limits++; use.limits == 1 || part < use.least {
				use.least = part
			}
			use.mean += (part - use.mean) / float64(use.limits)
		}
	}
	return over, use
}

// excess is how many tokens more passed than a bucket admits, in the interval in which they were
// most: at least those that were asked for and answered within it. For an interval from s to t
// these are what was answered by t without what was asked for before s; so one pass suffices.
func (l *admissions) excess(rate, burst float64) float64 {
	byAsked := l.all
	slices.SortFunc(byAsked, func(x, y admission) int { return cmp.Compare(x.asked, y.asked) })
	byAnswered := slices.Clone(byAsked)
	slices.SortFunc(byAnswered, func(x, y admission) int { return cmp.Compare(x.answered, y.answered) })
	var worst, asked, answered float64
	least := 0.0 // of (asked for before s) - rate*s over the beginnings s so far
	next := 0
	for _, end := range byAnswered {
		answered += float64(end.n)
		for ; next < len(byAsked) && byAsked[next].asked <= end.answered; next++ {
			before := asked - rate*byAsked[next].asked.Seconds()
			if next == 0 || before < least {
				least = before
			}
			asked += float64(byAsked[next].n)
		}
		worst = max(worst, answered-rate*end.answered.Seconds()-least-burst)
	}
	return worst
}
