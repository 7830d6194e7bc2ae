package policies

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

const (
	block       = 512
	gzipHeader  = 10
	gzipTrailer = 8
)

// writeArchive is files as a bundle of OPA: the same bytes for the same files.
func writeArchive(files []File) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: f.Path, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if out.Len() > MaxArchive {
		return nil, refuse(CodeTooLarge, "", "the archive has %d bytes; at most %d are allowed", out.Len(), MaxArchive)
	}
	return out.Bytes(), nil
}

// ReadArchive reads a bundle of OPA: a pack with or without a signature, of which nothing is said. It bounds memory
// before it looks at content, and takes plain files in plain headers only, of which all readers read the same.
func ReadArchive(data []byte) (*Source, error) {
	content, err := decompress(data)
	if err != nil {
		return nil, err
	}
	files, err := readTar(content)
	if err != nil {
		return nil, err
	}
	s, err := newSource(files)
	if err != nil {
		return nil, err
	}
	if len(s.Tests) > 0 {
		return nil, refuse(CodeFile, s.Tests[0].Path, "an archive holds no tests").hint("maestro policy build leaves them out; give opa build --ignore '*_test.rego'")
	}
	return s, nil
}

// decompress gives the content of the one gzip member (RFC 1952) that data is.
func decompress(data []byte) ([]byte, error) {
	if len(data) > MaxArchive {
		return nil, refuse(CodeTooLarge, "", "the archive has more than %d bytes", MaxArchive)
	}
	if len(data) < gzipHeader+gzipTrailer || data[0] != 0x1f || data[1] != 0x8b || data[2] != 8 {
		return nil, refuse(CodeGzip, "", "the file is not gzip").hint("maestro policy build and opa build make packs")
	}
	if data[3] != 0 {
		return nil, refuse(CodeGzip, "", "the gzip header has a name, comment or extra field")
	}
	rest := bytes.NewReader(data[gzipHeader:])
	// The tar's headers come on top of what the files hold.
	const most = MaxContent + (2*MaxFiles+2)*block
	content, err := io.ReadAll(io.LimitReader(flate.NewReader(rest), most+1))
	switch {
	case len(content) > most:
		return nil, refuse(CodeTooLarge, "", "the archive holds more than %d bytes", MaxContent)
	case err != nil:
		return nil, refuse(CodeGzip, "", "the compressed data are broken: %v", err)
	case rest.Len() != gzipTrailer:
		return nil, refuse(CodeGzip, "", "the gzip member is not all of the file, or its end is missing")
	}
	trailer := data[len(data)-gzipTrailer:]
	if crc32.ChecksumIEEE(content) != binary.LittleEndian.Uint32(trailer) || uint32(len(content)) != binary.LittleEndian.Uint32(trailer[4:]) {
		return nil, refuse(CodeGzip, "", "the checksum of the compressed data does not match")
	}
	return content, nil
}

// readTar reads a tar of regular files in USTAR headers without extensions. Bundles of OPA name
// files with a slash before them, which is taken off.
func readTar(rest []byte) ([]File, error) {
	var files []File
	left := MaxContent
	for {
		if len(rest) < block {
			return nil, refuse(CodeTar, "", "the tar ends without its two empty blocks")
		}
		h := rest[:block]
		if isZero(h) {
			if len(rest) < 2*block || !isZero(rest) {
				return nil, refuse(CodeTar, "", "the tar does not end with two empty blocks, or data follow them")
			}
			return files, nil
		}
		name, size, err := readHeader(h)
		if err != nil {
			return nil, err
		}
		rest = rest[block:]
		padded := (size + block - 1) / block * block
		switch {
		case len(files) == MaxFiles:
			return nil, refuse(CodeTooManyFiles, "", "a pack has at most %d files", MaxFiles)
		case size > left:
			return nil, refuse(CodeTooLarge, quoted(name), "with this file the pack holds more than %d bytes", MaxContent)
		case padded > len(rest):
			return nil, refuse(CodeTar, quoted(name), "the tar ends within the file")
		case !isZero(rest[size:padded]):
			return nil, refuse(CodeTar, quoted(name), "the space after the file is not empty")
		}
		left -= size
		files = append(files, File{strings.TrimPrefix(name, "/"), rest[:size:size]})
		rest = rest[padded:]
	}
}

// readHeader reads a USTAR header (POSIX.1-1988).
func readHeader(h []byte) (name string, size int, err error) {
	sum := 0
	for i, b := range h {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	if want, err := octal(h[148:156]); err != nil || want != sum {
		return "", 0, refuse(CodeTar, "", "a header's checksum does not match")
	}
	name = string(h[:100])
	if i := strings.IndexByte(name, 0); i >= 0 {
		if !isZero(h[i:100]) {
			return "", 0, refuse(CodePath, quoted(name), "something follows the end of the name")
		}
		name = name[:i]
	}
	if t := h[156]; t != '0' {
		return "", 0, refuse(CodeEntryType, quoted(name), "the entry has the type %q; a pack has regular files in plain headers only", t)
	}
	if string(h[257:265]) != "ustar\x0000" || !isZero(h[157:257]) || !isZero(h[345:512]) {
		return "", 0, refuse(CodeEntryType, quoted(name), "the header is not a plain one of USTAR")
	}
	if size, err = octal(h[124:136]); err != nil {
		return "", 0, refuse(CodeTar, quoted(name), "the size is no octal number")
	}
	return name, size, nil
}

func octal(field []byte) (int, error) {
	n, err := strconv.ParseUint(strings.Trim(string(field), " \x00"), 8, 31)
	return int(n), err
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
