package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/disk"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// ErrStopped marks a node that stopped itself in order, because going on would have ended
// worse; the wrapping error says why.
var ErrStopped = errors.New("node: stopped itself")

// openDisk refuses a disk on which the node would stop at once, and keeps the ballast. The
// folder exists.
func openDisk(cfg Config, log *slog.Logger) error {
	space, err := disk.SpaceOf(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("node: data_dir: %w", err)
	}
	limits := raftfsm.DiskLimitsOf(space.Total, cfg.Disk.LowBytes)
	ballast := filepath.Join(cfg.DataDir, disk.BallastName)
	if space.Free < limits.Critical {
		return fmt.Errorf("node: the file system of %s has %d bytes free, fewer than %d, and the node would stop at once; "+
			"delete what does not belong there, or the file %s if there is one: it only holds room for this moment", cfg.DataDir, space.Free, limits.Critical, ballast)
	}
	// With less than twice the limit beside it, the ballast would itself make the disk low soon.
	size, err := disk.MakeBallast(cfg.DataDir, cfg.Disk.BallastBytes, 2*limits.Low)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if size < cfg.Disk.BallastBytes {
		log.Warn("the ballast is smaller than configured: there was no room for it, or it was made earlier",
			"file", ballast, "bytes", size, "configured_bytes", cfg.Disk.BallastBytes)
	}
	return nil
}

// stop ends the node in order, which takes at most as long as a drain.
func (n *Node) stop(reason string, err error) {
	n.stopping.Do(func() { n.log.Error("the node stops itself", "reason", reason, "err", err) })
	n.halt(fmt.Errorf("%w: %s: %w", ErrStopped, reason, err))
}

// warnings are what should be mended although the node serves.
func (n *Node) warnings() []string {
	var out []string
	if w := certs.Warning(n.tls.Certificates[0].Leaf, n.clock.Now()); w != "" {
		out = append(out, w)
	}
	if n.isStarted() {
		out = append(out, n.host.Warnings()...)
	}
	return out
}
