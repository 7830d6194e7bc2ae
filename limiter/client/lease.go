package client

import (
	"math"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

const (
	// rateError is how exact clocks are trusted to be: to one part in so many.
	rateError = 1000
	// spansOfLease is how many spans a lease lasts.
	spansOfLease = 4
	// demandHalf is the half-life of what is remembered of a lease's demand.
	demandHalf = 500 * time.Millisecond
	// demandSpanMax bounds for how much time's demand tokens are asked for at once.
	demandSpanMax = time.Second
	// dryMax bounds for how long nothing is asked for after there was little, and scarceFor is for how
	// long after a recall.
	dryMax    = 25 * time.Millisecond
	scarceFor = 100 * time.Millisecond
)

// counter names one counter of the region.
type counter struct {
	tenant  string
	limit   uint64
	subject string
}

// lease is what this process holds of one counter: granted = spent + returned + left, all of the
// present epoch. The table's lock guards it.
type lease struct {
	counter
	// token and key are of a route that leads here, by which the node knows that it may be renewed.
	token, key  string
	span        time.Duration
	most, chunk uint32
	parts       []Level
	refs        int // routes that lead here

	epoch             uint64 // 0 while none is open
	seq               uint64
	granted, returned uint64
	left              uint32
	deadline          int64 // until when left may be spent, by this process's clock
	remaining         uint32

	fresh   uint32 // spent since demand was brought up to date, at folded
	demand  float64
	folded  int64
	hold    int64 // until when nothing is asked for
	scarce  bool  // others need what is left
	dirty   bool  // something was spent that no message has reported
	first   int64 // when the present seq was sent first, while it is not answered; else 0
	asks    bool
	lack    uint64 // what waiting checks want to spend
	queued  bool
	sending bool
	landed  chan struct{} // closed when the next message about it is answered or lost
}

func usable(ttl time.Duration) int64 {
	return int64(ttl) - (int64(ttl)+rateError-1)/rateError
}

func (l *lease) ttl() time.Duration     { return spansOfLease * l.span }
func (l *lease) live(now int64) bool    { return now < l.deadline }
func (l *lease) spent() uint64          { return l.granted - l.returned - uint64(l.left) }
func (l *lease) held(now int64) bool    { return now < l.hold }
func (l *lease) dry(now int64)          { l.hold = now + int64(min(l.span/4, dryMax)) }
func (l *lease) idle(now int64) bool    { return now-l.folded > int64(l.ttl()/2) }
func (l *lease) pending(now int64) bool { return l.first != 0 && now < l.first+usable(l.ttl()) }

// low tells whether it is time to renew although the lease suffices.
func (l *lease) low(now int64) bool {
	return !l.held(now) && (l.left < l.target()/4 || l.deadline-now < int64(l.ttl()/4))
}

// fold brings the demand up to date. Nothing is forgotten while nothing is spent.
func (l *lease) fold(now int64) {
	if past := time.Duration(now - l.folded); l.fresh > 0 && past >= time.Millisecond {
		keep := math.Exp2(-past.Seconds() / demandHalf.Seconds())
		l.demand = l.demand*keep + float64(l.fresh)/past.Seconds()*(1-keep)
		l.fresh, l.folded = 0, now
	}
}

// target is how much to hold: the demand of a span, or the least.
func (l *lease) target() uint32 {
	return min(l.most, max(l.chunk, uint32(min(l.demand*min(l.span, demandSpanMax).Seconds(), math.MaxInt32))))
}

func (l *lease) want(now int64) uint32 {
	if !l.asks || l.held(now) {
		return 0
	}
	left := uint64(l.left)
	want := max(l.lack, left) - left + max(uint64(l.target()), left) - left
	return uint32(min(want, uint64(l.most)))
}

// end drops everything: the epoch is over.
func (l *lease) end() {
	l.epoch, l.seq, l.granted, l.returned, l.left, l.deadline, l.dirty, l.first = 0, 0, 0, 0, 0, 0, false, 0
}

// giveBack stops spending what is left; the next message tells the node.
func (l *lease) giveBack() {
	l.returned += uint64(l.left)
	l.left, l.dirty = 0, true
}

// report makes the lease's part of a message; nil when there is nothing to say.
func (l *lease) report(now int64, nextEpoch func() uint64) *limiterv1.LeaseReport {
	// An epoch past its deadline is over, unless an answer is due that may have moved it.
	until := l.deadline
	if l.first != 0 {
		until = max(until, l.first+usable(l.ttl()))
	}
	if l.epoch != 0 && now >= until {
		l.end()
	}
	l.fold(now)
	want := l.want(now)
	l.asks, l.lack = false, 0
	if l.epoch == 0 {
		if want == 0 {
			return nil
		}
		l.epoch = nextEpoch()
	}
	if l.first == 0 {
		l.seq++
		l.first = now
	}
	l.dirty = false
	return &limiterv1.LeaseReport{Limit: l.limit, Epoch: l.epoch, Seq: l.seq, Spent: l.spent(), Returned: l.returned, Want: want}
}

// sentReport is what a message said of a lease.
type sentReport struct {
	lease      *lease
	epoch, seq uint64
	want       uint32
	first      int64
}

// take takes the answer to a report, which may come late.
func (l *lease) take(sent sentReport, g *limiterv1.LeaseGrant, now int64) {
	if sent.epoch != l.epoch {
		return
	}
	if g.GetRefused() {
		l.end()
		if sent.seq == 1 {
			l.dry(now) // there was nothing to lend
		}
		return
	}
	grown := min(max(g.GetGranted(), l.granted)-l.granted, math.MaxUint32-uint64(l.left))
	l.granted += grown
	l.left += uint32(grown)
	if sent.seq != l.seq || l.first == 0 {
		return // answered before
	}
	l.first = 0
	l.deadline = sent.first + usable(time.Duration(g.GetTtlUs())*time.Microsecond)
	l.remaining = g.GetRemaining()
	if grown < uint64(sent.want)/2 && !l.held(now) {
		l.dry(now) // asking again at once would get as little
	}
}

// levels appends what is known here of the limit's parts.
func (l *lease) levels(dst []Level) []Level {
	have := uint32(min(uint64(l.left)+uint64(l.remaining), math.MaxUint32))
	for _, p := range l.parts {
		p.Remaining = min(p.Limit, have)
		dst = append(dst, p)
	}
	return dst
}
