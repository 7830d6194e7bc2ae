package stack

import "testing"

// descend uses about as much stack as a request, in small frames.
//
//go:noinline
func descend(n int) (sum byte) {
	var frame [128]byte
	frame[n%len(frame)] = byte(n)
	if n > 0 {
		sum = descend(n - 1)
	}
	return sum + frame[(n+1)%len(frame)]
}

func BenchmarkNewGoroutine(b *testing.B) {
	for name, begin := range map[string]func(){"grown": func() { Grow() }, "as_it_is": func() {}} {
		b.Run(name, func(b *testing.B) {
			done := make(chan byte)
			for range b.N {
				go func() {
					begin()
					done <- descend(60)
				}()
				<-done
			}
		})
	}
}
