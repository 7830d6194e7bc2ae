package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// codecVersion is the first byte of an encoded document. Version 1:
//
//	document   = version:1 fields:uvarint value...     values of the fields present, in bit order
//	kind       = word over kindCodes
//	id         = hex
//	time       = 8 bytes, big-endian nanoseconds since 1970
//	digests    = count:uvarint (algorithm:word value:hex direction:word name:text)...
//	duration   = uvarint (milliseconds)
//	cost       = varint, zigzag (micro-units)
//	attributes = count:uvarint (name:text value:text)...
//	others     = text
//
//	text = length:uvarint bytes
//	word = code:1 | 0 text            one byte for a listed word, otherwise the text
//	hex  = 2n+1:uvarint n bytes       lower-case hex as the n bytes it stands for
//	     | 2n:uvarint n bytes         any other text
//
// A uvarint is in its shortest form, a field at its zero value is absent, a listed word uses
// its code and lower-case hex its bytes: so a document has exactly one encoding, and the
// decoder refuses any other.
const codecVersion = 1

// Fields of version 1, by bit of the presence mask and in the order of their values. A field
// at its zero value is absent. New fields take the next bit; bits are never reused.
const (
	bitKind = iota
	bitTenant
	bitID
	bitTime
	bitTimeStamped // has no value
	bitExecution
	bitTask
	bitRegion
	bitDigests
	bitDecision
	bitPack
	bitRule
	bitReason
	bitRunner
	bitDuration
	bitCost
	bitCurrency
	bitAttributes
	bitCount
)

// Words with a one-byte code; the code is the position plus one, and code zero announces any
// other text. The order is part of the format: only ever append.
var (
	kindCodes      = []string{KindReceipt, KindEvent, KindDecision}
	directionCodes = []string{DirectionInput, DirectionOutput, DirectionSubject}
)

// contentDomain keeps content hashes apart from every other use of SHA-256.
const contentDomain = "maestro.document.content.1\x00"

// ContentHash identifies what d says: two documents with the same id and the same hash are
// the same document. It covers every field but the ID and a time that the server stamped.
// d must be normalised. The hash is SHA-256 over the domain name and the version 1 encoding
// without those fields, and stays what it is when the codec's version moves on.
func ContentHash(d *Document) [sha256.Size]byte {
	content := *d
	content.ID = ""
	if content.TimeStamped {
		content.Time = 0
	}
	b := make([]byte, 0, 1024)
	b = append(b, contentDomain...)
	return sha256.Sum256(appendBody(b, &content))
}

// AppendDocument appends d's encoding to b. Any document can be encoded, normalised or not;
// it is compact for normalised ones.
func AppendDocument(b []byte, d *Document) []byte {
	return appendBody(append(b, codecVersion), d)
}

// DecodeDocument is the inverse of AppendDocument: exactly the bytes that AppendDocument
// writes are accepted. It needs memory in proportion to len(b), whatever b holds, and keeps
// no reference to b. The error is a *DocumentError with ReasonDocumentCorrupt.
func DecodeDocument(b []byte) (Document, error) {
	if len(b) == 0 {
		return Document{}, refuse(ReasonDocumentCorrupt, "", "an encoded document is empty")
	}
	if b[0] != codecVersion {
		return Document{}, refuse(ReasonDocumentCorrupt, "", "an encoded document has version %d; this program reads version %d", b[0], codecVersion)
	}
	r := reader{rest: string(b[1:])}
	d, ok := r.document()
	if !ok {
		return Document{}, refuse(ReasonDocumentCorrupt, "", "an encoded document of %d bytes is damaged near byte %d", len(b), len(b)-len(r.rest))
	}
	return d, nil
}

// document reads one that ends where the bytes do.
func (r *reader) document() (d Document, ok bool) {
	r.body(&d)
	return d, !r.failed && r.rest == ""
}

