package index

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/index/query"
)

func parse(t testing.TB, text string) query.Node {
	t.Helper()
	n, err := query.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func andNode(n query.Node, from, to int64) query.Node {
	return &query.And{Nodes: []query.Node{n, &query.TimeRange{From: from, To: to}}}
}

var bound = uint64(77)

var (
	fullQuery = &shardQuery{
		conditions: conditions{tenant: "acme", pack: "p", digest: "sha256:00", from: 5, to: -6},
		text:       "a OR b", limit: 1000, exact: true, bound: &bound,
		after: &position{time: 9, id: "x", tenant: "acme"}, since: 70,
	}
	linksQuery = &shardQuery{
		conditions: conditions{tenant: "acme"}, text: "kind:receipt", limit: LineageDocumentsMax + 1, bound: &bound,
		after: &position{time: 9, id: "x", tenant: "acme"}, direction: LineageUp, links: []string{"00ff:sha256", "01:md5"},
	}
	lookupQuery = &shardQuery{
		conditions: conditions{tenant: "acme"}, limit: 1,
		extension: extension{lookup: [][]string{{"00ff:sha256", "00ff:blake3"}, {"01:md5"}}, perDigest: 3},
	}
	lookupAnswer = &shardAnswer{bound: 9, lookup: []lookupFound{{count: 3, rows: [][]byte{[]byte("one")}}, {}}}
	facetQuery   = &shardQuery{limit: 1, extension: extension{facets: []string{"rule", "reason"}, histogram: HistogramAuto}}
	costQuery    = &shardQuery{limit: 3, after: &position{time: 9, id: "x", cost: noCost}, extension: extension{order: OrderCost}}
	oldestQuery  = &shardQuery{limit: 3, after: &position{time: 9, id: "x"}, extension: extension{order: OrderOldest}}
	facetAnswer  = &shardAnswer{bound: 9, total: 7, aggregated: aggregated{
		facets: []facetCounts{{values: []valueCount{{"a", 5}, {"b", 1}}, missing: 3, other: 4}, {}}, interval: 1e9, buckets: []Bucket{{0, 3}, {7e9, 4}},
	}}
	explainAnswer = &shardAnswer{bound: 9, explain: &ShardExplain{Documents: 9, Heads: 1, Visited: 2, BlocksRead: 3, Match: 4}}
	fullAnswer    = &shardAnswer{bound: 9, total: 7, capped: true, more: true, rows: [][]byte{[]byte("one"), []byte("two")}}
)

func TestWireRoundTrip(t *testing.T) {
	for _, q := range []*shardQuery{fullQuery, {limit: 1}, linksQuery, lookupQuery, facetQuery, costQuery, oldestQuery, {limit: 1, extension: extension{explain: true}}, {limit: 1, direction: LineageDown, links: []string{}}} {
		if got, err := decodeShardQuery(q.encode()); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("query %+v became %+v, %v", q, got, err)
		}
	}
	for _, a := range []*shardAnswer{fullAnswer, lookupAnswer, facetAnswer, explainAnswer, {refusal: "no"}, {}, {behind: true}, {mistake: &QueryError{Position: 3, Message: "m", Suggestion: "s"}}} {
		if got, err := decodeShardAnswer(a.encode()); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("answer %+v became %+v, %v", a, got, err)
		}
	}
}

func TestWireNamesAnotherVersion(t *testing.T) {
	b := fullQuery.encode()
	b[0] = 9
	if _, err := decodeShardQuery(b); !errors.Is(err, errWire) || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("error %v", err)
	}
}

func FuzzShardQuery(f *testing.F) {
	f.Add(fullQuery.encode())
	f.Add((&shardQuery{limit: 1}).encode())
	f.Add(linksQuery.encode())
	f.Add(lookupQuery.encode())
	f.Add(facetQuery.encode())
	f.Add(costQuery.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeShardQuery(b)
		if err != nil {
			return
		}
		if back, err := decodeShardQuery(q.encode()); err != nil || !reflect.DeepEqual(back, q) {
			t.Fatalf("%+v became %+v, %v", q, back, err)
		}
	})
}

