package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init takes over when this process was started as a helper, and does not return then; else it
// does nothing. It must run before anything else in main.
func Init() {
	if len(os.Args) != 1 || os.Args[0] != helperName {
		return
	}
	// Capabilities and the like belong to a thread; the program is started by this one.
	runtime.LockOSThread()
	syscall.CloseOnExec(controlFD)
	syscall.CloseOnExec(reportFD)
	r := help(os.NewFile(controlFD, "control"))
	text, err := json.Marshal(r)
	if err == nil {
		_, err = os.NewFile(reportFD, "report").Write(text)
	}
	// What a Go program does at its exit is the caller's: under the race detector that is a pause of a second.
	if err != nil {
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

func help(control *os.File) report {
	in := bufio.NewReader(control)
	line, err := in.ReadBytes('\n')
	var c Command
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	if err != nil {
		return report{NotFound: fmt.Sprintf("read the command: %v", err)}
	}
	if c.Isolation == Full {
		if err := enter(c); err != nil {
			return report{Unavailable: err.Error()}
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return report{Unavailable: fmt.Sprintf("become the parent of orphans: %v", err)}
	}
	pid, err := start(c)
	if err != nil {
		return report{NotFound: err.Error()}
	}
	go func() {
		// Nothing more is ever sent: the read returns when the caller closes its end, or is gone.
		_, _ = in.ReadByte()
		killChildren()
	}()
	status, err := reap(pid)
	if err != nil {
		return report{NotFound: err.Error()}
	}
	r := report{Result: Result{ExitCode: status.ExitStatus()}}
	if status.Signaled() {
		r.Result.Signal = status.Signal().String()
	}
	r.Result.Leftovers = sweep()
	return r
}

// limit bounds the program, which is stopped at its first instruction. This process, which may
// need more than the program is allowed, stays without.
func limit(pid int, l Limits) error {
	set := []struct {
		what  int
		value uint64
		name  string
	}{
		{unix.RLIMIT_FSIZE, l.FileBytes, "bytes of a file"},
		{unix.RLIMIT_DATA, l.MemoryBytes, "memory"},
		{unix.RLIMIT_NOFILE, l.OpenFiles, "open files"},
		{unix.RLIMIT_NPROC, l.Processes, "processes"},
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	for _, s := range set {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, s.what, nil, &now); err != nil {
			return fmt.Errorf("limit %s: %w", s.name, err)
		}
		if s.value == 0 || s.value > now.Max {
			continue // what the machine allows is less already
		}
		if err := unix.Prlimit(pid, s.what, &unix.Rlimit{Cur: s.value, Max: s.value}, nil); err != nil {
			return fmt.Errorf("limit %s: %w", s.name, err)
		}
	}
	return nil
}

// start gives up every privilege on this thread and starts the program from it.
func start(c Command) (int, error) {
	if err := os.Chdir(c.Dir); err != nil {
		return 0, fmt.Errorf("working folder: %w", err)
	}
	for _, e := range c.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	program, err := exec.LookPath(c.Args[0])
	if err != nil {
		return 0, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("give up privileges: %w", err)
	}
	if c.Isolation == Full {
		if err := dropCapabilities(); err != nil {
			return 0, fmt.Errorf("give up privileges: %w", err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(program, c.Args, &syscall.ProcAttr{
		Env:   c.Env,
		Files: []uintptr{null.Fd(), 1, 2},
		// Traced, it stops before its first instruction, so that limits hold from there on.
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Ptrace: true},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.Args[0], err)
	}
	var status syscall.WaitStatus
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		err = limit(pid, c.Limits)
	}
	if err == nil {
		err = syscall.PtraceDetach(pid)
	}
	if err != nil {
		sweep()
		return 0, fmt.Errorf("limit the program: %w", err)
	}
	return pid, nil
}

func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// reap waits for the program, and for orphans that became children of this process meanwhile.
func reap(program int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return status, fmt.Errorf("wait for the program: %w", err)
		case pid == program && (status.Exited() || status.Signaled()):
			return status, nil
		}
	}
}

// sweep kills what the program left behind and returns how many processes that were.
func sweep() int {
	killed := 0
	for {
		pids := killChildren()
		for _, pid := range pids {
			for {
				if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
					break
				}
			}
		}
		// Children of what was just reaped are children of this process now.
		if killed += len(pids); len(pids) == 0 {
			return killed
		}
	}
}

// killChildren ends every child of this process. Descendants of it become children when their
// parents die, wherever they went, and the next call finds them.
func killChildren() []int {
	pids := children()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return pids
}
