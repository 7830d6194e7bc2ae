package index

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/query"
)

// Small worlds: few values, so that documents collide in every way.
var (
	genTenant = rapid.SampledFrom([]string{"acme", "beta"})
	genValue  = rapid.SampledFrom([]string{"", "a", "ab", "abc", "b", "Ab"})
	genReason = rapid.SampledFrom([]string{"", "quota exceeded", "Quota of acme: limit_exceeded.", "disk full", "a b", "???"})
	genTime   = rapid.OneOf(rapid.Int64Range(1, 5), rapid.Int64Range(1, 1000))
	genByte   = rapid.SampledFrom([]byte{0x00, 0x10, 0x11, 0xA0})
)

func genDocument(rt *rapid.T, n int) Document {
	d := Document{
		ID:        fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"x", "y", "ab"}).Draw(rt, "id"), rapid.IntRange(0, 2*n+10).Draw(rt, "n")),
		Kind:      rapid.SampledFrom([]string{KindReceipt, KindEvent, KindDecision}).Draw(rt, "kind"),
		Tenant:    genTenant.Draw(rt, "tenant"),
		Time:      genTime.Draw(rt, "time"),
		Execution: genValue.Draw(rt, "execution"),
		Task:      genValue.Draw(rt, "task"),
		Reason:    genReason.Draw(rt, "reason"),
		Pack:      genValue.Draw(rt, "pack"),
		Rule:      rapid.SampledFrom([]string{"", "r", "s", strings.Repeat("long ", 60) + "1", strings.Repeat("long ", 60) + "2"}).Draw(rt, "rule"),
		Runner:    genValue.Draw(rt, "runner"),
	}
	for range rapid.IntRange(0, 3).Draw(rt, "digests") {
		d.Digests = append(d.Digests, sha(genByte.Draw(rt, "digest"), rapid.SampledFrom([]string{DirectionInput, DirectionOutput, DirectionSubject}).Draw(rt, "direction")))
	}
	if rapid.Bool().Draw(rt, "has cost") {
		d.CostMicros, d.Currency = rapid.Int64Range(-2, 5).Draw(rt, "cost")*500_000, "USD"
	}
	if rapid.Bool().Draw(rt, "has attribute") {
		d.Attributes = []Attribute{{Name: "k:1", Value: genValue.Draw(rt, "attribute")}}
	}
	return d
}

func genNode(rt *rapid.T, depth int) query.Node {
	kind := rapid.IntRange(0, 8).Draw(rt, "node")
	if depth == 0 {
		kind = min(kind, 4)
	}
	prefix := rapid.Bool().Draw(rt, "prefix")
	switch kind {
	case 0:
		return &query.TimeRange{From: genTime.Draw(rt, "from"), To: 1 + 1000 + genTime.Draw(rt, "to")}
	case 1:
		least := rapid.Int64Range(-2, 5).Draw(rt, "least") * 500_000
		return &query.CostRange{Min: least, Max: least + rapid.Int64Range(0, 3).Draw(rt, "more")*500_000}
	case 2:
		return &query.Word{Value: rapid.SampledFrom([]string{"x1", "ab", "quota", "Exceeded", "full disk", "limit_exceeded", sha(0x10, "").Value, "sha256:" + sha(0xA0, "").Value, "1", "10"}).Draw(rt, "word"), Prefix: prefix}
	case 3:
		return &query.Term{Field: rapid.SampledFrom([]query.Field{query.Digest, query.Input, query.Output, query.Subject}).Draw(rt, "field"), Value: "sha256:" + sha(genByte.Draw(rt, "digest"), "").Value, Prefix: prefix}
	case 4:
		field := rapid.SampledFrom([]query.Field{query.ID, query.Kind, query.Tenant, query.Execution, query.Task, query.Reason, query.Attr}).Draw(rt, "field")
		t := &query.Term{Field: field, Value: rapid.SampledFrom([]string{"a", "ab", "Ab", "x1", "receipt", "acme", "quota", "b"}).Draw(rt, "value"), Prefix: prefix}
		if field == query.Attr {
			t.Name = "k:1"
		}
		return t
	case 5:
		return &query.Not{Node: genNode(rt, depth-1)}
	case 6:
		return &query.Or{Nodes: genNodes(rt, depth)}
	}
	return &query.And{Nodes: genNodes(rt, depth)}
}

func genNodes(rt *rapid.T, depth int) []query.Node {
	nodes := make([]query.Node, rapid.IntRange(2, 3).Draw(rt, "operands"))
	for i := range nodes {
		nodes[i] = genNode(rt, depth-1)
	}
	return nodes
}

