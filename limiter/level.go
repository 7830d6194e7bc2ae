package limiter

import (
	"strings"
	"time"
)

// Matcher compiles text with * wildcards as selectors have it.
func Matcher(text string) func(subject string) bool { return compilePattern(text).match }

// Limit is a limit as this replica knows it; false also on a node that has no replica of the group.
func (m *Machine) Limit(id string) (Limit, bool) {
	set := m.published.Load()
	if set == nil || set.byID[id] == nil {
		return Limit{}, false
	}
	return set.byID[id].Limit, true
}

// Pace is how many tokens a part of the limit gives back, and in what time: the rate of a token
// bucket, the limit and length of a window, or those of a calendar's period, which is 0 for a month
// because months differ. It is 0 and 0 for a part that the limit does not have.
func (l Limit) Pace(kind string) (tokens uint32, period time.Duration) {
	switch {
	case kind == KindTokenBucket && l.hasBucket():
		count, length, _ := strings.Cut(l.TokenBucket.Rate, "/")
		n, err := parseCount("number of tokens", count)
		micros, errPeriod := parsePeriod(length)
		if err != nil || errPeriod != nil {
			return 0, 0
		}
		return uint32(n), time.Duration(micros) * time.Microsecond
	case kind == KindWindow && l.hasWindow():
		micros, err := parsePeriod(l.Window.Length)
		if err != nil {
			return 0, 0
		}
		return l.Window.Limit, time.Duration(micros) * time.Microsecond
	case kind == KindCalendar && l.Calendar.Period == PeriodDay:
		return l.Calendar.Limit, 24 * time.Hour
	case kind == KindCalendar && l.hasCalendar():
		return l.Calendar.Limit, 0
	}
	return 0, 0
}
