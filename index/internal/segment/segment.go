// Package segment is the immutable, searchable form of a run of documents: their terms with
// postings, and columns for time, arrival and cost.
//
// Documents have two numbers in a segment. The arrival number counts them as they were
// stored. The local number counts them as they are read: by time descending, then id, then
// tenant, so that the newest document is 0, every posting ascends from newest to oldest, and
// a range of time is one interval.
//
// A segment is a set of parts, small named byte strings, so that it fits any key-value
// store. Building is deterministic to the byte. Columns, filter and the index of the term
// blocks stay in memory; term blocks, long postings and costs are read through a Cache.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/cespare/xxhash/v2"
)

// DocumentsMax is how many documents a segment holds at most: one roaring container.
const DocumentsMax = 1 << 16

// Version is the format that Build writes and Open reads.
const Version = 1

// Errors of Open and of reading; test with errors.Is.
var (
	// ErrVersion means that another version of the format wrote the segment.
	ErrVersion = errors.New("segment: unknown version")
	// ErrCorrupt means that a part is missing or does not hold what it should.
	ErrCorrupt = errors.New("segment: damaged")
)

// Kinds of parts. A part's name is its kind, then its number for the kinds with many.
const (
	partMeta     = 'm'
	partTime     = 't'
	partArrival  = 'a'
	partCosts    = 'c' // values of the documents with a cost
	partHasCost  = 'h' // which documents those are
	partFilter   = 'f'
	partIndex    = 'i' // the first term of each block
	partBlock    = 'b' // numbered
	partPostings = 'p' // numbered; postings too long for a block
)

// Part is a named piece of a segment.
type Part struct {
	Name  []byte
	Value []byte
}

// Reader returns the part with a name.
type Reader func(name []byte) ([]byte, error)

// Segment is an open segment. It is safe for concurrent use.
type Segment struct {
	meta    meta
	times   []int64  // by local number, descending
	arrival []uint16 // local number -> arrival number
	filter  filter
	first   []string // first term of each block
	read    Reader
	cache   *Cache
}

// meta is the fixed part of a segment.
type meta struct {
	base     uint64
	docs     uint32
	withCost uint32
	digest   uint64 // xxhash of the values of all other parts in the order Build returns them
}

const metaBytes = 1 + 8 + 4 + 4 + 8

func (m meta) encode() []byte {
	b := []byte{Version}
	b = binary.BigEndian.AppendUint64(b, m.base)
	b = binary.BigEndian.AppendUint32(b, m.docs)
	b = binary.BigEndian.AppendUint32(b, m.withCost)
	return binary.BigEndian.AppendUint64(b, m.digest)
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) > 0 && b[0] != Version {
		return meta{}, fmt.Errorf("%w %d, this build reads %d", ErrVersion, b[0], Version)
	}
	if len(b) != metaBytes {
		return meta{}, fmt.Errorf("%w: meta has %d bytes", ErrCorrupt, len(b))
	}
	m := meta{
		base:     binary.BigEndian.Uint64(b[1:]),
		docs:     binary.BigEndian.Uint32(b[9:]),
		withCost: binary.BigEndian.Uint32(b[13:]),
		digest:   binary.BigEndian.Uint64(b[17:]),
	}
	if m.docs == 0 || m.docs > DocumentsMax || m.withCost > m.docs {
		return meta{}, fmt.Errorf("%w: meta counts %d documents, %d with cost", ErrCorrupt, m.docs, m.withCost)
	}
	return m, nil
}

// MetaName is the name of the part to write last: a segment whose meta is there is whole.
func MetaName() []byte { return []byte{partMeta} }

