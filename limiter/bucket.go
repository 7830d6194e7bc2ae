package limiter

import (
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// generationsMax bounds how many rates of a limit are remembered for buckets that were last
// written under an older one.
const generationsMax = 16

// scopes in the order of evaluation; a scope's place is its number on disk.
var scopes = [...]string{ScopeTenant, ScopeToken, ScopeKey}

// limitState is a limit in force, ready for evaluation. It never changes once built.
type limitState struct {
	Limit
	// uid tells apart limits that had the same id one after the other, or one limit before
	// and after a change of scope: their counters have nothing in common.
	uid     uint64
	pattern pattern
	// gens are the limit's rates, oldest first; gens[0] has number firstGen. Only the last
	// one is in force; the others say how buckets written under them drained until then.
	firstGen uint64
	gens     []generation
	capacity u128 // burst in units of the last generation
}

// generation is a rate and the group time, in microseconds, from which it holds.
type generation struct {
	start int64
	rate  rate
}

// newLimitState compiles a valid limit.
func newLimitState(l Limit, uid, firstGen uint64, gens []generation) *limitState {
	_, text, ok := strings.Cut(l.Selector, "/")
	if !ok {
		text = wildcard
	}
	return &limitState{
		Limit:    l,
		uid:      uid,
		pattern:  compilePattern(text),
		firstGen: firstGen,
		gens:     gens,
		capacity: mul64(uint64(l.TokenBucket.Burst), gens[len(gens)-1].rate.unit),
	}
}

// changed is the limit after it was replaced by one of the same scope at the given time. What
// was used stays used: buckets keep their content, which drains at the new rate from now on.
func (l *limitState) changed(to Limit, now int64) (*limitState, error) {
	r, err := parseRate(to.TokenBucket.Rate)
	if err != nil {
		return nil, fmt.Errorf("limiter: limit %s: %w", to.ID, err)
	}
	gens, firstGen := l.gens, l.firstGen
	if r != l.rate() {
		gens = append(append([]generation(nil), gens...), generation{start: now, rate: r})
		if drop := len(gens) - generationsMax; drop > 0 {
			gens, firstGen = gens[drop:], firstGen+uint64(drop)
		}
	}
	return newLimitState(to, l.uid, firstGen, gens), nil
}

func (l *limitState) rate() rate { return l.gens[len(l.gens)-1].rate }

func (l *limitState) lastGen() uint64 { return l.firstGen + uint64(len(l.gens)) - 1 }

// subject is what, besides the tenant, gets a counter of its own.
func (l *limitState) subject(token, key string) string {
	switch l.Scope {
	case ScopeToken:
		return token
	case ScopeKey:
		return key
	}
	return ""
}

// bucket is what one counter has used, as of a moment. It is kept upside down: used = burst -
// level. So an empty row and an unused bucket are the same thing, and a change of burst,
// which must keep what was used, changes nothing here.
type bucket struct {
	used u128
	// unit is how many units of used make one token, and gen the generation it belongs to.
	unit uint64
	gen  uint64
	// t is the group time of used, in microseconds.
	t int64
}

// fresh is a counter without a row: a bucket that nothing was taken from. In a group whose
// counters were all emptied at a time it is one that has refilled since; the caller settles it.
func (l *limitState) fresh(now, emptied int64) bucket {
	if emptied == 0 {
		return bucket{unit: l.rate().unit, gen: l.lastGen(), t: now}
	}
	first := l.gens[0]
	b := bucket{used: mul64(uint64(l.TokenBucket.Burst), first.rate.unit), unit: first.rate.unit, gen: l.firstGen, t: emptied}
	if l.firstGen > 0 {
		b.t = max(b.t, first.start) // what held before is forgotten: nothing flowed back
	}
	return b
}

// settle brings b to the present: it drains at each rate for as long as that one held.
// Settling twice on the way is the same as settling once at the end.
func (l *limitState) settle(b bucket, now int64) bucket {
	if b.gen < l.firstGen {
		// The rates since then are forgotten. Draining nothing meanwhile admits less, never more.
		b.enter(l.gens[0], l.firstGen)
	}
	for b.gen < l.lastGen() {
		at := b.gen - l.firstGen
		next := l.gens[at+1]
		b.drain(l.gens[at].rate, next.start)
		b.enter(next, b.gen+1)
	}
	b.drain(l.rate(), now)
	return b
}

func (b *bucket) drain(r rate, until int64) {
	if until <= b.t {
		return
	}
	b.used = b.used.sub(mul64(r.refill, uint64(until)-uint64(b.t)))
	b.t = until
}

// enter converts b to the units of g, rounding up what was used.
func (b *bucket) enter(g generation, number uint64) {
	if b.unit != g.rate.unit {
		b.used = b.used.mul(g.rate.unit).divCeil(b.unit)
		b.unit = g.rate.unit
	}
	b.t = max(b.t, g.start)
	b.gen = number
}

// waitMicros is how long, in group time, until cost tokens fit into a settled bucket; 0 when
// they fit now. cost is at most the burst.
func (l *limitState) waitMicros(b bucket, cost uint32) u128 {
	need := b.used.add(mul64(uint64(cost), b.unit)).sub(l.capacity)
	return need.divCeil(l.rate().refill)
}

// remaining is how many whole tokens a settled bucket has left.
func (l *limitState) remaining(b bucket) uint32 {
	return l.capacity.sub(b.used).divFloor(b.unit).clamp32()
}

// retryAfterMs is the shortest real time, in whole milliseconds, in which group time surely
// advances by wait. Group time runs at (1 - rho) of the leader's clock with rho = 1/1000, so a
// millisecond is 999 microseconds of group time.
func retryAfterMs(wait u128) uint32 {
	const groupMicrosPerMs = 1000 - 1000/raftfsm.RateErrorDenominator
	return wait.divCeil(groupMicrosPerMs).clamp32()
}
