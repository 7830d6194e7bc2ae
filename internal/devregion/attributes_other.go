//go:build !linux

package devregion

import "syscall"

// nodeAttributes keeps Ctrl-C for the supervisor, which stops the nodes in order.
func nodeAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
