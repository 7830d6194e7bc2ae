package mwpkg

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const block = 512

// field is a place in a USTAR header (POSIX.1-1988).
type field struct {
	name     string
	from, to int
}

var (
	fieldName     = field{"name", 0, 100}
	fieldSize     = field{"size", 124, 136}
	fieldChecksum = field{"checksum", 148, 156}
	fieldType     = field{"type", 156, 157}
	fieldPrefix   = field{"prefix", 345, 500}

	fields = []field{
		fieldName,
		{"mode", 100, 108},
		{"owner", 108, 116},
		{"group", 116, 124},
		fieldSize,
		{"time", 136, 148},
		fieldChecksum,
		fieldType,
		{"link", 157, 257},
		{"format", 257, 265},
		{"owner's name", 265, 297},
		{"group's name", 297, 329},
		{"device", 329, 345},
		fieldPrefix,
		{"padding", 500, 512},
	}
)

func (f field) of(h []byte) []byte { return h[f.from:f.to] }

// header is the one header that a file of a package may have.
func header(path string, size int) [block]byte {
	var h [block]byte
	copy(h[:], path)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x000000000\x00")
	copy(h[148:], fmt.Sprintf("%06o\x00 ", checksum(h[:])))
	return h
}

// checksum is the sum of a header's bytes with spaces in the place of the checksum.
func checksum(h []byte) int {
	sum := 0
	for i, b := range h {
		if fieldChecksum.from <= i && i < fieldChecksum.to {
			b = ' '
		}
		sum += int(b)
	}
	return sum
}

// padding is how many zero bytes follow content of that size.
func padding(size int) int { return (block - size%block) % block }

// writeTar serialises files, which are sorted by path.
func writeTar(files []File) []byte {
	size := 2 * block
	for _, f := range files {
		size += block + len(f.Data) + padding(len(f.Data))
	}
	out := make([]byte, 0, size)
	for _, f := range files {
		h := header(f.Path, len(f.Data))
		out = append(append(out, h[:]...), f.Data...)
		out = append(out, make([]byte, padding(len(f.Data)))...)
	}
	return append(out, make([]byte, 2*block)...)
}

// readTar gives the files of a tar that is what writeTar makes of them, byte for byte. The files' data
// are parts of content. No extended header is ever interpreted.
func readTar(content []byte) ([]File, error) {
	var files []File
	paths := newTree()
	rest := content
	for {
		if len(rest) < block {
			return nil, refuse(CodeTar, "", "the tar ends without its two empty blocks")
		}
		h := rest[:block]
		if isZero(h) {
			return files, checkEnd(rest)
		}
		if len(files) == MaxFiles {
			return nil, refuse(CodeTooManyFiles, "", "a package has at most %d files", MaxFiles)
		}
		path, size, err := readHeader(h)
		if err != nil {
			return nil, err
		}
		rest = rest[block:]
		if size+padding(size) > len(rest) {
			return nil, refuse(CodeTar, quoted(path), "the tar ends within the file")
		}
		if n := len(files); n > 0 && path < files[n-1].Path {
			return nil, refuse(CodeNotCanonical, quoted(path), "the file stands after %s; files are sorted by path", quoted(files[n-1].Path))
		}
		if err := paths.add(path); err != nil {
			return nil, err
		}
		if !isZero(rest[size : size+padding(size)]) {
			return nil, refuse(CodeNotCanonical, quoted(path), "the space after the file is not empty")
		}
		files = append(files, File{path, rest[:size:size]})
		rest = rest[size+padding(size):]
	}
}

// readHeader reads path and size. The rest of the header may only be what those two make of it.
func readHeader(h []byte) (path string, size int, err error) {
	sum, err := strconv.ParseInt(strings.Trim(string(fieldChecksum.of(h)), " \x00"), 8, 64)
	if err != nil || int(sum) != checksum(h) {
		return "", 0, refuse(CodeTar, "", "a header's checksum does not match")
	}
	name := fieldName.of(h)
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	path = string(name)
	if t := fieldType.of(h)[0]; t != '0' {
		return "", 0, refuse(CodeEntryType, quoted(path), "the entry is %s; a package has regular files only", typeName(t))
	}
	if fieldPrefix.of(h)[0] != 0 {
		return "", 0, refuse(CodePath, quoted(path), "the path has more than %d bytes", MaxPath)
	}
	if err := checkPath(path); err != nil {
		return "", 0, err
	}
	digits := fieldSize.of(h)
	for _, d := range digits[:len(digits)-1] {
		if d < '0' || d > '7' {
			return "", 0, refuse(CodeTar, quoted(path), "the size is not eleven octal digits")
		}
		size = size<<3 | int(d-'0')
	}
	if size > MaxContent {
		return "", 0, refuse(CodeTooLarge, quoted(path), "the file claims %d bytes; at most %d are unpacked", size, MaxContent)
	}
	want := header(path, size)
	for _, f := range fields {
		if !bytes.Equal(f.of(h), f.of(want[:])) {
			return "", 0, refuse(CodeNotCanonical, quoted(path), "the %s in its header is not what a package has", f.name).
				hint("build the package with maestro pkg build")
		}
	}
	return path, size, nil
}

func checkEnd(rest []byte) error {
	switch {
	case len(rest) < 2*block || !isZero(rest[block:2*block]):
		return refuse(CodeTar, "", "the tar ends without its two empty blocks")
	case len(rest) > 2*block:
		return refuse(CodeTrailing, "", "%d bytes follow the end of the tar", len(rest)-2*block)
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func typeName(t byte) string {
	names := map[byte]string{
		0: "of an old format", '1': "a hard link", '2': "a symbolic link", '3': "a device", '4': "a device", '5': "a folder",
		'6': "a pipe", 'g': "an extended header", 'x': "an extended header", 'L': "a long name", 'K': "a long link", 'S': "a sparse file",
	}
	if name, ok := names[t]; ok {
		return name
	}
	return fmt.Sprintf("of type %q", t)
}
