package mwpkg

import (
	"bytes"
	"embed"
	"io/fs"
	"slices"
)

//go:embed scaffold
var scaffold embed.FS

// Scaffold gives the files of a new package called name: a workflow of one step, which builds.
func Scaffold(name string) ([]File, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	sub, err := fs.Sub(scaffold, "scaffold")
	if err != nil {
		return nil, err
	}
	var files []File
	err = fs.WalkDir(sub, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(sub, path)
		files = append(files, File{path, bytes.ReplaceAll(data, []byte("PACKAGE-NAME"), []byte(name))})
		return err
	})
	slices.SortFunc(files, byPath)
	return files, err
}
