package limiter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func monthly(most uint32) Limit {
	return Limit{ID: "m", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: most, Period: PeriodMonth, TimeZone: "Europe/Berlin"}}
}

// roll says that a majority's clocks have passed a moment.
func (d *driven) roll(wall time.Time) {
	d.t.Helper()
	d.Wall = wall
	if err := d.service().Roll(d.t.Context(), testGroup, wall); err != nil {
		d.t.Fatal(err)
	}
}

func day(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		panic(err)
	}
	return t
}

// A period begins with a committed command, once, and nothing that clocks say later opens it again.
func TestCalendarPeriods(t *testing.T) {
	d := drive(t, 4)
	d.set(monthly(10))
	ask := func(cost uint32) Decision { d.t.Helper(); return d.check(d.Time, Request{Tenant: "acme", Cost: cost}) }
	if got := ask(4); !got.Allow || got.Levels[0].Remaining != 6 {
		t.Errorf("before the period is known: %v", got)
	}
	d.roll(day("2026-11-30 22:00:00")) // 23:00 in Berlin
	if got := ask(6); !got.Allow || got.Levels[0].Remaining != 0 {
		t.Errorf("what was taken before counts in the first period: %v", got)
	}
	if got := ask(1); got.Allow || got.RetryAfterMs != 3_600_000 || got.Kind != KindCalendar {
		t.Errorf("an hour before December: %v", got)
	}
	if got := ask(11); got.Reason != ReasonCostExceedsLimit {
		t.Errorf("more than a month holds: %v", got)
	}
	d.Wall = day("2026-12-05 00:00:00") // the leader's clock alone begins nothing
	d.Time = time.Hour
	if got := ask(1); got.Allow || got.RetryAfterMs != rollDelayMs {
		t.Errorf("the leader's clock alone began a period: %v", got)
	}
	d.roll(day("2026-11-30 22:59:59"))
	if got := ask(1); got.Allow {
		t.Errorf("a second before December: %v", got)
	}
	d.roll(day("2026-11-30 23:00:00"))
	if got := ask(10); !got.Allow {
		t.Errorf("in December: %v", got)
	}
	for _, wall := range []string{"2026-11-30 22:00:00", "2026-12-01 00:00:00", "2026-12-31 22:59:59"} {
		d.roll(day(wall))
		d.Restart()
		if got := ask(1); got.Allow {
			t.Errorf("clocks at %s opened the period again: %v", wall, got)
		}
	}
	d.roll(day("2027-03-15 00:00:00"))
	if got := ask(10); !got.Allow {
		t.Errorf("months later: %v", got)
	}
	if d.sweep(); d.counters() != 1 {
		t.Error("the sweep took a counter that is in use")
	}
	d.roll(day("2027-04-15 00:00:00"))
	if d.sweep(); d.counters() != 0 {
		t.Error("the sweep left a counter that says nothing")
	}
}

// Another period, zone or anchor keeps what was used until the new period ends.
func TestChangedCalendarKeepsWhatWasUsed(t *testing.T) {
	d := drive(t, 4)
	l := monthly(10)
	d.set(l)
	d.roll(day("2026-11-15 12:00:00"))
	d.check(0, Request{Tenant: "acme", Cost: 7})
	l.Calendar.Period, l.Calendar.Limit, l.Calendar.Anchor = PeriodDay, 8, "06:00"
	d.set(l)
	for _, wall := range []string{"2026-11-15 12:00:01", "2026-11-16 04:59:59"} { // 05:59:59 in Berlin
		d.roll(day(wall))
		if got := d.check(0, Request{Tenant: "acme"}); got.Levels[0].Remaining != 1 {
			t.Errorf("at %s: %v", wall, got)
		}
	}
	d.roll(day("2026-11-16 05:00:00"))
	if got := d.check(0, Request{Tenant: "acme"}); got.Levels[0].Remaining != 8 {
		t.Errorf("the next day: %v", got)
	}
}

// A restored calendar window is full until the period of the restore is over.
func TestRestoredCalendarIsFull(t *testing.T) {
	from := drive(t, 4)
	from.set(monthly(10))
	from.roll(day("2026-10-31 12:00:00"))
	to := drive(t, 4)
	if err := to.Restore(from.Backup(3)...); err != nil {
		t.Fatal(err)
	}
	to.roll(day("2026-11-02 12:00:00"))
	if got := to.check(time.Hour, Request{Tenant: "acme", Cost: 1}); got.Allow {
		t.Errorf("in the month of the restore: %v", got)
	}
	second := monthly(5)
	second.ID = "later"
	to.Time = 2 * time.Hour
	to.set(monthly(10), second)
	to.roll(day("2026-11-03 12:00:00"))
	if got := to.check(2*time.Hour, Request{Tenant: "acme"}); got.Levels[0].Remaining != 0 || got.Levels[1].Remaining != 0 {
		t.Errorf("a limit made in the month of the restore: %v", got)
	}
	to.roll(day("2026-12-01 12:00:00"))
	if got := to.check(800*time.Hour, Request{Tenant: "acme", Cost: 5}); !got.Allow {
		t.Errorf("a month later: %v", got)
	}
	third := monthly(5)
	third.ID = "new"
	to.Time = 2000 * time.Hour
	to.set(third)
	if got := to.check(2000*time.Hour, Request{Tenant: "acme", Cost: 5}); !got.Allow {
		t.Errorf("a limit made long after the restore: %v", got)
	}
}

