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
	// batch is the batch at hand, by keys and then tenants.
	batch []share
}

// share is what a limit has of a batch.
type share struct{ asked, admitted, denied int32 }

// admissions are what one limit let pass.
type admissions struct {
	all []admission
	// denied are the tokens that this very limit denied, since when it was first known to be empty.
	denied int64
	since  time.Duration
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
		batch: make([]share, keys+tenants),
	}
}

// note enters one batch.
func (a *audit) note(ranks []uint32, answers []client.Answer, asked, answered time.Duration) {
	clear(a.batch)
	for i, rank := range ranks {
		// What failed may have been admitted and is not known to be: it counts as neither.
		if answers[i].Err != nil {
			a.failed++
			continue
		}
		if int(rank) < a.keys {
			a.batch[rank].add(&answers[i], keyLimit)
		}
		if tenant := int(rank % limitedTenants); tenant < a.tenants {
			a.batch[a.keys+tenant].add(&answers[i], tenantLimit)
		}
	}
	for i, s := range a.batch {
		if s.asked == 0 {
			continue
		}
		limit := a.limit(i)
		if s.admitted > 0 {
			limit.all = append(limit.all, admission{asked, answered, int64(s.admitted)})
		}
		if s.denied > 0 && limit.denied == 0 {
			limit.since = answered
		}
		limit.denied += int64(s.denied)
	}
}

func (s *share) add(answer *client.Answer, limit string) {
	s.asked++
	switch {
	case answer.Allow:
		s.admitted++
	case answer.LimitID == limit:
		s.denied++
	}
}

// limit is one of the keys', or behind them of the tenants'.
func (a *audit) limit(i int) *admissions {
	if i < a.keys {
		return &a.byKey[i]
	}
	return &a.byTenant[i-a.keys]
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
	if other.denied > 0 && (l.denied == 0 || other.since < l.since) {
		l.since = other.since
	}
	l.denied += other.denied
}

// utilisation is how much of what they admit was taken from limits that were asked for more.
type utilisation struct {
	limits      int
	mean, least float64
}

// bucket is what a limit admits at most: burst at once and rate a second.
type bucket struct{ rate, burst float64 }

// bounds are the limits of every key and of every tenant.
type bounds struct{ key, tenant bucket }

// worldBounds are the limits as they are set.
var worldBounds = bounds{key: bucket{keyRate, keyBurst}, tenant: bucket{tenantRate, tenantBurst}}

// verdict is how many tokens too many passed, at the limit where they were most, and how much of
// the saturated limits was used: of what flowed back after they were first found empty.
func (a *audit) verdict(of bounds) (over float64, use utilisation) {
	for _, level := range []struct {
		limits []admissions
		bucket
	}{{a.byKey, of.key}, {a.byTenant, of.tenant}} {
		for i := range level.limits {
			l := &level.limits[i]
			over = max(over, l.excess(level.rate, level.burst))
			admissible := level.rate * (a.window - l.since).Seconds()
			// Too short a time, or too little demand, says nothing about the limiter.
			if l.since > a.window/2 || float64(l.denied) < admissible {
				continue
			}
			part := min(float64(l.admittedSince())/admissible, 1)
			if use.limits++; use.limits == 1 || part < use.least {
				use.least = part
			}
			use.mean += (part - use.mean) / float64(use.limits)
		}
	}
	return over, use
}

// admittedSince are the tokens of answers after the limit was found empty.
func (l *admissions) admittedSince() (n int64) {
	for _, a := range l.all {
		if a.answered > l.since {
			n += a.n
		}
	}
	return n
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
