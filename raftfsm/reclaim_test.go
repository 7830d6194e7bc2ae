package raftfsm

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A state of which most was deleted comes down to what it holds when it rests, and not before.
func TestStateAtRestIsReclaimed(t *testing.T) {
	o := pebbleOptions(vfs.NewMem(), pebble.DefaultLogger, func(reason string, err error) { t.Errorf("%s: %v", reason, err) })
	o.DisableAutomaticCompactions = true
	db, err := pebble.Open("state", o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	random := rand.NewChaCha8([32]byte{})
	key := func(k uint32) []byte { return binary.BigEndian.AppendUint32(nil, k) }
	value := make([]byte, 1000)
	const rows, more = 24_000, 8000
	fill := func(from, to uint32) {
		for k := from; k < to; k++ {
			_, _ = random.Read(value)
			if err := db.Set(key(k), value, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(0, rows)
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(t.Context(), key(0), key(rows), false); err != nil {
		t.Fatal(err)
	}
	r := reclaimer{db: db}
	for _, part := range [][2]uint32{{1000, 9000}, {10_000, 15_000}, {15_000, 22_000}} {
		if err := db.DeleteRange(key(part[0]), key(part[1]), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		r.add(key(part[0]), key(part[1]))
	}
	r.add(key(rows), key(rows+more)) // of which nothing is there
	if len(r.deleted) != 3 {
		t.Fatalf("%d ranges are remembered, want 3", len(r.deleted))
	}
	fill(rows+more, rows+2*more)
	size := func() uint64 { return db.Metrics().Table.Local.LiveSize }
	full := size()
	step := func() {
		t.Helper()
		if err := r.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.TestOnlyWaitForCleaning()
	}
	step()
	if got := size(); got != full || db.Metrics().WAL.Size < reclaimLog {
		t.Errorf("while it was written to, the state went from %d bytes to %d", full, got)
	}
	step()
	live := uint64(4000+more) * 1004
	if got := size(); got > live+live/10 || r.garbage.Load() != 0 || len(r.deleted) != 0 {
		t.Errorf("a state of %d bytes takes %d at rest, and %d before; %d bytes in %d ranges are left", live, got, full, r.garbage.Load(), len(r.deleted))
	}
	if m := db.Metrics(); m.WAL.Size > reclaimLog || m.WAL.ObsoleteFiles != 0 {
		t.Errorf("logs of memtables take %d bytes at rest, and %d of them are obsolete", m.WAL.Size, m.WAL.ObsoleteFiles)
	}
}

// However many ranges are deleted, a few are remembered, and cover them all.
func TestDeletedRangesAreBounded(t *testing.T) {
	var r reclaimer
	key := func(k uint32) []byte { return binary.BigEndian.AppendUint32(nil, k) }
	for _, k := range rand.New(rand.NewPCG(1, 2)).Perm(10_000) {
		r.add(key(uint32(3*k)), key(uint32(3*k+1)))
	}
	if len(r.deleted) > deletedMax {
		t.Fatalf("%d ranges", len(r.deleted))
	}
	covered := func(k uint32) bool {
		for _, d := range r.deleted {
			if string(d.Start) <= string(key(k)) && string(key(k)) < string(d.End) {
				return true
			}
		}
		return false
	}
	for k := range uint32(10_000) {
		if !covered(3 * k) {
			t.Fatalf("the range at %d is forgotten", 3*k)
		}
	}
	for i, d := range r.deleted {
		if i > 0 && string(r.deleted[i-1].End) >= string(d.Start) {
			t.Fatalf("ranges %d and %d touch", i-1, i)
		}
	}
}
