// Package stack grows the stack of a new goroutine at once.
package stack

// size is what a request needs on its way from the listener to the encoded answer, and what a shard's
// query needs. The runtime rounds the stack up to 32 KiB.
const size = 16 << 10

// Grow makes the stack of the calling goroutine large enough for a request. A goroutine begins with a few
// kilobytes, and each time that it needs more the runtime doubles them and moves all frames, which was an
// eighth of what a node does for a small search; with a few frames, and once, it costs next to nothing.
//
//go:noinline
func Grow() byte {
	var frame [size]byte
	return last(&frame)
}

// last is apart, so that the frame is not optimised away.
//
//go:noinline
func last(frame *[size]byte) byte { return frame[size-1] }
