//go:build !linux

package clock

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// System returns the process's own clock. Without a clock that survives the process, every
// start counts as a new boot: after a restart the group's time continues from its last
// stamp, which can only deny a little longer.
func System() (Clock, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("clock: boot id: %w", err)
	}
	return system{start: time.Now(), boot: binary.BigEndian.Uint64(b[:])}, nil
}

type system struct {
	start time.Time
	boot  uint64
}

func (system) Now() time.Time  { return time.Now() }
func (s system) Steady() int64 { return int64(time.Since(s.start)) }
func (s system) Boot() uint64  { return s.boot }