func FuzzShardAnswer(f *testing.F) {
	f.Add(fullAnswer.encode())
	f.Add(lookupAnswer.encode())
	f.Add(facetAnswer.encode())
	f.Add(explainAnswer.encode())
	f.Add((&shardAnswer{mistake: &QueryError{Message: "m"}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeShardAnswer(b)
		if err != nil {
			return
		}
		if back, err := decodeShardAnswer(a.encode()); err != nil || !reflect.DeepEqual(back, a) {
			t.Fatalf("%+v became %+v, %v", a, back, err)
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add(command(Document{ID: "a"}), 1)
	f.Add(encodeResult([]outcome{outcomeIndexed, outcomeIndexed, outcomeConflict}), 3)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		if docs, err := decodeCommand(b); err == nil {
			back := commandHeader()
			for _, d := range docs {
				back = appendCommandDocument(back, d)
			}
			if again, err := decodeCommand(back); err != nil || !reflect.DeepEqual(again, docs) {
				t.Fatalf("%q became %q, %v", docs, again, err)
			}
		}
		if o, err := decodeResult(b, min(max(count, 0), 1<<16)); err == nil {
			if again, err := decodeResult(encodeResult(o), len(o)); err != nil || !reflect.DeepEqual(again, o) {
				t.Fatalf("%v became %v, %v", o, again, err)
			}
		}
	})
}

// A cursor continues the search that made it, and nothing else.
func TestCursor(t *testing.T) {
	shards := []Shard{{Name: "index-0"}, {Name: "index-1"}}
	search := func(text string, c conditions) []byte { return fingerprint(parse(t, text), c, OrderNewest, shards) }
	mine := search("a  AND b", conditions{tenant: "acme"})
	c := &cursor{after: &position{time: 5, id: "id", tenant: "acme"}, bounds: []uint64{0, 300}, since: []uint64{0, 200}}
	text := c.encode(testKey, mine)
	if got, err := decodeCursor(text, testKey, search("a b", conditions{tenant: "acme"}), OrderNewest, 2); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v became %+v, %v", c, got, err)
	}
	rest := newCursor(2)
	if got, err := decodeCursor(rest.encode(testKey, mine), testKey, mine, OrderNewest, 2); err != nil || !reflect.DeepEqual(got, rest) {
		t.Errorf("%+v became %+v, %v", rest, got, err)
	}
	altered := []byte(text)
	if altered[12] = 'x'; text[12] == 'x' {
		altered[12] = 'y'
	}
	for _, bad := range []struct {
		reason, text string
		key, search  []byte
		shards       int
	}{
		{CursorMalformed, "?", testKey, mine, 2},
		{CursorMalformed, "AAAA", testKey, mine, 2},
		{CursorForged, string(altered), testKey, mine, 2},
		{CursorForged, text, []byte("another region"), mine, 2},
		{CursorForeign, text, testKey, search("a c", conditions{tenant: "acme"}), 2},
		{CursorForeign, text, testKey, search("a b", conditions{tenant: "beta"}), 2},
		{CursorForeign, text, testKey, search("a b", conditions{tenant: "acme", from: 1}), 2},
		{CursorStale, text, testKey, mine, 3},
	} {
		var why *CursorError
		if _, err := decodeCursor(bad.text, bad.key, bad.search, OrderNewest, bad.shards); !errors.Is(err, ErrCursor) || !errors.As(err, &why) || why.Reason != bad.reason {
			t.Errorf("%q: %v, want reason %s", bad.text, err, bad.reason)
		}
	}
}

func FuzzCursor(f *testing.F) {
	search := bytes.Repeat([]byte{7}, searchHash)
	f.Add((&cursor{after: &position{time: 5, id: "id", tenant: "acme"}, bounds: []uint64{1, 2}, since: []uint64{0, 1}}).encode(testKey, search))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeCursor(text, testKey, search, OrderNewest, 2)
		if err == nil && c.encode(testKey, search) != text {
			t.Fatalf("%q is a second spelling of %+v", text, c)
		}
	})
}
