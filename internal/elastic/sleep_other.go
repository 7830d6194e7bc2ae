//go:build !linux

package elastic

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
