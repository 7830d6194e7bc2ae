package index

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/index/query"
)

const (
	// PageMax is how many documents a page holds at most.
	PageMax = 1000
	// TotalMax is where counting stops unless an exact total is asked for.
	TotalMax = 10_000
	// PrefixTermsMax bounds how many terms of a shard one prefix may stand for.
	PrefixTermsMax = 1000
	// answerBytesMax bounds the documents of one shard's answer; a page that would be
	// larger is cut short.
	answerBytesMax = 4 << 20
)

// openEnd is the end of a range of time without end.
const openEnd = math.MaxInt64

// shardSearch is one search over one shard.
type shardSearch struct {
	sources  []source
	prefixes []map[*plan][]string // by source
	plan     *plan
	query    *shardQuery
	window   window

	total  uint64
	merged mergeHeap
	parts  []matched // when the query aggregates
	seen   *observer // when it is to be explained
}

// run answers the query. An error in the query itself is part of the answer.
func (s *shardSearch) run(ctx context.Context) (shardAnswer, error) {
	end := s.seen.stage(stagePrefixes)
	bad, err := s.expand(ctx)
	if end(); err != nil || bad != nil {
		return shardAnswer{mistake: bad}, err
	}
	order := make([]int, len(s.sources))
	most, least := make([]int64, len(order)), make([]int64, len(order)) // keys of the order
	for i, src := range s.sources {
		order[i] = i
		most[i], least[i] = s.query.order.bounds(src)
	}
	sort.SliceStable(order, func(a, b int) bool { return most[order[a]] > most[order[b]] })
	s.merged.order = s.query.order
	answer := shardAnswer{bound: s.window.bound}
	size := 0
	for !answer.more {
		// A source can wait as long as all it has comes behind what is at hand.
		for len(order) > 0 && (len(s.merged.hits) == 0 || most[order[0]] >= s.merged.hits[0].key) {
			if err := s.open(ctx, order[0], least[order[0]]); err != nil {
				return answer, err
			}
			order = order[1:]
		}
		if len(s.merged.hits) == 0 {
			break
		}
		if len(answer.rows) == s.query.limit {
			answer.more = true
			break
		}
		h := s.merged.hits[0]
		row, err := h.run.row(h.local)
		if err != nil {
			return answer, err
		}
		if size += len(row); size > answerBytesMax && len(answer.rows) > 0 {
			answer.more = true
			break
		}
		answer.rows = append(answer.rows, row)
		if err := s.advance(h); err != nil {
			return answer, err
		}
	}
	for len(order) > 0 && !s.counted() && s.query.links == nil {
		if err := s.open(ctx, order[0], least[order[0]]); err != nil {
			return answer, err
		}
		order = order[1:]
	}
	if s.query.aggregates() {
		end := s.seen.stage(stageCount)
		err := s.aggregate(ctx, &answer)
		if end(); err != nil {
			return answer, err
		}
	}
	answer.total, answer.capped = s.total, s.counted()
	if answer.capped {
		answer.total = TotalMax
	}
	answer.explain = s.seen.result(s.sources, answer.bound)
	return answer, nil
}

// counted tells that the total is above what anyone asked for.
func (s *shardSearch) counted() bool {
	return !s.query.exact && !s.query.aggregates() && s.total > TotalMax
}

// open evaluates a source, adds to the total and queues its first hit.
func (s *shardSearch) open(ctx context.Context, n int, least int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	src := s.sources[n]
	if src.base() >= s.window.bound {
		return nil
	}
	past := s.window.after != nil && least > s.query.order.key(s.window.after.document())
	if past && s.counted() {
		return nil
	}
	end := s.seen.stage(stageMatch)
	documents, r, err := src.search(s.plan, s.prefixes[n], s.window)
	if end(); err != nil {
		return err
	}
	s.total += documents.GetCardinality()
	s.seen.opened(n, documents.GetCardinality())
	if s.query.aggregates() && !documents.IsEmpty() {
		s.parts = append(s.parts, matched{source: src, documents: documents, cached: s.cacheKey(src)})
	}
	if past {
		return nil
	}
	h := &hit{run: r}
	if ok, err := h.step(s.query.order); err != nil {
		return err
	} else if ok {
		heap.Push(&s.merged, h)
	}
	return s.merged.err
}

