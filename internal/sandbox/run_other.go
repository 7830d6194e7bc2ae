//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
)

// Init does nothing here: there are no helpers.
func Init() {}

// run knows no isolation and no limits here: it kills the program's process group at the end,
// and processes that left the group stay.
func run(ctx context.Context, c Command) (Result, error) {
	if c.Isolation == Full {
		return Result{}, probe(ctx)
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, c.Stdout, c.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	cmd.WaitDelay = killDelay
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	err := cmd.Wait()
	_ = kill()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Result{}, err
	}
	r := Result{ExitCode: cmd.ProcessState.ExitCode()}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		r.Signal = s.Signal().String()
	}
	return r, nil
}

func probe(context.Context) error {
	return fmt.Errorf("%w: it needs Linux, and this is %s", ErrUnavailable, runtime.GOOS)
}
