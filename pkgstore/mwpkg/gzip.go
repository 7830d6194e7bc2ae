package mwpkg

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// Layout of a gzip member (RFC 1952).
const (
	gzipHeader  = 10
	gzipTrailer = 8
)

// compress is the one gzip member of an archive: no name, no time. The compressor is a pinned module
// and not the toolchain's, so that a new toolchain does not change the bytes.
func compress(content []byte) ([]byte, error) {
	var out bytes.Buffer
	// Deflate, no fields, no time, best compression, unknown system.
	out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255})
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))
	out.Write(binary.LittleEndian.AppendUint32(trailer, uint32(len(content))))
	return out.Bytes(), nil
}

// decompress gives the content of a single gzip member that is all of data. The member says at its end how
// long its content is, so one buffer of that size is all it takes, and a bomb is
// refused before it is inflated, or, if it lies, after as many bytes as it admits to.
func decompress(data []byte) ([]byte, error) {
	if len(data) > MaxPackage {
		return nil, refuse(CodeTooLarge, "", "the archive has more than %d bytes", MaxPackage)
	}
	if len(data) < gzipHeader+gzipTrailer || data[0] != 0x1f || data[1] != 0x8b || data[2] != 8 {
		return nil, refuse(CodeGzip, "", "the file is not gzip").hint("maestro pkg build makes packages")
	}
	if data[3] != 0 || !bytes.Equal(data[4:8], make([]byte, 4)) {
		return nil, refuse(CodeGzip, "", "the gzip header has a name, comment, extra field or time; a package has none")
	}
	trailer := data[len(data)-gzipTrailer:]
	size := int(binary.LittleEndian.Uint32(trailer[4:]))
	if size > MaxContent || size > MaxRatioBase+MaxRatio*len(data) {
		return nil, refuse(CodeTooLarge, "", "%d bytes of archive claim to hold %d; at most %d are unpacked, and %d times the archive",
			len(data), size, MaxContent, MaxRatio).hint("an archive that was cut off, or has something behind it, looks the same")
	}
	rest := bytes.NewReader(data[gzipHeader:])
	inflate := flate.NewReader(rest)
	content := make([]byte, size)
	if n, err := io.ReadFull(inflate, content); err != nil {
		return nil, refuse(CodeGzip, "", "the compressed data end or break after %d of %d bytes", n, size)
	}
	var more [1]byte
	if n, err := io.ReadFull(inflate, more[:]); n != 0 {
		return nil, refuse(CodeGzip, "", "the compressed data hold more than the %d bytes that their end claims, or other data follow them", size)
	} else if err != io.EOF {
		return nil, refuse(CodeGzip, "", "the compressed data are broken: %v", err)
	}
	switch n := rest.Len(); {
	case n > gzipTrailer:
		return nil, refuse(CodeTrailing, "", "%d bytes follow the compressed data", n-gzipTrailer)
	case n < gzipTrailer:
		return nil, refuse(CodeGzip, "", "the end of the compressed data is missing")
	}
	if crc32.ChecksumIEEE(content) != binary.LittleEndian.Uint32(trailer) {
		return nil, refuse(CodeGzip, "", "the checksum of the compressed data does not match")
	}
	return content, nil
}
