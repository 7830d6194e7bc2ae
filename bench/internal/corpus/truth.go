package corpus

import (
	"cmp"
	"slices"
)

// Answer is what a query must be answered with.
type Answer struct {
	// Total is how many documents match; of Descendants, how many receipts are followed.
	Total int
	// IDs are the documents of the page in order; of Descendants, the receipts by depth, then
	// newest first.
	IDs []uint64
	// Facet is how many of them have each rule.
	Facet map[string]int
	// Digests is how many digests Descendants reach beside the start.
	Digests int
}

// Truth holds the first n documents as an order: newest first, then by id.
type Truth struct {
	c *Corpus
	// keep says which documents count, such as those of some shards; nil for all.
	keep  func(d *Doc) bool
	n     int
	order []uint64 // time from the latest down, then number, in numberBits
	// first and consumers are a graph: the receipts that take artifact a are
	// consumers[first[a]:first[a+1]].
	first, consumers []uint32
}

const (
	numberBits = 26
	numberMask = 1<<numberBits - 1
	latest     = 1 << (63 - numberBits)
)

// NewTruth sorts the first n documents, but those that keep excludes, if it is not nil.
func (c *Corpus) NewTruth(n int, keep func(d *Doc) bool) *Truth {
	t := &Truth{c: c, keep: keep, n: n, order: make([]uint64, 0, n)}
	t.first = make([]uint32, 2*((n+PerExecution-1)/PerExecution)+2)
	for i := range n {
		d := c.Doc(i)
		if keep != nil && !keep(&d) {
			continue
		}
		t.order = append(t.order, uint64(latest-(d.Time-begin))<<numberBits|uint64(i))
		if d.Input != None {
			t.first[d.Input+1]++
		}
	}
	slices.Sort(t.order)
	t.sortTies()
	for a := 1; a < len(t.first); a++ {
		t.first[a] += t.first[a-1]
	}
	t.consumers = make([]uint32, t.first[len(t.first)-1])
	at := slices.Clone(t.first)
	for _, key := range t.order {
		if d := c.Doc(int(key & numberMask)); d.Input != None {
			t.consumers[at[d.Input]] = uint32(d.N)
			at[d.Input]++
		}
	}
	return t
}

// sortTies brings documents of the same millisecond into the order of their ids.
func (t *Truth) sortTies() {
	for from := 0; from < len(t.order); {
		to := from + 1
		for to < len(t.order) && t.order[to]>>numberBits == t.order[from]>>numberBits {
			to++
		}
		if to > from+1 {
			slices.SortFunc(t.order[from:to], func(a, b uint64) int {
				return cmp.Compare(ID(int(a&numberMask)), ID(int(b&numberMask)))
			})
		}
		from = to
	}
}

// pending is a query under way.
type pending struct {
	q *Query
	a *Answer
	// rest are the terms but the one by which the query is found.
	rest []Term
}

// finder has the queries that a document can match.
type finder struct {
	byValue map[Term][]*pending
	any     []*pending
}

// anchors are fields by which queries are found, the rarest first.
var anchors = []Field{OfDigest, OfPrefix, OfTask, OfExecution, OfRunner, OfTenant}

func (f *finder) add(p *pending) {
	for _, field := range anchors {
		for i, t := range p.q.Terms {
			if t.Field == field {
				p.rest = slices.Concat(p.q.Terms[:i], p.q.Terms[i+1:])
				f.byValue[t] = append(f.byValue[t], p)
				return
			}
		}
	}
	p.rest = p.q.Terms
	f.any = append(f.any, p)
}

// Answers answers queries by looking at every document.
func (t *Truth) Answers(queries []*Query) []*Answer {
	out := make([]*Answer, len(queries))
	same := map[string]*Answer{}
	f := &finder{byValue: map[Term][]*pending{}}
	for i, q := range queries {
		key := q.key()
		if a, ok := same[key]; ok {
			out[i] = a
			continue
		}
		a := &Answer{}
		out[i], same[key] = a, a
		switch {
		case q.Start != None:
			*a = t.descendants(q.Start)
		case len(q.Terms) == 0:
			*a = t.between(q)
		default:
			f.add(&pending{q: q, a: a})
		}
	}
	for _, key := range t.order {
		d := t.c.Doc(int(key & numberMask))
		f.look(&d)
	}
	return out
}

