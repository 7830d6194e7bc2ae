package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// sample makes a backup of two groups, one of which is empty.
func sample(t *testing.T) (dir string, m *Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "backups", "one")
	w, err := create(dir)
	check(t, err)
	m = &Manifest{Format: Format, ID: strings.Repeat("ab", 16), Region: "eu", Services: []string{"index"}}
	for _, name := range []string{"index-0", "meta"} {
		g, err := w.group(name)
		check(t, err)
		if name == "index-0" {
			for i := range byte(3) {
				check(t, g.chunk(raftfsm.AppendRow(raftfsm.AppendRow(nil, []byte{i}, []byte("value")), []byte{i, 1}, nil), 2))
			}
		}
		check(t, g.close())
		m.Groups = append(m.Groups, g.Group)
	}
	check(t, w.finish(m))
	return dir, m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerifyAWholeBackup(t *testing.T) {
	dir, want := sample(t)
	m, err := Verify(dir)
	check(t, err)
	if rows, bytes := m.Size(); rows != 6 || bytes == 0 || m.ID != want.ID || m.Groups[0].Chunks != 3 {
		t.Errorf("%+v", m)
	}
	if _, err := os.Stat(dir + ".partial"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder it was made in is left: %v", err)
	}
}

// Files of earlier formats are read as those of this one.
func TestFilesOfEarlierFormats(t *testing.T) {
	for format := range byte(Format + 2) {
		_, err := newChunkReader(bytes.NewReader(fileHeader("meta", format)), "meta")
		if known := format >= 1 && format <= Format; (err == nil) != known {
			t.Errorf("format %d: %v", format, err)
		}
	}
}

// Every byte counts: whichever is changed, added or taken away, the file is named.
func TestDamageIsFound(t *testing.T) {
	dir, m := sample(t)
	refused := func(what, file string) {
		t.Helper()
		if _, err := Verify(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s of %s: %v", what, file, err)
		}
	}
	for _, name := range []string{manifestName, sumsName, "index-0.rows", "meta.rows"} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		check(t, err)
		named := name
		if name == sumsName {
			named = "" // it may be the other one that seems wrong
		}
		for i := range whole {
			b := bytes.Clone(whole)
			b[i] ^= 0x20
			check(t, os.WriteFile(path, b, 0o600))
			refused("a changed byte", named)
		}
		for what, b := range map[string][]byte{"a byte less": whole[:len(whole)-1], "a byte more": append(bytes.Clone(whole), 0), "nothing": nil} {
			check(t, os.WriteFile(path, b, 0o600))
			refused(what, named)
		}
		check(t, os.Remove(path))
		refused("the loss", name)
		check(t, os.Symlink(os.DevNull, path))
		refused("a link", named)
		check(t, os.Remove(path))
		check(t, os.WriteFile(path, whole, 0o600))
	}
	extra := filepath.Join(dir, "notes.txt")
	check(t, os.WriteFile(extra, nil, 0o600))
	refused("an extra file", "notes.txt")
	check(t, os.Remove(extra))

	// Files that fit their checksums, but not what is said of them.
	for what, spoil := range map[string]func(*Group){
		"rows":   func(g *Group) { g.Rows++ },
		"chunks": func(g *Group) { g.Chunks++ },
		"sum":    func(g *Group) { g.Sum = strings.Repeat("00", 32) },
	} {
		other := *m
		other.Groups = append([]Group(nil), m.Groups...)
		spoil(&other.Groups[0])
		for _, name := range []string{manifestName, sumsName} {
			check(t, os.Remove(filepath.Join(dir, name)))
		}
		text, err := json.Marshal(other)
		check(t, err)
		check(t, writeSynced(filepath.Join(dir, manifestName), text))
		check(t, writeSynced(filepath.Join(dir, sumsName), []byte(other.sums(text))))
		refused("other "+what, "index-0.rows")
	}
}

func TestFolderMustBeFree(t *testing.T) {
	dir, _ := sample(t)
	if _, err := create(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder with a backup: %v", err)
	}
	empty := t.TempDir()
	w, err := create(empty)
	check(t, err)
	if _, err := create(empty); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("beside another backup: %v", err)
	}
	check(t, w.abandon())
	w, err = create(empty)
	check(t, err)
	g, err := w.group("meta")
	check(t, err)
	check(t, g.close())
	check(t, w.finish(&Manifest{Format: Format, ID: strings.Repeat("ab", 16), Groups: []Group{g.Group}}))
	_, err = Verify(empty)
	check(t, err)
	if _, err := w.group("../meta"); err == nil {
		t.Error("a group may name a file elsewhere")
	}
}

func TestOnlyTheSameRegionFits(t *testing.T) {
	_, m := sample(t)
	check(t, m.fits(&clusterv1.DescribeResponse{Services: []string{"index"}, Groups: []string{"meta", "index-0"}}))
	err := m.fits(&clusterv1.DescribeResponse{Services: []string{"index", "limiter"}, Groups: []string{"meta", "index-1"}})
	for _, want := range []string{"services limiter of the region", "groups index-0 of the backup", "groups index-1 of the region"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// Whatever stands in a manifest, it names no file outside the folder.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"id":"` + strings.Repeat("ab", 16) + `","groups":[{"name":"meta","sha256":"` +
		strings.Repeat("00", 32) + `","sum":"` + strings.Repeat("00", 32) + `"}]}`))
	f.Add([]byte(`{"format":9}`))
	f.Add([]byte(`{"format":1,"groups":[{"name":"../x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		for _, g := range m.Groups {
			if name := g.file(); filepath.Base(name) != name || strings.HasPrefix(name, ".") {
				t.Errorf("a file called %q", name)
			}
		}
	})
}

// A file of rows can hold anything without being taken for more than it is.
func FuzzChunks(f *testing.F) {
	f.Add(append(fileHeader("meta", Format), 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(fileHeader("meta", Format), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newChunkReader(bytes.NewReader(b), "meta")
		for err == nil {
			var chunk []byte
			if chunk, err = r.next(); len(chunk) > len(b) {
				t.Errorf("%d bytes came out of %d", len(chunk), len(b))
			}
		}
	})
}
