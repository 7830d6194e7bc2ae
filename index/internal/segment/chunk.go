package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// Sizes of chunks.
const (
	chunkTerms = 512      // terms of a chunk
	chunkBytes = 16 << 10 // a chunk is closed when its terms, or its postings, reach this
	// frontEvery is how many terms share a prefix with their predecessor only, in a row.
	frontEvery = 16
)

// Forms of a chunk's terms.
const (
	chunkFront = iota // each by what it does not share with its predecessor
	chunkHex          // hex of one length between a prefix and a suffix that all have
	// chunkDirected is added when terms have a posting for each direction.
	chunkDirected = 2
	// chunkApart is added when the terms stand apart; see apart.go.
	chunkApart = 4
)

// Kinds of postings: what the bits in front of a reference mean.
const (
	postingOne      = iota // the reference is the document
	postingWindow          // in the side bytes: uvarint first, 8 bytes of bits for it and the next 63
	postingList            // in the side bytes: uvarint count, then uvarint differences
	postingFar             // in the side bytes: uvarints count, number of a block, offset, length
	postingKindBits = 2
)

// listMax is how many documents a posting lists before it is a bitmap elsewhere.
const listMax = 64

// chunkWriter collects the terms of one chunk. Its buffers are used again.
type chunkWriter struct {
	keys  []byte
	ends  []int
	masks []byte // of directions, for each term
	kinds []uint64
	refs  []uint64
	side  []byte
	out   []byte

	firsts []uint32 // the first document of each term
	// documents is how many all terms have.
	documents int
	// Of terms that stand apart, as they are stored, and their marks.
	stored []byte
	marks  []uint64
	shift  uint
	ints   intsWriter
}

func (w *chunkWriter) reset() {
	w.keys, w.ends, w.masks = w.keys[:0], w.ends[:0], w.masks[:0]
	w.kinds, w.refs, w.side, w.firsts = w.kinds[:0], w.refs[:0], w.side[:0], w.firsts[:0]
	w.documents = 0
}

func (w *chunkWriter) full() bool {
	return len(w.ends) == chunkTerms || len(w.keys) >= chunkBytes || len(w.side) >= chunkBytes
}

func (w *chunkWriter) term(i int) []byte {
	start := 0
	if i > 0 {
		start = w.ends[i-1]
	}
	return w.keys[start:w.ends[i]]
}

// add begins a term, whose first document is given; posting follows for each direction of the mask.
func (w *chunkWriter) add(term []byte, mask byte, first uint32) {
	w.keys = append(w.keys, term...)
	w.ends = append(w.ends, len(w.keys))
	w.masks = append(w.masks, mask)
	w.firsts = append(w.firsts, first)
}

// posting adds the documents, ascending, of the last term. far stores long ones.
func (w *chunkWriter) posting(locals []uint32, far func([]uint32) (block, offset, length uint32)) {
	w.documents += len(locals)
	if len(locals) == 1 {
		w.ref(postingOne, uint64(locals[0]))
		return
	}
	at := uint64(len(w.side))
	if len(locals) > listMax {
		w.ref(postingFar, at)
		block, offset, length := far(locals)
		for _, v := range []uint32{uint32(len(locals)), block, offset, length} {
			w.side = binary.AppendUvarint(w.side, uint64(v))
		}
		return
	}
	first := locals[0]
	if locals[len(locals)-1]-first < 64 && len(locals) > 9 {
		var window uint64
		for _, n := range locals {
			window |= 1 << (n - first)
		}
		w.ref(postingWindow, at)
		w.side = binary.LittleEndian.AppendUint64(binary.AppendUvarint(w.side, uint64(first)), window)
		return
	}
	w.ref(postingList, at)
	w.side = binary.AppendUvarint(w.side, uint64(len(locals)))
	last := uint32(0)
	for _, n := range locals {
		w.side = binary.AppendUvarint(w.side, uint64(n-last))
		last = n
	}
}

func (w *chunkWriter) ref(kind int, v uint64) {
	w.kinds, w.refs = append(w.kinds, uint64(kind)), append(w.refs, v)
}

