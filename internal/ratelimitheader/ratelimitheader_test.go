package ratelimitheader

import (
	"fmt"
	"testing"

	"github.com/maestro-conductor/maestro/limiter"
)

func find(id string) (limiter.Limit, bool) {
	l := map[string]limiter.Limit{
		"api": {
			TokenBucket: limiter.TokenBucket{Rate: "10/s", Burst: 25},
			Window:      limiter.Window{Limit: 1000, Length: "1h"},
		},
		"plan": {Calendar: limiter.Calendar{Limit: 9, Period: limiter.PeriodMonth}},
		"day":  {Calendar: limiter.Calendar{Limit: 9, Period: limiter.PeriodDay}},
	}
	found, ok := l[id]
	return found, ok
}

func level(id, kind string, limit, remaining uint32) limiter.Level {
	return limiter.Level{LimitID: id, Kind: kind, Limit: limit, Remaining: remaining}
}

func TestHeaders(t *testing.T) {
	watching := level("watching", limiter.KindWindow, 5, 0)
	watching.Shadow = true
	for name, c := range map[string]struct {
		decisions    []limiter.Decision
		policy, rate string
	}{
		"nothing": {},
		"allowed": {
			[]limiter.Decision{{Allow: true, Levels: []limiter.Level{
				level("api", limiter.KindTokenBucket, 25, 24), level("api", limiter.KindWindow, 1000, 7), level("plan", limiter.KindCalendar, 9, 8),
				level("day", limiter.KindCalendar, 9, 9), level("unheard-of", limiter.KindWindow, 3, 30), watching,
			}}},
			`"api/window";q=1000;w=3600, "plan";q=9, "day";q=9;w=86400, "api/token_bucket";q=25;w=3, "unheard-of";q=3`,
			`"api/window";r=7, "plan";r=8, "day";r=9, "api/token_bucket";r=24, "unheard-of";r=30`,
		},
		"denied": {
			[]limiter.Decision{{LimitID: "plan", Kind: limiter.KindCalendar, RetryAfterMs: 1001, Levels: []limiter.Level{
				level("day", limiter.KindCalendar, 9, 0), level("plan", limiter.KindCalendar, 9, 3),
			}}},
			`"plan";q=9, "day";q=9;w=86400`,
			`"plan";r=3;t=2, "day";r=0`,
		},
		"two subjects": {
			[]limiter.Decision{
				{Allow: true, Levels: []limiter.Level{level("day", limiter.KindCalendar, 9, 5)}},
				{LimitID: "day", Kind: limiter.KindCalendar, RetryAfterMs: 1, Levels: []limiter.Level{level("day", limiter.KindCalendar, 9, 0)}},
			},
			`"day";q=9;w=86400`, `"day";r=0;t=1`,
		},
		"banned": {[]limiter.Decision{{LimitID: "b", Kind: limiter.KindBanned, Levels: []limiter.Level{level("b", limiter.KindBanned, 0, 0)}}}, "", ""},
	} {
		quotas := Of(find, c.decisions...)
		if got := Policies(quotas); got != c.policy {
			t.Errorf("%s: policy %s\nwant %s", name, got, c.policy)
		}
		if got := Limits(quotas); got != c.rate {
			t.Errorf("%s: limits %s\nwant %s", name, got, c.rate)
		}
	}
}

// Headers stay small, and show what is scarcest.
func TestHeadersAreBounded(t *testing.T) {
	var d limiter.Decision
	for i := range 64 {
		d.Levels = append(d.Levels, level(fmt.Sprintf("limit-%d", i), limiter.KindWindow, 100, uint32(100-i)))
	}
	quotas := Of(find, d)
	if len(quotas) != policiesMax || quotas[0].Name != "limit-63" {
		t.Errorf("%d quotas, first %+v", len(quotas), quotas[0])
	}
}

func TestRetryIn(t *testing.T) {
	for ms, want := range map[uint32]string{1: "1", 1000: "1", 1001: "2", 4294967295: "4294968"} {
		if got := RetryIn(ms); got != want {
			t.Errorf("%d ms: %s, want %s", ms, got, want)
		}
	}
}
