package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Limits of a pack.
const (
	// MaxArchive bounds an archive, MaxContent what it holds, both in bytes.
	MaxArchive = 1 << 20
	MaxContent = 4 << 20
	// MaxFiles bounds the number of files, the signature included.
	MaxFiles = 128
	// MaxPath bounds a path, in bytes.
	MaxPath = 100
)

// Names of files of a pack, which are those of OPA's bundles.
const (
	manifestFile   = ".manifest"
	signaturesFile = ".signatures.json"
	dataFile       = "data.json"
	deltaFile      = "patch.json"
	regoSuffix     = ".rego"
	testSuffix     = "_test.rego"
)

// File is one file of a pack.
type File struct {
	Path string
	Data []byte
}

// Source is the files of a pack whose form is checked, sorted by path. It is not changed once made.
type Source struct {
	Manifest Manifest
	// Files are all but the signature.
	Files []File
	// Tests are the files whose name ends with _test.rego; those in an archive are none.
	Tests []File
	// signatures is .signatures.json, nil without one.
	signatures []byte
}

// Manifest is what packs have of OPA's manifest.
type Manifest struct {
	// Revision is a number in decimal, and empty in a folder: it is given when the pack is built.
	Revision string `json:"revision"`
	// Roots is the one root of the pack, such as mc/limits.
	Roots       []string `json:"roots"`
	RegoVersion int      `json:"rego_version"`
}

// Name is the name of the pack: its root with dots, such as mc.limits.
func (s *Source) Name() string { return strings.ReplaceAll(s.Manifest.Roots[0], "/", ".") }

// ReadSource reads the folder of a pack. Files and folders whose name begins with a dot are left out, but for
// the manifest.
func ReadSource(fsys fs.FS) (*Source, error) {
	var files []File
	left := MaxContent
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case strings.HasPrefix(entry.Name(), ".") && name != manifestFile:
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return refuse(CodeEntryType, quoted(name), "it is no regular file; a pack has nothing else")
		case len(files) == MaxFiles:
			return refuse(CodeTooManyFiles, "", "a pack has at most %d files", MaxFiles)
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(f, int64(left)+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if len(data) > left {
			return refuse(CodeTooLarge, quoted(name), "with this file the pack holds more than %d bytes", MaxContent)
		}
		left -= len(data)
		files = append(files, File{name, data})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newSource(files)
}

// newSource checks the files of a pack.
func newSource(files []File) (*Source, error) {
	s := &Source{}
	seen := map[string]bool{}
	for _, f := range files {
		if seen[f.Path] {
			return nil, refuse(CodeDuplicate, quoted(f.Path), "the file is there twice")
		}
		seen[f.Path] = true
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
		switch base := path.Base(f.Path); {
		case f.Path == signaturesFile:
			s.signatures = f.Data
			continue
		case f.Path == manifestFile:
			if err := s.readManifest(f.Data); err != nil {
				return nil, err
			}
		case base == deltaFile:
			return nil, refuse(CodeDelta, quoted(f.Path), "the archive is a delta bundle, which cannot be signed").hint("build a whole pack")
		case f.Path == dataFile:
			if err := checkJSON(f.Data); err != nil {
				return nil, refuse(CodeData, quoted(f.Path), "%v", err)
			}
		case strings.HasSuffix(base, testSuffix):
			s.Tests = append(s.Tests, f)
			continue
		case !strings.HasSuffix(base, regoSuffix):
			return nil, refuse(CodeFile, quoted(f.Path), "a pack holds %s, %s and *%s, and nothing else", manifestFile, dataFile, regoSuffix)
		}
		s.Files = append(s.Files, f)
	}
	if !seen[manifestFile] {
		return nil, refuse(CodeManifest, manifestFile, "the file is missing").hint(`write {"roots": ["mc/NAME"], "rego_version": 1}`)
	}
	byPath := func(a, b File) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(s.Files, byPath)
	slices.SortFunc(s.Tests, byPath)
	return s, nil
}

// Digest is the identity of the content, whoever signed it: the SHA-256 of the lines that sha256sum writes for its files.
func (s *Source) Digest() string {
	h := sha256.New()
	for _, f := range s.Files {
		fmt.Fprintf(h, "%x  %s\n", sha256.Sum256(f.Data), f.Path)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Signed is true when the pack has a signature, of which nothing is said.
func (s *Source) Signed() bool { return s.signatures != nil }

func (s *Source) readManifest(data []byte) error {
	if err := checkJSON(data); err != nil {
		return refuse(CodeManifest, manifestFile, "%v", err)
	}
	if err := strictUnmarshal(data, &s.Manifest); err != nil {
		return refuse(CodeManifest, manifestFile, "%v; a pack has revision, roots and rego_version only", err)
	}
	if roots := s.Manifest.Roots; len(roots) != 1 || !validRoot(roots[0]) {
		return refuse(CodeManifest, manifestFile, "roots must be one path of at least two names, such as mc/limits")
	}
	if s.Manifest.RegoVersion != 1 {
		return refuse(CodeManifest, manifestFile, "rego_version must be 1")
	}
	return nil
}

func validRoot(root string) bool {
	names := strings.Split(root, "/")
	return len(names) >= 2 && len(root) <= 63 && !slices.ContainsFunc(names, func(n string) bool { return !plainName(n) })
}

// plainName is true for names that Rego writes without quotes.
func plainName(n string) bool {
	for i := range len(n) {
		c := n[i]
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return n != ""
}

// checkPath refuses a path that systems could read in different ways.
func checkPath(name string) error {
	if len(name) > MaxPath {
		return refuse(CodePath, quoted(name), "the path has %d bytes; at most %d are allowed", len(name), MaxPath)
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' && c != '/' {
			return refuse(CodePath, quoted(name), "paths are of a-z, 0-9, dot, hyphen, underscore and slash")
		}
	}
	if !fs.ValidPath(name) || name == "." {
		return refuse(CodePath, quoted(name), "the path leaves the pack or is not written plainly")
	}
	return nil
}
