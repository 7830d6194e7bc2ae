package mwpkg

import (
	"os"
	"path"
)

// WriteTo writes the files of a package, without its signatures, into a folder, which should be empty: nothing in it is
// replaced. Whatever their paths are and whoever changes the folder meanwhile, nothing outside of it is written.
func WriteTo(root *os.Root, files []File) error {
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return err
		}
		if err := root.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
			return err
		}
		out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = out.Write(f.Data)
		if closed := out.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
	}
	return nil
}
