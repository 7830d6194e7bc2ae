package raftfsm

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// run lets d of running time pass and returns what went beyond a bound.
func (w *writeWatch) run(d time.Duration) []lateWrite {
	var late []lateWrite
	for ; d > 0; d -= watchInterval {
		late = append(late, w.tick(watchInterval)...)
	}
	return late
}

// A write is told of once when it is slow, and every time when it is stalled; the disk counts
// as slow for a while after it.
func TestSlowAndStalledWrites(t *testing.T) {
	w := newWriteWatch(writeBounds{slow: time.Second, stalled: 10 * time.Second})
	quick := w.begin("a", "append")
	if late := w.run(watchInterval); late != nil {
		t.Fatalf("at once: %+v", late)
	}
	w.end(quick)
	long := w.begin("a", "append")
	late := w.run(9 * time.Second)
	if len(late) != 1 || late[0].stalled || late[0].group != "a" || late[0].op != "append" {
		t.Fatalf("after 9 s: %+v", late)
	}
	if !w.slow() {
		t.Error("the disk does not count as slow")
	}
	if late := w.run(time.Second); len(late) != 1 || !late[0].stalled {
		t.Fatalf("after 10 s: %+v", late)
	}
	w.end(long)
	if late := w.run(slowDiskMemory / 2); late != nil || !w.slow() {
		t.Errorf("soon after the end: %+v, slow %v", late, w.slow())
	}
	if late := w.run(slowDiskMemory); late != nil || w.slow() {
		t.Errorf("long after the end: %+v, slow %v", late, w.slow())
	}
}

// A process that was stopped, or a machine that slept, finds no stalled disk when it goes on.
func TestAPauseIsNoStall(t *testing.T) {
	w := newWriteWatch(writeBounds{slow: time.Second, stalled: 10 * time.Second})
	w.begin("a", "append")
	if late := w.tick(time.Hour); late != nil || w.slow() {
		t.Errorf("after a pause: %+v, slow %v", late, w.slow())
	}
}

// Pebble's events about one operation count as one write; those of another begin anew.
func TestSlowState(t *testing.T) {
	w := newWriteWatch(writeBounds{slow: time.Second, stalled: 10 * time.Second})
	event := func(d time.Duration) {
		w.diskSlow(pebble.DiskSlowInfo{Path: "000001.log", OpType: vfs.OpTypeSync, Duration: d})
	}
	stalled := func(late []lateWrite) bool {
		for _, l := range late {
			if l.stalled {
				return true
			}
		}
		return false
	}
	// A pause of the process looks like a long operation, once.
	event(time.Hour)
	if late := w.run(3 * stateEventMemory); stalled(late) {
		t.Errorf("one event: %+v", late)
	}
	// Several operations in turn, each slow and finished.
	for range 10 {
		event(5 * time.Second)
		if late := w.run(2 * time.Second); stalled(late) {
			t.Errorf("several operations: %+v", late)
		}
	}
	w.run(2 * stateEventMemory)
	var late []lateWrite
	for d := 5 * time.Second; d < 16*time.Second; d += 2 * time.Second {
		event(d)
		late = append(late, w.run(2*time.Second)...)
	}
	if !stalled(late) {
		t.Errorf("one operation under way: %+v", late)
	}
}
