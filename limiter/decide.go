package limiter

// level is one limit that matches a check, with its counter.
type level struct {
	limit  *limitState
	key    []byte // of the bucket's row
	bucket bucket // settled to the moment of the check
}

// decide evaluates a check against its levels, and debits them all if each has room for
// cost. The levels then hold what must be stored.
func decide(levels []level, cost uint32, version uint32) Decision {
	d := Decision{Allow: true, Version: version}
	var longest u128
	for i := range levels {
		l := &levels[i]
		if cost > l.limit.TokenBucket.Burst {
			// Time does not cure this, so it outranks every wait.
			d.Allow, d.Reason, d.LimitID, d.RetryAfterMs = false, ReasonCostExceedsLimit, l.limit.ID, 0
			break
		}
		if wait := l.limit.waitMicros(l.bucket, cost); longest.less(wait) {
			longest = wait
			d.Allow, d.Reason, d.LimitID, d.RetryAfterMs = false, ReasonLimited, l.limit.ID, retryAfterMs(wait)
		}
	}
	if d.Allow {
		for i := range levels {
			b := &levels[i].bucket
			b.used = b.used.add(mul64(uint64(cost), b.unit))
		}
	}
	if len(levels) > 0 {
		d.Levels = make([]Level, len(levels))
	}
	for i, l := range levels {
		d.Levels[i] = Level{
			LimitID:   l.limit.ID,
			Scope:     l.limit.Scope,
			Burst:     l.limit.TokenBucket.Burst,
			Remaining: l.limit.remaining(l.bucket),
		}
	}
	return d
}
