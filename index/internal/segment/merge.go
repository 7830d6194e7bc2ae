package segment

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"math"
)

// Merge writes one segment, in a version of the format, of the documents of several that keep accepts, by their local numbers;
// nil accepts all. The parts are in the order of their numbers, and may have gaps between and in them; a document
// keeps its number. The result is to the byte what Build makes of these documents. pause, unless it is nil, is called every so often, and ends the
// work with an error of its own.
func Merge(w io.Writer, version byte, base uint64, parts []*Segment, keep func(part int, local uint32) bool, pause func() error) error {
	m := merger{pause: pause, keep: keep}
	if m.pause == nil {
		m.pause = func() error { return nil }
	}
	if m.keep == nil {
		m.keep = func(int, uint32) bool { return true }
	}
	docs, next := 0, base
	for _, s := range parts {
		if s.Base() < next || s.Base()+uint64(s.Len()) > base+DocumentsMax {
			return fmt.Errorf("segment: %d documents from %d on do not fit behind %d", s.Len(), s.Base(), next)
		}
		m.parts = append(m.parts, part{Segment: s, reader: s.NewReader(), before: uint32(s.Base() - base)})
		docs, next = docs+s.Len(), s.Base()+uint64(s.Len())
	}
	if err := m.order(docs); err != nil {
		return err
	}
	if docs = len(m.from); docs == 0 {
		return errors.New("segment: cannot hold no documents")
	}
	c := content{base: base, docs: docs, terms: m.terms, digests: m.digests, rest: m.rest, number: m.number}
	return c.write(w, version)
}

// merger maps the documents and terms of parts to those of the whole.
type merger struct {
	pause func() error
	keep  func(part int, local uint32) bool
	parts []part
	// from is the part that each document comes from; its place there follows, since the order
	// of a part's documents stays.
	from []uint8
	done int
}

// part is a segment to be merged.
type part struct {
	*Segment
	reader *Reader
	before uint32   // arrival numbers of earlier parts
	local  []uint32 // its local numbers -> those of the whole, or left
	digest []uint32 // numbers of its digests -> ordinals among those of the whole

	// The block read last.
	numbersAt int
	n         *numbers
	// What terms are found by that stand apart is read over and over, and so kept.
	o []*ordinals
	v [][]byte
	// at is the next document of each pass over them.
	at [passes]uint32
}

// left is in the place of the number of a document that is left out.
const left = math.MaxUint32

// Passes over the documents: each asks for them in ascending order.
const (
	passRest = iota
	passNumbers
	passDigests
	passes
)

// pauseEvery is how many documents or terms are worked on between two pauses.
const pauseEvery = 64

func (m *merger) step() error {
	if m.done++; m.done%pauseEvery != 0 {
		return nil
	}
	return m.pause()
}

// order numbers the documents.
func (m *merger) order(docs int) error {
	m.from = make([]uint8, 0, docs)
	h := byOrder{}
	for i := range m.parts {
		p := &m.parts[i]
		p.local, p.numbersAt = make([]uint32, 0, p.Len()), -1
		p.digest = make([]uint32, p.groups[DigestGroup].terms())
		p.o, p.v = make([]*ordinals, len(p.file.blocks[blockOrdinals])), make([][]byte, len(p.file.blocks[blockValues]))
		c := &orderCursor{part: p, n: i}
		if !c.skip(m.keep) {
			continue
		}
		if h.err = c.move(); h.err != nil {
			return h.err
		}
		h.cursors = append(h.cursors, c)
	}
	heap.Init(&h)
	for len(h.cursors) > 0 && h.err == nil {
		c := h.cursors[0]
		c.part.local = append(c.part.local, uint32(len(m.from)))
		m.from = append(m.from, uint8(c.n))
		if !c.skip(m.keep) {
			heap.Pop(&h)
			continue
		}
		if err := c.move(); err != nil {
			return err
		}
		heap.Fix(&h, 0)
		if err := m.step(); err != nil {
			return err
		}
	}
	return h.err
}

// orderCursor stands on the next document of a part.
type orderCursor struct {
	part       *part
	n          int
	time       int64
	known      bool // id and tenant have been read
	id, tenant string
}

// skip passes over the documents that are left out; it is false at the end.
func (c *orderCursor) skip(keep func(part int, local uint32) bool) bool {
	for len(c.part.local) < c.part.Len() && !keep(c.n, uint32(len(c.part.local))) {
		c.part.local = append(c.part.local, left)
	}
	return len(c.part.local) < c.part.Len()
}

func (c *orderCursor) move() error {
	n, err := c.part.numberAt(uint32(len(c.part.local)))
	c.time, c.known = n.time, false
	return err
}

