package corpus

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Classes of queries, in the order of reports.
const (
	DigestHit   = "digest_hit"
	DigestMiss  = "digest_miss"
	Execution   = "execution"
	TaskInTime  = "task_in_time"
	TenantNew   = "tenant_newest_50"
	TenantDeny  = "tenant_and_deny_and_rule"
	RareRare    = "rare_and_rare"
	DenseDense  = "dense_and_dense_empty"
	Hour        = "hour_in_the_middle"
	Count       = "count_exact"
	Facet       = "facet_by_rule"
	Descendants = "descendants_5"
	Page200     = "page_200"
	Prefix      = "digest_prefix_8"
)

// Classes are all of them.
var Classes = []string{
	DigestHit, DigestMiss, Execution, TaskInTime, TenantNew, TenantDeny, RareRare, DenseDense, Hour, Count, Facet, Descendants, Page200, Prefix,
}

// PageItems is how many documents a page has, PageNumber the page that Page200 asks for, and
// WalkDepth how far Descendants go.
const (
	PageItems  = 50
	PageNumber = 200
	WalkDepth  = 5
)

// Field is what a term is about.
type Field int

// Fields of terms; a value is a number of Doc's, or, of OfPrefix, 32 bits of a digest.
const (
	OfTenant Field = iota
	OfKind
	OfDecision // 1 for deny
	OfRule
	OfPack
	OfRunner
	OfZone
	OfExecution
	OfTask
	OfDigest
	OfPrefix
)

// Term is one condition.
type Term struct {
	Field Field
	Value int
}

// Query is a conjunction of terms, newest first.
type Query struct {
	Class string
	Terms []Term
	// From and To are a range of time [From, To) in milliseconds since 1970; both or neither.
	From, To int64
	// Skip is how many documents come before the page, Limit how many it has.
	Skip, Limit int
	// Exact asks for an exact total.
	Exact bool
	// Start is the artifact that Descendants begin at.
	Start int
}

// Tenant is the name of the query's tenant; empty when it has none.
func (q *Query) Tenant() string {
	for _, t := range q.Terms {
		if t.Field == OfTenant {
			return tenantName(t.Value)
		}
	}
	return ""
}

// Condition is a term as field and value of an index.
type Condition struct {
	Field, Value string
	Prefix       bool
}

// Conditions are the query's terms by name, but its tenant.
func (q *Query) Conditions() []Condition {
	var out []Condition
	for _, t := range q.Terms {
		if t.Field != OfTenant {
			out = append(out, condition(t))
		}
	}
	return out
}

func condition(t Term) Condition {
	switch t.Field {
	case OfKind:
		return Condition{Field: "kind", Value: kinds[t.Value]}
	case OfDecision:
		return Condition{Field: "decision", Value: decisionName(t.Value == 1)}
	case OfRule:
		return Condition{Field: "rule", Value: ruleName(t.Value)}
	case OfPack:
		return Condition{Field: "pack", Value: packName(t.Value)}
	case OfRunner:
		return Condition{Field: "runner", Value: runnerName(t.Value)}
	case OfZone:
		return Condition{Field: "attr.zone", Value: zoneName(t.Value)}
	case OfExecution:
		return Condition{Field: "execution", Value: Hex(mix(t.Value, ofExecution))}
	case OfTask:
		return Condition{Field: "task", Value: Hex(mix(t.Value, ofTask))}
	case OfDigest:
		return Condition{Field: "digest", Value: Digest(t.Value)}
	case OfPrefix:
		return Condition{Field: "digest", Value: fmt.Sprintf("%08x", t.Value), Prefix: true}
	}
	return Condition{Field: "tenant", Value: tenantName(t.Value)}
}

// Text is the query in the language of searches, without its tenant and its range of time.
func (q *Query) Text() string {
	var out []string
	for _, c := range q.Conditions() {
		text := c.Field + ":" + c.Value
		if c.Prefix {
			text += "*"
		}
		out = append(out, text)
	}
	return strings.Join(out, " AND ")
}

// key tells queries apart.
func (q *Query) key() string {
	return fmt.Sprint(q.Terms, q.From, q.To, q.Skip, q.Limit, q.Class == Facet, q.Start)
}

// Draw draws queries of a class over the first n documents, by document, so that what is frequent
// is drawn often. The same seed draws the same.
func (c *Corpus) Draw(class string, n, count int, seed uint64) []*Query {
	d := drawer{c: c, n: n, class: class, rand: rand.New(rand.NewPCG(seed, uint64(len(class))))}
	if class == Page200 {
		d.deep = c.frequent(n, 2*PageNumber*PageItems) // so that a part of a region has that page too
	}
	out := make([]*Query, 0, count)
	for range count {
		out = append(out, d.draw())
	}
	return out
}

type drawer struct {
	c     *Corpus
	n     int
	class string
	rand  *rand.Rand
	deep  []Term
}

func (d *drawer) doc() Doc { return d.c.Doc(d.rand.IntN(d.n)) }

