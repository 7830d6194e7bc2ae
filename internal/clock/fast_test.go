package clock

import (
	"testing"
	"time"
)

// wound is a clock that a test winds forward, as a suspend would.
type wound struct {
	Clock
	suspended int64
}

func (w *wound) Steady() int64 { return w.Clock.Steady() + w.suspended }

func woundClock(t testing.TB) *wound {
	system, err := System()
	if err != nil {
		t.Fatal(err)
	}
	return &wound{Clock: system}
}

func TestFastFollowsTheSteadyClock(t *testing.T) {
	w := woundClock(t)
	began := w.Steady()
	f := NewFast(w)
	slack := w.Steady() - began // what its first reading may have taken
	last := int64(0)
	for range 1000 {
		before := w.Steady()
		got := f.Steady()
		if after := w.Steady(); got < before-slack || got > after+slack || got < last {
			t.Fatalf("%d after %d, want between %d and %d", got, last, before, after)
		}
		last = got
	}
	w.suspended = int64(time.Hour)
	if before, got := w.Steady(), f.Sync(); got < before {
		t.Errorf("Sync: %d after a suspend, want at least %d", got, before)
	}
	if before, got := w.Steady(), f.Steady(); got < before-slack {
		t.Errorf("%d after a suspend, want at least %d", got, before)
	}
}

// A suspend moves the wall clock away from the runtime's: that alone makes Fast look.
func TestFastSeesASuspendByTheWallClock(t *testing.T) {
	w := woundClock(t)
	f := NewFast(w)
	w.suspended = int64(time.Hour)
	s := *f.state.Load()
	s.wall -= int64(time.Hour) // as if the wall clock had gone on meanwhile
	f.state.Store(&s)
	if before, got := w.Steady(), f.Steady(); got < before {
		t.Errorf("%d after a suspend, want at least %d", got, before)
	}
}

func BenchmarkFastSteady(b *testing.B) {
	f := NewFast(woundClock(b))
	for b.Loop() {
		f.Steady()
	}
}
