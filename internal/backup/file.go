package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// chunkMax bounds a chunk in a file: what a group takes in one entry, and some more.
const chunkMax = 1 << 20

var (
	fileMagic  = [7]byte{'m', 'c', 'b', 'a', 'c', 'k', 'u'} // then the format
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// chunkReader reads the file of a group.
type chunkReader struct {
	r   *bufio.Reader
	buf []byte
}

func newChunkReader(r io.Reader, group string) (*chunkReader, error) {
	c := &chunkReader{r: bufio.NewReaderSize(r, 64<<10)}
	head := make([]byte, len(fileMagic)+2+len(group))
	if _, err := io.ReadFull(c.r, head); err != nil || !isHeader(head, group) {
		return nil, fmt.Errorf("it does not begin as a file of the group %s", group)
	}
	return c, nil
}

func fileHeader(group string, format byte) []byte {
	return append(append(fileMagic[:], format, byte(len(group))), group...)
}

// isHeader takes a header of this format or an earlier one: what they allow is for the group to know.
func isHeader(head []byte, group string) bool {
	format := head[len(fileMagic)]
	return format >= 1 && format <= Format && string(head) == string(fileHeader(group, format))
}

// next returns a chunk, which is good until the next call, or io.EOF.
func (c *chunkReader) next() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, errors.New("it ends within a chunk")
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > chunkMax {
		return nil, fmt.Errorf("a chunk claims to have %d bytes", n)
	}
	if cap(c.buf) < int(n) {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return nil, errors.New("it ends within a chunk")
	}
	if crc32.Checksum(c.buf, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errors.New("a chunk does not have its checksum")
	}
	return c.buf, nil
}

// writer makes a backup's folder: beside its name, until it is whole.
type writer struct{ dir, staging string }

// create begins a folder, which must not exist or be empty.
func create(dir string) (*writer, error) {
	w := &writer{dir: filepath.Clean(dir)}
	w.staging = w.dir + ".partial"
	if entries, err := os.ReadDir(w.dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("backup: %s is not empty; name a folder that does not exist", w.dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(w.dir), 0o700); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := os.Mkdir(w.staging, 0o700); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("backup: %s is there: another backup is under way, or one was interrupted; remove it then", w.staging)
	} else if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return w, nil
}

// abandon removes what there is of the folder.
func (w *writer) abandon() error { return os.RemoveAll(w.staging) }

// finish writes the manifest and gives the folder its name.
func (w *writer) finish(m *Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	text = append(text, '\n')
	for name, content := range map[string][]byte{manifestName: text, sumsName: []byte(m.sums(text))} {
		if err := writeSynced(filepath.Join(w.staging, name), content); err != nil {
			return err
		}
	}
	err = syncFolder(w.staging)
	if err == nil {
		if err = os.Remove(w.dir); errors.Is(err, os.ErrNotExist) { // it is empty, if anything
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(w.staging, w.dir)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(w.dir))
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("backup: %s: %w", path, err)
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// groupFile is the file of a group while it is written.
type groupFile struct {
	Group
	file *os.File
	w    *bufio.Writer
	hash hash.Hash
	sum  raftfsm.RowsSum
}

func (w *writer) group(name string) (*groupFile, error) {
	if !groupName.MatchString(name) {
		return nil, fmt.Errorf("backup: %q cannot name a group", name)
	}
	g := &groupFile{Group: Group{Name: name}, hash: sha256.New()}
	var err error
	if g.file, err = os.OpenFile(filepath.Join(w.staging, g.Group.file()), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	g.w = bufio.NewWriterSize(g.file, 256<<10)
	return g, g.write(fileHeader(name, Format))
}

func (g *groupFile) write(b []byte) error {
	g.hash.Write(b)
	g.Bytes += int64(len(b))
	if _, err := g.w.Write(b); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func (g *groupFile) chunk(rows []byte, count uint64) error {
	g.Chunks++
	g.Rows += count
	g.sum = g.sum.Add(rows)
	head := binary.BigEndian.AppendUint32(nil, uint32(len(rows)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(rows, castagnoli))
	return errors.Join(g.write(head), g.write(rows))
}

// close makes the file durable and completes what the manifest says of it.
func (g *groupFile) close() error {
	g.SHA256, g.Sum = hex.EncodeToString(g.hash.Sum(nil)), hex.EncodeToString(g.sum[:])
	if err := errors.Join(g.w.Flush(), g.file.Sync(), g.file.Close()); err != nil {
		return fmt.Errorf("backup: %s: %w", g.Group.file(), err)
	}
	return nil
}