// arena is memory for what is decoded of many documents: a piece for each is what costs most of decoding.
type arena struct {
	// texts only grows, so that what it gave out stays.
	texts      strings.Builder
	digests    []Digest
	attributes []Attribute
}

// decode reads a document whose encoding is a part of a longer text, like DecodeDocument. What it gives out is
// valid until reset.
func (a *arena) decode(text string) (d Document, ok bool) {
	if text == "" || text[0] != codecVersion {
		return Document{}, false
	}
	r := reader{rest: text[1:], arena: a}
	return r.document()
}

// expect prepares for encodings of so many bytes.
func (a *arena) expect(bytes int) {
	a.texts = strings.Builder{}
	a.texts.Grow(2 * bytes) // hex is what takes room
}

func (a *arena) reset() {
	a.texts = strings.Builder{}
	a.digests, a.attributes = a.digests[:0], a.attributes[:0]
}

// grown appends n elements to s, and returns them apart too.
func grown[T any](s []T, n int) (all, added []T) {
	all = slices.Grow(s, n)[:len(s)+n]
	added = all[len(s):len(all):len(all)]
	clear(added)
	return all, added
}

func appendBody(b []byte, d *Document) []byte {
	b = binary.AppendUvarint(b, presence(d))
	if d.Kind != "" {
		b = appendWord(b, kindCodes, d.Kind)
	}
	b = appendText(b, d.Tenant)
	if d.ID != "" {
		b = appendHex(b, d.ID)
	}
	if d.Time != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(d.Time))
	}
	b = appendText(b, d.Execution)
	b = appendText(b, d.Task)
	b = appendText(b, d.Region)
	if len(d.Digests) > 0 {
		b = binary.AppendUvarint(b, uint64(len(d.Digests)))
		for i := range d.Digests {
			b = appendDigest(b, &d.Digests[i])
		}
	}
	b = appendText(b, d.Decision)
	b = appendText(b, d.Pack)
	b = appendText(b, d.Rule)
	b = appendText(b, d.Reason)
	b = appendText(b, d.Runner)
	if d.DurationMs != 0 {
		b = binary.AppendUvarint(b, uint64(d.DurationMs))
	}
	if d.CostMicros != 0 {
		b = binary.AppendVarint(b, d.CostMicros)
	}
	b = appendText(b, d.Currency)
	if len(d.Attributes) > 0 {
		b = binary.AppendUvarint(b, uint64(len(d.Attributes)))
		for _, a := range d.Attributes {
			b = append(binary.AppendUvarint(b, uint64(len(a.Name))), a.Name...)
			b = append(binary.AppendUvarint(b, uint64(len(a.Value))), a.Value...)
		}
	}
	return b
}

func presence(d *Document) uint64 {
	var mask uint64
	for bit, present := range [bitCount]bool{
		bitKind:        d.Kind != "",
		bitTenant:      d.Tenant != "",
		bitID:          d.ID != "",
		bitTime:        d.Time != 0,
		bitTimeStamped: d.TimeStamped,
		bitExecution:   d.Execution != "",
		bitTask:        d.Task != "",
		bitRegion:      d.Region != "",
		bitDigests:     len(d.Digests) > 0,
		bitDecision:    d.Decision != "",
		bitPack:        d.Pack != "",
		bitRule:        d.Rule != "",
		bitReason:      d.Reason != "",
		bitRunner:      d.Runner != "",
		bitDuration:    d.DurationMs != 0,
		bitCost:        d.CostMicros != 0,
		bitCurrency:    d.Currency != "",
		bitAttributes:  len(d.Attributes) > 0,
	} {
		if present {
			mask |= 1 << bit
		}
	}
	return mask
}

