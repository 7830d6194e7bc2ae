package limiter

import (
	"cmp"
	"fmt"
	"slices"
)

// judge finds what must not be.
func (s *sim) judge() error {
	if s.lost != nil {
		return s.lost
	}
	limits := slices.Concat(s.plan.limits, s.plan.changed)
	keys := make([]simCounter, 0, len(s.taken))
	for key := range s.taken { // any order
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b simCounter) int {
		return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.subject, b.subject))
	})
	for _, key := range keys {
		all := s.taken[key]
		slices.SortStableFunc(all, func(a, b passed) int { return cmp.Compare(a.at, b.at) })
		// While a change is under way the larger limit holds; when the old leases are over, the new one.
		widest := s.widest(key.uid, limits)
		if err := over(widest, all); err != "" {
			return fmt.Errorf("limit %d of %q: %s", key.uid, key.subject, err)
		}
	}
	return nil
}

// widest is the limit with this number, or the more generous one of it before and after a change.
func (s *sim) widest(uid uint64, limits []Limit) Limit {
	var out Limit
	for i, l := range limits {
		if uint64(i%len(s.plan.limits)+1) != uid {
			continue
		}
		if out.ID == "" {
			out = l
			continue
		}
		out.TokenBucket.Burst = max(out.TokenBucket.Burst, l.TokenBucket.Burst)
		out.Window.Limit = max(out.Window.Limit, l.Window.Limit)
		if l.hasBucket() && perMicro(l).Cmp(perMicro(out)) > 0 {
			out.TokenBucket.Rate = l.TokenBucket.Rate
		}
	}
	return out
}

// over is violation in one pass: the bucket by its arrival curve, the window by two pointers.
func over(l Limit, all []passed) string {
	if l.hasBucket() {
		rate, _ := perMicro(l).Float64()
		level, last := float64(l.TokenBucket.Burst), int64(0)
		for _, p := range all {
			level = min(float64(l.TokenBucket.Burst), level+rate*float64(p.at-last)) - float64(p.cost)
			if last = p.at; level < -1e-6 {
				return fmt.Sprintf("%.3f tokens more than the bucket allows at %d µs", -level, p.at)
			}
		}
	}
	if l.hasWindow() {
		sum, first, length := int64(0), 0, microsOf(l.Window.Length)
		for _, p := range all {
			for sum += p.cost; p.at-all[first].at > length; first++ {
				sum -= all[first].cost
			}
			if sum > int64(l.Window.Limit) {
				return fmt.Sprintf("%d tokens in the window that ends at %d µs; it allows %d", sum, p.at, l.Window.Limit)
			}
		}
	}
	return ""
}
