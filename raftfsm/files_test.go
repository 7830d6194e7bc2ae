package raftfsm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/maestro-conductor/maestro/internal/disk"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// A received state survives when everything that was not synced is lost right after: all
// files of a host go through the seam, and what it counts on is durable.
func TestReceivedStateSurvivesLostPower(t *testing.T) {
	disks := make([]*vfs.MemFS, 3)
	logs := make([]string, 3)
	for i := range disks {
		disks[i], logs[i] = vfs.NewCrashableMem(), t.TempDir()
	}
	var mu sync.Mutex
	c := hosttest.Start(t, 3, twoGroups, littleLog, hosttest.Configure(func(i int, o *raftfsm.Options) {
		mu.Lock()
		defer mu.Unlock()
		o.FS = disks[i]
		o.DiskSpace = func() (disk.Space, error) { return disk.SpaceOf(logs[i]) }
		o.OpenLog = func(_ string, group raftfsm.GroupID) (raftfsm.LogFile, error) {
			dir := filepath.Join(logs[i], fmt.Sprint(group))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, err
			}
			return raftfsm.OpenBolt(dir, group)
		}
	}))
	leader := c.AwaitLeader("a")
	away := (leader + 1) % 3
	c.Stop(away)
	for i := range 200 {
		add(t, c.Host(leader), groupA, fmt.Sprint("k", i%50))
	}
	marker := filepath.Join(c.Dir(leader), "raft", "a", "snapshots", "marker")
	c.Await("the log to be truncated", func() bool { _, err := disks[leader].Stat(marker); return err == nil })
	c.Start(away)
	awaitEqualStates(t, c, groupA)

	// The power fails before the host can close anything: what it closes later is on another disk.
	after := disks[away].CrashClone(vfs.CrashCloneCfg{})
	c.Stop(away)
	mu.Lock()
	disks[away] = after
	mu.Unlock()
	if _, err := os.Stat(c.Dir(away)); !os.IsNotExist(err) {
		t.Errorf("something was written beside the seam: %v", err)
	}
	c.Start(away)
	awaitEqualStates(t, c, groupA)
	if got := read(t, c.Host(away), groupA, "k7"); got != 4 {
		t.Fatalf("k7 is %d after the power came back, want 4", got)
	}
}
