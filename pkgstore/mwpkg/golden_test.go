package mwpkg

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// A package that was built and signed when the format began, by two keys, opens and verifies for good.
func TestGoldenPackage(t *testing.T) {
	const file, digest = "acme-restore-drill-0.1.0.mwpkg.tgz", "bc90c7fa9d5a6a0c9028cfce587feab25269ef3cc655703390a12aae0d550cf2"
	path := filepath.Join("testdata", file)
	if *update {
		first, second := newTester(t), newTester(t)
		data := archive(t, sign(t, sign(t, build(t, goodFiles()), first), second))
		public, err := first.key.PEM()
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{path: data, filepath.Join("testdata", "golden.pub"): public} {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join("testdata", "golden.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key.Publisher = "acme"
	p, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Digest.String(); got != digest || p.CheckFilename(file) != nil || len(p.Signatures) != 2 {
		t.Errorf("the digest is %s, with %d signatures", got, len(p.Signatures))
	}
	if _, err := p.Verify(&Trust{[]Key{key}}, today); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(archive(t, p), data) {
		t.Error("the package is written in other bytes now")
	}
}

// The page about packages lists every code.
func TestCodesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("code.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/packages.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code = "([a-z_]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 40 {
		t.Fatalf("%d codes were found", len(codes))
	}
	for _, m := range codes {
		if !strings.Contains(string(page), "`"+string(m[1])+"`") {
			t.Errorf("docs/packages.md does not list %s", m[1])
		}
	}
}

// The scaffold builds under any name, and what is written to a folder is what was in the package.
func TestScaffoldAndWriteTo(t *testing.T) {
	for _, name := range []string{"myflow", "acme/restore-drill"} {
		files, err := Scaffold(name)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := WriteTo(root, files); err != nil {
			t.Fatal(err)
		}
		p, err := Build(root.FS())
		if err != nil {
			t.Fatal(err)
		}
		if p.Manifest.Metadata.Name != name || len(p.Files) != len(files) {
			t.Errorf("%s is built as %s with %d of %d files", name, p.Manifest.Metadata.Name, len(p.Files), len(files))
		}
		if err := WriteTo(root, files); !os.IsExist(err) {
			t.Errorf("a file that is there is replaced: %v", err)
		}
	}
	_, err := Scaffold("My Flow")
	wantCode(t, err, CodeName)
}

// A06: a link in the folder leads nothing out of it, even one that was put there in the meantime.
func TestA06WriteToStaysInside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "steps")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := WriteTo(root, []File{{"steps/run.sh", []byte("x")}}); err == nil {
		t.Error("written through a link")
	}
	for _, path := range []string{"../x", "/x", "a/../../x"} {
		wantCode(t, WriteTo(root, []File{{path, nil}}), CodePath)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}
