package index

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/query"
)

func (r *region) lookup(req LookupRequest) LookupResult {
	r.t.Helper()
	res, err := r.service.Lookup(context.Background(), req)
	if err != nil {
		r.t.Fatalf("lookup: %v", err)
	}
	return res
}

// fill stores documents, some in segments of every size and some in heads.
func (r *region) fill(rt *rapid.T, most int) oracle {
	var all oracle
	for i := range rapid.IntRange(0, most).Draw(rt, "documents") {
		d := genDocument(rt, most)
		d.ID = fmt.Sprint(d.ID, "-", i)
		d = normal(r.t, d)
		if r.ingest(d).Indexed != 1 {
			rt.Fatalf("document %s is not stored", d.ID)
		}
		all = append(all, d)
		if rapid.IntRange(0, 19).Draw(rt, "then") == 0 {
			r.machine(rapid.IntRange(0, len(r.shards)-1).Draw(rt, "settle")).settle(r.t)
		}
	}
	if rapid.Bool().Draw(rt, "restarts") {
		r.restart(rapid.IntRange(0, len(r.shards)-1).Draw(rt, "restart"))
	}
	return all
}

// What a lookup says of each of many digests is what a search for that digest finds.
func TestLookupAgreesWithBruteForce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, rapid.IntRange(1, 3).Draw(rt, "shards"), 8)
		all := r.fill(rt, 80)
		n, tenant := genNode(rt, 2), rapid.SampledFrom([]string{"", "acme"}).Draw(rt, "of tenant")
		req := LookupRequest{Query: n.String(), Tenant: tenant, Documents: rapid.IntRange(0, 5).Draw(rt, "of each")}
		for range rapid.IntRange(1, 8).Draw(rt, "digests") {
			d := sha(rapid.SampledFrom([]byte{0x00, 0x10, 0x11, 0xA0, 0xFF}).Draw(rt, "digest"), "").Value
			req.Digests = append(req.Digests, rapid.SampledFrom([]string{d, "sha256:" + d, "SHA-256:" + strings.ToUpper(d), " " + d + "\n", "no digest"}).Draw(rt, "spelling"))
		}
		res := r.lookup(req)
		if len(res.Digests) != len(req.Digests) || res.Cut || !res.Complete {
			rt.Fatalf("%d answers, cut %v, complete %v", len(res.Digests), res.Cut, res.Complete)
		}
		for i, text := range req.Digests {
			got, want := res.Digests[i], LookupAnswer{Digest: text}
			if text == "no digest" {
				if got.Problem == "" || got.Count != 0 {
					rt.Fatalf("%q: %+v", text, got)
				}
				continue
			}
			value := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "sha-256:")
			found := all.search(&query.And{Nodes: []query.Node{n, &query.Term{Field: query.Digest, Value: value}}}, tenant)
			want.Count = len(found)
			want.Documents = found[:min(len(found), req.Documents)]
			if got.Count != want.Count || got.Problem != "" || !slices.EqualFunc(got.Documents, want.Documents, func(a, b Document) bool { return reflect.DeepEqual(a, b) }) {
				rt.Fatalf("%q where %s of %q: %d %v, want %d %v", text, n, tenant, got.Count, idsOf(got.Documents), want.Count, idsOf(want.Documents))
			}
		}
	})
}

// An answer that would be too large has all counts, and says that documents are left out.
func TestLookupIsCut(t *testing.T) {
	r := newRegion(t, 2, 8)
	var docs []Document
	for i := range 100 {
		d := Document{ID: fmt.Sprint(i), Time: int64(i + 1), Digests: []Digest{sha(1, DirectionInput)}}
		for n := range 60 {
			d.Attributes = append(d.Attributes, Attribute{Name: fmt.Sprint(n), Value: strings.Repeat("x", 4000)})
		}
		docs = append(docs, normal(t, d))
	}
	r.ingest(docs...)
	text := sha(1, "").Value
	res := r.lookup(LookupRequest{Digests: []string{text, text}, Documents: 100})
	if !res.Cut || res.Digests[0].Count != 100 || res.Digests[1].Count != 100 {
		t.Fatalf("cut %v, counts %d and %d", res.Cut, res.Digests[0].Count, res.Digests[1].Count)
	}
	got := idsOf(res.Digests[0].Documents)
	if len(got) == 0 || len(got) == 100 {
		t.Fatalf("%d documents", len(got))
	}
	for i, id := range got {
		if id != fmt.Sprint(99-i) {
			t.Fatalf("document %d is %s: the newest must come without a gap", i, id)
		}
	}
}

func TestLookupRefusals(t *testing.T) {
	r := newRegion(t, 1, 8)
	one := []string{sha(1, "").Value}
	for name, c := range map[string]struct {
		req  LookupRequest
		want error
	}{
		"none":           {LookupRequest{}, ErrCondition},
		"too many":       {LookupRequest{Digests: make([]string, LookupDigestsMax+1)}, ErrCondition},
		"negative":       {LookupRequest{Digests: one, Documents: -1}, ErrCondition},
		"many of one":    {LookupRequest{Digests: one, Documents: LookupDocumentsMax + 1}, ErrCondition},
		"many of all":    {LookupRequest{Digests: make([]string, LookupDigestsMax), Documents: 11}, ErrCondition},
		"backward":       {LookupRequest{Digests: one, Since: 2, Until: 1}, ErrCondition},
		"mistaken query": {LookupRequest{Digests: one, Query: "knid:x"}, ErrQuery},
		"wide prefix":    {LookupRequest{Digests: one, Query: "time:2023*"}, ErrQuery},
	} {
		if _, err := r.service.Lookup(context.Background(), c.req); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
}
