package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// A list has a digest a line, with or without a name, as the tools for checksums write it.
func TestReadDigests(t *testing.T) {
	text := "# made by sha256sum\n58ab  dist/a b.tar\n\n9f86 *bin\r\n  sha256:00\n"
	want := []listedDigest{{"58ab", "dist/a b.tar"}, {"9f86", "bin"}, {"sha256:00", ""}}
	file := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"-", file} {
		if got, err := readDigests(name, strings.NewReader(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{"empty": "\n# nothing\n", "a line without end": strings.Repeat("a", 1<<20)} {
		if got, err := readDigests("-", strings.NewReader(text)); err == nil {
			t.Errorf("%s: %d digests", name, len(got))
		}
	}
	if _, err := readDigests(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestLookupTable(t *testing.T) {
	r := &provenancev1.LookupResponse{Complete: true, Digests: []*provenancev1.DigestAnswer{
		{Digest: "sha256:00", Count: 3, Documents: []*provenancev1.Document{{Id: "d1", Kind: "receipt", Tenant: "acme", Task: "build"}}},
		{Digest: "sha256:01"},
		{Digest: "x", Problem: "it is none"},
	}}
	var b strings.Builder
	lookupTable(&b, r, []listedDigest{{"sha256:00", "a.tar"}, {"sha256:01", ""}, {"x", ""}})
	for _, want := range []string{"a.tar\t3\t", "d1\tbuild\n", "sha256:01\t0\n", "x\t-\t\t\t\t\tit is none\n", "1 of 3 digests are known\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in %s", want, b.String())
		}
	}
	if err := problems(r); err == nil || !strings.Contains(err.Error(), "1 of 3 are no digests; the first: it is none") {
		t.Errorf("problems: %v", err)
	}
}
