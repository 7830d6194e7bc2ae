package limiter

import "math"

// level is one limit that matches a check, with its counter.
type level struct {
	limit   *limitState
	subject string
	key     []byte  // of the counter's row
	counter counter // settled to the moment of the check
	shadow  bool    // it only watches
	debited bool
	// held is what is held of a concurrency, and slots its verdict; see loadSlots.
	held  uint64
	slots verdict
	// verdict is about the check.
	verdict verdict
}

// verdict is what one kind of a level says about a cost: how long to wait in group time, or
// that time does not help.
type verdict struct {
	kind  string
	wait  u128
	never bool
}

// worse tells whether v outranks w. Time does not cure a cost that can never fit, so that
// outranks every wait.
func (v verdict) worse(w verdict) bool {
	return v.never && !w.never || v.never == w.never && w.wait.less(v.wait)
}

func (v verdict) denies() bool { return v.never || !v.wait.isZero() }

func (v verdict) reason() string {
	switch {
	case v.kind == KindBanned:
		return ReasonBanned
	case v.never:
		return ReasonCostExceedsLimit
	}
	return ReasonLimited
}

// judge is the worst verdict of the level's parts.
func (l *level) judge(cost uint32, wall int64) verdict {
	var worst verdict
	if l.limit.Access == AccessBanned {
		worst = verdict{kind: KindBanned, never: true}
	}
	if l.limit.hasBucket() {
		if v := l.judgeBucket(cost); v.worse(worst) {
			worst = v
		}
	}
	if l.limit.hasWindow() {
		if v := l.judgeWindow(cost); v.worse(worst) {
			worst = v
		}
	}
	if l.limit.hasCalendar() {
		if v := l.judgeCalendar(cost, wall); v.worse(worst) {
			worst = v
		}
	}
	return worst
}

func (l *level) judgeBucket(cost uint32) verdict {
	if cost > l.limit.TokenBucket.Burst {
		r := l.limit.speed().rate
		if !l.mayOwe(l.limit.TokenBucket.Burst) || debtMax(r).less(u128{0, uint64(cost)}) {
			return verdict{kind: KindTokenBucket, never: true}
		}
		return verdict{kind: KindTokenBucket, wait: l.counter.drained(u128{}, r.refill)}
	}
	target := l.limit.capacity.sub(mul64(uint64(cost), l.counter.unit))
	if !target.less(l.counter.used) {
		return verdict{}
	}
	return verdict{kind: KindTokenBucket, wait: l.counter.drained(target, l.limit.speed().rate.refill)}
}

func (l *level) judgeWindow(cost uint32) verdict {
	if cost > l.limit.Window.Limit {
		if !l.mayOwe(l.limit.Window.Limit) {
			return verdict{kind: KindWindow, never: true}
		}
		return verdict{kind: KindWindow, wait: l.limit.speed().ring.waitEmpty(l.counter.held(), l.counter.t)}
	}
	wait := l.limit.speed().ring.wait(l.counter.held(), l.counter.t, cost, l.limit.Window.Limit)
	return verdict{kind: KindWindow, wait: wait}
}

func (l *level) judgeCalendar(cost uint32, wall int64) verdict {
	most, counted := l.limit.Calendar.Limit, l.counter.spent+l.counter.out()
	switch {
	case cost > most && l.mayOwe(most):
		if counted == 0 {
			return verdict{}
		}
	case cost > most:
		return verdict{kind: KindCalendar, never: true}
	case counted+uint64(cost) <= uint64(most):
		return verdict{}
	}
	return verdict{kind: KindCalendar, wait: mul64(l.limit.calendar.waitMs(wall), groupMicrosPerMs)}
}

// mayOwe tells whether a cost above most passes when nothing is used.
func (l *level) mayOwe(most uint32) bool { return l.limit.Oversize == OversizeDebt && most > 0 }

// decide evaluates a check against its levels, and debits them all if each has room for
// cost. The levels then hold what must be stored.
func decide(levels []level, cost uint32, version uint32, wall int64) Decision {
	d := judgeAll(levels, cost, version, wall)
	if d.Allow && cost > 0 {
		for i := range levels {
			// A shadow counts what would have passed, were it enforced beside those that are.
			if l := &levels[i]; l.limit.Access == "" && !(l.shadow && l.verdict.denies()) {
				l.counter.debit(l.limit, cost)
				l.debited = true
			}
		}
	}
	d.Levels = reportAll(levels)
	return d
}

