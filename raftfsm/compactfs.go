package raftfsm

import "github.com/cockroachdb/pebble/v2/vfs"

// writesOfCompactions is the category that Pebble gives the files of compactions, and of nothing else.
const writesOfCompactions vfs.DiskWriteCategory = "pebble-compaction"

// compactFS lets compactions rest between two blocks that they write: Pebble has no bound on how fast they
// go. Flushes, the logs of memtables and all reads are as ever.
type compactFS struct {
	vfs.FS
	turns func() (rest func())
}

func (f compactFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != writesOfCompactions {
		return file, err
	}
	return &compactFile{File: file, rest: f.turns()}, nil
}

// Unwrap returns the file system below.
func (f compactFS) Unwrap() vfs.FS { return f.FS }

// compactFile is written by one goroutine.
type compactFile struct {
	vfs.File
	rest func()
}

func (f *compactFile) Write(p []byte) (int, error) {
	f.rest()
	return f.File.Write(p)
}
