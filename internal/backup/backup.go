// Package backup keeps backups of regions as folders of files, takes them from a region and
// restores them into a new one. docs/FORMAT.md has the bytes.
//
// A folder appears under its name only when all of it is on the disk, and is read only when
// every checksum holds. Names of files follow from names of groups, never from a path in it.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// Format is the version of the format that this build writes, and the newest it reads.
	Format = 4

	manifestName = "MANIFEST.json"
	sumsName     = "SHA256SUMS"
	rowsSuffix   = ".rows"
	// manifestMax bounds what is read of the two files that describe the others.
	manifestMax = 1 << 20
	groupsMax   = raftfsm.GroupsMax
)

// ErrDamaged means that a folder is not the whole, unchanged backup that was made.
var ErrDamaged = errors.New("the backup is damaged or incomplete")

// Manifest says what a backup holds.
type Manifest struct {
	Format int `json:"format"`
	// ID tells backups apart, in hex: a region is restored from one.
	ID      string `json:"id"`
	Region  string `json:"region"`
	Cluster string `json:"cluster"`
	// Build is the version of the node that described the region.
	Build    string    `json:"build"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Services []string  `json:"services"`
	// Groups are in the order in which they were read and are to be restored.
	Groups []Group `json:"groups"`
}

// Group is one group of a backup, in the file of its name.
type Group struct {
	Name string `json:"name"`
	// Index, Term and TimeMicros are the moment of its rows.
	Index      uint64 `json:"index"`
	Term       uint64 `json:"term"`
	TimeMicros int64  `json:"timeMicros"`
	Rows       uint64 `json:"rows"`
	Chunks     uint64 `json:"chunks"`
	// Bytes is the size of the file, SHA256 its hash in hex.
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// Sum is the checksum of the chunks that a restore compares, in hex.
	Sum string `json:"sum"`
}

var groupName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (g Group) file() string { return g.Name + rowsSuffix }

// id returns the backup's id; Manifests that were read have one.
func (m *Manifest) id() (id raftfsm.BackupID) {
	b, _ := hex.DecodeString(m.ID)
	copy(id[:], b)
	return id
}

func (g Group) sum() (sum raftfsm.RowsSum) {
	b, _ := hex.DecodeString(g.Sum)
	copy(sum[:], b)
	return sum
}

// Size is how many rows all groups have, and how long their files are.
func (m *Manifest) Size() (rows uint64, bytes int64) {
	for _, g := range m.Groups {
		rows += g.Rows
		bytes += g.Bytes
	}
	return rows, bytes
}

func parseManifest(b []byte) (*Manifest, error) {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestName, err)
	}
	if version.Format > Format {
		return nil, fmt.Errorf("the backup has format %d, this build reads up to %d; use a newer build", version.Format, Format)
	}
	m := &Manifest{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestName, err)
	}
	bad := func(format string, args ...any) (*Manifest, error) {
		return nil, fmt.Errorf("%w: %s: %s", ErrDamaged, manifestName, fmt.Sprintf(format, args...))
	}
	if m.Format < 1 || !isHex(m.ID, len(raftfsm.BackupID{})) || len(m.Groups) == 0 || len(m.Groups) > groupsMax {
		return bad("it describes no backup")
	}
	seen := map[string]bool{}
	for _, g := range m.Groups {
		if !groupName.MatchString(g.Name) || seen[g.Name] {
			return bad("%q cannot name a group here", g.Name)
		}
		seen[g.Name] = true
		if !isHex(g.SHA256, sha256.Size) || !isHex(g.Sum, len(raftfsm.RowsSum{})) || g.Bytes < 0 {
			return bad("the group %s lacks a checksum or a size", g.Name)
		}
	}
	return m, nil
}

func isHex(s string, n int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == n
}

// Open reads the manifest of a backup and finds all its files there, by name and size. Verify
// reads what is in them.
func Open(dir string) (*Manifest, error) {
	sums, err := readSmall(dir, sumsName)
	if err != nil {
		return nil, err
	}
	text, err := readSmall(dir, manifestName)
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(sums), "\n")
	if first != sumLine(text, manifestName) {
		return nil, fmt.Errorf("%w: %s is not the one that %s names", ErrDamaged, manifestName, sumsName)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, err
	}
	if string(sums) != m.sums(text) {
		return nil, fmt.Errorf("%w: %s and %s name different files", ErrDamaged, sumsName, manifestName)
	}
	return m, m.checkFiles(dir)
}

// checkFiles finds every file with its size, and no other.
func (m *Manifest) checkFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	want := map[string]bool{manifestName: true, sumsName: true}
	for _, g := range m.Groups {
		want[g.file()] = true
	}
	for _, e := range entries {
		if !want[e.Name()] {
			return fmt.Errorf("%w: %s does not belong to it", ErrDamaged, filepath.Join(dir, e.Name()))
		}
	}
	for _, g := range m.Groups {
		path := filepath.Join(dir, g.file())
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%w: %s is missing", ErrDamaged, path)
		case err != nil:
			return fmt.Errorf("backup: %w", err)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%w: %s is no file", ErrDamaged, path)
		case info.Size() != g.Bytes:
			return fmt.Errorf("%w: %s has %d bytes, not %d", ErrDamaged, path, info.Size(), g.Bytes)
		}
	}
	return nil
}

// Verify reads everything of a backup and compares every checksum.
func Verify(dir string) (*Manifest, error) {
	m, err := Open(dir)
	if err != nil {
		return nil, err
	}
	for _, g := range m.Groups {
		if err := g.read(dir, func(uint64, []byte) error { return nil }); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// read calls f for every chunk and compares all that the manifest says of the group.
func (g Group) read(dir string, f func(chunk uint64, rows []byte) error) error {
	path := filepath.Join(dir, g.file())
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	damaged := func(what string) error { return fmt.Errorf("%w: %s: %s", ErrDamaged, path, what) }
	r, err := newChunkReader(io.TeeReader(file, hash), g.Name)
	if err != nil {
		return damaged(err.Error())
	}
	var sum raftfsm.RowsSum
	var rows, chunks uint64
	for ; ; chunks++ {
		chunk, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err.Error())
		}
		found, err := raftfsm.DecodeRows(chunk)
		if err != nil {
			return damaged(fmt.Sprintf("chunk %d holds no rows", chunks))
		}
		rows += uint64(len(found))
		sum = sum.Add(chunk)
		if err := f(chunks, chunk); err != nil {
			return err
		}
	}
	switch {
	case rows != g.Rows || chunks != g.Chunks:
		return damaged(fmt.Sprintf("it has %d rows in %d chunks, not %d in %d", rows, chunks, g.Rows, g.Chunks))
	case sum != g.sum() || hex.EncodeToString(hash.Sum(nil)) != g.SHA256:
		return damaged("its checksum is another one")
	}
	return nil
}

// sums is the content of the file of checksums, which sha256sum -c reads too.
func (m *Manifest) sums(manifest []byte) string {
	b := sumLine(manifest, manifestName) + "\n"
	for _, g := range m.Groups {
		b += g.SHA256 + "  " + g.file() + "\n"
	}
	return b
}

func sumLine(content []byte, name string) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]) + "  " + name
}

func readSmall(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s is missing, without which the folder is no backup", ErrDamaged, path)
	case err != nil:
		return nil, fmt.Errorf("backup: %w", err)
	case !info.Mode().IsRegular() || info.Size() > manifestMax:
		return nil, fmt.Errorf("%w: %s is no such file, or too large", ErrDamaged, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return b, nil
}

// differences lists the elements that only one of two lists has.
func differences(ours, theirs []string) (onlyOurs, onlyTheirs []string) {
	for _, s := range ours {
		if !slices.Contains(theirs, s) {
			onlyOurs = append(onlyOurs, s)
		}
	}
	for _, s := range theirs {
		if !slices.Contains(ours, s) {
			onlyTheirs = append(onlyTheirs, s)
		}
	}
	return onlyOurs, onlyTheirs
}
