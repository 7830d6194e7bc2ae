package raftfsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// replicaList is the file replicas.json: which replicas this node has opened. A listed replica
// whose log is missing has lost votes and entries, and is refused; an erased id is never used
// again. docs/FORMAT.md has the layout.
type replicaList struct {
	fs   vfs.FS
	path string

	mu   sync.Mutex
	file replicaFile
	// found is true when the file was there.
	found bool
}

type replicaFile struct {
	Version int `json:"version"`
	// Replicas are the open ones, by the group's name.
	Replicas map[string]listedReplica `json:"replicas"`
	// Erasing are groups whose rows and files are being removed.
	Erasing []string `json:"erasing,omitempty"`
	// Erased are the ids that had a log here and must not come back without it, by group.
	Erased map[string][]string `json:"erased,omitempty"`
}

type listedReplica struct {
	ID string `json:"id"`
	// Waits is set until the replica has got its first entry: until then its log may be empty.
	Waits bool `json:"waits,omitempty"`
}

const (
	replicaListVersion = 1
	replicaListName    = "replicas.json"
)

func openReplicaList(fs vfs.FS, dir string) (*replicaList, error) {
	r := &replicaList{fs: fs, path: filepath.Join(dir, replicaListName)}
	b, err := readFile(fs, r.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("raftfsm: list of replicas: %w", err)
	default:
		if err := json.Unmarshal(b, &r.file); err != nil || r.file.Version != replicaListVersion {
			return nil, fmt.Errorf("raftfsm: list of replicas %s is damaged or newer than this build: %v", r.path, err)
		}
		r.found = true
	}
	r.file.Version = replicaListVersion
	if r.file.Replicas == nil {
		r.file.Replicas = map[string]listedReplica{}
	}
	if r.file.Erased == nil {
		r.file.Erased = map[string][]string{}
	}
	return r, nil
}

// change applies f and writes the list; on an error what is in memory stays as it was.
func (r *replicaList) change(f func(*replicaFile)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := replicaFile{
		Version: replicaListVersion, Replicas: maps.Clone(r.file.Replicas),
		Erasing: slices.Clone(r.file.Erasing), Erased: maps.Clone(r.file.Erased),
	}
	f(&next)
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("raftfsm: list of replicas: %w", err)
	}
	if err := writeFile(r.fs, r.path, append(b, '\n')); err != nil {
		return err
	}
	r.file = next
	return nil
}

func (r *replicaList) get(group string) (listedReplica, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.file.Replicas[group]
	return l, ok
}

// waits tells whether the group's replica has not got its first entry yet.
func (r *replicaList) waits(group string) bool {
	l, ok := r.get(group)
	return ok && l.Waits
}

// usable tells whether id may be opened without a log: it never had one here.
func (r *replicaList) usable(group, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.Contains(r.file.Erased[group], id)
}

func (r *replicaList) erasing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.file.Erasing)
}

// put lists replicas by group.
func (r *replicaList) put(replicas map[string]listedReplica) error {
	return r.change(func(f *replicaFile) { maps.Copy(f.Replicas, replicas) })
}

// beginErase takes the group's replica off the list for good.
func (r *replicaList) beginErase(group string) error {
	return r.change(func(f *replicaFile) {
		f.Erased[group] = append(slices.Clone(f.Erased[group]), f.Replicas[group].ID)
		delete(f.Replicas, group)
		if !slices.Contains(f.Erasing, group) {
			f.Erasing = append(f.Erasing, group)
		}
	})
}

func (r *replicaList) endErase(group string) error {
	return r.change(func(f *replicaFile) {
		f.Erasing = slices.DeleteFunc(f.Erasing, func(g string) bool { return g == group })
	})
}
