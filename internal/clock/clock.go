// Package clock is the one seam through which time enters the product: a wall clock for
// people, and a clock that counts steadily, through suspends too, for everything that must
// not be fooled by the wall clock being set.
package clock

import "time"

// Clock tells the time. It is safe for use by several goroutines.
type Clock interface {
	// Now is the wall clock.
	Now() time.Time
	// Steady is nanoseconds since the machine started, suspends included. It never goes back
	// while Boot stays the same.
	Steady() int64
	// Boot identifies the run of the machine that Steady counts from.
	Boot() uint64
}
