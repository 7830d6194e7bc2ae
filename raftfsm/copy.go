package raftfsm

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A copy is a group's replicated rows as a sequence of checksummed SST files: header, then
// for each file its length, its CRC-32C and its bytes. docs/FORMAT.md has the layout.

const (
	// copyVersion is a copy with its files in it; copyVersionStaged names files that the receiver
	// has already.
	copyVersion       = 1
	copyVersionStaged = 2
	// copyFileBytes is about how large one SST of a copy becomes.
	copyFileBytes = 64 << 20
	// copyFilesMax bounds the files of a copy: 512 GiB in files of 8 MiB.
	copyFilesMax = 1 << 16
)

var (
	copyMagic  = [4]byte{'m', 'c', 's', 'n'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sstFormat is how to write SSTs that this node's Pebble ingests.
type sstFormat struct{ options sstable.WriterOptions }

type copyHeader struct {
	Version                  byte
	Index, Term, ConfigIndex uint64
	Config                   []byte
	Files                    uint32
	// Copy and Staged are of copyVersionStaged: the copy that the files are of, and each of them.
	Copy   copyID
	Staged []copyFile
}

func (h copyHeader) position() Position {
	return Position{Index: h.Index, Term: h.Term, ConfigIndex: h.ConfigIndex, Config: h.Config}
}

func (h copyHeader) encode() []byte {
	b := append([]byte{}, copyMagic[:]...)
	b = append(b, h.Version)
	b = binary.BigEndian.AppendUint64(b, h.Index)
	b = binary.BigEndian.AppendUint64(b, h.Term)
	b = binary.BigEndian.AppendUint64(b, h.ConfigIndex)
	b = binary.BigEndian.AppendUint32(b, h.Files)
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.Config)))
	b = append(b, h.Config...)
	if h.Version == copyVersionStaged {
		b = append(b, h.Copy[:]...)
		for _, f := range h.Staged {
			b = binary.BigEndian.AppendUint64(b, f.Bytes)
			b = binary.BigEndian.AppendUint32(b, f.Sum)
		}
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func readCopyHeader(r io.Reader) (copyHeader, error) {
	var fixed [37]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return copyHeader{}, fmt.Errorf("raftfsm: snapshot header: %w", err)
	}
	if [4]byte(fixed[:4]) != copyMagic || fixed[4] != copyVersion && fixed[4] != copyVersionStaged {
		return copyHeader{}, errors.New("raftfsm: snapshot header: not a snapshot, or of another version")
	}
	h := copyHeader{
		Version:     fixed[4],
		Index:       binary.BigEndian.Uint64(fixed[5:]),
		Term:        binary.BigEndian.Uint64(fixed[13:]),
		ConfigIndex: binary.BigEndian.Uint64(fixed[21:]),
		Files:       binary.BigEndian.Uint32(fixed[29:]),
	}
	n := binary.BigEndian.Uint32(fixed[33:])
	if n > 1<<20 || h.Files > copyFilesMax {
		return copyHeader{}, errors.New("raftfsm: snapshot header: implausible sizes")
	}
	tail := 0
	if h.Version == copyVersionStaged {
		tail = len(h.Copy) + int(h.Files)*copyFileHeader
	}
	rest := make([]byte, int(n)+tail+4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return copyHeader{}, fmt.Errorf("raftfsm: snapshot header: %w", err)
	}
	end := len(rest) - 4
	sum := crc32.Update(crc32.Checksum(fixed[:], castagnoli), castagnoli, rest[:end])
	if binary.BigEndian.Uint32(rest[end:]) != sum {
		return copyHeader{}, errors.New("raftfsm: snapshot header: checksum mismatch")
	}
	h.Config = rest[:n:n]
	if h.Version == copyVersionStaged {
		h.Copy = copyID(rest[n:])
		for b := rest[int(n)+len(h.Copy) : end]; len(b) > 0; b = b[copyFileHeader:] {
			h.Staged = append(h.Staged, copyFile{Bytes: binary.BigEndian.Uint64(b), Sum: binary.BigEndian.Uint32(b[8:])})
		}
	}
	return h, nil
}

// copyOut writes the rows of it, which it closes, to files and opens them as one stream of known
// size.
func (s *snapshotStore) copyOut(it *pebble.Iterator, pos Position) (io.ReadCloser, int64, error) {
	s.serial.Lock()
	defer s.serial.Unlock()
	dir := tempName(s.fs, s.dir, "copy")
	if err := makeDir(s.fs, dir); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("raftfsm: copy state: %w", err), it.Close())
	}
	rc, size, err := s.copyTo(dir, it, pos)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("raftfsm: copy state: %w", err), s.fs.RemoveAll(dir))
	}
	return rc, size, nil
}

func (s *snapshotStore) copyTo(dir string, it *pebble.Iterator, pos Position) (io.ReadCloser, int64, error) {
	w := &sstSeries{fs: s.fs, dir: dir, options: s.sst().options}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = w.set(it.Key(), v)
		}
		if err != nil {
			return nil, 0, errors.Join(err, it.Close(), w.finish())
		}
	}
	if err := errors.Join(it.Close(), w.finish()); err != nil {
		return nil, 0, err
	}
	return openCopy(s.fs, dir, pos, w.files)
}

