package limiter

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// When a window changes now and then, nothing passes that the one in force forbids, as far back as
// the shortest so far remembers.
func TestChangedWindowsKeepWhatWasUsed(t *testing.T) {
	type admitted struct {
		passed
		under int // which window was in force
	}
	rapid.Check(t, func(rt *rapid.T) {
		d := drive(t, 2)
		var now time.Duration
		var history []Window
		var all []admitted
		for range rapid.IntRange(1, 6).Draw(rt, "changes") {
			w := Window{rapid.Uint32Range(1, 150).Draw(rt, "limit"), rapid.SampledFrom([]string{"5ms", "7ms", "100ms", "s", "m"}).Draw(rt, "length")}
			d.Time = now
			d.set(windowed("w", "acme", w.Limit, w.Length))
			history = append(history, w)
			for range rapid.IntRange(0, 15).Draw(rt, "checks") {
				now += genPause().Draw(rt, "pause") / 50
				now = now.Truncate(time.Microsecond)
				cost := rapid.Uint32Range(1, 40).Draw(rt, "cost")
				if rapid.IntRange(0, 3).Draw(rt, "sweep") == 0 {
					d.Time = now
					d.sweep()
				}
				if d.check(now, Request{Tenant: "acme", Cost: cost}).Allow {
					all = append(all, admitted{passed{now.Microseconds(), int64(cost)}, len(history) - 1})
				}
			}
		}
		for i, last := range all {
			// What was forgotten before a longer window came is not known to it.
			shortest := microsOf(history[last.under].Length)
			for _, w := range history[:last.under] {
				shortest = min(shortest, microsOf(w.Length))
			}
			sum := int64(0)
			for _, p := range all[:i+1] {
				if p.at >= last.at-shortest {
					sum += p.cost
				}
			}
			if most := history[last.under].Limit; sum > int64(most) {
				rt.Fatalf("%d tokens in the %d µs until %d, with %d in force: %v", sum, shortest, last.at, most, all)
			}
		}
	})
}

// A restored group counts every window as full at the moment of the restore.
func TestRestoredWindowsAreFull(t *testing.T) {
	for _, most := range []uint32{10, 1000} {
		from := drive(t, 4)
		from.Time = 100 * time.Hour
		from.set(windowed("w", "acme", most, "64s"))
		from.check(100*time.Hour, Request{Tenant: "acme", Cost: 1})
		to := drive(t, 4)
		to.Time = time.Minute
		if err := to.Restore(from.Backup(3)...); err != nil {
			t.Fatal(err)
		}
		got := to.check(time.Minute, Request{Tenant: "acme", Cost: 1})
		if got.Allow || got.RetryAfterMs < 64_000 || got.RetryAfterMs > 66_100 {
			t.Errorf("limit %d at once: %v", most, got)
		}
		to.Restart()
		wait := time.Duration(got.RetryAfterMs) * 999 * time.Microsecond
		if got := to.check(time.Minute+wait-999*time.Microsecond, Request{Tenant: "acme", Cost: 1}); got.Allow {
			t.Errorf("limit %d, a millisecond early: %v", most, got)
		}
		if got := to.check(time.Minute+wait, Request{Tenant: "acme", Cost: most}); !got.Allow {
			t.Errorf("limit %d after its length: %v", most, got)
		}
		to.Time = time.Hour
		if to.sweep(); to.counters() != 0 {
			t.Errorf("%d counters are left that say nothing", to.counters())
		}
	}
}

// A full counter of a window is a row of some hundred bytes.
func TestWindowRowsAreLean(t *testing.T) {
	d := drive(t, 1)
	d.set(windowed("w", "acme", 100_000, "1h"))
	for i := range 64 {
		d.check(time.Duration(i)*time.Hour/64, Request{Tenant: "acme", Cost: 1000})
	}
	row, err := d.Machine().(*Machine).store.Get(appendCounterKey(nil, 1, "acme", ""))
	if err != nil || len(row) > 250 {
		t.Errorf("%d bytes, error %v", len(row), err)
	}
}

// Parts of a change in both layouts, of which a later change leaves none behind.
func TestStagedPartsOfBothLayouts(t *testing.T) {
	d := drive(t, 1)
	plain, window := []Limit{limit("a", ScopeTenant, "acme", "1/s", 1)}, []Limit{windowed("b", "acme", 5, "1h")}
	stage := func(to, part uint32, last bool, puts []Limit) {
		t.Helper()
		res, err := decodeResult(d.Apply(appendConfigure(nil, configureCommand{Change: Change{To: to, Puts: puts}, part: part, last: last}))[0])
		if err != nil || res.outcome != outcomeStaged && res.outcome != outcomeConfigured {
			t.Fatalf("part %d of version %d: outcome %d %s, %v", part, to, res.outcome, res.message, err)
		}
	}
	stage(1, 0, false, plain)
	stage(2, 0, false, window)
	stage(2, 1, true, plain)
	got := d.check(0, Request{Tenant: "acme", Cost: 1})
	if fmt.Sprint(got) != "allow\na (tenant): 0 of 1 left\nb window (tenant): 4 of 5 left" {
		t.Errorf("got %v", got)
	}
}
