package mwpkg

import (
	"regexp"
	"slices"
	"strings"
)

// segment is a name of a file or folder that every system reads in the same way: no separators or
// drives, nothing hidden, no option, no trailing dot, and ASCII, so that there is one spelling of it.
var segment = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._+@=-]*[A-Za-z0-9_+@=-])?$`)

// devices are names that Windows takes for devices, whatever follows a dot in them.
var devices = []string{
	"con", "prn", "aux", "nul", "com0", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
	"lpt0", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
}

func checkPath(path string) error {
	if len(path) > MaxPath {
		return refuse(CodePath, quoted(path), "the path has %d bytes; at most %d are allowed", len(path), MaxPath)
	}
	parts := strings.Split(path, "/")
	if len(parts) > MaxDepth {
		return refuse(CodePath, quoted(path), "the path is %d deep; at most %d are allowed", len(parts), MaxDepth)
	}
	for _, part := range parts {
		if !segment.MatchString(part) {
			return refuse(CodePath, quoted(path), "%s is no allowed name of a file or folder", quoted(part)).
				hint("names are ASCII letters, digits and ._+@=-, and begin with a letter, digit or underscore")
		}
		base, _, _ := strings.Cut(strings.ToLower(part), ".")
		if slices.Contains(devices, base) {
			return refuse(CodePath, quoted(path), "%s is a device on some systems", quoted(part))
		}
	}
	return nil
}

// tree finds paths that cannot exist beside each other on every system.
type tree struct {
	// spelling holds each path and each of its folders, by its lower case.
	spelling map[string]string
	files    map[string]bool
}

func newTree() *tree { return &tree{map[string]string{}, map[string]bool{}} }

func (t *tree) add(path string) error {
	lower := strings.ToLower(path)
	if other, ok := t.spelling[lower]; ok {
		return refuse(CodePathConflict, quoted(path), "%s is there already, as a file or folder", quoted(other))
	}
	for i := range path {
		if path[i] != '/' {
			continue
		}
		folder := path[:i]
		other, ok := t.spelling[lower[:i]]
		if ok && (other != folder || t.files[folder]) {
			return refuse(CodePathConflict, quoted(path), "its folder would be %s, which is there already", quoted(other))
		}
		t.spelling[lower[:i]] = folder
	}
	t.spelling[lower] = path
	t.files[path] = true
	return nil
}
