package segment

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Document is what a segment needs to know of a document beside its terms.
type Document struct {
	Time       int64
	ID, Tenant string
	// Cost is in micro-units, when HasCost.
	Cost     int64
	HasCost  bool
	Stamped  bool
	Duration uint32
}

// Compare orders documents as they are read: newest first, then by id, then by tenant.
func Compare(a, b *Document) int {
	if c := cmp.Compare(b.Time, a.Time); c != 0 {
		return c
	}
	if c := cmp.Compare(a.ID, b.ID); c != 0 {
		return c
	}
	return cmp.Compare(a.Tenant, b.Tenant)
}

// Postings are the documents of a term; only the groups of digests have more than the first.
type Postings [Directions][]uint32

// Input is what Build makes a segment of.
type Input struct {
	// Base is the number from which arrival numbers count.
	Base uint64
	// Documents are in the order of their arrival, 1 to DocumentsMax of them; what counts them below
	// counts places in it.
	Documents []Document
	// Numbers are the arrival numbers of the documents, ascending; nil when there is no gap.
	Numbers []uint32
	// Terms yields every term once, in ascending order, with the arrival numbers of its
	// documents, ascending. Both are valid until the next one. The terms of all digests begin
	// with DigestGroup, and their postings are by direction.
	Terms iter.Seq2[[]byte, *Postings]
	// Digests appends a document's digests in their order: the number of the digest among the
	// terms of DigestGroup, times four, and the direction. It is called when Terms is at its end.
	Digests func(arrival uint32, b []uint32) []uint32
	// Rest is what is stored of a document beside its columns; empty is nothing.
	Rest func(arrival uint32) []byte
}

// Build writes a segment in a version of the format.
func Build(w io.Writer, version byte, in Input) error {
	n := len(in.Documents)
	if n == 0 || n > DocumentsMax {
		return fmt.Errorf("segment: cannot hold %d documents", n)
	}
	order := make([]uint32, n) // local number -> arrival number
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int { return Compare(&in.Documents[x], &in.Documents[y]) })
	local := make([]uint32, n) // arrival number -> local number
	for l, a := range order {
		local[a] = uint32(l)
	}
	arrival := func(place uint32) uint32 { return place }
	if in.Numbers != nil {
		arrival = func(place uint32) uint32 { return in.Numbers[place] }
	}
	var renumbered Postings
	set := make([]uint64, (n+63)/64)
	c := content{
		base: in.Base,
		docs: n,
		number: func(l uint32) (number, error) {
			d := &in.Documents[order[l]]
			return number{time: d.Time, arrival: arrival(order[l]), stamped: d.Stamped, cost: d.Cost, hasCost: d.HasCost, duration: d.Duration}, nil
		},
		terms: func(yield func([]byte, *Postings) error) error {
			for term, arrivals := range in.Terms {
				for i := range arrivals {
					renumbered[i] = renumber(renumbered[i][:0], arrivals[i], local, set)
				}
				if err := yield(term, &renumbered); err != nil {
					return err
				}
			}
			return nil
		},
		digests: func(l uint32, b []uint32) ([]uint32, error) { return in.Digests(order[l], b), nil },
		rest:    func(l uint32) ([]byte, error) { return in.Rest(order[l]), nil },
	}
	return c.write(w, version)
}

// renumber appends the local numbers of arrivals in ascending order. set has a bit for each
// document; it is zero before and afterwards.
func renumber(b, arrivals, local []uint32, set []uint64) []uint32 {
	if len(arrivals) < len(set) { // fewer than to look at all of the set
		for _, a := range arrivals {
			b = append(b, local[a])
		}
		if len(b) > 1 {
			slices.Sort(b)
		}
		return b
	}
	for _, a := range arrivals {
		l := local[a]
		set[l/64] |= 1 << (l % 64)
	}
	for i, word := range set {
		for ; word != 0; word &= word - 1 {
			b = append(b, uint32(i*64+bits.TrailingZeros64(word)))
		}
		set[i] = 0
	}
	return b
}

// number is a document's numbers.
type number struct {
	time     int64
	arrival  uint32
	stamped  bool
	hasCost  bool
	cost     int64
	duration uint32
}

// content is what a segment is written of, by local number. The functions are called in the
// order of the fields; those of one document in ascending order.
type content struct {
	base    uint64
	docs    int
	terms   func(yield func(term []byte, locals *Postings) error) error
	digests func(local uint32, b []uint32) ([]uint32, error)
	rest    func(local uint32) ([]byte, error)
	number  func(local uint32) (number, error)
}

