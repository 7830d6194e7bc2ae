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
	"github.com/hashicorp/raft"
)

// A copy is a group's replicated rows as a sequence of checksummed SST files: header, then
// for each file its length, its CRC-32C and its bytes. docs/FORMAT.md has the layout.

const (
	copyVersion = 1
	// copyFileBytes is about how large one SST of a copy becomes.
	copyFileBytes = 64 << 20
	copyFilesMax  = 1 << 16
)

var (
	copyMagic  = [4]byte{'m', 'c', 's', 'n'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sstFormat is how to write SSTs that this node's Pebble ingests.
type sstFormat struct{ options sstable.WriterOptions }

type copyHeader struct {
	Index, Term, ConfigIndex uint64
	Config                   []byte
	Files                    uint32
}

func (h copyHeader) position() Position {
	return Position{Index: h.Index, Term: h.Term, ConfigIndex: h.ConfigIndex, Config: h.Config}
}

func (h copyHeader) encode() []byte {
	b := append([]byte{}, copyMagic[:]...)
	b = append(b, copyVersion)
	b = binary.BigEndian.AppendUint64(b, h.Index)
	b = binary.BigEndian.AppendUint64(b, h.Term)
	b = binary.BigEndian.AppendUint64(b, h.ConfigIndex)
	b = binary.BigEndian.AppendUint32(b, h.Files)
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.Config)))
	b = append(b, h.Config...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func readCopyHeader(r io.Reader) (copyHeader, error) {
	var fixed [37]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return copyHeader{}, fmt.Errorf("raftfsm: snapshot header: %w", err)
	}
	if [4]byte(fixed[:4]) != copyMagic || fixed[4] != copyVersion {
		return copyHeader{}, errors.New("raftfsm: snapshot header: not a snapshot, or of another version")
	}
	h := copyHeader{
		Index:       binary.BigEndian.Uint64(fixed[5:]),
		Term:        binary.BigEndian.Uint64(fixed[13:]),
		ConfigIndex: binary.BigEndian.Uint64(fixed[21:]),
		Files:       binary.BigEndian.Uint32(fixed[29:]),
	}
	n := binary.BigEndian.Uint32(fixed[33:])
	if n > 1<<20 || h.Files > copyFilesMax {
		return copyHeader{}, errors.New("raftfsm: snapshot header: implausible sizes")
	}
	rest := make([]byte, n+4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return copyHeader{}, fmt.Errorf("raftfsm: snapshot header: %w", err)
	}
	sum := crc32.Update(crc32.Checksum(fixed[:], castagnoli), castagnoli, rest[:n])
	if binary.BigEndian.Uint32(rest[n:]) != sum {
		return copyHeader{}, errors.New("raftfsm: snapshot header: checksum mismatch")
	}
	h.Config = rest[:n:n]
	return h, nil
}

// copyOut writes the group's rows, as one iterator sees them, to files and opens them as one
// stream of known size.
func (s *snapshotStore) copyOut() (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.serial.Lock()
	defer s.serial.Unlock()
	dir := tempName(s.fs, s.dir, "copy")
	if err := makeDir(s.fs, dir); err != nil {
		return nil, nil, fmt.Errorf("raftfsm: copy state: %w", err)
	}
	meta, rc, err := s.copyTo(dir)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("raftfsm: copy state: %w", err), s.fs.RemoveAll(dir))
	}
	return meta, rc, nil
}

func (s *snapshotStore) copyTo(dir string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: keyPrefix(s.group, spaceHost), UpperBound: keyPrefix(s.group, spaceDerived)})
	if err != nil {
		return nil, nil, err
	}
	var pos Position
	posKey := join(keyPrefix(s.group, spaceHost), rowPosition)
	w := &sstSeries{fs: s.fs, dir: dir, options: s.sst().options}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = w.set(it.Key(), v)
		}
		if err == nil && string(it.Key()) == string(posKey) {
			pos, err = decodePosition(v)
		}
		if err != nil {
			return nil, nil, errors.Join(err, it.Close(), w.finish())
		}
	}
	if err := errors.Join(it.Close(), w.finish()); err != nil {
		return nil, nil, err
	}
	if pos.Index == 0 {
		return nil, nil, errors.New("the group has applied nothing yet")
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
func openCopy(fs vfs.FS, dir string, pos Position, files []string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	h := copyHeader{Index: pos.Index, Term: pos.Term, ConfigIndex: pos.ConfigIndex, Config: pos.Config, Files: uint32(len(files))}
	head := h.encode()
	c := &copyStream{fs: fs, dir: dir, pending: files, current: io.NopCloser(&sliceReader{head})}
	size := int64(len(head))
	for _, path := range files {
		info, err := fs.Stat(path)
		if err != nil {
			return nil, nil, err
		}
		size += info.Size() + copyFileHeader
	}
	meta := markerOf(pos).meta()
	meta.Size = size
	return meta, c, nil
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
// exchanged in one atomic step.
func (s *snapshotStore) ingest(r io.Reader) error {
	dir := tempName(s.fs, s.dir, "ingest")
	if err := makeDir(s.fs, dir); err != nil {
		return err
	}
	defer s.fs.RemoveAll(dir)
	br := bufio.NewReaderSize(r, 1<<20)
	h, err := readCopyHeader(br)
	if err != nil {
		return err
	}
	paths := make([]string, h.Files)
	for i := range paths {
		paths[i] = s.fs.PathJoin(dir, fmt.Sprintf("%05d.sst", i))
		if err := receiveFile(s.fs, br, paths[i]); err != nil {
			return fmt.Errorf("file %d of %d: %w", i, h.Files, err)
		}
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