func (f *finder) look(d *Doc) {
	digests := [...]int{d.Input, d.Output, d.Subject}
	for i, g := range digests {
		if g == None {
			continue
		}
		f.these(Term{OfDigest, g}, d)
		if p := prefixOf(g); !slices.ContainsFunc(digests[:i], func(o int) bool { return o != None && prefixOf(o) == p }) {
			f.these(Term{OfPrefix, p}, d)
		}
	}
	f.these(Term{OfTask, d.Task}, d)
	f.these(Term{OfExecution, d.Execution}, d)
	f.these(Term{OfRunner, d.Runner}, d)
	f.these(Term{OfTenant, d.Tenant}, d)
	for _, p := range f.any {
		p.look(d)
	}
}

func (f *finder) these(t Term, d *Doc) {
	for _, p := range f.byValue[t] {
		p.look(d)
	}
}

func (p *pending) look(d *Doc) {
	if p.q.To != 0 && (d.Time < p.q.From || d.Time >= p.q.To) {
		return
	}
	for _, t := range p.rest {
		if !d.has(t) {
			return
		}
	}
	if p.a.Total >= p.q.Skip && len(p.a.IDs) < p.q.Limit {
		p.a.IDs = append(p.a.IDs, ID(d.N))
	}
	p.a.Total++
	if p.q.Class == Facet && d.Rule != None {
		if p.a.Facet == nil {
			p.a.Facet = map[string]int{}
		}
		p.a.Facet[ruleName(d.Rule)]++
	}
}

func (d *Doc) has(t Term) bool {
	switch t.Field {
	case OfTenant:
		return d.Tenant == t.Value
	case OfKind:
		return d.Kind == t.Value
	case OfDecision:
		return d.Rule != None && d.Deny == (t.Value == 1)
	case OfRule:
		return d.Rule == t.Value
	case OfPack:
		return d.Pack == t.Value
	case OfRunner:
		return d.Runner == t.Value
	case OfZone:
		return d.Zone == t.Value
	case OfExecution:
		return d.Execution == t.Value
	case OfTask:
		return d.Task == t.Value
	case OfDigest:
		return d.Input == t.Value || d.Output == t.Value || d.Subject == t.Value
	}
	return slices.ContainsFunc([]int{d.Input, d.Output, d.Subject}, func(g int) bool { return g != None && prefixOf(g) == t.Value })
}

// between answers a range of time, which is a part of the order.
func (t *Truth) between(q *Query) Answer {
	place := func(time int64) int {
		at, _ := slices.BinarySearch(t.order, uint64(latest-(time-1-begin))<<numberBits)
		return at
	}
	hits := t.order[place(q.To):place(q.From)]
	a := Answer{Total: len(hits)}
	for _, key := range hits[min(q.Skip, len(hits)):min(q.Skip+q.Limit, len(hits))] {
		a.IDs = append(a.IDs, ID(int(key&numberMask)))
	}
	return a
}

// descendants is what was made with an artifact, breadth first through receipts.
func (t *Truth) descendants(start int) Answer {
	var a Answer
	known, followed := map[int]bool{start: true}, map[int]bool{}
	level := []int{start}
	for range WalkDepth {
		var receipts []Doc
		for _, g := range level {
			if g+1 >= len(t.first) {
				continue
			}
			for _, n := range t.consumers[t.first[g]:t.first[g+1]] {
				if !followed[int(n)] {
					followed[int(n)] = true
					receipts = append(receipts, t.c.Doc(int(n)))
				}
			}
		}
		slices.SortFunc(receipts, func(a, b Doc) int {
			return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(ID(a.N), ID(b.N)))
		})
		level = level[:0]
		for _, d := range receipts {
			a.IDs = append(a.IDs, ID(d.N))
			if d.Output != None && !known[d.Output] {
				known[d.Output] = true
				level = append(level, d.Output)
			}
		}
	}
	a.Total, a.Digests = len(a.IDs), len(known)-1
	return a
}
