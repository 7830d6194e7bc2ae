package mwpkg

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Package is a package whose form is checked. It is not changed once made: signing gives
// another one with the same content.
type Package struct {
	Manifest *Manifest
	// Files are all files outside the folder signatures, by path. Data must not be changed.
	Files []File
	// Digest is the SHA-256 of SHA256SUMS: the identity of the content.
	Digest Digest
	// Signatures has at most one of each key; the first is the primary one, which cosign.sig
	// holds, the others stand by key id. None means that the package is not signed.
	Signatures []Signature
	// Examples are those that the manifest names, in its order.
	Examples []Example

	sums []byte
}

// File is one file of a package.
type File struct {
	Path string
	Data []byte
}

// Open reads a package. It refuses whatever is not written exactly as Bytes writes it; an error is an
// *Error. Data must not be changed afterwards.
func Open(data []byte) (*Package, error) {
	content, err := decompress(data)
	if err != nil {
		return nil, err
	}
	all, err := readTar(content)
	if err != nil {
		return nil, err
	}
	var files, signatures []File
	var sums []byte
	for _, f := range all {
		switch {
		case f.Path == SumsPath:
			sums = f.Data
		case strings.HasPrefix(f.Path, signaturesFolder):
			signatures = append(signatures, f)
		default:
			files = append(files, f)
		}
	}
	if sums == nil {
		return nil, refuse(CodeFileMissing, SumsPath, "the file is missing").hint("maestro pkg build makes packages")
	}
	if err := checkSums(sums, files); err != nil {
		return nil, err
	}
	p, err := newPackage(files, sums)
	if err != nil {
		return nil, err
	}
	p.Signatures, err = readSignatures(sums, signatures)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Read is Open for a stream, of which it reads MaxPackage bytes and one at most. Besides an *Error it
// may return the error of r.
func Read(r io.Reader) (*Package, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxPackage+1))
	if err != nil {
		return nil, err
	}
	return Open(data)
}

// Build makes a package, without signatures, of a folder: of every file in it but those in the folder
// signatures, packages, and those whose name begins with a dot or that are in such a folder.
func Build(fsys fs.FS) (*Package, error) {
	var files []File
	left := MaxContent
	paths := newTree()
	err := fs.WalkDir(fsys, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case strings.HasPrefix(entry.Name(), ".") || path+"/" == signaturesFolder:
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir() || strings.HasSuffix(path, Suffix):
			return nil
		case !entry.Type().IsRegular():
			return refuse(CodeEntryType, quoted(path), "it is no regular file; a package has nothing else").hint("put a copy in its place")
		}
		if err := checkPath(path); err != nil {
			return err
		}
		if err := paths.add(path); err != nil {
			return err
		}
		// The room for SHA256SUMS and the primary signature's two files.
		if len(files) == MaxFiles-3 {
			return refuse(CodeTooManyFiles, "", "a package has at most %d files, signatures included", MaxFiles)
		}
		data, err := readBounded(fsys, path, left)
		left -= len(data)
		files = append(files, File{path, data})
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, byPath)
	p, err := newPackage(files, writeSums(files))
	if err != nil {
		return nil, err
	}
	// What cannot be opened must not be built: Bytes knows the size of the whole.
	if _, err := p.Bytes(); err != nil {
		return nil, err
	}
	return p, nil
}

func readBounded(fsys fs.FS, path string, limit int) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, refuse(CodeTooLarge, quoted(path), "with this file the package holds more than %d bytes", MaxContent)
	}
	return data, nil
}

// newPackage checks content whose sums are right.
func newPackage(files []File, sums []byte) (*Package, error) {
	p := &Package{Files: files, Digest: digestOf(sums), sums: sums}
	manifest, ok := p.File(ManifestPath)
	if !ok {
		return nil, refuse(CodeFileMissing, ManifestPath, "the file is missing; every package has it")
	}
	var err error
	if p.Manifest, err = ParseManifest(manifest); err != nil {
		return nil, err
	}
	return p, p.checkContent()
}

// Sums are the bytes of SHA256SUMS, which signatures sign. They must not be changed.
func (p *Package) Sums() []byte { return p.sums }

// File is the content of the file at path, outside the folder signatures.
func (p *Package) File(path string) ([]byte, bool) {
	i, ok := slices.BinarySearchFunc(p.Files, File{Path: path}, byPath)
	if !ok {
		return nil, false
	}
	return p.Files[i].Data, true
}

// Bytes is the package as an archive: the same bytes for the same content and signatures.
func (p *Package) Bytes() ([]byte, error) {
	all := append(slices.Clone(p.Files), File{SumsPath, p.sums})
	all = append(all, signatureFiles(p.sums, p.Signatures)...)
	if len(all) > MaxFiles {
		return nil, refuse(CodeTooManyFiles, "", "the package has %d files, signatures included; at most %d are allowed", len(all), MaxFiles)
	}
	slices.SortFunc(all, byPath)
	content := writeTar(all)
	data, err := compress(content)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxPackage || len(content) > MaxContent {
		return nil, refuse(CodeTooLarge, "", "the package has %d bytes and holds %d; at most %d and %d are allowed",
			len(data), len(content), MaxPackage, MaxContent)
	}
	if len(content) > MaxRatioBase+MaxRatio*len(data) {
		return nil, refuse(CodeTooLarge, "", "the content shrinks to less than a hundredth, which is what bombs do").
			hint("leave out or shorten files that repeat themselves")
	}
	return data, nil
}

// CheckFilename refuses a file name, without its folder, that is not the one of this package.
func (p *Package) CheckFilename(base string) error {
	if want := p.Manifest.Ref().Filename(); base != want {
		return refuse(CodeFilename, quoted(base), "the file holds %s and must be called %s", p.Manifest.Ref(), want)
	}
	return nil
}

// CheckRef refuses a package that is not the one that was asked for.
func (p *Package) CheckRef(want Ref) error {
	if got := p.Manifest.Ref(); got != want {
		return refuse(CodeFilename, want.String(), "the package is %s", got)
	}
	return nil
}

func byPath(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) }
