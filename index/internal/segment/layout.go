package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// A segment is one file: a header, blocks without a gap, their directory, and a footer. The
// directory has a checksum of every block, the footer one of the directory and of itself, and
// the header has one value, so that no byte can change unnoticed.

// FooterBytes is how much of a segment Digest does not cover.
const FooterBytes = 32

// Versions of the format. Build and Merge write the one that they are told to, Open reads both.
const (
	// VersionTables has all texts in the tables of terms.
	VersionTables = 2
	// Version is the newest: random texts stand with their documents, see apart.go.
	Version = 3
)

const (
	magic       = "mcseg\x00"
	headerBytes = 8 // magic, version, 0
	footerBytes = FooterBytes
	// directoryMax bounds what Open reads before anything is checked.
	directoryMax = 64 << 20
)

// Kinds of blocks. Blocks of one kind are numbered in the order of the file.
const (
	blockNumbers  = 'n' // times and other numbers of blockDocuments documents
	blockOrdinals = 'o' // their texts, digests and attributes, as ordinals of terms
	blockRest     = 'r' // what documents have beside their columns
	blockTerms    = 't' // a chunk of terms with their postings
	blockPostings = 'p' // long postings
	blockFilter   = 'f' // of all terms
	blockIndex    = 'i' // the first term of each chunk
	blockZones    = 'z' // bounds of the numbers of each block, and the first document of each block of the rest
	blockValues   = 'v' // random texts of valueDocuments documents; from version 3 on
	blockSlots    = 's' // how many of them each block has; from version 3 on
	blockKinds    = "nortpfizvs"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// Lender reads without a copy where it can.
type Lender interface {
	io.ReaderAt
	// Checks tells whether what is read is compared with checksums of its own.
	Checks() bool
	// Lend calls use with the n bytes at at, which are valid during the call only. It is called when
	// Checks is true.
	Lend(at int64, n int, use func(b []byte) error) error
}

// blockEntry is where a block is.
type blockEntry struct {
	offset int64
	length uint32
	crc    uint32
	// checked is set once the block was compared with its checksum and found well-formed. Who reads
	// it again need not, as long as the lender checks what it reads.
	checked atomic.Bool
}

// meta is what the directory says of the whole segment.
type meta struct {
	version byte
	base    uint64
	docs    uint32
	digest  uint64 // xxhash64 of everything before the footer
}

// fileWriter writes a segment from its beginning to its end.
type fileWriter struct {
	w         io.Writer
	version   byte
	hash      *xxhash.Digest
	at        int64
	directory []byte
	blocks    map[byte]uint32
	sizes     map[byte]int64
	err       error
}

func newFileWriter(w io.Writer, version byte) *fileWriter {
	f := &fileWriter{w: w, version: version, hash: xxhash.New(), blocks: map[byte]uint32{}, sizes: map[byte]int64{}}
	f.write(append([]byte(magic), version, 0))
	return f
}

func (f *fileWriter) write(b []byte) {
	if f.err != nil {
		return
	}
	_, f.err = f.w.Write(b)
	f.hash.Write(b)
	f.at += int64(len(b))
}

// block appends a block and returns its number among those of its kind.
func (f *fileWriter) block(kind byte, b []byte) uint32 {
	f.write(b)
	f.directory = binary.AppendUvarint(append(f.directory, kind), uint64(len(b)))
	f.directory = binary.LittleEndian.AppendUint32(f.directory, crc32.Checksum(b, crcTable))
	n := f.blocks[kind]
	f.blocks[kind]++
	f.sizes[kind] += int64(len(b))
	return n
}

// finish appends the directory and the footer.
func (f *fileWriter) finish(base uint64, docs uint32) error {
	head := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, base), docs)
	directory := append(head, f.directory...)
	f.write(directory)
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(directory)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(directory, crcTable))
	b = binary.LittleEndian.AppendUint64(b, f.hash.Sum64())
	b = append(append(b, magic...), f.version, 0, 0, 0, 0, 0)
	f.write(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable)))
	return f.err
}