// Open reads a segment's columns, filter and index into memory.
func Open(read Reader, cache *Cache) (*Segment, error) {
	b, err := read(MetaName())
	if err != nil {
		return nil, err
	}
	s := &Segment{read: read, cache: cache}
	if s.meta, err = decodeMeta(b); err != nil {
		return nil, err
	}
	columns := []struct {
		part byte
		open func([]byte) error
	}{{partTime, s.openTimes}, {partArrival, s.openArrival}, {partFilter, s.openFilter}, {partIndex, s.openIndex}}
	for _, c := range columns {
		b, err := read([]byte{c.part})
		if err != nil {
			return nil, err
		}
		if err := c.open(b); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Segment) openTimes(b []byte) error {
	if len(b) != 8*int(s.meta.docs) {
		return fmt.Errorf("%w: time column has %d bytes", ErrCorrupt, len(b))
	}
	s.times = make([]int64, s.meta.docs)
	for i := range s.times {
		s.times[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return nil
}

func (s *Segment) openArrival(b []byte) error {
	if len(b) != 2*int(s.meta.docs) {
		return fmt.Errorf("%w: arrival column has %d bytes", ErrCorrupt, len(b))
	}
	s.arrival = make([]uint16, s.meta.docs)
	for i := range s.arrival {
		s.arrival[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return nil
}

func (s *Segment) openFilter(b []byte) (err error) {
	s.filter, err = openFilter(b)
	return err
}

func (s *Segment) openIndex(b []byte) error {
	for len(b) > 0 {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return fmt.Errorf("%w: index of terms", ErrCorrupt)
		}
		s.first = append(s.first, string(b[w:w+int(n)]))
		b = b[w+int(n):]
	}
	return nil
}

// Base is the number of the first document.
func (s *Segment) Base() uint64 { return s.meta.base }

// Len is how many documents there are.
func (s *Segment) Len() int { return int(s.meta.docs) }

// Digest identifies the segment's content: replicas with the same documents have the same.
func (s *Segment) Digest() uint64 { return s.meta.digest }

// Newest and Oldest bound the times of the documents.
func (s *Segment) Newest() int64 { return s.times[0] }

// Oldest is the least time.
func (s *Segment) Oldest() int64 { return s.times[len(s.times)-1] }

// Time is a document's time.
func (s *Segment) Time(local uint32) int64 { return s.times[local] }

// Arrival is a document's arrival number.
func (s *Segment) Arrival(local uint32) uint32 { return uint32(s.arrival[local]) }

// Interval is the local numbers [lo, hi) of the documents with times in [from, to);
// math.MaxInt64 is no upper end.
func (s *Segment) Interval(from, to int64) (lo, hi uint32) {
	l := 0
	if to != math.MaxInt64 {
		l = sort.Search(len(s.times), func(i int) bool { return s.times[i] < to })
	}
	h := sort.Search(len(s.times), func(i int) bool { return s.times[i] < from })
	return uint32(l), uint32(max(l, h))
}

// Costs calls visit for every document with a cost, in order of local numbers.
func (s *Segment) Costs(visit func(local uint32, micros int64)) error {
	if s.meta.withCost == 0 {
		return nil
	}
	values, err := s.part(partCosts, 0)
	if err != nil {
		return err
	}
	if len(values) == 8*s.Len() {
		for i := range s.Len() {
			visit(uint32(i), int64(binary.LittleEndian.Uint64(values[8*i:])))
		}
		return nil
	}
	which, err := s.part(partHasCost, 0)
	if err != nil {
		return err
	}
	has, err := fromBytes(which)
	if err != nil {
		return err
	}
	if has.GetCardinality() != uint64(s.meta.withCost) || len(values) != 8*int(s.meta.withCost) {
		return fmt.Errorf("%w: cost column", ErrCorrupt)
	}
	for it := has.Iterator(); it.HasNext(); values = values[8:] {
		visit(it.Next(), int64(binary.LittleEndian.Uint64(values)))
	}
	return nil
}

// part reads a part through the cache.
func (s *Segment) part(kind byte, n uint32) ([]byte, error) {
	key := cacheKey{base: s.meta.base, kind: kind, n: n}
	if b, ok := s.cache.get(key); ok {
		return b, nil
	}
	b, err := s.read(partName(kind, n))
	if err != nil {
		return nil, err
	}
	s.cache.put(key, b)
	return b, nil
}

func partName(kind byte, n uint32) []byte {
	if kind != partBlock && kind != partPostings {
		return []byte{kind}
	}
	return binary.BigEndian.AppendUint32([]byte{kind}, n)
}

// fromBytes reads a posting; it aliases b, which must not change.
func fromBytes(b []byte) (*roaring.Bitmap, error) {
	bm := roaring.New()
	if _, err := bm.FromBuffer(b); err != nil {
		return nil, fmt.Errorf("%w: posting: %v", ErrCorrupt, err)
	}
	return bm, nil
}

func digestOf(parts []Part) uint64 {
	h := xxhash.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint32(n[:4], uint32(len(p.Name)))
		binary.BigEndian.PutUint32(n[4:], uint32(len(p.Value)))
		h.Write(n[:])
		h.Write(p.Name)
		h.Write(p.Value)
	}
	return h.Sum64()
}
