package segment

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Forms of a column of integers. Every value can be read without those before it.
const (
	intsConstant = iota // all are the same
	intsFrame           // base + scale * packed
	intsLinear          // base + scale * (a line through each piece + packed)
	intsDict            // packed number of one of the values
	intsNullable        // which are not zero, then those in another form
	intsCounted         // which count up from a base, then the others in another form; from version 3 on
)

// linePiece is how many values one line stands for. A line is through the first values of its
// piece and the next.
const linePiece = 128

// lineMax bounds what a line may run through, so that its arithmetic does not overflow.
const lineMax = 1 << 55

// ints is a column of integers of one block.
type ints struct {
	form        byte
	width       uint
	wordWidth   uint
	base, scale uint64
	n           int // values that are stored
	data        []byte
	starts      []byte // intsLinear: the first value of each piece, and the last value, 8 bytes each
	words       []byte // intsDict: the values, packed, less the base
	nulls       []byte // for 64 values each: 8 bytes of bits, 2 bytes: how many are set before
	others      *ints  // intsCounted: those that do not count, as nulls tells; nil when all do
}

// at is the i-th value.
func (c *ints) at(i int) uint64 {
	if c.nulls != nil {
		group := c.nulls[i/64*10:]
		word, bit := binary.LittleEndian.Uint64(group), uint64(1)<<(i%64)
		set := int(binary.LittleEndian.Uint16(group[8:])) + bits.OnesCount64(word&(bit-1))
		switch {
		case c.form == intsCounted && word&bit != 0:
			return c.base + uint64(set)
		case c.form == intsCounted:
			return c.others.at(i - set)
		case word&bit == 0:
			return 0
		}
		i = set
	}
	switch c.form {
	case intsFrame:
		return c.base + c.scale*unpack(c.data, c.width, i)
	case intsDict:
		return c.base + unpack(c.words, c.wordWidth, int(unpack(c.data, c.width, i)))
	case intsLinear:
		v := line(c.starts, i, c.n) + unzigzag(unpack(c.data, c.width, i))
		return c.base + c.scale*uint64(v)
	}
	return c.base
}

// line is what the line through i's piece says of it.
func line(starts []byte, i, n int) int64 {
	p, j := i/linePiece, int64(i%linePiece)
	from := int64(binary.LittleEndian.Uint64(starts[8*p:]))
	to := int64(binary.LittleEndian.Uint64(starts[8*p+8:]))
	return from + (to-from)*j/int64(min(linePiece, n-p*linePiece))
}

// intsWriter encodes columns; its buffers are used again.
type intsWriter struct {
	rest, packed []uint64
	others       []uint64
	starts       []byte
	words        wordSet
}

// wordSet collects the distinct values of a column, in a table with open addresses.
type wordSet struct {
	sorted []uint64
	slots  [1 << 12]wordSlot
	round  uint32 // of slots that are in use
}

type wordSlot struct {
	value uint64
	round uint32
	rank  uint32
}

// wordsMax is how many words a dictionary has at most: half the table.
const wordsMax = 1 << 11

func (w *wordSet) slot(v uint64) *wordSlot {
	h := v * 0x9E3779B97F4A7C15 >> 52
	for {
		s := &w.slots[h]
		if s.round != w.round || s.value == v {
			return s
		}
		h = (h + 1) % uint64(len(w.slots))
	}
}

// collect sorts the distinct values; it is false when there are more than most.
func (w *wordSet) collect(values []uint64, most int) bool {
	if w.round++; w.round == 0 { // the marks of former rounds would count again
		clear(w.slots[:])
		w.round = 1
	}
	w.sorted = w.sorted[:0]
	for _, v := range values {
		if s := w.slot(v); s.round != w.round {
			if len(w.sorted) == most {
				return false
			}
			*s = wordSlot{value: v, round: w.round}
			w.sorted = append(w.sorted, v)
		}
	}
	slices.Sort(w.sorted)
	for i, v := range w.sorted {
		w.slot(v).rank = uint32(i)
	}
	return true
}