// of draws a document of a place in its execution.
func (d *drawer) of(place int) Doc {
	return d.c.Doc(d.rand.IntN((d.n+PerExecution-1-place)/PerExecution)*PerExecution + place)
}

func (d *drawer) query(terms ...Term) *Query {
	return &Query{Class: d.class, Terms: terms, Limit: PageItems, Start: None}
}

func (d *drawer) draw() *Query {
	switch d.class {
	case DigestHit:
		return d.query(Term{OfDigest, d.of(0).Output})
	case DigestMiss:
		return d.query(Term{OfDigest, Most + d.rand.IntN(Most)})
	case Execution:
		return d.query(Term{OfExecution, d.doc().Execution})
	case TaskInTime:
		doc := d.doc()
		q := d.query(Term{OfTask, doc.Task})
		q.From = doc.Time - int64(d.rand.IntN(int(20*time.Second/time.Millisecond)))
		q.To = q.From + int64(24*time.Hour/time.Millisecond)
		return q
	case TenantNew:
		return d.query(Term{OfTenant, d.doc().Tenant})
	case TenantDeny:
		doc := d.of(1)
		return d.query(Term{OfTenant, doc.Tenant}, Term{OfDecision, 1}, Term{OfRule, doc.Rule})
	case RareRare:
		doc, other := d.of(0), d.of(0)
		if d.rand.IntN(2) == 0 {
			other = doc
		}
		return d.query(Term{OfRunner, doc.Runner}, Term{OfPack, other.Pack})
	case DenseDense:
		return d.query(disjoint[d.rand.IntN(len(disjoint))]...)
	case Hour:
		q := d.query()
		q.From = begin + int64(time.Duration(d.n/4+d.rand.IntN(d.n/2+1))*Step/time.Millisecond)
		q.To = q.From + int64(time.Hour/time.Millisecond)
		return q
	case Count:
		return d.count()
	case Facet:
		doc := d.of(1)
		return d.query(Term{OfTenant, doc.Tenant}, Term{OfDecision, 1})
	case Descendants:
		q := d.query()
		q.Start = d.of(0).Output
		return q
	case Page200:
		q := d.query(d.deep[d.rand.IntN(len(d.deep))])
		q.Skip = (PageNumber - 1) * PageItems
		return q
	case Prefix:
		return d.query(Term{OfPrefix, prefixOf(d.of(0).Output)})
	}
	panic("no class " + d.class)
}

// disjoint are pairs of terms that a quarter to a half of all documents have, or half of the events
// and decisions, and that no document has together.
var disjoint = [][]Term{
	{{OfKind, Receipt}, {OfDecision, 0}},
	{{OfKind, Event}, {OfDecision, 0}},
	{{OfKind, Receipt}, {OfKind, Decision}},
	{{OfKind, Event}, {OfKind, Receipt}},
	{{OfZone, 0}, {OfZone, 1}},
	{{OfZone, 2}, {OfZone, 3}},
	{{OfKind, Receipt}, {OfZone, 0}},
	{{OfKind, Receipt}, {OfZone, 1}},
	{{OfKind, Receipt}, {OfZone, 2}},
	{{OfKind, Receipt}, {OfZone, 3}},
}

// count is an exact count of few, of many of a tenant, or of many.
func (d *drawer) count() *Query {
	doc := d.of(1)
	var q *Query
	switch d.rand.IntN(3) {
	case 0:
		q = d.query(Term{OfTenant, doc.Tenant}, Term{OfDecision, 1}, Term{OfRule, doc.Rule})
	case 1:
		q = d.query(Term{OfTenant, doc.Tenant}, Term{OfKind, Receipt})
	default:
		q = d.query(Term{OfDecision, 0}, Term{OfZone, doc.Zone})
	}
	q.Exact, q.Limit = true, 1
	return q
}

// deepTerms is how many searches Page200 is drawn from at most; each needs the pages before it once.
const deepTerms = 20

// frequent are terms with more than least documents of the first n, the largest tenants first.
func (c *Corpus) frequent(n, least int) []Term {
	counts := map[Term]int{}
	var tenants [Tenants]int
	for i := range n {
		d := c.Doc(i)
		tenants[d.Tenant]++
		counts[Term{OfKind, d.Kind}]++
		if d.Zone != None {
			counts[Term{OfZone, d.Zone}]++
		}
	}
	var out []Term
	for k := range kinds {
		out = append(out, Term{OfKind, k})
	}
	for z := range zones {
		out = append(out, Term{OfZone, z})
	}
	for t := range tenants {
		out, counts[Term{OfTenant, t}] = append(out, Term{OfTenant, t}), tenants[t]
	}
	kept := out[:0]
	for _, t := range out {
		if counts[t] > least && len(kept) < deepTerms {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 { // too few documents for page 200: everything is what there is
		kept = append(kept, Term{OfKind, Receipt})
	}
	return kept
}
