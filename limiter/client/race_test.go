//go:build race

package client

// raceDetector makes long tests shorter.
const raceDetector = true
