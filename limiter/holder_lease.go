package limiter

import (
	"math"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// demandHalf is the half-life of what is remembered of a lease's demand: long enough to see
	// through a pause between bursts, short enough to follow one.
	demandHalf = 500 * time.Millisecond
	// demandSpanMax bounds for how much time's demand tokens are asked for at once. More would idle
	// here when demand moves on, less would renew more often.
	demandSpanMax = 3 * time.Second
	// chunkMax is the most that is asked for a key of which no demand is known yet, beside what its
	// first check takes; small limits lend a chunkParts-th of themselves.
	chunkMax   = 16
	chunkParts = 32
	// chunkLarge is of how many equal parts of a large limit one is asked for at least, also when it is more than
	// chunkMax: tenants run through a few tokens at once, and nobody misses so small a part.
	chunkLarge = 1024
	// smallParts is of how many equal parts of a limit one may idle with a holder.
	smallParts = 64
	// fairParts is of how many equal parts of what a group has left one is asked for, so that all holders of a
	// region find some.
	fairParts = 4
	// blanketLow is when more is asked for of what a blanket has lent.
	blanketLow = 4
	// scarceMin is the least time for which nothing is asked for a lease that was recalled, so that
	// its group alone decides about tokens that are scarce everywhere; otherwise that is the limit's span, up
	// to scarceMax: one recall must not keep a counter from being lent for long.
	scarceMin = 100 * time.Millisecond
	scarceMax = time.Second
)

// leaseTerms are what a holder knows of a limit's leases.
type leaseTerms struct {
	// span is leaseSpan, and ttl how long a lease lasts, both in nanoseconds; 0 for a limit of which
	// nothing is lent.
	span, ttl int64
	// most is the largest cost that can be lent, and chunk the least that is asked for.
	most, chunk uint32
	// ahead is limitState.ahead.
	ahead uint32
	// levels are those that a check reports, without their state, and watches tells whether the limit
	// is a shadow for some tenants.
	levels  []Level
	watches bool
	// single is set if only what checks take at once is asked for.
	single bool
}

func (l *limitState) leaseTerms() leaseTerms {
	t := leaseTerms{span: int64(l.leaseSpan()), most: math.MaxUint32, watches: l.Enforcement == EnforcementShadow || l.Canary != 0}
	t.ttl, t.single, t.ahead = int64(l.leaseTTL()), l.single(), l.ahead()
	add := func(kind string, most uint32) {
		t.most = min(t.most, most)
		t.levels = append(t.levels, Level{LimitID: l.ID, Scope: l.Scope, Kind: kind, Limit: most})
	}
	if l.hasBucket() {
		add(KindTokenBucket, l.TokenBucket.Burst)
	}
	if l.hasWindow() {
		add(KindWindow, l.Window.Limit)
	}
	if l.hasCalendar() {
		add(KindCalendar, l.Calendar.Limit)
	}
	if !t.single {
		t.chunk = min(max(chunkMax, t.most/chunkLarge), max(1, t.most/chunkParts))
	}
	return t
}

// usable is for how long from the first sending a holder may spend what it was lent for ttl: its
// clock may be slow by one part in raftfsm.RateErrorDenominator.
func usable(ttl int64) int64 {
	return ttl - (ttl+raftfsm.RateErrorDenominator-1)/raftfsm.RateErrorDenominator
}

// lease is what this node holds of one counter. Its shard's lock guards it.
//
// granted = spent + returned + pending + left + what comes, all of the present epoch. Several routes share
// a lease.
type lease struct {
	// What every check looks at stands together.

	limit *limitState // as the last route that was resolved knew it
	// flight is there while something is to be told to the group, or was told and not answered.
	flight *flight
	// deadline is until when left may be spent, by the holder's clock.
	deadline int64
	left     uint32
	// pending is what checks have taken that are not decided yet. It is neither reported nor given back.
	pending uint32
	// fresh is what was spent since demand was brought up to date, at folded.
	fresh  uint32
	demand float32 // tokens a second
	// remaining is what the group had left for others at the last grant.
	remaining uint32
	// hold is, if holds, until when nothing is asked for: the group has little, and decides itself.
	// scarce is set if it even needs what is left.
	hold   uint32
	holds  bool
	scarce bool
	// dirty is set while something was spent that no message has reported.
	dirty bool
	// silent is set until something is told of an epoch that a blanket has opened.
	silent bool

	seq    uint32
	folded uint32
	// refs counts the routes that lead here.
	refs    uint32
	tenant  *holderTenant
	subject string
	// epoch is 0 while none is open.
	epoch             uint64
	granted, returned uint64
	// adopted is the last epoch that was opened by a blanket.
	adopted uint64
	// coming is nil unless something is lent ahead.
	coming *coming
}