func (c *orderCursor) document() (*Document, error) {
	if !c.known {
		var err error
		local := uint32(len(c.part.local))
		if c.id, err = c.part.reader.Text(local, columnID); err != nil {
			return nil, err
		}
		if c.tenant, err = c.part.reader.Text(local, columnTenant); err != nil {
			return nil, err
		}
		c.known = true
	}
	return &Document{Time: c.time, ID: c.id, Tenant: c.tenant}, nil
}

// Columns of TextGroups that decide the order.
const (
	columnID     = 0
	columnTenant = 1
)

// byOrder is a heap of cursors; documents of one instant are told apart by reading them.
type byOrder struct {
	cursors []*orderCursor
	err     error
}

func (h *byOrder) Len() int { return len(h.cursors) }
func (h *byOrder) Less(i, j int) bool {
	a, b := h.cursors[i], h.cursors[j]
	if a.time != b.time || h.err != nil {
		return a.time > b.time
	}
	x, err := a.document()
	if err == nil {
		var y *Document
		if y, err = b.document(); err == nil {
			return Compare(x, y) < 0
		}
	}
	h.err = err
	return false
}
func (h *byOrder) Swap(i, j int) { h.cursors[i], h.cursors[j] = h.cursors[j], h.cursors[i] }
func (h *byOrder) Push(x any)    { h.cursors = append(h.cursors, x.(*orderCursor)) }
func (h *byOrder) Pop() any {
	last := len(h.cursors) - 1
	x := h.cursors[last]
	h.cursors = h.cursors[:last]
	return x
}

