package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/disk"
)

// A node makes its ballast at the first start, and refuses a disk on which it would stop at
// once, naming the file that can be deleted.
func TestOpenDisk(t *testing.T) {
	c := DefaultConfig()
	c.DataDir, c.Disk = t.TempDir(), DiskConfig{BallastBytes: 1 << 20, LowBytes: 4096}
	log := slog.New(slog.DiscardHandler)
	if err := openDisk(c, log); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(c.DataDir, disk.BallastName)); err != nil || info.Size() != 1<<20 {
		t.Errorf("ballast %v, %v", info, err)
	}
	c.Disk.LowBytes = 1 << 62
	if err := openDisk(c, log); err == nil || !strings.Contains(err.Error(), filepath.Join(c.DataDir, disk.BallastName)) {
		t.Errorf("a disk without room: %v", err)
	}
}

// What makes a node stop itself ends it in order, and says why.
func TestStop(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancelCause(context.Background())
	n.halt = cancel
	for range 2 {
		n.stop("disk_critical", errors.New("no room"))
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "disk_critical: no room") {
		t.Errorf("cause %v", err)
	}
}