// flight is a lease's part in a message to its group.
type flight struct {
	// batch is the message that carries it, or nil when sending it has failed.
	batch *renewals
	// sent is set once the message has been made.
	sent bool
	// asks is set if tokens are wanted, and lack is what waiting checks want to spend.
	asks bool
	lack uint64
	// first is when the present seq was sent for the first time, while it is not answered; else 0. limit, and
	// denials of the tenant, are those of then: the answer says nothing about later ones, also when it is that to a
	// message that was sent again.
	first   int64
	limit   *limitState
	denials uint32
}

// moment is t on a scale of milliseconds that goes round in 49 days; only distances of less
// than half of that mean something.
func moment(t int64) uint32 { return uint32(t / int64(time.Millisecond)) }

func before(a, b uint32) bool { return int32(a-b) < 0 }

func (l *lease) spent() uint64 {
	return l.granted - l.returned - uint64(l.pending) - l.unspent()
}

// unspent is what is left, now or later.
func (l *lease) unspent() uint64 { return uint64(l.left) + l.coming.total() }

// end drops everything: the epoch is over. It returns how much was not spent.
func (l *lease) end() (unspent uint64) {
	unspent, l.coming = l.unspent(), nil
	l.epoch, l.granted, l.returned, l.deadline, l.left, l.pending, l.seq, l.dirty, l.silent = 0, 0, 0, 0, 0, 0, 0, false, false
	if l.flight != nil {
		l.flight.first = 0
	}
	return unspent
}

// live tells whether what is left may be spent at a time.
func (l *lease) live(now int64) bool { return now < l.deadline }

// fold brings the demand up to date. Nothing is forgotten while nothing is spent: see idle.
func (l *lease) fold(now int64) {
	at := moment(now)
	if l.fresh == 0 || at == l.folded {
		return
	}
	l.demand = l.demandWith(at)
	l.fresh, l.folded = 0, at
}

func (l *lease) demandWith(at uint32) float32 {
	past := float64(at-l.folded) / 1000
	keep := math.Exp2(-past / demandHalf.Seconds())
	return float32(float64(l.demand)*keep + float64(l.fresh)/past*(1-keep))
}

// target is how much the lease should hold: the demand of a span, or a chunk.
func (l *lease) target() uint32 {
	t := &l.limit.terms
	if t.single {
		return 0
	}
	span := float32(min(t.span, int64(demandSpanMax))) / float32(time.Second)
	// A small part of the limit may last longer: its loss matters to nobody, and a slow group does not hold up
	// checks that are far from the limit.
	longer := min(l.demand*float32(demandSpanMax/time.Second), float32(t.most/smallParts))
	return min(t.most, max(t.chunk, uint32(min(max(l.demand*span, longer), math.MaxInt32))))
}

// low tells whether it is time to renew although the lease suffices.
func (l *lease) low(now int64) bool {
	if l.limit.terms.single || l.postponed(now) {
		return false
	}
	if l.coming != nil {
		return l.ending(now)
	}
	if l.silent {
		return l.left < blanketLow // what its blanket has lent suffices for most
	}
	return l.left < l.target()/4 || l.ends(now)
}

// ends tells whether only a quarter of the lease's life is left.
func (l *lease) ends(now int64) bool { return l.deadline-now < l.limit.terms.ttl/4 }

// postponed tells whether the group alone decides for now about what leases do not let pass.
func (l *lease) postponed(now int64) bool { return l.holds && before(moment(now), l.hold) }

// want is how many tokens to ask for.
func (l *lease) want(now int64) uint64 {
	f := l.flight
	if !f.asks || l.postponed(now) {
		return 0
	}
	left := l.unspent()
	want := max(f.lack, left) - left
	if target := l.fair(uint64(l.target())); target > left {
		want += target - left
	}
	if l.ends(now) {
		want = max(want, 1) // a lease gets time only with tokens
	}
	return min(want, uint64(l.limit.terms.most))
}

// fair is how much of a target to ask for of a bucket that runs out: no more than a part of what the group had
// left, or what may be lent ahead. Whoever took the last of it for seconds would have to give it back to the others,
// who are lent nothing ahead while it has much.
func (l *lease) fair(target uint64) uint64 {
	if l.limit.terms.ahead == 0 || l.epoch == 0 || l.silent {
		return target
	}
	return min(target, uint64(max(l.limit.terms.ahead, l.remaining/fairParts)))
}