// file is an open segment's blocks.
type file struct {
	r      io.ReaderAt
	size   int64
	lender Lender // r, if it is one
	meta   meta
	blocks map[byte][]*blockEntry
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func openFile(r io.ReaderAt, size int64) (*file, error) {
	if size < headerBytes+footerBytes {
		return nil, damaged("it has %d bytes", size)
	}
	var header [headerBytes]byte
	var footer [footerBytes]byte
	if err := readAt(r, header[:], 0); err != nil {
		return nil, err
	}
	version := header[len(magic)]
	if string(header[:len(magic)]) == magic && (version < VersionTables || version > Version) {
		return nil, fmt.Errorf("%w %d, this build reads %d to %d", ErrVersion, version, VersionTables, Version)
	}
	if string(header[:]) != magic+string([]byte{version, 0}) {
		return nil, damaged("it does not begin as a segment")
	}
	if err := readAt(r, footer[:], size-footerBytes); err != nil {
		return nil, err
	}
	if footer[footerBytes-10] != version {
		return nil, damaged("its ends have the versions %d and %d", version, footer[footerBytes-10])
	}
	c := cursor{b: footer[:]}
	length, crc, digest := c.uint32(), c.uint32(), c.uint64()
	if crc32.Checksum(footer[:footerBytes-4], crcTable) != binary.LittleEndian.Uint32(footer[footerBytes-4:]) {
		return nil, damaged("checksum of the footer")
	}
	at := size - footerBytes - int64(length)
	if length > directoryMax || at < headerBytes {
		return nil, damaged("a directory of %d bytes", length)
	}
	directory := make([]byte, length)
	if err := readAt(r, directory, at); err != nil {
		return nil, err
	}
	if crc32.Checksum(directory, crcTable) != crc {
		return nil, damaged("checksum of the directory")
	}
	f := &file{r: r, size: size, meta: meta{version: version, digest: digest}, blocks: map[byte][]*blockEntry{}}
	f.lender, _ = r.(Lender)
	return f, f.readDirectory(directory, at)
}

// readDirectory takes blocks that follow each other from the header to the directory.
func (f *file) readDirectory(b []byte, end int64) error {
	c := cursor{b: b}
	f.meta.base, f.meta.docs = c.uint64(), c.uint32()
	if c.bad || f.meta.docs == 0 || f.meta.docs > DocumentsMax {
		return damaged("it counts %d documents", f.meta.docs)
	}
	at := int64(headerBytes)
	for len(c.b) > 0 && !c.bad {
		kind, length, crc := c.byte(), c.uvarint(), c.uint32()
		if length > uint64(end-at) {
			return damaged("the directory has a block beyond the end")
		}
		f.blocks[kind] = append(f.blocks[kind], &blockEntry{offset: at, length: uint32(length), crc: crc})
		at += int64(length)
	}
	if c.bad || at != end {
		return damaged("the directory does not cover the file")
	}
	return nil
}

// read returns a block that is as it was written.
func (f *file) read(kind byte, n uint32) ([]byte, error) {
	if int64(n) >= int64(len(f.blocks[kind])) {
		return nil, damaged("no block %c%d", kind, n)
	}
	e := f.blocks[kind][n]
	b := make([]byte, e.length)
	for again := false; ; again = true {
		if err := readAt(f.r, b, e.offset); err != nil {
			return nil, err
		}
		if crc32.Checksum(b, crcTable) == e.crc {
			return b, nil
		}
		if r, ok := f.r.(Rereader); again || !ok || !r.Reread(e.offset, len(b)) {
			return nil, damaged("checksum of block %c%d", kind, n)
		}
	}
}

// again reads a block, and tells whether it was checked before.
func (f *file) again(kind byte, n uint32) (b []byte, checked bool, err error) {
	if e := f.known(kind, n); e != nil {
		b = make([]byte, e.length)
		return b, true, readAt(f.r, b, e.offset)
	}
	b, err = f.read(kind, n)
	return b, false, err
}

// known is the entry of a block that was checked, and that need not be again.
func (f *file) known(kind byte, n uint32) *blockEntry {
	if f.lender == nil || int64(n) >= int64(len(f.blocks[kind])) || !f.blocks[kind][n].checked.Load() || !f.lender.Checks() {
		return nil
	}
	return f.blocks[kind][n]
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("it ends at %d, within a block", at+int64(n))
	}
	return fmt.Errorf("segment: read at %d: %w", at, err)
}