// sstSeries writes sorted rows into SST files of bounded size.
type sstSeries struct {
	fs      vfs.FS
	dir     string
	options sstable.WriterOptions
	files   []string
	w       *sstable.Writer
}

func (s *sstSeries) set(key, value []byte) error {
	if s.w != nil && s.w.Raw().EstimatedSize() >= copyFileBytes {
		if err := s.finish(); err != nil {
			return err
		}
	}
	if s.w == nil {
		path := s.fs.PathJoin(s.dir, fmt.Sprintf("%05d.sst", len(s.files)))
		f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		s.files = append(s.files, path)
		s.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.options)
	}
	return s.w.Set(key, value)
}

func (s *sstSeries) finish() error {
	if s.w == nil {
		return nil
	}
	w := s.w
	s.w = nil
	return w.Close()
}

// openCopy strings header and files together.
func openCopy(fs vfs.FS, dir string, pos Position, files []string) (io.ReadCloser, int64, error) {
	h := copyHeader{Version: copyVersion, Index: pos.Index, Term: pos.Term, ConfigIndex: pos.ConfigIndex, Config: pos.Config, Files: uint32(len(files))}
	head := h.encode()
	c := &copyStream{fs: fs, dir: dir, pending: files, current: io.NopCloser(&sliceReader{head})}
	size := int64(len(head))
	for _, path := range files {
		info, err := fs.Stat(path)
		if err != nil {
			return nil, 0, err
		}
		size += info.Size() + copyFileHeader
	}
	return c, size, nil
}

const copyFileHeader = 8 + 4 // length, CRC-32C

// copyStream reads a copy from its files and removes them when closed.
type copyStream struct {
	fs      vfs.FS
	dir     string
	pending []string
	current io.ReadCloser
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// readCloser reads from one place and closes another, once: Raft and its state machine both
// close what is restored.
type readCloser struct {
	io.Reader
	close func() error
}

func newReadCloser(r io.Reader, c io.Closer) io.ReadCloser {
	return readCloser{r, sync.OnceValue(c.Close)}
}

func (r readCloser) Close() error { return r.close() }

func (c *copyStream) Read(p []byte) (int, error) {
	for {
		n, err := c.current.Read(p)
		if n > 0 || err != io.EOF {
			return n, err
		}
		if len(c.pending) == 0 {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
}

func (c *copyStream) next() error {
	path := c.pending[0]
	c.pending = c.pending[1:]
	if err := c.current.Close(); err != nil {
		return err
	}
	f, err := c.fs.Open(path)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(n))
	head = binary.BigEndian.AppendUint32(head, sum.Sum32())
	c.current = newReadCloser(io.MultiReader(&sliceReader{head}, io.NewSectionReader(f, 0, n)), f)
	return nil
}

func (c *copyStream) Close() error {
	return errors.Join(c.current.Close(), c.fs.RemoveAll(c.dir))
}

// ingest replaces the group's rows by a copy: verified whole before anything changes, then
// exchanged in one atomic step. prepare is called in between.
func (s *snapshotStore) ingest(r io.Reader, prepare func(h copyHeader) error) error {
	br := bufio.NewReaderSize(r, 1<<20)
	h, err := readCopyHeader(br)
	if err != nil {
		return err
	}
	if h.Version == copyVersionStaged {
		return s.staging.install(h, func(paths []string) error { return s.exchange(h, paths, prepare) })
	}
	dir := tempName(s.fs, s.dir, "ingest")
	if err := makeDir(s.fs, dir); err != nil {
		return err
	}
	defer s.fs.RemoveAll(dir)
	paths := make([]string, h.Files)
	for i := range paths {
		paths[i] = s.fs.PathJoin(dir, fmt.Sprintf("%05d.sst", i))
		if err := receiveFile(s.fs, br, paths[i]); err != nil {
			return fmt.Errorf("file %d of %d: %w", i, h.Files, err)
		}
	}
	return s.exchange(h, paths, prepare)
}

// exchange puts the rows of verified and synced files in the place of the group's. prepare is
// called before anything changes.
func (s *snapshotStore) exchange(h copyHeader, paths []string, prepare func(h copyHeader) error) error {
	if err := prepare(h); err != nil {
		return err
	}
	lower, upper := groupSpan(s.group)
	if _, err := s.db.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: lower, End: upper}); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	if err := s.writeMarker(h.position()); err != nil {
		return err
	}
	return removeFile(s.fs, s.path(incomingName))
}

// receiveFile copies one file of a copy to path, checks it and syncs it.
func receiveFile(fs vfs.FS, r io.Reader, path string) error {
	var head [copyFileHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint64(head[:])
	if size > 64*copyFileBytes {
		return fmt.Errorf("implausible length %d", size)
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	// The sum comes first: a file of this kind may change what it was given to write.
	_, err = io.CopyN(io.MultiWriter(sum, f), r, int64(size))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if sum.Sum32() != binary.BigEndian.Uint32(head[8:]) {
		return errors.New("checksum mismatch")
	}
	return nil
}