// terms merges the terms of the parts.
func (m *merger) terms(yield func([]byte, *Postings) error) error {
	var h byTerm
	for i := range m.parts {
		c := &termCursor{part: &m.parts[i], n: i}
		if ok, err := c.move(); err != nil {
			return err
		} else if ok {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	var term []byte
	var locals Postings
	digests := uint32(0)
	for len(h) > 0 {
		term = append(term[:0], h[0].term...)
		for i := range locals {
			locals[i] = locals[i][:0]
		}
		for len(h) > 0 && bytes.Equal(h[0].term, term) {
			c := h[0]
			if err := c.add(&locals); err != nil {
				return err
			}
			if term[0] == DigestGroup {
				c.part.digest[c.number] = digests
			}
			if ok, err := c.move(); err != nil {
				return err
			} else if ok {
				heap.Fix(&h, 0)
			} else {
				heap.Pop(&h)
			}
		}
		if locals.empty() {
			continue // all its documents are left out; nobody asks for the number that a digest had
		}
		if term[0] == DigestGroup {
			digests++
		}
		for i := range locals {
			sortLocals(locals[i])
		}
		if err := yield(term, &locals); err != nil {
			return err
		}
		if err := m.step(); err != nil {
			return err
		}
	}
	for i := range m.parts {
		m.parts[i].v = nil
	}
	return nil
}

func (p *Postings) empty() bool {
	for i := range p {
		if len(p[i]) > 0 {
			return false
		}
	}
	return true
}

// termCursor walks over the terms of a part, reading past the cache.
type termCursor struct {
	part  *part
	n     int
	chunk uint32 // the next one
	c     *chunk
	walk  frontWalk
	i     int
	term  []byte
	buf   []uint32
	// number is that of the term in its group, inTable how many of the group's table come before the next.
	number, inTable uint32
	group           byte
}

func (c *termCursor) move() (bool, error) {
	c.i++
	if c.c == nil || c.i == c.c.n {
		if int(c.chunk) == len(c.part.first) {
			return false, nil
		}
		b, err := c.part.file.read(blockTerms, c.chunk)
		if err != nil {
			return false, err
		}
		if c.c, err = c.part.openChunkAt(c.chunk, b); err != nil {
			return false, err
		}
		if name := c.part.first[c.chunk][0]; name != c.group {
			c.group, c.inTable = name, 0
			if a := c.part.groups[name].apart; a != nil {
				c.inTable = a.count()
			}
		}
		c.chunk++
		c.i = 0
	}
	var err error
	if c.c.apart != nil {
		if c.term, c.number, err = c.part.resolve(c.part, c.c, c.i, c.term[:0]); err == nil && c.number >= c.part.groups[c.group].terms() {
			err = damaged("random text %d", c.number)
		}
		return true, err
	}
	c.number = c.inTable
	c.inTable++
	if c.c.hexBytes > 0 {
		c.term, err = c.c.appendTerm(c.term[:0], c.i)
		return true, err
	}
	if c.i%frontEvery == 0 {
		term := c.walk.term[:0]
		if c.walk, err = c.c.walkFrom(c.i / frontEvery); err != nil {
			return false, err
		}
		c.walk.term = term
	}
	err = c.walk.next()
	c.term = append(append(c.term[:0], c.c.prefix...), c.walk.term...)
	return true, err
}

// add appends the term's documents under their new numbers.
func (c *termCursor) add(locals *Postings) error {
	for direction := range locals {
		p, err := c.part.posting(c.c, c.i, direction)
		if err != nil {
			return err
		}
		if c.buf, err = p.appendTo(c.buf[:0]); err != nil {
			return err
		}
		for _, n := range c.buf {
			if n = c.part.local[n]; n != left {
				locals[direction] = append(locals[direction], n)
			}
		}
	}
	return nil
}

// byTerm is a heap of cursors by term, then by part.
type byTerm []*termCursor

func (h byTerm) Len() int { return len(h) }
func (h byTerm) Less(i, j int) bool {
	if c := bytes.Compare(h[i].term, h[j].term); c != 0 {
		return c < 0
	}
	return h[i].n > h[j].n // later parts are newer, and so first
}
func (h byTerm) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byTerm) Push(x any)   { *h = append(*h, x.(*termCursor)) }
func (h *byTerm) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// place is where the next document of a pass comes from.
func (m *merger) place(local uint32, pass int) (*part, uint32) {
	p := &m.parts[m.from[local]]
	for p.local[p.at[pass]] == left {
		p.at[pass]++
	}
	at := p.at[pass]
	p.at[pass]++
	return p, at
}

func (m *merger) number(local uint32) (number, error) {
	p, at := m.place(local, passNumbers)
	n, err := p.numberAt(at)
	if err != nil {
		return n, err
	}
	n.arrival += p.before
	return n, m.step()
}

// numberAt reads past the cache.
func (p *part) numberAt(local uint32) (number, error) {
	block, i := int(local/blockDocuments), int(local%blockDocuments)
	if p.numbersAt != block {
		b, err := p.file.read(blockNumbers, uint32(block))
		if err != nil {
			return number{}, err
		}
		if p.n, err = p.openNumbers(uint32(block), b, false); err != nil {
			return number{}, err
		}
		p.numbersAt = block
	}
	n := number{time: p.n.newest - int64(p.n.age.at(i)), arrival: uint32(p.n.arrival.at(i)), stamped: p.n.stamped.at(i) == 1, duration: uint32(p.n.duration.at(i))}
	if cost := p.n.cost.at(i); cost > 0 {
		n.hasCost, n.cost = true, unzigzag(cost-1)
	}
	return n, nil
}

// ordinals implements columns.
func (p *part) ordinals(n uint32) (*ordinals, error) {
	if int(n) >= len(p.o) {
		return nil, damaged("no block %c%d", blockOrdinals, n)
	}
	if p.o[n] == nil {
		b, err := p.file.read(blockOrdinals, n)
		if err != nil {
			return nil, err
		}
		if p.o[n], err = p.openOrdinals(n, b, false); err != nil {
			return nil, err
		}
	}
	return p.o[n], nil
}

// values implements columns.
func (p *part) values(n uint32) (b []byte, err error) {
	if int(n) >= len(p.v) {
		return nil, damaged("no block %c%d", blockValues, n)
	}
	if p.v[n] == nil {
		p.v[n], err = p.file.read(blockValues, n)
	}
	return p.v[n], err
}

func (p *part) ordinalsOf(local uint32) (*ordinals, int, error) {
	o, err := p.ordinals(local / blockDocuments)
	return o, int(local % blockDocuments), err
}

func (m *merger) digests(local uint32, b []uint32) ([]uint32, error) {
	p, at := m.place(local, passDigests)
	o, i, err := p.ordinalsOf(at)
	if err != nil {
		return nil, err
	}
	for from, to := o.digests.of(i); from < to; from++ {
		ord := o.digests.values.at(from)
		if ord >= uint64(len(p.digest)) {
			return nil, damaged("digest %d of %d", ord, len(p.digest))
		}
		b = append(b, p.digest[ord]<<2|uint32(o.directions.at(from)))
	}
	return b, nil
}

func (m *merger) rest(local uint32) ([]byte, error) {
	p, at := m.place(local, passRest)
	o, i, err := p.ordinalsOf(at)
	if err != nil || o.hasRest.at(i) == 0 {
		return nil, err
	}
	b, err := p.restOf(at)
	if err != nil {
		return nil, err
	}
	return b, m.step()
}
