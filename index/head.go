package index

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// headDocumentsMax is how many documents a head takes before it is frozen and sealed.
const headDocumentsMax = 1 << 16

// headStride is for how many documents a head remembers the newest time. A search reads so many more than it
// has to at most; fewer would only cost more memory.
const headStride = 1 << 10

// listMax is how many documents a posting lists before it becomes a bitmap.
const listMax = 128

// head is the index of the youngest documents, in memory. One goroutine adds to it; readers
// hold mu. A frozen head changes no more.
type head struct {
	base uint64 // from which numbers count

	mu   sync.RWMutex
	docs []segment.Document
	// times are the documents', side by side: a range of time looks at all of them.
	times []int64
	// numbers are the documents', from base on; nil when there is no gap. span is how many numbers
	// there are, gaps included.
	numbers []uint32
	span    uint32
	newest  int64
	oldest  int64
	// newestBy is the newest time among the first headStride documents, the first two times as many,
	// and so on.
	newestBy []int64
	groups   map[string]*termGroup
	// byCode are the groups with a one-byte name, to find them without hashing.
	byCode [256]*termGroup
	// postings are count<<32 | ref. The ref of one document is its local number; up to
	// listMax it is an index into lists, above into bitmaps.
	postings []uint64
	lists    lists
	bitmaps  []*roaring.Bitmap
	// tenants has one copy of each name.
	tenants map[string]string
	// digests are the documents' digests in their order, as numbers of postings; rests is what a
	// segment stores of documents beside terms and numbers. Those of a document end at digestEnds
	// and restEnds.
	digests    []uint32
	digestEnds []uint32
	rests      []byte
	restEnds   []uint32
	rows       rowArena
	rooms      []groupRoom
	ids        strings.Builder // of the youngest documents

	scratch []byte
}

func newHead(base uint64) *head {
	return &head{base: base, newest: math.MinInt64, oldest: math.MaxInt64, groups: map[string]*termGroup{}, tenants: map[string]string{}}
}

// next is the head that follows a full one. It is made as large as that one became: growing step by step
// copies everything twice, and touches twice the memory.
func (h *head) next() *head {
	n := newHead(h.base + uint64(h.span))
	n.docs, n.times = make([]segment.Document, 0, len(h.docs)), make([]int64, 0, len(h.docs))
	n.postings = roomOf(h.postings)
	n.lists.cells = roomOf(h.lists.cells)
	n.digests, n.digestEnds = roomOf(h.digests), roomOf(h.digestEnds)
	n.rests, n.restEnds = roomOf(h.rests), roomOf(h.restEnds)
	n.rows.ends = roomOf(h.rows.ends)
	for name, g := range h.groups { // any order: each is found by its name
		if len(g.list) > roomMin {
			n.rooms = append(n.rooms, groupRoom{name, len(g.list), len(g.slots)})
		}
	}
	return n
}

// roomMin is how many terms a group must have had to get room before it needs it.
const roomMin = 1 << 10

// groupRoom is how large a group of the head before became.
type groupRoom struct {
	name         string
	terms, slots int
}

// roomOf is an empty slice that takes some more than s has.
func roomOf[T any](s []T) []T { return make([]T, 0, len(s)+len(s)/16) }