// append chooses the shortest form.
func (w *intsWriter) append(b []byte, values []uint64) []byte {
	zeros := 0
	for _, v := range values {
		if v == 0 {
			zeros++
		}
	}
	if zeros == 0 || zeros == len(values) {
		return w.appendPlain(b, values)
	}
	start := len(b)
	b = w.appendPlain(b, values)
	plain := len(b) - start
	groups := (len(values) + 63) / 64
	if zeros < len(values)/16 || plain < 10*groups {
		return b
	}
	w.rest = w.rest[:0]
	b = append(b, intsNullable)
	for g := range groups {
		var word uint64
		before := len(w.rest)
		for i := 64 * g; i < min(64*g+64, len(values)); i++ {
			if values[i] != 0 {
				word |= 1 << (i % 64)
				w.rest = append(w.rest, values[i])
			}
		}
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint64(b, word), uint16(before))
	}
	b = w.appendPlain(b, w.rest)
	if nullable := len(b) - start - plain; nullable < plain {
		return append(b[:start], b[start+plain:]...)
	}
	return b[:start+plain]
}

// countedMax is how many values a column has at most whose values count.
const countedMax = 1<<16 - 1

// appendCounted is append for values many of which count up from base.
func (w *intsWriter) appendCounted(b []byte, values []uint64, base uint64) []byte {
	start := len(b)
	b = w.append(b, values)
	if len(values) > countedMax {
		return b
	}
	plain := len(b) - start
	w.others = w.others[:0]
	b = binary.AppendUvarint(append(b, intsCounted), base)
	set := 0
	for from := 0; from < len(values); from += 64 {
		var word uint64
		before := set
		for i := from; i < min(from+64, len(values)); i++ {
			if values[i] == base+uint64(set) {
				word |= 1 << (i % 64)
				set++
			} else {
				w.others = append(w.others, values[i])
			}
		}
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint64(b, word), uint16(before))
	}
	if len(w.others) > 0 {
		b = w.append(b, w.others)
	}
	if counted := len(b) - start - plain; counted < plain {
		return append(b[:start], b[start+plain:]...)
	}
	return b[:start+plain]
}

// appendPlain is append without the nullable form.
func (w *intsWriter) appendPlain(b []byte, values []uint64) []byte {
	least, most := values[0], values[0]
	for _, v := range values {
		least, most = min(least, v), max(most, v)
	}
	if least == most {
		return binary.AppendUvarint(append(b, intsConstant), least)
	}
	scale := scaleOf(values, least)
	width := widthOf((most - least) / scale)
	size := packedBytes(len(values), width)
	form := byte(intsFrame)
	lineWidth, ok := w.line(values, least, scale, (most-least)/scale)
	if lineSize := packedBytes(len(values), lineWidth) + len(w.starts); ok && lineSize < size {
		form, size = intsLinear, lineSize
	}
	// A dictionary of half as many words as values saves nothing.
	if width > 1 && w.words.collect(values, min(len(values)/2, wordsMax)) {
		words := len(w.words.sorted)
		if packedBytes(len(values), widthOf(uint64(words-1)))+packedBytes(words, widthOf(most-least)) < size {
			return w.appendDict(b, values, least, most)
		}
	}
	w.packed = w.packed[:0]
	b = binary.AppendUvarint(binary.AppendUvarint(append(b, form), least), scale)
	if form == intsFrame {
		for _, v := range values {
			w.packed = append(w.packed, (v-least)/scale)
		}
		return appendPacked(append(b, byte(width)), width, w.packed)
	}
	for i, v := range values {
		w.packed = append(w.packed, zigzag(int64((v-least)/scale)-line(w.starts, i, len(values))))
	}
	return appendPacked(append(append(b, w.starts...), byte(lineWidth)), lineWidth, w.packed)
}