// giveBack stops spending what is left; the next message tells the group.
func (l *lease) giveBack(s *holderShard) {
	s.counts.returned += l.unspent()
	l.returned += l.unspent()
	l.left, l.coming, l.dirty = 0, nil, true
}

// postpone keeps the lease from asking.
func (l *lease) postpone(now int64, d time.Duration, scarce bool) {
	l.hold, l.holds, l.scarce = moment(now+int64(d)), true, scarce
}

// rest is for how long to ask for nothing after others lacked what was held here. What is lent ahead is
// shared again after a moment.
func (l *lease) rest() time.Duration {
	if l.limit.terms.ahead > 0 {
		return scarceMin
	}
	return min(max(time.Duration(l.limit.terms.span), scarceMin), scarceMax)
}

// dry is for how long to ask for nothing after a group had little.
func (l *lease) dry() time.Duration { return min(time.Duration(l.limit.terms.span), scarceMin) / 4 }

// report makes the lease's part of a message; false when there is nothing to say.
func (l *lease) report(s *holderShard, now int64) (Renewal, bool) {
	f := l.flight
	// An epoch past its deadline is over, unless an answer is due that may have moved it.
	until := l.deadline
	if f.first != 0 {
		until = max(until, f.first+usable(l.limit.terms.ttl))
	}
	if l.epoch != 0 && now >= until {
		s.counts.unspent += l.end()
	}
	l.fold(now)
	want := l.want(now)
	if l.epoch == 0 {
		if want == 0 {
			return Renewal{}, false
		}
		s.epochs++
		l.epoch = s.epochs
	}
	if f.first == 0 {
		l.seq++
		f.first, f.limit, f.denials = now, l.limit, l.tenant.denials
	}
	f.sent, f.asks, f.lack, l.dirty, l.silent = true, false, 0, false, false
	return Renewal{
		Limit: l.limit.uid, Tenant: l.tenant.name, Subject: l.subject, Epoch: l.epoch, Seq: uint64(l.seq),
		Spent: l.spent(), Returned: l.returned, Want: want,
	}, true
}

// sentRenewal is what a message said of a lease, to tell later what its answer means.
type sentRenewal struct {
	lease *lease
	epoch uint64
	seq   uint32
	want  uint64
	// first is when this seq was sent for the first time.
	first int64
	// limit and denials are what the lease and its tenant had at first.
	limit   *limitState
	denials uint32
}

// take takes the answer to a renewal, which may come late, or twice.
func (l *lease) take(s *holderShard, sent sentRenewal, g Grant, now int64) {
	if sent.epoch != l.epoch {
		return // that epoch is over
	}
	if g.Refused {
		s.counts.refused++
		s.counts.unspent += l.end()
		if sent.seq == 1 {
			l.postpone(now, l.dry(), false) // there was nothing to lend
		}
		return
	}
	grown := min(max(g.Granted, l.granted)-l.granted, math.MaxUint32-l.unspent())
	l.granted += grown
	s.counts.granted += grown
	later := min(grown, g.Coming)
	l.left += uint32(grown - later)
	l.expect(later, sent, g, now)
	if sent.seq != l.seq || l.flight == nil || l.flight.first == 0 {
		return // answered before
	}
	l.deadline = sent.first + usable(int64(g.TTL))
	l.remaining = g.Remaining
	l.flight.first = 0
	if grown < sent.want/2 && l.coming == nil && !l.postponed(now) && (grown == 0 || l.limit.terms.ahead == 0) {
		// Asking again at once would get as little, but where the next tokens are lent ahead.
		l.postpone(now, l.dry(), false)
	}
}

// hurries tells whether a renewal before the lease is spent cannot wait until those of many leases go
// together.
func (l *lease) hurries() bool { return l.limit.terms.span < 10*int64(gatherFor) }

// levels appends the state of the limit's parts for a request, as far as it is known here.
func (l *lease) levels(dst []Level, r *Request) []Level {
	if r.Brief {
		return dst
	}
	terms := &l.limit.terms
	have := uint32(min(uint64(l.left)+uint64(l.remaining), math.MaxUint32))
	shadow := terms.watches && l.limit.shadows(r.asker())
	for i := range terms.levels {
		dst = append(dst, terms.levels[i])
		last := &dst[len(dst)-1]
		last.Remaining, last.Shadow = min(last.Limit, have), shadow
	}
	return dst
}
