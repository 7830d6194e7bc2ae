package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// jumpMin is the least by which the wall clock and the runtime's clock must have come apart
// before Fast looks: more than what mostly passes between reading one and the other.
const jumpMin = int64(100 * time.Microsecond)

// Fast reads the steady clock of a Clock at a fraction of the price of a system call, for code
// that reads it for every request.
//
// It adds what the runtime's clock has counted to an earlier reading. That clock stands still while
// the machine is suspended, but then the wall clock moves away from it by as much as the
// steady one; so when the two have come apart, the steady clock itself is read. A suspend
// stays unseen only if somebody sets the wall clock back by the same length in between, and then
// until Sync: call that every few milliseconds.
type Fast struct {
	clock Clock
	base  time.Time
	mu    sync.Mutex // held to change state
	state atomic.Pointer[fastState]
}

// fastState is how far the clocks are ahead of the runtime's.
type fastState struct{ wall, steady int64 }

// NewFast makes a Fast of c.
func NewFast(c Clock) *Fast {
	f := &Fast{clock: c, base: time.Now()}
	f.state.Store(&fastState{steady: c.Steady()})
	f.Sync()
	return f
}

// Steady is nanoseconds since the machine started, suspends included. It never goes back.
func (f *Fast) Steady() int64 {
	now := time.Now()
	runtime, s := int64(now.Sub(f.base)), f.state.Load()
	if gap := now.UnixNano() - runtime - s.wall; gap > jumpMin || gap < -jumpMin {
		return f.Sync()
	}
	return runtime + s.steady
}

// Sync is Steady after a look at the steady clock itself.
func (f *Fast) Sync() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	before := int64(now.Sub(f.base))
	steady := f.clock.Steady()
	after := int64(time.Since(f.base))
	s := *f.state.Load()
	s.wall = now.UnixNano() - before
	// Without a suspend in between the distance is what it was, and only appears to differ by the
	// time that the readings took. It never shrinks, so that no moment comes twice.
	if steady-after > s.steady {
		s.steady = steady - before
	}
	f.state.Store(&s)
	return after + s.steady
}