func TestPeriodsFollowTheClocksOfTheirZone(t *testing.T) {
	for _, c := range []struct{ zone, period, anchor, at, begin, end string }{
		{"", PeriodDay, "", "2026-11-26 12:00:00", "2026-11-26 00:00:00", "2026-11-27 00:00:00"},
		{"", PeriodMonth, "28", "2026-02-27 12:00:00", "2026-01-28 00:00:00", "2026-02-28 00:00:00"},
		{"", PeriodMonth, "", "2026-01-31 23:59:59", "2026-01-01 00:00:00", "2026-02-01 00:00:00"},
		{"Europe/Berlin", PeriodMonth, "", "2026-11-30 23:00:00", "2026-11-30 23:00:00", "2026-12-31 23:00:00"},
		// 23 hours, and 25.
		{"Europe/Berlin", PeriodDay, "", "2026-03-29 12:00:00", "2026-03-28 23:00:00", "2026-03-29 22:00:00"},
		{"Europe/Berlin", PeriodDay, "", "2026-10-25 12:00:00", "2026-10-24 22:00:00", "2026-10-25 23:00:00"},
		// 02:30 does not exist that day, and comes twice that other day.
		{"Europe/Berlin", PeriodDay, "02:30", "2026-03-29 00:59:59", "2026-03-28 01:30:00", "2026-03-29 01:00:00"},
		{"Europe/Berlin", PeriodDay, "02:30", "2026-03-29 01:00:00", "2026-03-29 01:00:00", "2026-03-30 00:30:00"},
		{"Europe/Berlin", PeriodDay, "02:30", "2026-10-25 01:30:00", "2026-10-25 00:30:00", "2026-10-26 01:30:00"},
		// Midnight does not exist; a whole day does not exist.
		{"America/Sao_Paulo", PeriodDay, "", "2018-11-04 12:00:00", "2018-11-04 03:00:00", "2018-11-05 02:00:00"},
		{"Pacific/Apia", PeriodDay, "", "2011-12-30 10:00:00", "2011-12-30 10:00:00", "2011-12-31 10:00:00"},
		{"Pacific/Apia", PeriodDay, "", "2011-12-30 09:59:59", "2011-12-29 10:00:00", "2011-12-30 10:00:00"},
	} {
		begin, end, err := Calendar{Period: c.period, TimeZone: c.zone, Anchor: c.anchor}.periodOf(day(c.at))
		if err != nil || begin != day(c.begin).Unix() || end != day(c.end).Unix() {
			t.Errorf("%s %s %q at %s: from %v to %v, %v; want from %s to %s", c.zone, c.period, c.anchor, c.at, time.Unix(begin, 0).UTC(), time.Unix(end, 0).UTC(), err, c.begin, c.end)
		}
	}
}

// Periods follow each other without a gap, in every zone and at every moment.
func TestPeriodsAreContiguous(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := Calendar{
			Period:   rapid.SampledFrom([]string{PeriodDay, PeriodMonth}).Draw(rt, "period"),
			TimeZone: rapid.SampledFrom([]string{"", "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Africa/Cairo"}).Draw(rt, "zone"),
		}
		if c.Anchor = rapid.SampledFrom([]string{"", "00:30", "02:30", "23:59"}).Draw(rt, "anchor"); c.Period == PeriodMonth && c.Anchor != "" {
			c.Anchor = rapid.SampledFrom([]string{"1", "15", "28"}).Draw(rt, "day")
		}
		at := time.Unix(rapid.Int64Range(day("2005-01-01 00:00:00").Unix(), day("2035-01-01 00:00:00").Unix()).Draw(rt, "at"), 0)
		begin, end, err := c.periodOf(at)
		if err != nil || begin > at.Unix() || at.Unix() >= end {
			rt.Fatalf("%+v at %v: from %d to %d, %v", c, at.UTC(), begin, end, err)
		}
		if b, e, err := c.periodOf(time.Unix(end-1, 0)); err != nil || b != begin || e != end {
			rt.Fatalf("%+v: the last second of %d to %d is in %d to %d, %v", c, begin, end, b, e, err)
		}
		if b, _, err := c.periodOf(time.Unix(end, 0)); err != nil || b != end {
			rt.Fatalf("%+v: after %d the next begins at %d, %v", c, end, b, err)
		}
	})
}
