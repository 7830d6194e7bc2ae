//go:build race

package limiter

// raceDetector tells whether the tests run with it. A simulation in one goroutine has nothing for it
// to find, and takes ten times as long.
const raceDetector = true
