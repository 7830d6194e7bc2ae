package raftfsm

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Compactions of a real store rest between blocks; what fills it, flushes included, does not.
func TestOnlyCompactionsRest(t *testing.T) {
	begun, rests := 0, 0
	fs := compactFS{vfs.NewMem(), func() func() { begun++; return func() { rests++ } }}
	o := pebbleOptions(fs, pebble.DefaultLogger, func(reason string, err error) { t.Errorf("%s: %v", reason, err) })
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
	for range 3 {
		for k := range 2000 {
			if err := db.Set([]byte{byte(k >> 8), byte(k)}, make([]byte, 200), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if begun != 0 || rests != 0 {
		t.Errorf("%d files and %d writes rested before any compaction", begun, rests)
	}
	if err := db.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	if begun == 0 || rests < begun {
		t.Errorf("%d files of compactions, %d rests", begun, rests)
	}
}
