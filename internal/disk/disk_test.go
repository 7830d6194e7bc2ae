package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/maestro-conductor/maestro/internal/disk"
)

// A ballast holds real blocks, is made once, and is not made where it would fill the disk.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	const size = 3<<20 + 1
	got, err := disk.MakeBallast(dir, size, 0)
	if err != nil || got != size {
		t.Fatalf("made %d bytes, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, disk.BallastName))
	if err != nil || info.Size() != size {
		t.Fatalf("%v, %v", info, err)
	}
	if got, err := disk.MakeBallast(dir, 10*size, 0); err != nil || got != size {
		t.Fatalf("a second start made %d bytes, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}

func TestNoBallast(t *testing.T) {
	dir := t.TempDir()
	if got, err := disk.MakeBallast(dir, 0, 0); err != nil || got != 0 {
		t.Errorf("none wanted: %d bytes, %v", got, err)
	}
	if got, err := disk.MakeBallast(dir, 1<<20, 1<<62); err != nil || got != 0 {
		t.Errorf("no room: %d bytes, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSpaceOf(t *testing.T) {
	s, err := disk.SpaceOf(t.TempDir())
	if err != nil || s.Free == 0 || s.Total < s.Free {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := disk.SpaceOf(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing folder has room")
	}
}
