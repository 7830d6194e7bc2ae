// Package segment is the immutable, searchable form of a run of documents: their terms with
// postings, and columns from which a document can be written again.
//
// Documents have two numbers in a segment. The arrival number counts them as they were
// stored. The local number counts them as they are read: by time descending, then id, then
// tenant, so that the newest document is 0, every posting ascends from newest to oldest, and
// a range of time is one interval.
//
// A segment is one file of blocks with a checksum each; every byte is under one of them.
// Building is deterministic to the byte. Filter, first terms and bounds stay in memory; all
// else is read block by block through a Cache.
package segment

import (
	"errors"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// DocumentsMax is how many documents a segment holds at most: sixteen roaring containers.
const DocumentsMax = 1 << 20

// Errors of Open and of reading; test with errors.Is.
var (
	// ErrVersion means that another version of the format wrote the segment.
	ErrVersion = errors.New("segment: unknown version")
	// ErrCorrupt means that a part is missing or does not hold what it should.
	ErrCorrupt = errors.New("segment: damaged")
)

// Terms begin with a byte that names their group.
const (
	// TextGroups are the groups of which a document has one term at most; each is a column.
	TextGroups = "itkgesprdnc"
	// AttributeGroup is the group of which a document may have many terms, in their order.
	AttributeGroup = 'a'
	// DigestGroup is the first of the groups of digests, one for each direction. A document may
	// have many, in an order of its own. A value is stored once, under this group, with a
	// posting for each direction.
	DigestGroup = '1'
	// Directions is how many groups of digests there are.
	Directions = 3
)

// Segment is an open segment. It is safe for concurrent use.
type Segment struct {
	file   *file
	cache  *Cache
	key    uint64 // in the cache
	filter filter
	zones  []zone   // of each block of numbers
	rest   []uint32 // first document of each block of the rest
	first  []string // first term of each chunk
	// ordinal is the number of the first term of each chunk, and of all at the end, among the terms of the table.
	ordinal []uint32
	groups  [256]group
	apart   []*apart // ascending by name
	stats   *Stats   // of an observed segment
}

// group is the terms that begin with one byte.
type group struct {
	first, count uint32 // of the terms of the table
	apart        *apart // nil when none of its texts stand apart
}

// terms is how many there are.
func (g *group) terms() uint32 {
	if g.apart == nil {
		return g.count
	}
	return g.apart.count() + g.count
}

// Open reads a segment's filter, bounds and index into memory.
func Open(r io.ReaderAt, size int64, cache *Cache) (*Segment, error) {
	f, err := openFile(r, size)
	if err != nil {
		return nil, err
	}
	s := &Segment{file: f, cache: cache, key: cache.segment()}
	for _, part := range []struct {
		kind byte
		open func([]byte) error
	}{{blockFilter, s.openFilter}, {blockSlots, s.openSlots}, {blockIndex, s.openIndex}, {blockZones, s.openZones}} {
		if part.kind == blockSlots && f.meta.version == VersionTables {
			continue
		}
		b, err := f.read(part.kind, 0)
		if err != nil {
			return nil, err
		}
		if err := part.open(b); err != nil {
			return nil, err
		}
	}
	blocks := (s.Len() + blockDocuments - 1) / blockDocuments
	if len(f.blocks[blockNumbers]) != blocks || len(f.blocks[blockOrdinals]) != blocks || len(s.zones) != blocks {
		return nil, damaged("%d documents in %d blocks", s.Len(), len(f.blocks[blockNumbers]))
	}
	return s, nil
}

func (s *Segment) openFilter(b []byte) (err error) {
	s.filter, err = openFilter(b)
	return err
}

func (s *Segment) openIndex(b []byte) error {
	r := cursor{b: b}
	s.ordinal = []uint32{0}
	var standApart [256]uint32
	for len(r.b) > 0 && !r.bad {
		term := string(r.bytes())
		n, flag := uint32(r.count(2*chunkTerms+indexApart)), uint32(0)
		if s.file.meta.version > VersionTables {
			n, flag = n>>1, n&indexApart
		}
		if r.bad || n == 0 || n > chunkTerms || term == "" || len(s.first) > 0 && term <= s.first[len(s.first)-1] {
			return damaged("index of terms")
		}
		at := s.ordinal[len(s.first)]
		g := &s.groups[term[0]]
		if g.count == 0 {
			g.first = at
		}
		if flag == indexApart {
			standApart[term[0]] += n
			n = 0
		}
		g.count += n
		s.first, s.ordinal = append(s.first, term), append(s.ordinal, at+n)
	}
	for name, n := range standApart {
		if a := s.groups[name].apart; a == nil && n > 0 || a != nil && a.count() != n {
			return damaged("random texts of group %c", name)
		}
	}
	if r.bad || len(s.first) != len(s.file.blocks[blockTerms]) {
		return damaged("index of terms")
	}
	return nil
}

// Version is that of the format it is in.
func (s *Segment) Version() byte { return s.file.meta.version }

// Close forgets what the cache has of the segment. The file is the caller's.
func (s *Segment) Close() { s.cache.forget(s.key) }

// Base is the number of the first document.
func (s *Segment) Base() uint64 { return s.file.meta.base }

// Len is how many documents there are.
func (s *Segment) Len() int { return int(s.file.meta.docs) }

// Digest identifies the segment's content: replicas with the same documents have the same.
func (s *Segment) Digest() uint64 { return s.file.meta.digest }

// MemoryBytes is about what the open segment holds, the cache apart.
func (s *Segment) MemoryBytes() int {
	n := 8*len(s.filter.words) + 48*len(s.zones) + 4*len(s.rest) + 4*len(s.ordinal)
	for _, t := range s.first {
		n += 16 + len(t)
	}
	for _, a := range s.apart {
		n += 4 * len(a.first)
	}
	for _, b := range s.file.blocks {
		n += 16 * len(b)
	}
	return n
}

// SizeByKind is how many bytes of the file each kind of blocks has: 'n' numbers, 'o' ordinals,
// 'r' the rest of documents, 't' terms, 'p' long postings, 'v' random texts and 's' where they are, 'f' the filter, 'i' the index of terms, 'z' bounds.
func (s *Segment) SizeByKind() map[byte]int64 {
	sizes := map[byte]int64{}
	for kind, blocks := range s.file.blocks {
		for _, b := range blocks {
			sizes[kind] += int64(b.length)
		}
	}
	return sizes
}

// Verify reads every block and compares its checksum.
func (s *Segment) Verify() error { return s.Scrub(func(int) error { return nil }) }

// Scrub is Verify that calls step with the bytes of each block, and ends with its error.
func (s *Segment) Scrub(step func(bytes int) error) error {
	return s.scrub(func(*blockEntry) bool { return true }, step)
}

// rawBlock reads a block that is used as it is stored.
func (s *Segment) rawBlock(kind byte, n uint32) ([]byte, error) {
	return opened(s, kind, n, func(b []byte, _ bool) ([]byte, error) { return b, nil })
}

// opened reads a block through the cache, which has it as open makes it. open need not look whether a
// block is well-formed that was found so before.
func opened[T any](s *Segment, kind byte, n uint32, open func(b []byte, checked bool) (T, error)) (T, error) {
	key := s.cacheKey(kind, n)
	if v, ok := s.cache.get(key); ok {
		s.noteCached()
		return v.(T), nil
	}
	var zero T
	b, checked, err := s.file.again(kind, n)
	if err != nil {
		return zero, err
	}
	s.noteRead(len(b))
	v, err := open(b, checked)
	if err != nil {
		return zero, err
	}
	s.file.blocks[kind][n].checked.Store(true)
	size := len(b)
	if r, ok := any(v).(interface{ bytes() int }); ok {
		size = r.bytes()
	}
	s.cache.put(key, v, size)
	return v, nil
}

// storedTerm is a term as it is stored, and the direction of its posting.
func storedTerm(term string) (stored string, direction int) {
	if term != "" && term[0] > DigestGroup && term[0] < DigestGroup+Directions {
		return string(rune(DigestGroup)) + term[1:], int(term[0] - DigestGroup)
	}
	return term, 0
}

// TermHash prepares a term for MayContain.
func TermHash(term string) uint64 {
	stored, _ := storedTerm(term)
	return xxhash.Sum64String(stored)
}

// MayContain is false when no document has the term; it reads nothing.
func (s *Segment) MayContain(hash uint64) bool { return s.filter.mayContain(hash) }

// Lookup finds a term's posting, which is empty when no document has the term.
func (s *Segment) Lookup(term string) (Posting, error) {
	stored, direction := storedTerm(term)
	excluded := !s.filter.mayContain(xxhash.Sum64String(stored))
	if s.notePosting(excluded); excluded {
		return Posting{}, nil
	}
	n, found := slices.BinarySearch(s.first, stored)
	if !found {
		n--
	}
	if n < 0 {
		return Posting{}, nil
	}
	c, err := s.chunk(uint32(n))
	if err != nil {
		return Posting{}, err
	}
	i, found, err := s.search(c, []byte(stored))
	if err != nil || !found {
		return Posting{}, err
	}
	return s.posting(c, i, direction)
}

// Prefix calls visit for each term that begins with prefix, which names a group, in order,
// until visit returns false.
func (s *Segment) Prefix(prefix string, visit func(term string, p Posting) bool) error {
	stored, direction := storedTerm(prefix)
	n, found := slices.BinarySearch(s.first, stored)
	if !found {
		n = max(0, n-1)
	}
	var term []byte
	for at := -1; n < len(s.first); n, at = n+1, 0 {
		if at == 0 && !strings.HasPrefix(s.first[n], stored) {
			return nil
		}
		c, err := s.chunk(uint32(n))
		if err != nil {
			return err
		}
		if at < 0 {
			if at, _, err = s.search(c, []byte(stored)); err != nil {
				return err
			}
		}
		for ; at < c.n; at++ {
			if term, err = s.term(c, at, term[:0]); err != nil {
				return err
			}
			if !strings.HasPrefix(string(term), stored) {
				return nil
			}
			p, err := s.posting(c, at, direction)
			if err != nil {
				return err
			}
			if p.card > 0 && !visit(prefix[:1]+string(term[1:]), p) {
				return nil
			}
		}
	}
	return nil
}

// lendChunk calls use with a chunk, which is valid during the call only. One that is not cached stays
// so: of a chunk with hundreds of terms a document needs one, and blocks of columns, which documents
// share, are what the cache is for.
func (s *Segment) lendChunk(n uint32, use func(c *chunk) error) error {
	e := s.file.known(blockTerms, n)
	if e == nil {
		c, err := s.chunk(n)
		if err != nil {
			return err
		}
		return use(c)
	}
	if v, ok := s.cache.get(s.cacheKey(blockTerms, n)); ok {
		s.noteCached()
		return use(v.(*chunk))
	}
	return s.file.lender.Lend(e.offset, int(e.length), func(b []byte) error {
		s.noteRead(len(b))
		c, err := s.openChunkAt(n, b)
		if err != nil {
			return err
		}
		return use(c)
	})
}

func (s *Segment) chunk(n uint32) (*chunk, error) {
	return opened(s, blockTerms, n, func(b []byte, _ bool) (*chunk, error) { return s.openChunkAt(n, b) })
}

func (s *Segment) openChunkAt(n uint32, b []byte) (*chunk, error) {
	c, err := openChunk(b)
	if err != nil {
		return nil, err
	}
	if c.at = int(n); (c.apart != nil) != (s.ordinal[n] == s.ordinal[n+1]) {
		return nil, damaged("chunk of terms")
	}
	return c, nil
}

// appendOrdinal appends the n-th of the terms of the table.
func (s *Segment) appendOrdinal(b []byte, n uint32) ([]byte, error) {
	at := sort.Search(len(s.ordinal), func(i int) bool { return s.ordinal[i] > n }) - 1 // some chunks have none
	err := s.lendChunk(uint32(at), func(c *chunk) (err error) {
		i := int(n - s.ordinal[at])
		if i >= c.n {
			return damaged("chunk of %d terms", c.n)
		}
		b, err = c.appendTerm(b, i)
		return err
	})
	return b, err
}