func appendDigest(b []byte, g *Digest) []byte {
	code := 0
	for i := range digestAlgorithms {
		if digestAlgorithms[i].name == g.Algorithm {
			code = i + 1
		}
	}
	b = append(b, byte(code))
	if code == 0 {
		b = append(binary.AppendUvarint(b, uint64(len(g.Algorithm))), g.Algorithm...)
	}
	b = appendHex(b, g.Value)
	b = appendWord(b, directionCodes, g.Direction)
	return append(binary.AppendUvarint(b, uint64(len(g.Name))), g.Name...)
}

// appendText writes nothing for an absent text: the mask says so.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return b
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendWord(b []byte, codes []string, s string) []byte {
	for i, word := range codes {
		if word == s {
			return append(b, byte(i+1))
		}
	}
	b = append(b, 0)
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendHex writes lower-case hex as the bytes it stands for: length*2+1 says so, length*2
// announces plain text.
func appendHex(b []byte, s string) []byte {
	start := len(b)
	if len(s)%2 == 0 && s != "" {
		b = binary.AppendUvarint(b, uint64(len(s)/2)<<1|1)
		var all byte
		for i := 0; i+1 < len(s); i += 2 {
			high, low := hexValues[s[i]], hexValues[s[i+1]]
			all |= high | low
			b = append(b, high<<4|low)
		}
		if all < 0x10 {
			return b
		}
		b = b[:start]
	}
	return append(binary.AppendUvarint(b, uint64(len(s))<<1), s...)
}

// hexValues has what a digit of lower-case hex stands for, and 0xFF for all other bytes.
var hexValues = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xFF
	}
	for i, c := range []byte("0123456789abcdef") {
		values[c] = byte(i)
	}
	return values
}()

func isLowerHex(s string) bool {
	var all byte
	for i := range len(s) {
		all |= hexValues[s[i]]
	}
	return all < 0x10 && s != ""
}

// reader consumes an encoding. Texts are parts of the one string that holds it all. After a
// failure every method returns zero values.
type reader struct {
	rest   string
	failed bool
	arena  *arena // nil for memory of its own
}

func (r *reader) body(d *Document) {
	mask := r.uvarint()
	if bits.Len64(mask) > bitCount {
		r.failed = true
	}
	has := func(bit int) bool { return !r.failed && mask&(1<<bit) != 0 }
	text := func(bit int, s *string) {
		if has(bit) {
			*s = r.present(r.text())
		}
	}
	if has(bitKind) {
		d.Kind = r.present(r.word(kindCodes))
	}
	text(bitTenant, &d.Tenant)
	if has(bitID) {
		d.ID = r.present(r.hex())
	}
	if has(bitTime) {
		d.Time = r.time()
	}
	d.TimeStamped = has(bitTimeStamped)
	text(bitExecution, &d.Execution)
	text(bitTask, &d.Task)
	text(bitRegion, &d.Region)
	if has(bitDigests) {
		d.Digests = r.digests()
	}
	text(bitDecision, &d.Decision)
	text(bitPack, &d.Pack)
	text(bitRule, &d.Rule)
	text(bitReason, &d.Reason)
	text(bitRunner, &d.Runner)
	if has(bitDuration) {
		d.DurationMs = r.duration()
	}
	if has(bitCost) {
		d.CostMicros = r.cost()
	}
	text(bitCurrency, &d.Currency)
	if has(bitAttributes) {
		d.Attributes = r.attributes()
	}
}

// present fails on an empty text whose bit is set: it has another, shorter encoding.
func (r *reader) present(s string) string {
	r.failed = r.failed || s == ""
	return s
}

func (r *reader) uvarint() uint64 {
	var value uint64
	for i := 0; !r.failed && i < len(r.rest) && i < binary.MaxVarintLen64; i++ {
		c := r.rest[i]
		if c < 0x80 {
			overflow := i == binary.MaxVarintLen64-1 && c > 1
			if overflow || i > 0 && c == 0 { // a last byte of zero is not minimal
				break
			}
			r.rest = r.rest[i+1:]
			return value | uint64(c)<<(7*i)
		}
		value |= uint64(c&0x7f) << (7 * i)
	}
	r.failed = true
	return 0
}

