package client

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func sortRecalls(all []*limiterv1.LeaseRecall) {
	slices.SortFunc(all, func(a, b *limiterv1.LeaseRecall) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Subject, b.Subject))
	})
}

// judge finds what must not be.
func (s *sim) judge() error {
	if s.lost != nil {
		return s.lost
	}
	counters := make([]simCounter, 0, len(s.passed))
	for c := range s.passed { // any order
		counters = append(counters, c)
	}
	slices.SortFunc(counters, func(a, b simCounter) int {
		return cmp.Or(cmp.Compare(a.limit, b.limit), cmp.Compare(a.key, b.key))
	})
	for _, c := range counters {
		slices.SortStableFunc(s.passed[c], func(a, b pass) int { return cmp.Compare(a.at, b.at) })
		if bad := over(s.widest(c.limit), s.passed[c]); bad != "" {
			return fmt.Errorf("limit %s of %q: %s", c.limit, c.key, bad)
		}
	}
	return nil
}

// widest is a limit, or the more generous one of it before and after a change.
func (s *sim) widest(id string) (out limiter.Limit) {
	for _, l := range slices.Concat(s.plan.limits, s.plan.changed) {
		switch {
		case l.ID != id:
		case out.ID == "":
			out = l
		default:
			out.TokenBucket.Burst = max(out.TokenBucket.Burst, l.TokenBucket.Burst)
			out.Window.Limit = max(out.Window.Limit, l.Window.Limit)
			if l.TokenBucket.Rate != "" && nanosPerToken(l) < nanosPerToken(out) {
				out.TokenBucket.Rate = l.TokenBucket.Rate
			}
		}
	}
	return out
}

// nanosPerToken is in how many nanoseconds a token flows back, a whole number at the rates of plans.
func nanosPerToken(l limiter.Limit) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(l.TokenBucket.Rate, "/s"), 10, 64)
	if n == 0 || int64(time.Second)%n != 0 {
		panic("the judge counts in whole nanoseconds: " + l.TokenBucket.Rate)
	}
	return int64(time.Second) / n
}

// over is what passed beyond a limit in some interval: a bucket by its arrival curve, in the nanoseconds that its tokens
// take to flow back, a window by two pointers.
func over(l limiter.Limit, all []pass) string {
	if l.TokenBucket.Rate != "" {
		token := nanosPerToken(l)
		full := int64(l.TokenBucket.Burst) * token
		level, last := full, int64(0)
		for _, p := range all {
			level = min(full, level+p.at-last) - p.cost*token
			if last = p.at; level < 0 {
				return fmt.Sprintf("%d/%d tokens more than the bucket allows at %d", -level, token, p.at)
			}
		}
	}
	if l.Window.Length != "" {
		length, err := time.ParseDuration(l.Window.Length)
		if err != nil {
			panic(err)
		}
		sum, first := int64(0), 0
		for _, p := range all {
			for sum += p.cost; p.at-all[first].at > int64(length); first++ {
				sum -= all[first].cost
			}
			if sum > int64(l.Window.Limit) {
				return fmt.Sprintf("%d tokens in the window that ends at %d; it allows %d", sum, p.at, l.Window.Limit)
			}
		}
	}
	return ""
}

// falseDenials are denials of checks that, going by what passed alone, had room beside all that clients hold, and more than the
// slack.
func (s *sim) falseDenials(slack func(d simDenial) int64) (n int, first string) {
	for _, d := range s.denials {
		room := true
		for _, l := range s.plan.limits {
			c := simCounter{limit: l.ID}
			if l.Scope == limiter.ScopeKey {
				c.key = d.r.Key
			}
			room = room && roomAt(l, s.passed[c], d.at) >= int64(d.r.Cost)+d.held+slack(d)
		}
		if room {
			if n++; first == "" {
				first = fmt.Sprintf("%+v, %d held", d, d.held)
			}
		}
	}
	return n, first
}

// roomAt is how many whole tokens a limit had left at a time, by what had passed and the group's time, which is slower by a
// thousandth.
func roomAt(l limiter.Limit, all []pass, at int64) (room int64) {
	room = 1 << 40
	slow := func(t int64) int64 { return t - (t+999)/1000 }
	if l.TokenBucket.Rate != "" {
		token := nanosPerToken(l)
		full := int64(l.TokenBucket.Burst) * token
		level, last := full, int64(0)
		for _, p := range all {
			if p.at > at {
				break
			}
			level, last = min(full, level+slow(p.at)-last)-p.cost*token, slow(p.at)
		}
		room = min(room, min(full, level+slow(at)-last)/token)
	}
	if l.Window.Length != "" {
		length, _ := time.ParseDuration(l.Window.Length)
		// The oldest slot counts whole, by a group time that is slower.
		from, left := at-int64(length)-int64(length)/32, int64(l.Window.Limit)
		for _, p := range all {
			if p.at > from && p.at <= at {
				left -= p.cost
			}
		}
		room = min(room, left)
	}
	return room
}
