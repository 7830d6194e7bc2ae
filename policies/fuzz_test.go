package policies

import (
	"os"
	"testing"
)

// FuzzReadArchive: whatever bytes an archive has, it is refused with a code or read as files that give an archive again with
// the same content.
func FuzzReadArchive(f *testing.F) {
	f.Add(get(os.ReadFile("testdata/acme.hours-3.tar.gz"))(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadArchive(data)
		if err != nil {
			if CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		archive, err := writeArchive(s.Files)
		if err != nil {
			return // larger than an archive may be
		}
		again, err := ReadArchive(archive)
		if err != nil || again.Digest() != s.Digest() {
			t.Fatalf("read again it is another: %v", err)
		}
	})
}

// FuzzReadTar is FuzzReadArchive without the checksum of gzip, behind which few inputs come.
func FuzzReadTar(f *testing.F) {
	f.Add(get(decompress(get(os.ReadFile("testdata/acme.hours-3.tar.gz"))(f)))(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := readTar(data)
		if err == nil {
			_, err = newSource(files)
		}
		if err != nil && CodeOf(err) == "" {
			t.Fatalf("refused without a code: %v", err)
		}
	})
}

// FuzzParseToken: a .signatures.json is refused with a code or read.
func FuzzParseToken(f *testing.F) {
	s := get(ReadArchive(get(os.ReadFile("testdata/acme.hours-3.tar.gz"))(f)))(f)
	f.Add(s.signatures)
	f.Fuzz(func(t *testing.T, data []byte) {
		token, err := parseToken(data)
		if err == nil {
			_, err = token.claims()
		}
		if err != nil && CodeOf(err) == "" {
			t.Fatalf("refused without a code: %v", err)
		}
	})
}
