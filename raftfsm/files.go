package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Everything that a host stores goes through one seam: files through Options.FS, the groups'
// logs through Options.OpenLog. Tests of lost power put something in it that forgets what was
// not synced.

// LogFile is the store of one group's Raft log, its term and its vote. Writes are durable when
// they return.
type LogFile interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// makeDir creates dir and the folders above it that are missing, each for this user alone and
// durable in its parent: a synced file is lost with its folder.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("raftfsm: create folder: %w", err)
	}
	return syncDir(fs, parent)
}

// tempName is a name in dir that no other file has. What a crash leaves under such names is
// removed at the next start.
func tempName(fs vfs.FS, dir, kind string) string {
	return fs.PathJoin(dir, fmt.Sprintf("tmp-%s-%016x", kind, rand.Uint64()))
}

// WriteFile replaces the file at path atomically and durably.
func WriteFile(path string, b []byte) error { return writeFile(vfs.Default, path, b) }

func writeFile(fs vfs.FS, path string, b []byte) error {
	dir := fs.PathDir(path)
	temp := tempName(fs, dir, fs.PathBase(path))
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("raftfsm: write %s: %w", path, err)
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: copySyncBytes})
	for len(b) > 0 && err == nil {
		piece := b[:min(len(b), copySyncBytes)]
		_, err = f.Write(piece)
		b = b[len(piece):]
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = fs.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("raftfsm: write %s: %w", path, err), fs.Remove(temp))
	}
	return syncDir(fs, dir)
}

// readFile is the content of the file at path; its error is os.ErrNotExist when there is none.
func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// removeFile removes the file at path if there is one.
func removeFile(fs vfs.FS, path string) error {
	if err := fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("raftfsm: sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
