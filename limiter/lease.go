package limiter

import "time"

// A lease is a number of tokens that one holder may spend by itself until a deadline. They
// are taken from the counter when the lease is granted, so whatever becomes of the holder, no more
// passes than the limit admits. What holders and groups tell each other is in this file;
// DESIGN.md says why it is safe.

// Holder is one run of one process that holds leases: a random number, never used twice.
type Holder uint64

// Renewal reports what became of the tokens that a holder was granted from one counter, and asks
// for more. Numbers are cumulative since the epoch began, so that a report that arrives twice,
// late or not at all does no harm.
type Renewal struct {
	// Limit is the limit's number in its group, and Tenant and Subject say which of its counters
	// is meant.
	Limit   uint64
	Tenant  string
	Subject string
	// Epoch is one life of the lease. It ends when the deadline passes or the group refuses a
	// renewal; the next one has a larger number.
	Epoch uint64
	// Seq numbers the grants of an epoch from 1 on. The same number again asks for the same answer.
	Seq uint64
	// Spent and Returned are what the holder has used and what it gives back for good.
	Spent    uint64
	Returned uint64
	// Want is how many tokens more are wished for; 0 with what is returned ends nothing.
	Want uint64
}

// Grant answers a Renewal.
type Grant struct {
	// Refused means that the epoch is over, or was not opened: what the holder has left is void.
	Refused bool
	// Granted is the total of the epoch. It may have grown by less than what was wanted, or not
	// at all.
	Granted uint64
	// TTL is for how long from the first sending of the renewal the tokens may be spent.
	TTL time.Duration
	// Remaining is what the counter has left for others, in tokens: for people, not for decisions.
	Remaining uint32
	// Coming is how many of those granted last flow back only later, and must not be spent before: the
	// first one Delay after this answer was given, the last one Span later, and the others evenly in between.
	Coming      uint64
	Delay, Span time.Duration
}

// Recall names a counter that denies a request, or denies it for longer, because of what holders have left.
type Recall struct {
	Limit   uint64
	Subject string
	Holders []Holder
}

const (
	// leaseSpanMin is the shortest time worth a lease: below, its renewals cost as much as what
	// they save.
	leaseSpanMin = 15 * time.Millisecond
	// leaseSpanMax bounds how long what died with its holder is missing, to four times it.
	leaseSpanMax = 15 * time.Second
	// leaseTokensMin is the least that a part of a limit must have to be lent out: of fewer, what
	// idles with one holder would be missing at another.
	leaseTokensMin = 32
	// leaseSpans is how many spans a lease lasts.
	leaseSpans = 4
	// singleTTL is how long a lease lasts of which each check asks for what it takes itself: long enough
	// for another group to decide the rest of the check.
	singleTTL = time.Second
	// aheadSpanMax bounds for how much time's refill tokens are lent ahead, so that what idles with one
	// holder is missing at another no longer than twice that.
	aheadSpanMax = 500 * time.Millisecond
	// aheadMin is the least that is worth lending ahead: a cost that is larger than what comes must ask.
	aheadMin = 8
	// aheadOthers is how often as much as what may be lent ahead the other holders may have, spent or not, so
	// that it is fair to let a holder deny by what comes to it alone.
	aheadOthers = 4
)

// leaseTTL is how long a lease lasts, in group time.
func (l *limitState) leaseTTL() time.Duration {
	if l.single() {
		return singleTTL
	}
	return leaseSpans * l.leaseSpan()
}

// single tells whether a limit is lent to one check at a time: a small one of the scope global, since
// another group decides the rest of the check.
func (l *limitState) single() bool {
	return l.Scope == ScopeGlobal && l.counts() && l.demandSpan() == 0
}

// ahead is about how many tokens that have yet to flow back may be lent; 0 for none. A bucket's come at known
// times, those of windows and calendars do not, and a limit that only watches must not deny.
func (l *limitState) ahead() uint32 {
	if !l.hasBucket() || l.hasWindow() || l.hasCalendar() || l.single() || l.Enforcement == EnforcementShadow || l.Canary != 0 {
		return 0
	}
	span, r := min(l.demandSpan(), aheadSpanMax), l.speed().rate
	n := mul64(uint64(span.Microseconds()), r.refill).divFloor(max(r.unit, 1)).clamp32()
	if n < aheadMin {
		return 0
	}
	return n
}

// leaseSpan is for how much time's demand a holder is given tokens at once, or 0 for a limit of
// which nothing is lent.
func (l *limitState) leaseSpan() time.Duration {
	if l.single() {
		return leaseSpanMin
	}
	return l.demandSpan()
}

// demandSpan is leaseSpan, or 0 for small limits too, whose every check their group decides. Half the
// time to fill the bucket, or a hundredth of the window, keep the loss of what idles below a few percent.
func (l *limitState) demandSpan() time.Duration {
	if l.Access != "" || !l.counts() {
		return 0
	}
	span := leaseSpanMax
	if l.hasBucket() {
		if l.TokenBucket.Burst < leaseTokensMin {
			return 0
		}
		r := l.speed().rate
		fill := mul64(uint64(l.TokenBucket.Burst), r.unit).divFloor(2 * r.refill)
		if fill.hi == 0 && fill.lo < uint64(span.Microseconds()) {
			span = time.Duration(fill.lo) * time.Microsecond
		}
	}
	if l.hasWindow() {
		if l.Window.Limit <= logMax {
			return 0
		}
		ring := l.speed().ring
		span = min(span, time.Duration(ring.tick*ring.span/100)*time.Microsecond)
	}
	if l.hasCalendar() && l.Calendar.Limit < leaseTokensMin {
		return 0
	}
	if span < leaseSpanMin {
		return 0
	}
	return span
}
