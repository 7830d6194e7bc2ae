package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// apartWriter collects the texts of one group that stand apart.
type apartWriter struct {
	name byte
	shape
	keys []byte // as they are stored, in the order of the terms, and then of their numbers
	runs []apartRun
	// counts are the texts of each block, written those in blocks so far.
	counts  []uint32
	written uint32
}

// apartRun is the terms of a group that follow each other and are stored alike.
type apartRun struct {
	terms int
	apart bool
}

// apartShareMax is how many documents terms have on average at most whose texts stand apart: what many documents share
// stands with none of them.
const apartShareMax = 16

// firstOf is the first document of a term.
func firstOf(p *Postings) uint32 {
	first := ^uint32(0)
	for _, l := range p {
		if len(l) > 0 {
			first = min(first, l[0])
		}
	}
	return first
}

// takeApart takes the terms of the chunk, of one group, if they are of the group's shape, and prepares their marks. The first
// chunk with a shape decides which that is.
func (b *builder) takeApart(group byte) bool {
	w, a := &b.chunk, b.apartOf(group)
	var s shape
	ok := groupOfColumn(group) && w.documents <= apartShareMax*len(w.ends)
	if a != nil {
		s = a.shape
	} else if ok {
		s, ok = shapeOf(w.term(0)[1:])
	}
	ok = ok && w.store(&s) && w.mark(&s, slices.Contains([]byte(TextGroups), group))
	if a == nil && !ok {
		b.skipped(group, len(w.ends))
		return false
	}
	if a == nil {
		a = &apartWriter{name: group, shape: s, runs: b.before(group)}
		b.apart = append(b.apart, a)
	}
	a.runs = append(a.runs, apartRun{terms: len(w.ends), apart: ok})
	if ok {
		a.keys = append(a.keys, w.stored...)
	}
	return ok
}

// groupOfColumn tells whether documents have a column of the group's terms.
func groupOfColumn(group byte) bool {
	return group == DigestGroup || group == AttributeGroup || slices.Contains([]byte(TextGroups), group)
}

func (b *builder) apartOf(group byte) *apartWriter {
	for _, a := range b.apart {
		if a.name == group {
			return a
		}
	}
	return nil
}

// shapeOf finds the longest hex in a text.
func shapeOf(text []byte) (shape, bool) {
	var best, end int
	for from := 0; from < len(text); from++ {
		to := from
		for to < len(text) && isHexDigit(text[to]) {
			to++
		}
		if to-from > end-best {
			best, end = from, to
		}
		from = to
	}
	best += (end - best) % 2
	return shape{before: string(text[:best]), after: string(text[end:]), bytes: (end - best) / 2}, end-best >= 2*apartBytesMin
}

// store lists the terms as they are stored, if all are of a shape.
func (w *chunkWriter) store(s *shape) (ok bool) {
	w.stored = w.stored[:0]
	for i := range w.ends {
		if w.stored, ok = s.appendStored(w.stored, w.term(i)[1:]); !ok {
			return false
		}
	}
	return true
}

// mark finds the marks of the stored terms. Where a document may have several terms of the group, those in one block have
// different ones; it is false if eight bytes of hex are not enough for that.
func (w *chunkWriter) mark(s *shape, single bool) bool {
	w.marks = w.marks[:0]
	for at := 0; at < len(w.stored); at += s.bytes {
		w.marks = append(w.marks, leading(w.stored[at:at+s.bytes]))
	}
	base := w.marks[0]
	width := uint(bits.Len64(w.marks[len(w.marks)-1] - base))
	w.shift = width - min(width, markBits)
	distinct := func() bool {
		for i := 1; i < len(w.marks); i++ {
			for k := i - 1; k >= 0 && (w.marks[i]-base)>>w.shift == (w.marks[k]-base)>>w.shift; k-- {
				if w.firsts[i]/valueDocuments == w.firsts[k]/valueDocuments {
					return false
				}
			}
		}
		return true
	}
	for !single && !distinct() {
		if w.shift == 0 {
			return false
		}
		w.shift--
	}
	return true
}

// encodeApart lays out a chunk whose marks were found; the bytes are valid until the next one.
func (w *chunkWriter) encodeApart(directed bool) []byte {
	form := byte(chunkApart)
	if directed {
		form |= chunkDirected
	}
	b := binary.AppendUvarint(append(w.out[:0], form), uint64(len(w.ends)))
	base := w.marks[0]
	b = append(binary.LittleEndian.AppendUint64(b, base), byte(w.shift))
	for i := range w.marks {
		w.marks[i] = (w.marks[i] - base) >> w.shift
	}
	w.out = w.appendPostings(w.ints.append(b, w.marks), directed)
	return w.out
}

