package clock

import (
	"sync"
	"time"
)

// Manual is a clock that stands still until a test moves it.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	steady int64
	boot   uint64
}

// NewManual starts a clock at now, one second after its boot.
func NewManual(now time.Time) *Manual {
	return &Manual{now: now, steady: int64(time.Second), boot: 1}
}

// Now is the wall clock.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Steady is nanoseconds since the boot.
func (m *Manual) Steady() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steady
}

// Boot identifies the boot.
func (m *Manual) Boot() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot
}

// Advance moves both clocks forward.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	m.steady += int64(d)
}

// SetWall sets the wall clock alone, as an administrator or NTP would.
func (m *Manual) SetWall(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = now
}

// Reboot starts Steady anew under another boot.
func (m *Manual) Reboot() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot++
	m.steady = int64(time.Second)
}
