package stepexec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Folders of a run. Steps see package, work, tmp and artifacts, and of outputs and roots their own.
const (
	packageFolder   = "package"
	workFolder      = "work"
	tmpFolder       = "tmp"
	artifactsFolder = "artifacts"
	outputsFolder   = "outputs"
	rootsFolder     = "roots"
)

// folder is the folder of a run. What steps leave in it is never trusted: everything here goes
// through os.Root, which follows no link out of it.
type folder struct {
	path string
	root *os.Root
}

// newFolder makes the folder of a run with the package's files.
func newFolder(dir string, files []mwpkg.File) (*folder, error) {
	where, err := os.MkdirTemp(dir, "maestro-run-")
	if err == nil {
		where, err = filepath.Abs(where)
	}
	if err != nil {
		return nil, fmt.Errorf("stepexec: folder of the run: %w", err)
	}
	f := &folder{path: where}
	if f.root, err = os.OpenRoot(where); err == nil {
		err = f.fill(files)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stepexec: folder of the run: %w", err), f.remove())
	}
	return f, nil
}

func (f *folder) fill(files []mwpkg.File) error {
	for _, name := range []string{packageFolder, workFolder, tmpFolder, artifactsFolder, outputsFolder, rootsFolder} {
		if err := f.root.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	for _, file := range files {
		name := path.Join(packageFolder, file.Path)
		if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := f.root.WriteFile(name, file.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// place is where an attempt runs: what it sees, and where.
type place struct {
	dir, root string
	binds     []sandbox.Bind
	env       map[string]string
	output    string // the file of outputs, in the run's folder
}

// attempt makes the folders of one attempt.
func (f *folder) attempt(step string, number int, isolation sandbox.Isolation) (place, error) {
	own := fmt.Sprintf("%s-%d", step, number)
	p := place{output: path.Join(outputsFolder, own, "outputs"), root: filepath.Join(f.path, rootsFolder, own)}
	if err := errors.Join(f.root.Mkdir(path.Join(outputsFolder, own), 0o755), f.root.Mkdir(path.Join(rootsFolder, own), 0o755)); err != nil {
		return p, err
	}
	if err := f.root.WriteFile(p.output, nil, 0o644); err != nil {
		return p, err
	}
	at := func(host, inside string, writable bool) string {
		host = filepath.Join(f.path, host)
		if isolation == sandbox.None {
			return host
		}
		p.binds = append(p.binds, sandbox.Bind{Host: host, At: inside, Writable: writable})
		return inside
	}
	p.dir = at(packageFolder, "/package", false)
	work := at(workFolder, "/work", true)
	p.env = map[string]string{
		"PATH": sandbox.Path, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": work,
		"MAESTRO_WORK": work, "TMPDIR": at(tmpFolder, "/tmp", true), "MAESTRO_ARTIFACTS": at(artifactsFolder, "/artifacts", true),
		"MAESTRO_OUTPUT": path.Join(at(path.Dir(p.output), "/output", true), "outputs"),
	}
	return p, nil
}

// outputs reads what an attempt wrote into its file of outputs: lines NAME=VALUE, the last one
// of a name counts.
func (f *folder) outputs(p place, declared []string) (map[string]string, error) {
	info, err := f.root.Lstat(p.output)
	if err != nil {
		return nil, fmt.Errorf("the file of outputs is gone: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > MaxOutputs {
		return nil, fmt.Errorf("the file of outputs is no regular file of at most %d bytes", MaxOutputs)
	}
	text, err := f.root.ReadFile(p.output)
	if err != nil {
		return nil, fmt.Errorf("the file of outputs: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("a line of the file of outputs is not NAME=VALUE")
		case !slices.Contains(declared, name):
			return nil, fmt.Errorf("the step writes the output %q, which it does not declare", name)
		case len(value) > MaxValue:
			return nil, fmt.Errorf("output %s has %d bytes; at most %d are kept: leave longer texts in MAESTRO_ARTIFACTS", name, len(value), MaxValue)
		}
		values[name] = value
	}
	return values, nil
}

// watch ends an attempt when the run's files grow too large. It takes a tenth of one processor at most.
func (f *folder) watch(ctx context.Context, end context.CancelCauseFunc) {
	pause := MeasureEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		if f.tooLarge() {
			end(errFolder)
			return
		}
		pause = max(MeasureEvery, 9*time.Since(began))
	}
}

// tooLarge adds up the files that steps have made. What vanishes meanwhile does not count; what a
// step hides by closing a folder counts as too large.
func (f *folder) tooLarge() bool {
	var size int64
	entries := 0
	hidden := false
	for _, name := range []string{workFolder, tmpFolder, artifactsFolder, outputsFolder} {
		_ = fs.WalkDir(f.root.FS(), name, func(_ string, d fs.DirEntry, err error) error {
			var info fs.FileInfo
			if err == nil {
				info, err = d.Info()
			}
			hidden = hidden || errors.Is(err, fs.ErrPermission)
			if entries++; hidden || entries > MaxEntries || size > MaxFolder {
				return fs.SkipAll
			}
			if err == nil && info.Mode().IsRegular() {
				size += info.Size()
			}
			return nil
		})
	}
	return hidden || entries > MaxEntries || size > MaxFolder
}

// collect lists the artifacts, and copies them into the folder to, unless that is empty.
func (f *folder) collect(to string) ([]Artifact, error) {
	found := []Artifact{}
	var target *os.Root
	if to != "" {
		var err error
		if target, err = os.OpenRoot(to); err != nil {
			return found, err
		}
		defer target.Close()
	}
	err := fs.WalkDir(f.root.FS(), artifactsFolder, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("the artifact %s is no regular file; links and devices are not kept", name)
		case len(found) == MaxArtifacts:
			return fmt.Errorf("there are more than %d artifacts; pack them into one", MaxArtifacts)
		}
		a, err := f.artifact(name, target)
		found = append(found, a)
		return err
	})
	return found, err
}

func (f *folder) artifact(name string, target *os.Root) (Artifact, error) {
	a := Artifact{Path: strings.TrimPrefix(name, artifactsFolder+"/")}
	in, err := f.root.Open(name)
	if err != nil {
		return a, err
	}
	defer in.Close()
	hash := sha256.New()
	to := io.Writer(hash)
	var out *os.File
	if target != nil {
		if err := target.MkdirAll(path.Dir(a.Path), 0o755); err != nil {
			return a, err
		}
		if out, err = target.OpenFile(a.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
			return a, err
		}
		to = io.MultiWriter(hash, out)
	}
	a.Bytes, err = io.Copy(to, in)
	if out != nil {
		err = errors.Join(err, out.Close())
	}
	a.Digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return a, err
}

// remove takes the folder away, also where steps have closed folders of it to their owner.
func (f *folder) remove() error {
	if f.root == nil {
		return os.RemoveAll(f.path)
	}
	defer f.root.Close()
	if os.RemoveAll(f.path) == nil {
		return nil
	}
	_ = fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = f.root.Chmod(name, 0o700) // before its entries are read
		}
		return nil
	})
	if err := os.RemoveAll(f.path); err != nil {
		return fmt.Errorf("stepexec: remove the folder of the run: %w", err)
	}
	return nil
}
