package index

import (
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"unicode"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// headDocumentsMax is how many documents a head takes before it is frozen and sealed.
const headDocumentsMax = 1 << 16

// listMax is how many documents a posting lists before it becomes a bitmap.
const listMax = 128

// head is the index of the youngest documents, in memory. One goroutine adds to it; readers
// hold mu. A frozen head changes no more.
type head struct {
	base uint64 // from which numbers count

	mu   sync.RWMutex
	docs []segment.Document
	// numbers are the documents', from base on; nil when there is no gap. span is how many numbers
	// there are, gaps included.
	numbers []uint32
	span    uint32
	newest  int64
	oldest  int64
	groups  map[string]*termGroup
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

	scratch []byte
}

func newHead(base uint64) *head {
	return &head{base: base, newest: math.MinInt64, oldest: math.MaxInt64, groups: map[string]*termGroup{}, tenants: map[string]string{}}
}

// add indexes documents, which follow those that are there.
func (h *head) add(docs []Document) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range docs {
		h.addOne(&docs[i])
	}
}

func (h *head) addOne(d *Document) {
	if d.ID == "" {
		h.skip()
		return
	}
	local := uint16(len(h.docs))
	h.text(groupID, d.ID, local)
	tenant, ok := h.tenants[d.Tenant]
	if !ok {
		tenant = strings.Clone(d.Tenant)
		h.tenants[tenant] = tenant
	}
	h.text(groupTenant, d.Tenant, local)
	h.text(groupKind, d.Kind, local)
	h.text(groupRegion, d.Region, local)
	h.text(groupExecution, d.Execution, local)
	h.text(groupTask, d.Task, local)
	h.text(groupPack, d.Pack, local)
	h.text(groupRule, d.Rule, local)
	h.text(groupDecision, d.Decision, local)
	h.text(groupRunner, d.Runner, local)
	h.text(groupCurrency, d.Currency, local)
	h.reason(d.Reason, local)
	for i := range d.Digests {
		g := &d.Digests[i]
		h.scratch = appendDigestValue(h.scratch[:0], g.Algorithm, g.Value)
		if len(h.scratch) > valueBytesMax {
			h.scratch = appendValue(nil, string(h.scratch))
		}
		n, _ := h.term(h.code(directionGroup(g.Direction)), local)
		h.digests = append(h.digests, n)
	}
	h.digestEnds = append(h.digestEnds, uint32(len(h.digests)))
	h.rests = appendRest(h.rests, d)
	h.restEnds = append(h.restEnds, uint32(len(h.rests)))
	for i := range d.Attributes {
		a := &d.Attributes[i]
		h.scratch = appendValue(h.scratch[:0], a.Value)
		h.term(h.attribute(a.Name), local)
	}
	h.docs = append(h.docs, segment.Document{
		Time: d.Time, ID: strings.Clone(d.ID), Tenant: tenant, Stamped: d.TimeStamped, Duration: d.DurationMs,
		Cost: max(d.CostMicros, costMin), HasCost: d.Currency != "",
	})
	h.counted()
	h.scratch = AppendDocument(h.scratch[:0], d)
	h.rows.add(h.scratch)
	h.newest, h.oldest = max(h.newest, d.Time), min(h.oldest, d.Time)
}

// text indexes a field's value unless it is empty.
func (h *head) text(group, value string, local uint16) {
	if value == "" {
		return
	}
	h.scratch = appendValue(h.scratch[:0], value)
	h.term(h.code(group), local)
}

func (h *head) reason(text string, local uint16) {
	for word, rest := nextWord(text); word != ""; word, rest = nextWord(rest) {
		if strings.ContainsFunc(word, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsUpper(r) }) {
			word = strings.ToLower(word)
		}
		h.scratch = appendValue(h.scratch[:0], word)
		h.term(h.code(groupReason), local)
	}
}

// code finds or makes a group; a term must follow, so that no group is empty.
func (h *head) code(name string) *termGroup {
	g := h.byCode[name[0]]
	if g == nil {
		g = &termGroup{name: name}
		h.byCode[name[0]], h.groups[name] = g, g
	}
	return g
}

func (h *head) attribute(name string) *termGroup {
	// The key is built in place: a map lookup by converted bytes does not allocate.
	var buf [2 + MaxAttributeNameBytes]byte
	key := append(append(append(buf[:0], groupAttribute...), name...), 0)
	g := h.groups[string(key)]
	if g == nil {
		g = &termGroup{name: string(key)}
		h.groups[g.name] = g
	}
	return g
}

// term adds the document to the posting of the value in scratch. It returns the posting's
// number, and whether the value is new.
func (h *head) term(g *termGroup, local uint16) (n uint32, fresh bool) {
	hash := maphash.Bytes(headSeed, h.scratch)
	found, slot := g.probe(h.scratch, hash)
	if found == 0 {
		n = uint32(len(h.postings))
		g.insert(h.scratch, hash, slot, n)
		h.postings = append(h.postings, 1<<32|uint64(local))
		return n, true
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
	return n, false
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