func (r *reader) byte() byte {
	s := r.take(1)
	if s == "" {
		return 0
	}
	return s[0]
}

func (r *reader) take(n uint64) string {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) text() string { return r.take(r.uvarint()) }

func (r *reader) word(codes []string) string {
	code := int(r.byte())
	if code > len(codes) {
		r.failed = true
		return ""
	}
	if code > 0 {
		return codes[code-1]
	}
	return r.other(codes)
}

// other reads a text announced by code zero, which must have no code of its own.
func (r *reader) other(codes []string) string {
	s := r.text()
	for _, word := range codes {
		r.failed = r.failed || word == s
	}
	return s
}

func (r *reader) hex() string {
	length := r.uvarint()
	s := r.take(length >> 1)
	if length&1 == 1 {
		r.failed = r.failed || s == "" // the empty text is written as text
		return r.hexOf(s)
	}
	r.failed = r.failed || len(s)%2 == 0 && isLowerHex(s)
	return s
}

func (r *reader) hexOf(s string) string {
	if r.arena == nil {
		return hex.EncodeToString([]byte(s))
	}
	const digits = "0123456789abcdef"
	texts := &r.arena.texts
	start := texts.Len()
	var some [64]byte
	for len(s) > 0 {
		n := min(len(s), len(some)/2)
		for i := range n {
			some[2*i], some[2*i+1] = digits[s[i]>>4], digits[s[i]&15]
		}
		texts.Write(some[:2*n])
		s = s[n:]
	}
	return texts.String()[start:]
}

func (r *reader) time() int64 {
	s := r.take(8)
	if len(s) != 8 {
		return 0
	}
	t := int64(binary.BigEndian.Uint64([]byte(s)))
	r.failed = r.failed || t == 0
	return t
}

func (r *reader) duration() uint32 {
	n := r.uvarint()
	r.failed = r.failed || n == 0 || n > math.MaxUint32
	return uint32(n)
}

func (r *reader) cost() int64 {
	n := r.uvarint()
	r.failed = r.failed || n == 0
	return int64(n>>1) ^ -int64(n&1) // zigzag, as binary.AppendVarint writes it
}

// Least sizes of one encoded digest and attribute: they bound how many can follow.
const (
	minDigestBytes    = 4
	minAttributeBytes = 2
)

func (r *reader) count(least int) int {
	n := r.uvarint()
	if n == 0 || n > uint64(len(r.rest)/least) {
		r.failed = true
		return 0
	}
	return int(n)
}

func (r *reader) digests() []Digest {
	digests := r.digestRoom(r.count(minDigestBytes))
	for i := range digests {
		if r.failed {
			return nil
		}
		digests[i] = Digest{
			Algorithm: r.algorithm(),
			Value:     r.hex(),
			Direction: r.word(directionCodes),
			Name:      r.text(),
		}
	}
	return digests
}

func (r *reader) digestRoom(n int) (room []Digest) {
	if r.arena == nil {
		return make([]Digest, n)
	}
	r.arena.digests, room = grown(r.arena.digests, n)
	return room
}

func (r *reader) attributeRoom(n int) (room []Attribute) {
	if r.arena == nil {
		return make([]Attribute, n)
	}
	r.arena.attributes, room = grown(r.arena.attributes, n)
	return room
}

func (r *reader) algorithm() string {
	code := int(r.byte())
	if code > len(digestAlgorithms) {
		r.failed = true
		return ""
	}
	if code > 0 {
		return digestAlgorithms[code-1].name
	}
	s := r.text()
	r.failed = r.failed || digestSizes(s) != nil
	return s
}

func (r *reader) attributes() []Attribute {
	attributes := r.attributeRoom(r.count(minAttributeBytes))
	for i := range attributes {
		attributes[i] = Attribute{Name: r.text(), Value: r.text()}
	}
	return attributes
}
