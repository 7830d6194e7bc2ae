package mwpkg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
)

// What is built, signed and opened again is the same package with the same bytes.
func TestRoundTrip(t *testing.T) {
	by := newTester(t)
	p := sign(t, build(t, goodFiles()), by)
	data := archive(t, p)
	opened, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if opened.Digest != p.Digest || opened.Digest != sha256.Sum256(p.Sums()) {
		t.Errorf("digest %s, built as %s", opened.Digest, p.Digest)
	}
	if !bytes.Equal(archive(t, opened), data) {
		t.Error("the opened package is written in other bytes")
	}
	v, err := opened.Verify(&Trust{[]Key{by.key}}, today)
	if err != nil {
		t.Fatal(err)
	}
	if v.Key.ID != by.key.ID || len(v.Signatures) != 1 || v.Signatures[0].Err != nil || v.At != today {
		t.Errorf("verdict %+v", v)
	}
	if ref := opened.Manifest.Ref(); ref.String() != "acme/restore-drill@0.1.0" || opened.CheckFilename("acme-restore-drill-0.1.0.mwpkg.tgz") != nil {
		t.Errorf("the package is %s in %s", ref, ref.Filename())
	}
	if _, err := Read(bytes.NewReader(data)); err != nil {
		t.Errorf("from a stream: %v", err)
	}
	broken := errors.New("the disk is gone")
	if _, err := Read(io.MultiReader(bytes.NewReader(data[:9]), iotestErrReader{broken})); !errors.Is(err, broken) {
		t.Errorf("from a stream that breaks: %v", err)
	}
}

type iotestErrReader struct{ err error }

func (r iotestErrReader) Read([]byte) (int, error) { return 0, r.err }

// The same folder gives the same bytes, however its files are dated and whoever may read them, and what
// is in it besides does not matter.
func TestBuildIsReproducible(t *testing.T) {
	want := archive(t, build(t, goodFiles()))
	m := folder(goodFiles()).(fstest.MapFS)
	for _, f := range m {
		f.Mode, f.ModTime = 0o755, today
	}
	m[".git/HEAD"] = &fstest.MapFile{Data: []byte("ref")}
	m[".hidden"] = &fstest.MapFile{Data: []byte("x")}
	m["signatures/cosign.sig"] = &fstest.MapFile{Data: []byte("old")}
	m["acme-restore-drill-0.0.9.mwpkg.tgz"] = &fstest.MapFile{Data: []byte("old")}
	p, err := Build(m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive(t, p), want) {
		t.Error("the bytes differ")
	}
	// The compressor is part of the format's promise: a change of it shows here.
	const golden = "760bc908880d107fabc007c98e8a95cc3e076193c45f2f11e2aae15435638e51"
	if got := fmt.Sprintf("%x", sha256.Sum256(want)); got != golden {
		t.Errorf("the archive has SHA-256 %s; it was %s. Archives that were built before would be built with other bytes now", got, golden)
	}
}

// The tar inside is exactly what the standard library's writer makes, and its reader reads it.
func TestTarIsUSTAR(t *testing.T) {
	p := sign(t, build(t, goodFiles()), newTester(t))
	content, err := decompress(archive(t, p))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	w := tar.NewWriter(&again)
	r := tar.NewReader(bytes.NewReader(content))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fresh := &tar.Header{Typeflag: tar.TypeReg, Name: h.Name, Size: h.Size, Mode: 0o644, Format: tar.FormatUSTAR}
		if err := errors.Join(w.WriteHeader(fresh), second(w.Write(data))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), content) {
		t.Error("archive/tar writes the entries in other bytes")
	}
}

func second[T any](_ T, err error) error { return err }

// Stock tools check a package without this one: gzip and tar unpack it, sha256sum -c agrees.
func TestStockToolsReadIt(t *testing.T) {
	for _, tool := range []string{"tar", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s on this machine", tool)
		}
	}
	dir := t.TempDir()
	data := archive(t, sign(t, build(t, goodFiles()), newTester(t)))
	if err := os.WriteFile(filepath.Join(dir, "p.tgz"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"tar", "-xzf", "p.tgz"}, {"sha256sum", "--strict", "-c", SumsPath}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil || r.Name != "" || !r.ModTime.IsZero() {
		t.Errorf("gzip header %+v, %v", r, err)
	}
}
