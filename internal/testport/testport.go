// Package testport gives tests addresses that they can listen on more than once. A port that
// the system chose may become somebody's outgoing port while nobody listens on it, so these
// come from below the range that systems choose from.
package testport

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

const (
	first = 10_000
	count = 20_000
	// stride keeps the tests of processes that run side by side apart.
	stride = 97
)

var next atomic.Int64

// Address returns a loopback address that nobody listens on, and that no other call in this
// process returns.
func Address(t testing.TB) string {
	t.Helper()
	start := int64(os.Getpid()) * stride
	for range count {
		addr := fmt.Sprintf("127.0.0.1:%d", first+(start+next.Add(1))%count)
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port on loopback")
	return ""
}
