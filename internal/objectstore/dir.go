package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Dir keeps objects as files in a folder, which all nodes have mounted or that is on one machine.
type Dir struct{ path string }

// NewDir uses a folder that must exist: one that is not mounted must not be taken for an empty store.
func NewDir(path string) *Dir { return &Dir{path: path} }

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".writing-"

func (d *Dir) file(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// failed names an error of the file system.
func (d *Dir) failed(op, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		// Without the folder nothing is known.
		if _, statErr := os.Stat(d.path); statErr == nil {
			return fmt.Errorf("%s %s: %w", op, name, ErrNotFound)
		}
	}
	return fmt.Errorf("%s %s: %w: %w", op, name, ErrUnavailable, err)
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, name string, r io.ReaderAt, size int64) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Stat(d.path); err != nil {
		return d.failed("put", name, err)
	}
	path := d.file(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return d.failed("put", name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return d.failed("put", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(d.failed("put", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, &contextReader{ctx, io.NewSectionReader(r, 0, size)})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return d.syncFolders(path)
}

// syncFolders makes a name durable, with the folders that it is in.
func (d *Dir) syncFolders(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if dir == filepath.Clean(d.path) || len(dir) <= len(d.path) {
			return nil
		}
	}
}

// ReadAt implements Store.
func (d *Dir) ReadAt(_ context.Context, name string, b []byte, at int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	f, err := os.Open(d.file(name))
	if err != nil {
		return d.failed("read", name, err)
	}
	_, err = f.ReadAt(b, at)
	closeErr := f.Close()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s at %d: %w", name, at, io.ErrUnexpectedEOF)
	}
	if err = errors.Join(err, closeErr); err != nil {
		return d.failed("read", name, err)
	}
	return nil
}

// Delete implements Store.
func (d *Dir) Delete(_ context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := os.Remove(d.file(name)); err != nil {
		if err = d.failed("delete", name, err); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context, prefix string, use func(name string, modified time.Time) error) error {
	if _, err := os.Stat(d.path); err != nil {
		return d.failed("list", prefix, err)
	}
	var stopped error
	err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), tempPrefix) {
			return err
		}
		rel, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was deleted meanwhile
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			stopped = use(name, info.ModTime())
			err = stopped
		}
		return err
	})
	if err != nil && stopped == nil {
		return d.failed("list", prefix, err)
	}
	return stopped
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