// cacheKey names the query where a source has the same for it at any time.
func (s *shardSearch) cacheKey(src source) string {
	sealed, ok := src.(segmentSource)
	if !ok || s.window.since > src.base() || s.window.bound < src.base()+sealed.width {
		return ""
	}
	return s.query.named()
}

// advance replaces the hit on top of the heap by the next one of its source.
func (s *shardSearch) advance(h *hit) error {
	if ok, err := h.step(s.query.order); err != nil {
		return err
	} else if ok {
		heap.Fix(&s.merged, 0)
	} else {
		heap.Pop(&s.merged)
	}
	return s.merged.err
}

// expand finds the terms that each prefix stands for.
func (s *shardSearch) expand(ctx context.Context) (*QueryError, error) {
	s.prefixes = make([]map[*plan][]string, len(s.sources))
	var bad *QueryError
	var walk func(p *plan) error
	walk = func(p *plan) error {
		for _, k := range p.kids {
			if err := walk(k); err != nil {
				return err
			}
		}
		if p.op != planPrefix || bad != nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		bad, err = s.expandOne(p)
		return err
	}
	err := walk(s.plan)
	return bad, err
}

func (s *shardSearch) expandOne(p *plan) (*QueryError, error) {
	for i, src := range s.sources {
		var found []string
		err := src.expand(p.term, s.query.conditions.tenant, func(v string) bool {
			if !strings.HasSuffix(v, p.suffix) {
				return true
			}
			found = append(found, v)
			p.pre.expanded[p.term.group+v] = struct{}{}
			return len(p.pre.expanded) <= PrefixTermsMax
		})
		if err != nil {
			return nil, err
		}
		if len(p.pre.expanded) > PrefixTermsMax {
			return &QueryError{
				Position:   p.pre.position,
				Message:    fmt.Sprintf("%s stands for more than %d terms", p.pre.text, PrefixTermsMax),
				Suggestion: "write more of the value before the *",
			}, nil
		}
		if len(found) > 0 {
			if s.prefixes[i] == nil {
				s.prefixes[i] = map[*plan][]string{}
			}
			s.prefixes[i][p] = found
		}
	}
	return nil, nil
}

// hit is the document at which one source's run stands.
type hit struct {
	run   *run
	local uint32
	key   int64 // of the order
	// document has time and cost; id and tenant are read when they are needed.
	document segment.Document
	known    bool
}

// step moves to the next document of the run.
func (h *hit) step(o Order) (ok bool, err error) {
	if h.local, ok = h.run.next(); !ok {
		return false, nil
	}
	h.known = false
	h.document, err = h.run.place(h.local)
	h.key = o.key(&h.document)
	return true, err
}

func (h *hit) identify() (err error) {
	if !h.known {
		h.document.ID, h.document.Tenant, err = h.run.identify(h.local)
		h.known = err == nil
	}
	return err
}

// mergeHeap has the hit on top that comes first in the order of answers. Documents with the
// same key are told apart by reading them.
type mergeHeap struct {
	order Order
	hits  []*hit
	err   error
}

func (m *mergeHeap) Len() int { return len(m.hits) }
func (m *mergeHeap) Less(i, j int) bool {
	a, b := m.hits[i], m.hits[j]
	if a.key != b.key || m.err != nil {
		return a.key > b.key
	}
	for _, h := range []*hit{a, b} {
		if m.err = h.identify(); m.err != nil {
			return false
		}
	}
	return m.order.compare(&a.document, &b.document) < 0
}
func (m *mergeHeap) Swap(i, j int) { m.hits[i], m.hits[j] = m.hits[j], m.hits[i] }
func (m *mergeHeap) Push(x any)    { m.hits = append(m.hits, x.(*hit)) }
func (m *mergeHeap) Pop() any {
	last := len(m.hits) - 1
	h := m.hits[last]
	m.hits = m.hits[:last]
	return h
}

// parseShardQuery compiles what a shard is asked for.
func parseShardQuery(q *shardQuery) (*plan, error) {
	n, err := query.Parse(q.text)
	if err != nil {
		return nil, err
	}
	p, err := compile(n, q.conditions)
	if err != nil || q.links == nil {
		return p, err
	}
	return linksPlan(q.direction, q.links, p), nil
}
