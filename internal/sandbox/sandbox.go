// Package sandbox runs one program apart from the machine it runs on: its own root with the
// system's programs read-only and only the folders that the caller binds, no network, its own
// process table and nothing else in /proc, and limits of memory and files. When the program ends, or its time does,
// everything that it started ends too.
//
// Two levels. Full uses Linux namespaces of users, mounts, processes, network and IPC, without
// any privilege of its own; where the kernel refuses them, Run says so with ErrUnavailable and
// runs nothing. None confines nothing but keeps the clean environment, the limits and the end
// of all descendants; nobody gets it without asking for it.
//
// The program is started by a helper, which is this binary again: a program that uses this
// package calls Init first thing in main, tests in TestMain.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Isolation is how far a program is kept apart.
type Isolation string

const (
	// Full is a world of its own: see the package comment.
	Full Isolation = "full"
	// None is this machine as it is, with the caller's rights.
	None Isolation = "none"
)

var (
	// ErrUnavailable means that this machine does not permit full isolation; the text says
	// which step was refused. Nothing ran.
	ErrUnavailable = errors.New("this machine does not permit isolation")
	// ErrNotFound means that there is no such program, or that it cannot be executed. Nothing ran.
	ErrNotFound = errors.New("the program cannot be executed")
)

// Bind makes a folder of this machine visible to the program.
type Bind struct {
	// Host is the folder here, absolute; At is where the program finds it. They differ only under full
	// isolation: without it, a program finds every folder where it is.
	Host, At string
	Writable bool
}

// Limits bound what a program may use. Zero means no limit.
type Limits struct {
	// FileBytes bounds each file that is written: a longer write ends the writer with SIGXFSZ.
	FileBytes uint64
	// MemoryBytes bounds the private memory of each process.
	MemoryBytes uint64
	// OpenFiles bounds the descriptors of each process.
	OpenFiles uint64
	// Processes bounds the processes and threads of the user in the sandbox. The kernel exempts root:
	// when the caller is root, it binds nothing.
	Processes uint64
}

// Command is a program to run.
type Command struct {
	// Args are the program and its arguments: a name to be found on the PATH of Env, or a path,
	// which is relative to Dir. No shell reads them.
	Args []string
	// Dir is the working folder, as the program sees it.
	Dir string
	// Env is the whole environment.
	Env []string
	// Stdout and Stderr take what the program writes. Both nil means discarded.
	Stdout, Stderr io.Writer
	Binds          []Bind
	Limits         Limits
	Isolation      Isolation
	// Network leaves the machine's network to a fully isolated program.
	Network bool
	// Root is an existing empty folder of this machine on which the program's own root is built
	// under full isolation; nothing is written to it here.
	Root string
}

// Result is how a program ended.
type Result struct {
	// ExitCode is the status, or -1 when a signal ended the program.
	ExitCode int
	// Signal names the signal that ended it, such as "killed"; else it is empty.
	Signal string
	// Leftovers counts the processes that were still there when the program ended, and were killed.
	Leftovers int
}

// Run runs c until it ends or ctx does; then everything that it started is killed and the
// error is that of ctx. Other errors mean that the program did not run: see ErrUnavailable and
// ErrNotFound. How the program ended is the result's, never an error.
func Run(ctx context.Context, c Command) (Result, error) {
	if len(c.Args) == 0 {
		return Result{}, fmt.Errorf("%w: no arguments", ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	r, err := run(ctx, c)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return r, err
}

// Path is where programs are looked for: a value for PATH in Command.Env.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Probe says whether this machine permits full isolation: nil, or an error that wraps
// ErrUnavailable. It runs one program to find out.
func Probe(ctx context.Context) error { return probe(ctx) }

// killDelay is how long a helper may take to kill what it started before it is killed itself.
const killDelay = 5 * time.Second
