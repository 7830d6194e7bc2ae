package limiter

// level is one limit that matches a check, with its counter.
type level struct {
	limit   *limitState
	key     []byte  // of the counter's row
	counter counter // settled to the moment of the check
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

// judge is the worst verdict of the level's parts.
func (l *level) judge(cost uint32, wall int64) verdict {
	var worst verdict
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
		return verdict{kind: KindTokenBucket, never: true}
	}
	need := l.counter.used.add(mul64(uint64(cost), l.counter.unit)).sub(l.limit.capacity)
	if need.isZero() {
		return verdict{}
	}
	return verdict{kind: KindTokenBucket, wait: need.divCeil(l.limit.speed().rate.refill)}
}

func (l *level) judgeWindow(cost uint32) verdict {
	if cost > l.limit.Window.Limit {
		return verdict{kind: KindWindow, never: true}
	}
	wait := l.limit.speed().ring.wait(l.counter.slots, l.counter.t, cost, l.limit.Window.Limit)
	return verdict{kind: KindWindow, wait: wait}
}

func (l *level) judgeCalendar(cost uint32, wall int64) verdict {
	most := l.limit.Calendar.Limit
	switch {
	case cost > most:
		return verdict{kind: KindCalendar, never: true}
	case l.counter.spent+uint64(cost) <= uint64(most):
		return verdict{}
	}
	return verdict{kind: KindCalendar, wait: mul64(l.limit.calendar.waitMs(wall), groupMicrosPerMs)}
}

// decide evaluates a check against its levels, and debits them all if each has room for
// cost. The levels then hold what must be stored. wall is the leader's wall clock in
// milliseconds; only advice about calendars depends on it.
func decide(levels []level, cost uint32, version uint32, wall int64) Decision {
	d := Decision{Allow: true, Version: version}
	var worst verdict
	for i := range levels {
		if v := levels[i].judge(cost, wall); v.worse(worst) {
			worst = v
			d.Allow, d.Reason, d.LimitID, d.Kind = false, ReasonLimited, levels[i].limit.ID, v.kind
			d.RetryAfterMs = retryAfterMs(v.wait)
			if v.never {
				d.Reason = ReasonCostExceedsLimit
			}
		}
	}
	if d.Allow && cost > 0 {
		for i := range levels {
			levels[i].counter.debit(levels[i].limit, cost)
		}
	}
	if len(levels) > 0 {
		d.Levels = make([]Level, 0, len(levels))
	}
	for i := range levels {
		d.Levels = levels[i].report(d.Levels)
	}
	return d
}

// report appends the state of the level's parts.
func (l *level) report(dst []Level) []Level {
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
			Limit: most, Remaining: most - uint32(min(uint64(most), sumOf(l.counter.slots))),
		})
	}
	if l.limit.hasCalendar() {
		most := l.limit.Calendar.Limit
		dst = append(dst, Level{
			LimitID: l.limit.ID, Scope: l.limit.Scope, Kind: KindCalendar,
			Limit: most, Remaining: most - uint32(min(uint64(most), l.counter.spent)),
		})
	}
	return dst
}
