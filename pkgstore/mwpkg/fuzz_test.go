package mwpkg

import (
	"bytes"
	"errors"
	"testing"
)

// mustRefuse fails unless err is an *Error with a code.
func mustRefuse(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code == "" {
		t.Fatalf("refused without a code: %v", err)
	}
	_ = err.Error()
}

// What decompress accepts is one member without anything around it, which holds the same when it is written again.
func FuzzGzip(f *testing.F) {
	f.Add(zip(f, []byte("hello")))
	f.Add(archive(f, build(f, goodFiles())))
	f.Add(rawGzip(f, make([]byte, 1<<16), 12))
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := decompress(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		again, err := decompress(zip(t, content))
		if err != nil || !bytes.Equal(again, content) {
			t.Fatalf("written again it is refused or differs: %v", err)
		}
		for _, more := range [][]byte{append(bytes.Clone(data), 0), append(bytes.Clone(data), data...)} {
			if _, err := decompress(more); err == nil {
				t.Fatal("with more behind it is accepted")
			}
		}
	})
}

// What readTar accepts is byte for byte what writeTar makes of it, and every path may be written to a folder.
func FuzzTar(f *testing.F) {
	f.Add(rawTar(goodEntries(f)...))
	f.Add(rawTar())
	f.Add(rawTar(file("a", "x"), file("b/c", "")))
	f.Fuzz(func(t *testing.T, content []byte) {
		files, err := readTar(content)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if !bytes.Equal(writeTar(files), content) {
			t.Fatal("written again it differs")
		}
		for _, file := range files {
			if err := checkPath(file.Path); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What ParseManifest accepts is consistent: what it uses is what it declares, and values resolve or are refused.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte("apiVersion: maestro.dev/pkg/v1\nkind: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		var found problems
		m.checkDeclared(&found)
		if found != nil || CheckName(m.Metadata.Name) != nil || CheckVersion(m.Metadata.Version) != nil {
			t.Fatalf("accepted with %v", found.err())
		}
		for _, s := range m.Workflow.Steps {
			c, err := ParseCondition(s.If)
			if err != nil {
				t.Fatal(err)
			}
			c.Eval(Values{})
		}
		if _, err := m.Resolve(nil); err != nil {
			mustRefuse(t, err)
		}
	})
}

// A bundle that is accepted gives a signature that is written and read as the same.
func FuzzBundle(f *testing.F) {
	p := sign(f, build(f, goodFiles()), newTester(f))
	f.Add(writeBundle(p.sums, p.Signatures[0]))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseBundle(data, p.sums)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if again, err := ParseBundle(writeBundle(p.sums, s), p.sums); err != nil || again.KeyID != s.KeyID || !bytes.Equal(again.Value, s.Value) {
			t.Fatalf("written again it is %+v, %v", again, err)
		}
		if _, err := p.WithSignature(s); err != nil {
			t.Fatal(err)
		}
	})
}

// Only one SHA256SUMS is right for given files.
func FuzzSums(f *testing.F) {
	p := build(f, goodFiles())
	f.Add(p.sums)
	f.Add(bytes.Repeat(p.sums, 2))
	f.Fuzz(func(t *testing.T, sums []byte) {
		err := checkSums(sums, p.Files)
		if err == nil && !bytes.Equal(sums, p.sums) {
			t.Fatal("other sums are accepted")
		}
		if err != nil {
			mustRefuse(t, err)
		}
	})
}

// A whole archive that is accepted is written again as a package with the same digest and signatures.
func FuzzOpen(f *testing.F) {
	by := newTester(f)
	f.Add(archive(f, sign(f, build(f, goodFiles()), by)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Open(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		again, err := Open(archive(t, p))
		if err != nil || again.Digest != p.Digest || len(again.Signatures) != len(p.Signatures) {
			t.Fatalf("written again it is %v, %v", again, err)
		}
	})
}