// judgeAll decides without a debit. wall is the leader's wall clock in milliseconds; only advice
// about calendars depends on it.
func judgeAll(levels []level, cost uint32, version uint32, wall int64) Decision {
	return judgeWith(levels, version, func(l *level) verdict { return l.judge(cost, wall) })
}

func judgeWith(levels []level, version uint32, judge func(*level) verdict) Decision {
	d := Decision{Allow: true, Version: version}
	var worst verdict
	for i := range levels {
		l := &levels[i]
		l.verdict, l.debited = judge(l), false
		if !l.shadow && l.verdict.worse(worst) {
			worst = l.verdict
			d.Allow, d.Reason, d.LimitID, d.Kind = false, worst.reason(), l.limit.ID, worst.kind
			d.RetryAfterMs = retryAfterMs(worst.wait)
		}
	}
	return d
}

func reportAll(levels []level) []Level {
	if len(levels) == 0 {
		return nil
	}
	out := make([]Level, 0, len(levels))
	for i := range levels {
		out = levels[i].report(out)
	}
	return out
}

// detail is report with what is used of each part and when it will not be.
func (l *level) detail(dst []Level, wall int64) []Level {
	begin := len(dst)
	dst = l.report(dst)
	for i := begin; i < len(dst); i++ {
		part := &dst[i]
		switch part.Kind {
		case KindTokenBucket:
			part.Used = l.counter.used.divCeil(l.counter.unit).clamp32()
			part.ResetMs = retryAfterMs(l.counter.drained(u128{}, l.limit.speed().rate.refill))
		case KindWindow:
			part.Used = u128{0, sumOf(l.counter.slots) + l.counter.out()}.clamp32()
			part.ResetMs = retryAfterMs(l.limit.speed().ring.waitEmpty(l.counter.held(), l.counter.t))
		case KindCalendar:
			if part.Used = (u128{0, l.counter.spent + l.counter.out()}).clamp32(); part.Used > 0 {
				part.ResetMs = (u128{0, l.limit.calendar.waitMs(wall)}).clamp32()
			}
		}
	}
	if l.limit.hasConcurrency() {
		dst = l.marked(dst, (*level).appendSlots)
		part := &dst[len(dst)-1]
		part.Used, part.ResetMs = (u128{0, l.held}).clamp32(), retryAfterMs(l.slots.wait)
	}
	return dst
}

// report appends the state of the level's parts.
func (l *level) report(dst []Level) []Level { return l.marked(dst, (*level).appendParts) }

// marked appends parts, and what a limit that only watches would have done.
func (l *level) marked(dst []Level, parts func(*level, []Level) []Level) []Level {
	begin := len(dst)
	dst = parts(l, dst)
	for i := begin; i < len(dst); i++ {
		dst[i].Shadow = l.shadow
		dst[i].WouldDeny = l.shadow && l.verdict.denies() && l.verdict.kind == dst[i].Kind
	}
	return dst
}

func (l *level) appendParts(dst []Level) []Level {
	switch l.limit.Access {
	case AccessUnlimited:
		return append(dst, Level{LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindUnlimited, Limit: math.MaxUint32, Remaining: math.MaxUint32})
	case AccessBanned:
		return append(dst, Level{LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindBanned})
	}
	if l.limit.hasBucket() {
		left := l.limit.capacity.sub(l.counter.used).divFloor(l.counter.unit).clamp32()
		dst = append(dst, Level{
			LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindTokenBucket,
			Limit: l.limit.TokenBucket.Burst, Remaining: left,
		})
	}
	if l.limit.hasWindow() {
		most := l.limit.Window.Limit
		dst = append(dst, Level{
			LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindWindow,
			Limit: most, Remaining: most - uint32(min(uint64(most), sumOf(l.counter.slots)+l.counter.out())),
		})
	}
	if l.limit.hasCalendar() {
		most := l.limit.Calendar.Limit
		dst = append(dst, Level{
			LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindCalendar,
			Limit: most, Remaining: most - uint32(min(uint64(most), l.counter.spent+l.counter.out())),
		})
	}
	return dst
}