// encode lays the chunk out; the bytes are valid until the next one.
func (w *chunkWriter) encode(directed bool) []byte {
	n := len(w.ends)
	form := byte(chunkFront)
	first, last := w.term(0), w.term(n-1)
	prefix := sharedPrefix(first, last)
	from, to, isHex := w.hexRange(prefix)
	if isHex {
		form = chunkHex
	}
	flags := form
	if directed {
		flags |= chunkDirected
	}
	b := binary.AppendUvarint(append(w.out[:0], flags), uint64(n))
	if isHex {
		b = appendBytes(appendBytes(b, first[:from]), first[to:])
		b = binary.AppendUvarint(b, uint64(to-from)/2)
		for i := range n {
			b, _ = hex.AppendDecode(b, w.term(i)[from:to]) // cannot fail: hexRange
		}
	} else {
		b = w.appendFront(appendBytes(b, first[:prefix]), prefix)
	}
	w.out = w.appendPostings(b, directed)
	return w.out
}

// appendPostings appends what all forms end with.
func (w *chunkWriter) appendPostings(b []byte, directed bool) []byte {
	if directed {
		wide := make([]uint64, len(w.masks))
		for i, m := range w.masks {
			wide[i] = uint64(m)
		}
		b = appendPacked(b, Directions, wide)
	}
	var all uint64
	for _, r := range w.refs {
		all |= r
	}
	width := widthOf(all) + postingKindBits
	for i := range w.refs {
		w.refs[i] = w.refs[i]<<postingKindBits | w.kinds[i]
	}
	b = binary.AppendUvarint(b, uint64(len(w.refs)))
	b = appendPacked(append(b, byte(width)), width, w.refs)
	return append(b, w.side...)
}

// hexRange finds the part of the terms that is hex, when all else of them is the same.
func (w *chunkWriter) hexRange(prefix int) (from, to int, ok bool) {
	first := w.term(0)
	from, to = prefix, prefix
	for to < len(first) && isHexDigit(first[to]) {
		to++
	}
	if (to-from)%2 == 1 {
		if from > 1 && isHexDigit(first[from-1]) {
			from--
		} else {
			to--
		}
	}
	if to == from {
		return 0, 0, false
	}
	for i := range w.ends {
		t := w.term(i)
		if len(t) != len(first) || !bytes.Equal(t[to:], first[to:]) || !allHex(t[from:to]) {
			return 0, 0, false
		}
	}
	return from, to, true
}

// hexDigits tells which bytes are digits of lower-case hex.
var hexDigits = func() (digits [256]bool) {
	for _, c := range []byte("0123456789abcdef") {
		digits[c] = true
	}
	return digits
}()

func isHexDigit(c byte) bool { return hexDigits[c] }

func allHex(b []byte) bool {
	for _, c := range b {
		if !isHexDigit(c) {
			return false
		}
	}
	return true
}

// appendFront appends offsets of every 16th term, then the terms.
func (w *chunkWriter) appendFront(b []byte, prefix int) []byte {
	n := len(w.ends)
	groups := (n + frontEvery - 1) / frontEvery
	table := len(b)
	b = append(b, make([]byte, 4*groups+4)...)
	start := len(b)
	var last []byte
	for i := range n {
		t, shared := w.term(i)[prefix:], 0
		if i%frontEvery == 0 {
			binary.LittleEndian.PutUint32(b[table+i/frontEvery*4:], uint32(len(b)-start))
		} else {
			shared = sharedPrefix(last, t)
		}
		rest := t[shared:]
		digits := 0
		for digits < len(rest) && isHexDigit(rest[digits]) {
			digits++
		}
		if digits < 8 {
			digits = 0 // too short to save anything
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(shared)), uint64(digits/2))
		b, _ = hex.AppendDecode(b, rest[:digits/2*2]) // cannot fail: they are digits
		b = appendBytes(b, rest[digits/2*2:])
		last = t
	}
	binary.LittleEndian.PutUint32(b[table+4*groups:], uint32(len(b)-start))
	return b
}