// line finds the lines and the width of what is left of the values.
func (w *intsWriter) line(values []uint64, least, scale, most uint64) (width uint, ok bool) {
	if most >= lineMax || len(values) < linePiece {
		return 0, false
	}
	w.starts = w.starts[:0]
	for i := 0; i < len(values); i += linePiece {
		w.starts = binary.LittleEndian.AppendUint64(w.starts, (values[i]-least)/scale)
	}
	w.starts = binary.LittleEndian.AppendUint64(w.starts, (values[len(values)-1]-least)/scale)
	var all uint64
	for i, v := range values {
		all |= zigzag(int64((v-least)/scale) - line(w.starts, i, len(values)))
	}
	return widthOf(all), true
}

func (w *intsWriter) appendDict(b []byte, values []uint64, least, most uint64) []byte {
	words := w.words.sorted
	b = binary.AppendUvarint(binary.AppendUvarint(append(b, intsDict), least), uint64(len(words)))
	w.packed = w.packed[:0]
	for _, v := range values {
		w.packed = append(w.packed, uint64(w.words.slot(v).rank))
	}
	for i := range words {
		words[i] -= least
	}
	wordWidth, width := widthOf(most-least), widthOf(uint64(len(words)-1))
	b = appendPacked(append(b, byte(wordWidth)), wordWidth, words)
	return appendPacked(append(b, byte(width)), width, w.packed)
}

// scaleOf is the greatest power of ten, up to 10^9, that all values less the least are
// multiples of: clocks often tell no more than milliseconds.
func scaleOf(values []uint64, least uint64) uint64 {
	scale := uint64(1e9)
	for _, v := range values {
		for (v-least)%scale != 0 {
			scale /= 10
		}
		if scale == 1 {
			break
		}
	}
	return scale
}

// marked reads which of n values are marked, and how many are.
func (c *cursor) marked(n int) (groups []byte, set int) {
	if groups = c.take(uint64((n + 63) / 64 * 10)); c.bad {
		return nil, 0
	}
	if c.checked && n > 0 {
		group := groups[len(groups)-10:]
		set = int(binary.LittleEndian.Uint16(group[8:])) + bits.OnesCount64(binary.LittleEndian.Uint64(group))
	}
	for i := 0; i < len(groups) && !c.checked; i += 10 {
		word := binary.LittleEndian.Uint64(groups[i:])
		c.bad = c.bad || int(binary.LittleEndian.Uint16(groups[i+8:])) != set
		set += bits.OnesCount64(word)
	}
	if last := n % 64; last > 0 && len(groups) > 0 && binary.LittleEndian.Uint64(groups[len(groups)-10:])>>last != 0 {
		c.bad = true
	}
	return groups, set
}

// counted reads the rest of a column of n values that count.
func (c *cursor) counted(n int) ints {
	col := ints{form: intsCounted, n: n, base: c.uvarint()}
	set := 0
	if col.nulls, set = c.marked(n); c.bad || n == 0 || n > countedMax {
		c.bad = true
		return ints{}
	}
	if set < n {
		others := c.ints(n - set)
		c.bad = c.bad || others.form == intsCounted
		col.others = &others
	}
	return col
}

// ints reads a column of n values.
func (c *cursor) ints(n int) ints {
	col := ints{form: c.byte(), n: n}
	if col.form == intsCounted {
		return c.counted(n)
	}
	if col.form == intsNullable {
		set := 0
		if col.nulls, set = c.marked(n); c.bad {
			return ints{}
		}
		col.n, col.form = set, c.byte()
		c.bad = c.bad || set == 0 || col.form == intsNullable
	}
	col.base = c.uvarint()
	switch col.form {
	case intsConstant:
	case intsFrame, intsLinear:
		col.scale = c.uvarint()
		if col.form == intsLinear {
			col.starts = c.take(uint64(8 * ((col.n+linePiece-1)/linePiece + 1)))
		}
		col.width, col.data = c.packed(col.n)
	case intsDict:
		words := c.count(col.n)
		col.wordWidth, col.words = c.packed(words)
		col.width, col.data = c.packed(col.n)
		for i := 0; i < col.n && !c.bad && !c.checked; i++ {
			c.bad = unpack(col.data, col.width, i) >= uint64(words)
		}
	default:
		c.bad = true
	}
	return col
}
