package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// helperName is the zeroth argument of a helper: nothing that a user types starts one.
const helperName = "maestro-sandbox-helper"

// Descriptors of a helper, beside the standard ones.
const (
	controlFD = 3 // the command, as JSON; its end means: kill everything and go
	reportFD  = 4 // the report, as JSON
)

// innerID is the user and group that a fully isolated program sees itself as.
const innerID = 1000

// report is what a helper says at its end.
type report struct {
	Result      Result
	Unavailable string `json:",omitempty"` // isolation failed, and where
	NotFound    string `json:",omitempty"` // the program could not be started
}

func run(ctx context.Context, c Command) (Result, error) {
	control, controlEnd, err := os.Pipe()
	if err != nil {
		return Result{}, err
	}
	defer controlEnd.Close()
	defer control.Close()
	reportEnd, reports, err := os.Pipe()
	if err != nil {
		return Result{}, err
	}
	defer reportEnd.Close()
	defer reports.Close()

	// The helper gets an end of its own: only this process holds the other one, so that it is
	// closed when this process ends in whatever way.
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{helperName}
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{control, reports}
	cmd.Cancel = controlEnd.Close
	cmd.WaitDelay = killDelay
	if c.Isolation == Full {
		cmd.SysProcAttr = namespaces(c.Network)
	}
	if err := cmd.Start(); err != nil {
		if c.Isolation == Full && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES)) {
			return Result{}, fmt.Errorf("%w: new namespaces: %v", ErrUnavailable, err)
		}
		return Result{}, fmt.Errorf("start the helper: %w", err)
	}
	control.Close()
	reports.Close()
	c.Stdout, c.Stderr = nil, nil
	spec, err := json.Marshal(c)
	if err == nil {
		_, err = controlEnd.Write(append(spec, '\n'))
	}
	if err != nil {
		controlEnd.Close()
	}
	waitErr := cmd.Wait()
	reports.Close()
	text, _ := io.ReadAll(io.LimitReader(reportEnd, 64<<10))
	var r report
	switch {
	case json.Unmarshal(text, &r) != nil:
		return Result{}, fmt.Errorf("the helper ended without a report: %w", errors.Join(err, waitErr))
	case r.Unavailable != "":
		return Result{}, fmt.Errorf("%w: %s", ErrUnavailable, r.Unavailable)
	case r.NotFound != "":
		return Result{}, fmt.Errorf("%w: %s", ErrNotFound, r.NotFound)
	}
	return r.Result, nil
}

// namespaces makes the helper the first process of its own namespaces, as an ordinary user
// with the one capability that it needs to build a root there.
func namespaces(network bool) *syscall.SysProcAttr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if !network {
		flags |= unix.CLONE_NEWNET
	}
	return &syscall.SysProcAttr{
		Cloneflags:  flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: innerID, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: innerID, HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
}

func probe(ctx context.Context) error {
	root, err := os.MkdirTemp("", "sandbox-probe-")
	if err != nil {
		return err
	}
	defer os.Remove(root)
	r, err := Run(ctx, Command{Args: []string{"true"}, Dir: "/", Env: []string{"PATH=" + Path}, Isolation: Full, Root: root})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("%w: true ended with status %d %s", ErrUnavailable, r.ExitCode, r.Signal)
	}
	return err
}

// children lists the children of this process.
func children() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended; its children are another's now
		}
		for _, word := range strings.Fields(string(text)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