func appendBytes(b, s []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// chunk is a block of terms as it is read.
type chunk struct {
	n        int
	prefix   []byte
	suffix   []byte // chunkHex
	hexBytes int    // of one term; 0 is chunkFront
	hex      []byte
	table    []byte // chunkFront: offsets of every 16th term, and the end
	front    []byte
	masks    []byte // packed, with directions; else nil
	width    uint
	refs     []byte
	refCount int
	side     []byte

	at    int        // its number among the chunks
	apart *apartMark // when its terms stand apart
}

func openChunk(b []byte) (*chunk, error) {
	r := cursor{b: b}
	flags := r.byte()
	c := &chunk{n: r.count(chunkTerms)}
	if flags&chunkApart == 0 {
		c.prefix = r.bytes()
	}
	switch {
	case r.bad || c.n == 0 || flags > chunkHex|chunkDirected && flags&^chunkDirected != chunkApart:
		r.bad = true
	case flags&chunkApart != 0:
		c.apart = r.apartMark(c.n)
	case flags&chunkHex != 0:
		c.suffix = r.bytes()
		c.hexBytes = r.count(len(b))
		c.hex = r.take(uint64(c.n * c.hexBytes))
		r.bad = r.bad || c.hexBytes == 0
	default:
		groups := (c.n + frontEvery - 1) / frontEvery
		if c.table = r.take(uint64(4*groups + 4)); !r.bad {
			c.front = r.take(uint64(binary.LittleEndian.Uint32(c.table[4*groups:])))
		}
	}
	want := c.n
	if flags&chunkDirected != 0 && !r.bad {
		c.masks = r.take(uint64(packedBytes(c.n, Directions)))
		if !r.bad {
			want = c.rank(c.n)
		}
	}
	c.refCount = r.count(Directions * chunkTerms)
	c.width, c.refs = r.packed(c.refCount)
	c.side = r.b
	if r.bad || c.refCount != want || c.width < postingKindBits {
		return nil, damaged("chunk of terms")
	}
	return c, nil
}

// rank is how many postings the terms before the i-th have.
func (c *chunk) rank(i int) int {
	if c.masks == nil {
		return i
	}
	at, n := uint(i)*Directions, 0
	for w := uint(0); w < at; w += 64 {
		word := binary.LittleEndian.Uint64(c.masks[w/8:])
		if at-w < 64 {
			word &= 1<<(at-w) - 1
		}
		n += bits.OnesCount64(word)
	}
	return n
}

// mask tells which directions the i-th term has.
func (c *chunk) mask(i int) uint64 {
	if c.masks == nil {
		return 1
	}
	return unpack(c.masks, Directions, i)
}

// appendTerm appends the i-th term.
func (c *chunk) appendTerm(b []byte, i int) ([]byte, error) {
	b = append(b, c.prefix...)
	if c.hexBytes > 0 {
		b = hex.AppendEncode(b, c.hex[i*c.hexBytes:(i+1)*c.hexBytes])
		return append(b, c.suffix...), nil
	}
	w, err := c.walkFrom(i / frontEvery)
	for range i%frontEvery + 1 {
		if err == nil {
			err = w.next()
		}
	}
	return append(b, w.term...), err
}

// frontWalk goes through the terms of a chunkFront, without the prefix.
type frontWalk struct {
	r    cursor
	term []byte
}

func (c *chunk) walkFrom(group int) (frontWalk, error) {
	at := binary.LittleEndian.Uint32(c.table[4*group:])
	if at > uint32(len(c.front)) {
		return frontWalk{}, damaged("chunk of terms: offset")
	}
	return frontWalk{r: cursor{b: c.front[at:]}}, nil
}

func (w *frontWalk) next() error {
	shared := w.r.count(len(w.term))
	digits := w.r.bytes()
	w.term = hex.AppendEncode(w.term[:shared], digits)
	w.term = append(w.term, w.r.bytes()...)
	if w.r.bad {
		return damaged("chunk of terms: a term")
	}
	return nil
}

// search finds the first term that is not below key; found tells whether it is the key.
func (c *chunk) search(key []byte) (i int, found bool, err error) {
	if c.hexBytes > 0 {
		if want, ok := c.hexOf(key); ok {
			i, found = binarySearch(c.n, func(i int) int { return bytes.Compare(c.hex[i*c.hexBytes:(i+1)*c.hexBytes], want) })
			return i, found, nil
		}
	}
	var buf []byte
	i, found = binarySearch(c.n, func(i int) int {
		if err == nil {
			buf, err = c.appendTerm(buf[:0], i)
		}
		return bytes.Compare(buf, key)
	})
	return i, found, err
}

// hexOf is the key's part that the terms store, if it could be one of them.
func (c *chunk) hexOf(key []byte) ([]byte, bool) {
	if len(key) != len(c.prefix)+2*c.hexBytes+len(c.suffix) || !bytes.HasPrefix(key, c.prefix) || !bytes.HasSuffix(key, c.suffix) {
		return nil, false
	}
	digits := key[len(c.prefix) : len(key)-len(c.suffix)]
	if !allHex(digits) {
		return nil, false
	}
	want, err := hex.AppendDecode(nil, digits)
	return want, err == nil
}

// binarySearch finds the first of n that compares as 0 or above.
func binarySearch(n int, compare func(i int) int) (at int, found bool) {
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		switch d := compare(mid); {
		case d == 0:
			return mid, true
		case d < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}