// Whatever is stored, sealed, frozen or restarted, a search answers as a look at every
// document does, in its order, page by page, undisturbed by what is stored meanwhile.
func TestSearchAgreesWithBruteForce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, rapid.IntRange(1, 3).Draw(rt, "shards"), 8)
		stored := map[string]Document{}
		var all oracle
		store := func(count int) {
			for range count {
				d := genDocument(rt, count)
				if err := Normalize(&d); err != nil {
					rt.Fatal(err)
				}
				key := d.Tenant + "/" + d.ID
				old, taken := stored[key]
				res := r.ingest(d)
				switch {
				case !taken && res.Indexed == 1:
					stored[key] = d
					all = append(all, d)
				case taken && reflect.DeepEqual(old, d) && res.Existing == 1:
				case taken && !reflect.DeepEqual(old, d) && len(res.Refusals) == 1 && res.Refusals[0].Reason == ReasonConflict:
				default:
					rt.Fatalf("document %s, taken %v: %+v", key, taken, res)
				}
			}
		}
		store(rapid.IntRange(0, 60).Draw(rt, "documents"))
		for range rapid.IntRange(1, 6).Draw(rt, "searches") {
			switch rapid.IntRange(0, 3).Draw(rt, "before") {
			case 0:
				r.restart(rapid.IntRange(0, len(r.shards)-1).Draw(rt, "restart"))
			case 1:
				r.machine(rapid.IntRange(0, len(r.shards)-1).Draw(rt, "settle")).settle(t)
			}
			n := genNode(rt, 3)
			tenant := rapid.SampledFrom([]string{"", "acme", "beta"}).Draw(rt, "of tenant")
			order := Order(rapid.IntRange(0, len(OrderNames)-1).Draw(rt, "order"))
			want := inOrder(all.search(n, tenant), order)
			between := func() { store(rapid.IntRange(0, 3).Draw(rt, "meanwhile")) }
			got, first := r.pages(SearchRequest{Query: n.String(), Tenant: tenant, Order: order, Limit: rapid.IntRange(1, 12).Draw(rt, "limit"), Explain: rapid.Bool().Draw(rt, "explain")}, between)
			if !slices.EqualFunc(got, want, func(a, b Document) bool { return reflect.DeepEqual(a, b) }) {
				rt.Fatalf("%s of %q by %s:\n got %v\nwant %v", n, tenant, OrderNames[order], idsOf(got), idsOf(want))
			}
			if first.Total != len(want) || !first.TotalExact || !first.Complete {
				rt.Fatalf("%s: total %d exact %v complete %v, want %d", n, first.Total, first.TotalExact, first.Complete, len(want))
			}
		}
	})
}

// A search that follows finds every document once, whenever it is stored and whatever happens
// to shards: each round has what was stored between the first pages of two rounds, in order.
func TestFollowFindsEveryDocumentOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, rapid.IntRange(1, 3).Draw(rt, "shards"), 8)
		var stored, before oracle // all, and those that were there at the round's first page
		next := 0
		store := func(most int) {
			for range rapid.IntRange(0, most).Draw(rt, "documents") {
				d := genDocument(rt, 10)
				d.ID = fmt.Sprint(next)
				next++
				if d = normal(t, d); r.ingest(d).Indexed != 1 {
					rt.Fatalf("document %s is not stored", d.ID)
				}
				stored = append(stored, d)
			}
		}
		n := genNode(rt, 2)
		tenant := rapid.SampledFrom([]string{"", "acme"}).Draw(rt, "of tenant")
		req := SearchRequest{Query: n.String(), Tenant: tenant, Limit: rapid.IntRange(1, 5).Draw(rt, "limit"), Follow: true, Order: Order(rapid.IntRange(0, len(OrderNames)-1).Draw(rt, "order"))}
		store(40)
		for round := range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			want := inOrder(stored[len(before):].search(n, tenant), req.Order)
			before = slices.Clone(stored)
			var got []Document
			for last := false; !last; {
				res := r.search(req)
				if res.Next == "" || res.Total != len(want) || !res.TotalExact || !res.Complete {
					rt.Fatalf("round %d of %s: next %q, total %d of %d, exact %v, complete %v", round, n, res.Next, res.Total, len(want), res.TotalExact, res.Complete)
				}
				got = append(got, res.Items...)
				if last = res.Last; last != (len(got) >= len(want)) {
					rt.Fatalf("round %d of %s: last is %v after %d of %d", round, n, last, len(got), len(want))
				}
				req.Cursor = res.Next
				if !last {
					store(3)
				}
				switch shard := rapid.IntRange(0, len(r.shards)-1).Draw(rt, "shard"); rapid.IntRange(0, 3).Draw(rt, "then") {
				case 0:
					r.restart(shard)
				case 1:
					r.machine(shard).settle(t)
				}
			}
			if !slices.EqualFunc(got, want, func(a, b Document) bool { return reflect.DeepEqual(a, b) }) {
				rt.Fatalf("round %d of %s:\n got %v\nwant %v", round, n, idsOf(got), idsOf(want))
			}
			store(30)
		}
	})
}

// AND and OR do not depend on the order of their operands, and NOT is a complement.
func TestSearchAlgebra(t *testing.T) {
	r := newRegion(t, 2, 8)
	gen := rapid.Custom(func(rt *rapid.T) []Document {
		docs := make([]Document, 50)
		for i := range docs {
			docs[i] = genDocument(rt, 100)
			docs[i].ID = fmt.Sprint(i)
		}
		return docs
	})
	docs := gen.Example(1)
	for i := range docs {
		docs[i] = normal(t, docs[i])
	}
	r.ingest(docs...)
	everything := r.ids("")
	rapid.Check(t, func(rt *rapid.T) {
		a, b := genNode(rt, 2), genNode(rt, 2)
		and := func(x, y query.Node) []string { return r.ids((&query.And{Nodes: []query.Node{x, y}}).String()) }
		or := func(x, y query.Node) []string { return r.ids((&query.Or{Nodes: []query.Node{x, y}}).String()) }
		if !slices.Equal(and(a, b), and(b, a)) || !slices.Equal(or(a, b), or(b, a)) {
			rt.Fatalf("%s and %s do not commute", a, b)
		}
		not := &query.Not{Node: a}
		if len(and(a, not)) != 0 || !slices.Equal(or(a, not), everything) {
			rt.Fatalf("%s is not the complement of %s", not, a)
		}
	})
}