// builder writes the parts of a segment.
type builder struct {
	*content
	f      *fileWriter
	far    farWriter
	chunk  chunkWriter
	index  []byte
	hashes []uint64
	last   []byte

	// Columns by local number, of which the terms are the source.
	texts      [len(TextGroups)][]uint32
	ordinal    [256]uint32 // of the next term of a group
	attributes []pair
	attrEnds   []uint32
	// digestList are the digests as content has them, those of a document up to its end.
	digestList, digestEnds []uint32

	version byte
	apart   []*apartWriter // by group, ascending; from version 3 on
	// tableRuns are terms of tableGroup before any that stand apart.
	tableGroup byte
	tableRuns  []apartRun
}

// pair is a value of a document.
type pair struct{ local, value uint32 }

func (c *content) write(w io.Writer, version byte) error {
	b := &builder{content: c, f: newFileWriter(w, version), version: version}
	b.far.f = b.f
	for i := range b.texts {
		b.texts[i] = make([]uint32, c.docs)
	}
	if err := c.terms(b.term); err != nil {
		return err
	}
	b.closeChunk()
	b.far.close()
	filter := newFilter(len(b.hashes))
	for _, h := range b.hashes {
		filter.add(h)
	}
	b.hashes = nil
	b.sortAttributes()
	if err := b.listDigests(); err != nil {
		return err
	}
	if err := b.numberApart(); err != nil {
		return err
	}
	rest, hasRest, err := b.writeRest()
	if err != nil {
		return err
	}
	zones, err := b.writeColumns(hasRest)
	if err != nil {
		return err
	}
	b.f.block(blockFilter, filter.encode())
	b.f.block(blockIndex, b.index)
	b.f.block(blockZones, appendZones(nil, zones, rest))
	if b.version > VersionTables {
		b.f.block(blockSlots, b.appendSlots(nil))
	}
	return b.f.finish(c.base, uint32(c.docs))
}

// term takes the next term: into its chunk, and into the columns of its documents.
func (b *builder) term(term []byte, locals *Postings) error {
	var mask byte
	for i, l := range locals {
		if len(l) > 0 {
			mask |= 1 << i
		}
	}
	directed := len(term) > 0 && term[0] == DigestGroup
	if mask == 0 || !directed && mask != 1 || b.last != nil && bytes.Compare(term, b.last) <= 0 {
		return fmt.Errorf("segment: term %q is empty or out of order", term)
	}
	if len(b.chunk.ends) > 0 && (b.chunk.full() || term[0] != b.last[0]) {
		b.closeChunk()
	}
	if len(b.chunk.ends) == 0 {
		b.index = appendBytes(b.index, term)
	}
	b.hashes = append(b.hashes, xxhash.Sum64(term))
	b.last = append(b.last[:0], term...)
	b.chunk.add(term, mask, firstOf(locals))
	for _, l := range locals {
		if len(l) > 0 {
			b.chunk.posting(l, func(l []uint32) (block, offset, length uint32) { return b.far.add(l, b.docs) })
		}
	}
	n := b.ordinal[term[0]]
	b.ordinal[term[0]]++
	if term[0] == AttributeGroup {
		for _, l := range locals[0] {
			b.attributes = append(b.attributes, pair{l, n})
		}
	} else if col := slices.Index([]byte(TextGroups), term[0]); col >= 0 {
		for _, l := range locals[0] {
			b.texts[col][l] = n + 1
		}
	}
	return nil
}

func (b *builder) closeChunk() {
	n := uint64(len(b.chunk.ends))
	if n == 0 {
		return
	}
	group := b.last[0]
	if b.version == VersionTables {
		b.f.block(blockTerms, b.chunk.encode(group == DigestGroup))
	} else if n <<= 1; b.takeApart(group) {
		n |= indexApart
		b.f.block(blockTerms, b.chunk.encodeApart(group == DigestGroup))
	} else {
		b.f.block(blockTerms, b.chunk.encode(group == DigestGroup))
	}
	b.index = binary.AppendUvarint(b.index, n)
	b.chunk.reset()
}

// sortAttributes brings the attributes in the order of documents; those of one stay in the
// order of terms.
func (b *builder) sortAttributes() {
	b.attrEnds = make([]uint32, b.docs+1)
	for _, p := range b.attributes {
		b.attrEnds[p.local+1]++
	}
	for i := range b.docs {
		b.attrEnds[i+1] += b.attrEnds[i]
	}
	sorted := make([]pair, len(b.attributes))
	next := slices.Clone(b.attrEnds)
	for _, p := range b.attributes {
		sorted[next[p.local]] = p
		next[p.local]++
	}
	b.attributes = sorted
}

