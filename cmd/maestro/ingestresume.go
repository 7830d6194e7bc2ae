package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/maestro-conductor/maestro/internal/client"
)

// resumeEvery is how often a running ingest writes down where it stands: after a crash that much
// is sent again, and recognised.
const resumeEvery = time.Second

// resumeHeadBytes is how much of a file's beginning tells that it is still the same one.
const resumeHeadBytes = 64 << 10

// resumeState is the file of --resume: how far each source is decided.
type resumeState struct {
	Version int                     `json:"version"`
	Sources map[string]resumeSource `json:"sources"`

	path  string
	saved time.Time
}

type resumeSource struct {
	// Documents is how many documents from the beginning are stored or refused.
	Documents int `json:"documents"`
	// Head is the SHA-256 of the first HeadBytes bytes; none for stdin.
	Head      string `json:"head,omitempty"`
	HeadBytes int64  `json:"headBytes,omitempty"`
}

const resumeVersion = 1

// loadResume reads the file; a missing one means that nothing is done. An empty path keeps nothing.
func loadResume(path string) (*resumeState, error) {
	s := &resumeState{Version: resumeVersion, Sources: map[string]resumeSource{}, path: path}
	if path == "" {
		return s, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	known := &resumeState{path: path}
	if err := json.Unmarshal(data, known); err != nil || known.Version != resumeVersion || known.Sources == nil {
		return nil, hinted{fmt.Errorf("%s does not say where an ingest stands", path), "name another file, or remove this one to ingest everything again"}
	}
	return known, nil
}

// skip is how many documents of a file are done. A file whose beginning is another one than it was
// is an error: its documents cannot be told by their number.
func (s *resumeState) skip(name string, f *os.File) (int, error) {
	if s.path == "" {
		return 0, nil
	}
	known, ok := s.Sources[name]
	if info, err := statOf(f); err != nil || !info.Mode().IsRegular() {
		return known.Documents, err
	}
	n := int64(resumeHeadBytes)
	if ok {
		n = known.HeadBytes
	}
	hash := sha256.New()
	read, err := io.Copy(hash, io.NewSectionReader(f, 0, n))
	if err != nil {
		return 0, err
	}
	head := hex.EncodeToString(hash.Sum(nil))
	if ok && head != known.Head {
		return 0, hinted{fmt.Errorf("%s is not the file that %s knows: its beginning has changed", name, s.path), "remove " + s.path + " to ingest everything again"}
	}
	s.Sources[name] = resumeSource{Documents: known.Documents, Head: head, HeadBytes: read}
	return known.Documents, nil
}

// statOf describes a file; nil is stdin, of which nothing is known.
func statOf(f *os.File) (fs.FileInfo, error) {
	if f == nil {
		return os.Stat(os.DevNull)
	}
	return f.Stat()
}

// decided notes that so many documents of a source are done.
func (s *resumeState) decided(name string, documents int) {
	if s.path == "" {
		return
	}
	source := s.Sources[name]
	source.Documents = documents
	s.Sources[name] = source
}

// save writes the file, unless it was written a moment ago and more is to come.
func (s *resumeState) save(now time.Time, last bool) error {
	if s.path == "" || !last && now.Sub(s.saved) < resumeEvery {
		return nil
	}
	s.saved = now
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return client.WriteFile(s.path, append(data, '\n'))
}
