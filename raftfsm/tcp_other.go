//go:build !linux

package raftfsm

import (
	"net"
	"time"
)

// setUserTimeout does nothing where the option does not exist; keepalive remains.
func setUserTimeout(*net.TCPConn, time.Duration) {}