// add indexes documents, which follow those that are there, and keeps their rows. One without an id is the place
// of a document that was disposed of.
func (h *head) add(docs []Document, rows [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(docs) > 0 {
		n := slices.IndexFunc(docs, func(d Document) bool { return d.ID == "" })
		if n == 0 {
			h.skip()
			n = 1
		} else {
			if n < 0 {
				n = len(docs)
			}
			h.addRun(docs[:n], rows[:n])
		}
		docs, rows = docs[n:], rows[n:]
	}
}

// addRun goes field by field: the terms of one are in the same memory, and most of what it costs is waiting for
// memory.
func (h *head) addRun(docs []Document, rows [][]byte) {
	h.column(groupID, docs, func(d *Document) string { return d.ID })
	h.column(groupTenant, docs, func(d *Document) string { return d.Tenant })
	h.column(groupKind, docs, func(d *Document) string { return d.Kind })
	h.column(groupRegion, docs, func(d *Document) string { return d.Region })
	h.column(groupExecution, docs, func(d *Document) string { return d.Execution })
	h.column(groupTask, docs, func(d *Document) string { return d.Task })
	h.column(groupPack, docs, func(d *Document) string { return d.Pack })
	h.column(groupRule, docs, func(d *Document) string { return d.Rule })
	h.column(groupDecision, docs, func(d *Document) string { return d.Decision })
	h.column(groupRunner, docs, func(d *Document) string { return d.Runner })
	h.column(groupCurrency, docs, func(d *Document) string { return d.Currency })
	for i := range docs {
		d, local := &docs[i], uint16(len(h.docs)+i)
		h.reason(d.Reason, local)
		h.addDigests(d, local)
		for k := range d.Attributes {
			a := &d.Attributes[k]
			h.scratch = appendValue(h.scratch[:0], a.Value)
			h.term(h.attribute(a.Name), h.scratch, local)
		}
		h.rests = appendRest(h.rests, d)
		h.restEnds = append(h.restEnds, uint32(len(h.rests)))
	}
	for i := range docs {
		h.addOne(&docs[i], rows[i])
	}
}

func (h *head) addOne(d *Document, row []byte) {
	tenant, ok := h.tenants[d.Tenant]
	if !ok {
		tenant = strings.Clone(d.Tenant)
		h.tenants[tenant] = tenant
	}
	h.docs = append(h.docs, segment.Document{
		Time: d.Time, ID: h.keep(d.ID), Tenant: tenant, Stamped: d.TimeStamped, Duration: d.DurationMs,
		Cost: max(d.CostMicros, costMin), HasCost: d.Currency != "",
	})
	h.times = append(h.times, d.Time)
	h.counted()
	h.rows.add(row)
	h.newest, h.oldest = max(h.newest, d.Time), min(h.oldest, d.Time)
	if len(h.docs)%headStride == 0 {
		h.newestBy = append(h.newestBy, h.newest)
	}
}

// idsPiece is how much memory for ids is taken at once.
const idsPiece = 32 << 10

// keep copies an id into memory that many share: the collector would have to look at each.
func (h *head) keep(id string) string {
	if h.ids.Len()+len(id) > h.ids.Cap() {
		h.ids = strings.Builder{}
		h.ids.Grow(idsPiece)
	}
	start := h.ids.Len()
	h.ids.WriteString(id)
	return h.ids.String()[start:]
}

// column indexes a field of documents.
func (h *head) column(group string, docs []Document, of func(*Document) string) {
	g := h.byCode[group[0]]
	for i := range docs {
		value := of(&docs[i])
		if value == "" {
			continue
		}
		if g == nil {
			g = h.code(group) // a term follows, so that no group is empty
		}
		h.scratch = appendValue(h.scratch[:0], value)
		h.term(g, h.scratch, uint16(len(h.docs)+i))
	}
}

func (h *head) addDigests(d *Document, local uint16) {
	for i := range d.Digests {
		g := &d.Digests[i]
		h.scratch = appendDigestValue(h.scratch[:0], g.Algorithm, g.Value)
		if len(h.scratch) > valueBytesMax {
			h.scratch = appendValue(nil, string(h.scratch))
		}
		h.digests = append(h.digests, h.term(h.code(directionGroup(g.Direction)), h.scratch, local))
	}
	h.digestEnds = append(h.digestEnds, uint32(len(h.digests)))
}

func (h *head) reason(text string, local uint16) {
	for word, rest := nextWord(text); word != ""; word, rest = nextWord(rest) {
		if strings.ContainsFunc(word, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsUpper(r) }) {
			word = strings.ToLower(word)
		}
		h.scratch = appendValue(h.scratch[:0], word)
		h.term(h.code(groupReason), h.scratch, local)
	}
}

// code finds or makes a group; a term must follow, so that no group is empty.
func (h *head) code(name string) *termGroup {
	g := h.byCode[name[0]]
	if g == nil {
		g = h.group(name)
		h.byCode[name[0]] = g
	}
	return g
}

func (h *head) attribute(name string) *termGroup {
	// The key is built in place: a map lookup by converted bytes does not allocate.
	var buf [2 + MaxAttributeNameBytes]byte
	key := append(append(append(buf[:0], groupAttribute...), name...), 0)
	g := h.groups[string(key)]
	if g == nil {
		g = h.group(string(key))
	}
	return g
}

// group makes a group.
func (h *head) group(name string) *termGroup {
	g := &termGroup{name: name}
	for _, r := range h.rooms {
		if r.name == name {
			g.list, g.slots = make([]headTerm, 0, r.terms+r.terms/16), make([]uint64, r.slots)
		}
	}
	h.groups[name] = g
	return g
}

// term adds the document to the posting of a value, and returns its number.
func (h *head) term(g *termGroup, value []byte, local uint16) (n uint32) {
	hash := maphash.Bytes(headSeed, value)
	found, slot := g.probe(value, hash)
	if found == 0 {
		n = uint32(len(h.postings))
		g.insert(value, hash, slot, n)
		h.postings = append(h.postings, 1<<32|uint64(local))
		return n
	}
	n = g.list[found-1].posting
	p := h.postings[n]
	count, ref := int(p>>32), uint32(p)
	switch {
	case count == 1:
		if ref != uint32(local) {
			h.postings[n] = 2<<32 | uint64(h.lists.begin(uint16(ref), local))
		}
	case count <= listMax:
		list := h.lists.of(ref, count)
		if list[count-1] == local {
			break
		}
		if count < listMax {
			h.postings[n] = uint64(count+1)<<32 | uint64(h.lists.add(ref, count, local))
			break
		}
		bm := listBitmap(list)
		bm.Add(uint32(local))
		h.lists.drop(ref, count)
		h.postings[n] = uint64(count+1)<<32 | uint64(len(h.bitmaps))
		h.bitmaps = append(h.bitmaps, bm)
	default:
		if h.bitmaps[ref].CheckedAdd(uint32(local)) {
			h.postings[n] = p + 1<<32
		}
	}
	return n
}

func listBitmap(list []uint16) *roaring.Bitmap {
	wide := make([]uint32, len(list))
	for i, n := range list {
		wide[i] = uint32(n)
	}
	return roaring.BitmapOf(wide...)
}

// headPosting is the documents of one term of a head, valid while its lock is held.
type headPosting struct {
	h *head
	p uint64
}

func (p headPosting) Len() int { return int(p.p >> 32) }

// Bitmap returns the local numbers; the caller must not change it.
func (p headPosting) Bitmap() (*roaring.Bitmap, error) {
	ref := uint32(p.p)
	switch n := p.Len(); {
	case n == 0:
		return roaring.New(), nil
	case n == 1:
		return roaring.BitmapOf(ref), nil
	case n <= listMax:
		return listBitmap(p.h.lists.of(ref, n)), nil
	}
	return p.h.bitmaps[ref], nil
}
