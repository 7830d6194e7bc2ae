// Command maestro is the whole of Maestro Conductor in one binary: the node, a region for
// development, and the command line for people and scripts.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/maestro-conductor/maestro/internal/sandbox"
)

func main() {
	sandbox.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