// listDigests lists the digests of all documents.
func (b *builder) listDigests() (err error) {
	b.digestEnds = make([]uint32, b.docs)
	for l := range b.digestEnds {
		if b.digestList, err = b.digests(uint32(l), b.digestList); err != nil {
			return err
		}
		b.digestEnds[l] = uint32(len(b.digestList))
	}
	return nil
}

// writeRest writes what has no column, and tells which documents have some.
func (b *builder) writeRest() (first []uint32, has []byte, err error) {
	w, err := newRestWriter(b.f)
	if err != nil {
		return nil, nil, err
	}
	has = make([]byte, b.docs)
	for l := range uint32(b.docs) {
		rest, err := b.rest(l)
		if err != nil {
			return nil, nil, err
		}
		if len(rest) > 0 {
			has[l] = 1
			w.add(l, rest)
		}
	}
	w.close()
	return w.first, has, nil
}

// blockColumns are the columns of one block; its buffers are used again.
type blockColumns struct {
	w                        intsWriter
	out                      []byte
	numbers                  [5][]uint64
	ends, values, directions []uint64
}

func (b *builder) writeColumns(hasRest []byte) ([]zone, error) {
	var zones []zone
	var c blockColumns
	for from := 0; from < b.docs; from += blockDocuments {
		to := min(from+blockDocuments, b.docs)
		z, err := c.writeNumbers(b, uint32(from), uint32(to))
		if err != nil {
			return nil, err
		}
		zones = append(zones, z)
		c.writeOrdinals(b, from, to, hasRest)
		b.writeValues(from, to)
	}
	return zones, nil
}

func (c *blockColumns) writeNumbers(b *builder, from, to uint32) (zone, error) {
	z := zone{leastCost: math.MaxInt64, mostCost: math.MinInt64, firstArrival: math.MaxUint32}
	for i := range c.numbers {
		c.numbers[i] = c.numbers[i][:0]
	}
	for l := from; l < to; l++ {
		n, err := b.number(l)
		if err != nil {
			return z, err
		}
		if l == from {
			z.newest = n.time
		}
		z.oldest = n.time
		z.firstArrival, z.lastArrival = min(z.firstArrival, n.arrival), max(z.lastArrival, n.arrival)
		cost, stamped := uint64(0), uint64(0)
		if n.hasCost {
			z.leastCost, z.mostCost = min(z.leastCost, n.cost), max(z.mostCost, n.cost)
			cost = zigzag(n.cost) + 1
		}
		if n.stamped {
			stamped = 1
		}
		for i, v := range [...]uint64{uint64(z.newest - n.time), uint64(n.arrival), stamped, cost, uint64(n.duration)} {
			c.numbers[i] = append(c.numbers[i], v)
		}
	}
	c.out = c.out[:0]
	for _, values := range c.numbers {
		c.out = c.w.append(c.out, values)
	}
	b.f.block(blockNumbers, c.out)
	return z, nil
}

// appendLists appends ends and values of a group.
func (c *blockColumns) appendLists(b *builder, group byte) {
	c.out = c.w.append(c.out, c.ends)
	if len(c.values) > 0 {
		c.appendColumn(b, group, c.values, 0)
	}
}

func (c *blockColumns) writeOrdinals(b *builder, from, to int, hasRest []byte) {
	c.out = c.out[:0]
	for i, col := range b.texts {
		c.values = c.values[:0]
		for _, v := range col[from:to] {
			c.values = append(c.values, uint64(v))
		}
		c.appendColumn(b, TextGroups[i], c.values, 1)
	}
	c.values = c.values[:0]
	for _, v := range hasRest[from:to] {
		c.values = append(c.values, uint64(v))
	}
	c.out = c.w.append(c.out, c.values)
	c.ends, c.values, c.directions = c.ends[:0], c.values[:0], c.directions[:0]
	at := uint32(0)
	if from > 0 {
		at = b.digestEnds[from-1]
	}
	for l := from; l < to; l++ {
		for ; at < b.digestEnds[l]; at++ {
			d := b.digestList[at]
			c.values, c.directions = append(c.values, uint64(d>>2)), append(c.directions, uint64(d&3))
		}
		c.ends = append(c.ends, uint64(len(c.values)))
	}
	c.appendLists(b, DigestGroup)
	if len(c.directions) > 0 {
		c.out = c.w.append(c.out, c.directions)
	}
	c.ends, c.values = c.ends[:0], c.values[:0]
	for l := from; l < to; l++ {
		for _, p := range b.attributes[b.attrEnds[l]:b.attrEnds[l+1]] {
			c.values = append(c.values, uint64(p.value))
		}
		c.ends = append(c.ends, uint64(len(c.values)))
	}
	c.appendLists(b, AttributeGroup)
	b.f.block(blockOrdinals, c.out)
}