// skipped notes terms of a group that stand in the table, before any that stand apart.
func (b *builder) skipped(group byte, terms int) {
	if b.tableGroup != group {
		b.tableGroup, b.tableRuns = group, nil
	}
	b.tableRuns = append(b.tableRuns, apartRun{terms: terms})
}

func (b *builder) before(group byte) []apartRun {
	if b.tableGroup != group {
		return nil
	}
	return b.tableRuns
}

// numberApart numbers the terms of groups with texts that stand apart, and has the columns use the numbers.
func (b *builder) numberApart() error {
	for _, a := range b.apart {
		n := a.begin(b.docs)
		switch col := bytes.IndexByte([]byte(TextGroups), a.name); {
		case col >= 0:
			for l, v := range b.texts[col] {
				if v > 0 {
					b.texts[col][l] = n.of(l, v-1) + 1
				}
			}
		case a.name == AttributeGroup:
			for l := range b.docs {
				for i := b.attrEnds[l]; i < b.attrEnds[l+1]; i++ {
					b.attributes[i].value = n.of(l, b.attributes[i].value)
				}
			}
		default:
			at := uint32(0)
			for l, end := range b.digestEnds {
				for ; at < end; at++ {
					d := b.digestList[at]
					b.digestList[at] = n.of(l, d>>2)<<2 | d&3
				}
			}
		}
		if err := n.end(); err != nil {
			return err
		}
	}
	return nil
}

// numbering gives the texts of one group that stand apart numbers in the order in which documents have them, and those of
// the table the numbers behind.
type numbering struct {
	*apartWriter
	numbers []uint32 // by term; unnumbered | where it is among those that stand apart
	sorted  []byte
	next    uint32
}

const unnumbered = 1 << 31

func (a *apartWriter) begin(docs int) *numbering {
	n := &numbering{apartWriter: a, sorted: make([]byte, len(a.keys))}
	a.counts = make([]uint32, (docs+valueDocuments-1)/valueDocuments)
	apart, inTable := uint32(0), uint32(len(a.keys)/a.bytes)
	for _, run := range a.runs {
		for range run.terms {
			if run.apart {
				n.numbers = append(n.numbers, unnumbered|apart)
				apart++
			} else {
				n.numbers = append(n.numbers, inTable)
				inTable++
			}
		}
	}
	return n
}

// of is the number of a term that document local has.
func (n *numbering) of(local int, term uint32) uint32 {
	v := n.numbers[term]
	if v < unnumbered {
		return v
	}
	at := int(v&^unnumbered) * n.bytes
	copy(n.sorted[int(n.next)*n.bytes:], n.keys[at:at+n.bytes])
	n.numbers[term] = n.next
	n.counts[local/valueDocuments]++
	n.next++
	return n.next - 1
}

func (n *numbering) end() error {
	if int(n.next)*n.bytes != len(n.keys) {
		return fmt.Errorf("segment: group %c has terms without a document in their column", n.name)
	}
	n.keys = n.sorted
	return nil
}

// appendColumn appends a column of numbers of a group's terms, the first of which is least. Texts that stand apart count up.
func (c *blockColumns) appendColumn(b *builder, group byte, values []uint64, least uint64) {
	if a := b.apartOf(group); a != nil {
		c.out = c.w.appendCounted(c.out, values, least+uint64(a.written))
	} else {
		c.out = c.w.append(c.out, values)
	}
}

// writeValues writes the random texts that are first in documents from from on and before to.
func (b *builder) writeValues(from, to int) {
	if len(b.apart) == 0 {
		return
	}
	var out []byte
	for n := from / valueDocuments; n*valueDocuments < to; n++ {
		out = out[:0]
		for _, a := range b.apart {
			size := int(a.counts[n]) * a.bytes
			out = append(out, a.keys[:size]...)
			a.keys = a.keys[size:]
			a.written += a.counts[n]
		}
		b.f.block(blockValues, out)
	}
}

// appendSlots appends where random texts are.
func (b *builder) appendSlots(out []byte) []byte {
	for _, a := range b.apart {
		out = appendBytes(appendBytes(append(out, a.name), []byte(a.before)), []byte(a.after))
		out = binary.AppendUvarint(out, uint64(a.bytes))
		for _, n := range a.counts {
			out = binary.AppendUvarint(out, uint64(n))
		}
	}
	return out
}
