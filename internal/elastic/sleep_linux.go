package elastic

import (
	"syscall"
	"time"
)

// sleep blocks a thread, as a timer of Go would be up to a millisecond late on an idle machine. A
// signal may end it early.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // fails only when a signal comes
}
