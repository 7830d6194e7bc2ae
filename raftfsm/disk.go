package raftfsm

import (
	"fmt"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/internal/disk"
)

// diskInterval is how often the free space is looked at: a disk that writes half a gigabyte a
// second fills a quarter of the default reserve meanwhile.
const diskInterval = time.Second

// DiskLimits are the free bytes of a node's file system at which it acts.
type DiskLimits struct {
	// Low is where it stops taking what fills the disk. Between Low and Critical is the
	// reserve for compactions, for logs on their way, and for the groups that go on.
	Low uint64
	// Critical is where it stops itself in order: a log write that fails for want of room ends
	// the process hard, and a log that cannot be truncated cannot make room either.
	Critical uint64
}

// diskLowDefault is DiskLimits.Low unless the operator says otherwise. Not smaller: compactions
// of the state need some hundred MiB for a while, and between two looks a busy node writes
// some hundred more; a quarter of it has to be enough for the stop. Not larger: what is needed does
// not grow with the disk, and is room that cannot be used.
const diskLowDefault = 2 << 30

// DiskLimitsOf returns the limits on a file system of total bytes. low is what the operator
// wants; 0 means 2 GiB, and at most a tenth of a small file system.
func DiskLimitsOf(total, low uint64) DiskLimits {
	if low == 0 {
		low = min(diskLowDefault, total/10)
	}
	return DiskLimits{Low: low, Critical: low / 4}
}

// diskWatch is what a node knows of its disk's room.
type diskWatch struct {
	// space asks the file system; low is the operator's limit, or 0.
	space func() (disk.Space, error)
	low   uint64

	mu    sync.Mutex
	known disk.Space
	full  bool // below Low, and not far enough above it since
}

// look asks the file system and returns what it says and whether that is low, which it stays
// until there is a quarter more room than the limit: a node must not change its mind with
// every file that is deleted.
func (d *diskWatch) look() (s disk.Space, l DiskLimits, low, was bool, err error) {
	if s, err = d.space(); err != nil {
		return s, l, false, false, err
	}
	l = DiskLimitsOf(s.Total, d.low)
	d.mu.Lock()
	defer d.mu.Unlock()
	was = d.full
	d.known, d.full = s, s.Free < l.Low || d.full && s.Free < l.Low+l.Low/4
	return s, l, d.full, was, nil
}

func (d *diskWatch) isLow() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

func (d *diskWatch) lastSpace() (disk.Space, DiskLimits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known, DiskLimitsOf(d.known.Total, d.low)
}

// watchDisk looks at the disk until the host closes.
func (h *Host) watchDisk() {
	defer h.wg.Done()
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		h.lookAtDisk()
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// lookAtDisk finds out how much room there is, here and at the voters of every group, and acts
// on it.
func (h *Host) lookAtDisk() {
	s, l, low, was, err := h.disk.look()
	if err != nil {
		h.notices.say("disk", func() { h.log.Error("free space of the disk is not known", "err", err) })
	} else {
		room := []any{"free_bytes", s.Free, "low_bytes", l.Low, "critical_bytes", l.Critical}
		switch {
		case s.Free < l.Critical:
			h.stop(ReasonDiskCritical, fmt.Errorf("the file system of %s has %d bytes free, fewer than %d; delete what does not belong there, or the file %s in the data folder, and start again",
				h.dir, s.Free, l.Critical, disk.BallastName))
		case low && !was:
			h.log.Warn("the disk is nearly full: what fills it is refused", append(room, "reason", ReasonDiskLow)...)
			for _, g := range h.open() {
				// They pin rows that would make room. Their readers begin anew.
				if err := h.backups.drop(g); err != nil {
					h.log.Warn("a reading for a backup did not end well", "err", err)
				}
			}
		case was && !low:
			h.log.Info("the disk has room again", room...)
		}
	}
	for _, g := range h.open() {
		full := g.bulk && h.outOfRoom(g)
		if full && !g.guard.full.Load() {
			h.metrics.acted(g.name, ReasonDiskFull)
		}
		g.guard.full.Store(full)
	}
}

// outOfRoom tells whether a group must not grow: the disk of this node or those of a majority
// of the voters are low. A single low follower stops nobody; it stops itself if need be.
func (h *Host) outOfRoom(g *group) bool {
	if h.disk.isLow() {
		return true
	}
	voters, low := g.voters(), 0
	for id := range voters {
		if s, ok := h.peer(MemberOf(id)); ok && s.Disk == DiskLow {
			low++
		}
	}
	return low > len(voters)/2
}

// diskState is what this node tells its peers of its disk.
func (h *Host) diskState() Disk {
	switch {
	case h.disk.isLow():
		return DiskLow
	case h.writes.slow():
		return DiskSlow
	}
	return DiskGood
}
