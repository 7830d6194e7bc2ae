package segment

import (
	"encoding/binary"
	"sort"

	"github.com/klauspost/compress/zstd"
)

// restBytes is when a block of the rest is closed, before it is compressed: large enough that
// documents have something in common, small enough to decompress for one of them.
const restBytes = 16 << 10

// restMax bounds a decompressed block: one document may be large.
const restMax = 1 << 20

// restWriter gathers what documents have beside their columns.
type restWriter struct {
	f      *fileWriter
	enc    *zstd.Encoder
	block  []byte
	first  []uint32 // first document of each block
	opened bool
}

func newRestWriter(f *fileWriter) (*restWriter, error) {
	// One goroutine, so that the same bytes come out every time.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedDefault))
	return &restWriter{f: f, enc: enc}, err
}

func (w *restWriter) add(local uint32, b []byte) {
	if !w.opened {
		w.first, w.opened = append(w.first, local), true
	}
	w.block = binary.AppendUvarint(w.block, uint64(local-w.first[len(w.first)-1]))
	w.block = appendBytes(w.block, b)
	if len(w.block) >= restBytes {
		w.close()
	}
}

func (w *restWriter) close() {
	if w.opened {
		w.f.block(blockRest, w.enc.EncodeAll(w.block, nil))
		w.block, w.opened = w.block[:0], false
	}
}

// restBlock is a block of the rest as it is read.
type restBlock struct {
	locals []uint32 // from the block's first document on
	values [][]byte
	size   int
}

func (b *restBlock) bytes() int { return b.size + 28*len(b.locals) }

// newDecoder makes a decoder for any number of goroutines; it has none of its own.
func newDecoder() *zstd.Decoder {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(restMax))
	if err != nil {
		panic("segment: zstd refused its options: " + err.Error()) // they are constants
	}
	return dec
}

func openRest(dec *zstd.Decoder, b []byte) (*restBlock, error) {
	raw, err := dec.DecodeAll(b, nil)
	if err != nil {
		return nil, damaged("rest of documents: %v", err)
	}
	r := cursor{b: raw}
	out := &restBlock{size: len(raw)}
	for len(r.b) > 0 && !r.bad {
		out.locals = append(out.locals, uint32(r.count(DocumentsMax)))
		out.values = append(out.values, r.bytes())
	}
	if r.bad {
		return nil, damaged("rest of documents")
	}
	return out, nil
}

// restOf is what a document has beside its columns.
func (s *Segment) restOf(local uint32) ([]byte, error) {
	n := sort.Search(len(s.rest), func(i int) bool { return s.rest[i] > local }) - 1
	if n < 0 {
		return nil, damaged("no rest of document %d", local)
	}
	b, err := opened(s, blockRest, uint32(n), func(b []byte, _ bool) (*restBlock, error) { return openRest(s.cache.zstd, b) })
	if err != nil {
		return nil, err
	}
	local -= s.rest[n]
	i := sort.Search(len(b.locals), func(i int) bool { return b.locals[i] >= local })
	if i == len(b.locals) || b.locals[i] != local {
		return nil, damaged("no rest of document %d", local)
	}
	return b.values[i], nil
}
