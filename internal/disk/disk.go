// Package disk tells how much room a file system has, and keeps a ballast: a file of real
// blocks that an operator deletes to get a full disk working again.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Space is the room of a file system.
type Space struct {
	// Free is how many bytes a process without privileges may still write.
	Free uint64
	// Total is the size of the file system in bytes.
	Total uint64
}

// BallastName is the file that holds the ballast in a node's data folder.
const BallastName = "ballast"

// MakeBallast makes sure that the folder dir holds a ballast of size bytes, all of them on the
// disk. It is the old size if there is one already, and goes without a word when the
// file system has less than spare free bytes beside it: the ballast must not be what fills it.
// It returns the ballast's size afterwards.
func MakeBallast(dir string, size, spare uint64) (uint64, error) {
	path := filepath.Join(dir, BallastName)
	if info, err := os.Stat(path); err == nil {
		return uint64(info.Size()), nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("disk: ballast: %w", err)
	}
	if size == 0 {
		return 0, nil
	}
	space, err := SpaceOf(dir)
	if err != nil {
		return 0, err
	}
	if space.Free < size+spare {
		return 0, nil
	}
	// Under another name until it is whole, so that a crash leaves no smaller one behind.
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("disk: ballast: %w", err)
	}
	err = errors.Join(allocate(f, int64(size)), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("disk: ballast: %w", err), os.Remove(part))
	}
	return size, nil
}

// write fills f with size bytes, where the file system cannot reserve them.
func write(f *os.File, size int64) error {
	block := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(block)))
		if _, err := f.Write(block[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}
