package devregion

import "syscall"

// nodeAttributes keeps Ctrl-C for the supervisor, which stops the nodes in order, and ends
// the nodes when the supervisor dies.
func nodeAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
