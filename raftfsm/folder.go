package raftfsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Folder is files of one group on this node, for what its machine derives from the state and
// is better read in place than as rows. It is neither replicated nor part of a snapshot. Other
// than the rows of Derived it survives a restored snapshot, so the machine must know from a
// file what of the state it stands for; since entries are applied in one order everywhere,
// what was derived from a state is right for every later one. It goes when the replica is erased.
type Folder struct {
	fs  vfs.FS
	dir string
}

// folderName is the folder in a group's own.
const folderName = "derived"

// NewFolder uses dir, which is made with the first file.
func NewFolder(fs vfs.FS, dir string) *Folder { return &Folder{fs: fs, dir: dir} }

// List returns the names of the files, and removes what a crash left half-written, so
// it must not run beside Write.
func (f *Folder) List() ([]string, error) {
	all, err := f.fs.List(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("raftfsm: list derived files: %w", err)
	}
	names := all[:0]
	for _, name := range all {
		if !strings.HasPrefix(name, "tmp-") {
			names = append(names, name)
		} else if err := f.Remove(name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// File is an open file, which does not change.
type File struct {
	vfs.File
	size int64
}

// Size is how many bytes it has.
func (f *File) Size() int64 { return f.size }

// Open opens a file for reading; it is os.ErrNotExist when there is none.
func (f *Folder) Open(name string) (*File, error) {
	file, err := f.fs.Open(f.fs.PathJoin(f.dir, name), vfs.RandomReadsOption)
	if err != nil {
		return nil, fmt.Errorf("raftfsm: open derived file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raftfsm: open derived file: %w", err), file.Close())
	}
	return &File{File: file, size: info.Size()}, nil
}

// Write makes a file of what fill writes. The file is there whole and durable, or not at all.
func (f *Folder) Write(name string, fill func(io.Writer) error) error {
	if err := makeDir(f.fs, f.dir); err != nil {
		return err
	}
	temp := tempName(f.fs, f.dir, name)
	file, err := f.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("raftfsm: write derived file: %w", err)
	}
	// Synced in steps: the logs on the same disk would wait for a large file at once.
	file = vfs.NewSyncingFile(file, vfs.SyncingFileOptions{BytesPerSync: copySyncBytes})
	w := bufio.NewWriterSize(file, copySyncBytes/4)
	err = fill(w)
	if err == nil {
		err = errors.Join(w.Flush(), file.Sync())
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.fs.Rename(temp, f.fs.PathJoin(f.dir, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("raftfsm: write derived file: %w", err), f.fs.Remove(temp))
	}
	return syncDir(f.fs, f.dir)
}

// Remove removes a file if there is one. Who has it open can read on.
func (f *Folder) Remove(name string) error {
	if err := removeFile(f.fs, f.fs.PathJoin(f.dir, name)); err != nil {
		return fmt.Errorf("raftfsm: remove derived file: %w", err)
	}
	return nil
}
