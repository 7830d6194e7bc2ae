package raftfsm_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/maestro-conductor/maestro/raftfsm"
)

func write(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

func TestFolderKeepsWholeFilesOnly(t *testing.T) {
	fs := vfs.NewCrashableMem()
	f := raftfsm.NewFolder(fs, "group/derived")
	if names, err := f.List(); err != nil || len(names) > 0 {
		t.Fatalf("before the first file: %v, %v", names, err)
	}
	if err := f.Write("one", write("first")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := f.Write("two", func(w io.Writer) error { return errors.Join(write("half")(w), broken) }); !errors.Is(err, broken) {
		t.Fatalf("a write that fails: %v", err)
	}
	// A power loss in the middle of a write leaves the files that were there, whole.
	var after vfs.FS
	if err := f.Write("three", func(w io.Writer) error {
		after = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		return write("third")(w)
	}); err != nil {
		t.Fatal(err)
	}
	for _, disk := range []struct {
		fs    vfs.FS
		names []string
	}{{fs, []string{"one", "three"}}, {after, []string{"one"}}, {fs.CrashClone(vfs.CrashCloneCfg{}), []string{"one", "three"}}} {
		f := raftfsm.NewFolder(disk.fs, "group/derived")
		names, err := f.List()
		if slices.Sort(names); err != nil || !slices.Equal(names, disk.names) {
			t.Errorf("files %v, %v; want %v", names, err, disk.names)
		}
	}
	file, err := f.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := f.Remove("one"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, file.Size())
	if _, err := file.ReadAt(b, 0); err != nil || string(b) != "first" {
		t.Errorf("an open file that was removed reads %q, %v", b, err)
	}
	if _, err := f.Open("one"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a removed file: %v", err)
	}
	if err := f.Remove("one"); err != nil {
		t.Errorf("removed again: %v", err)
	}
}
