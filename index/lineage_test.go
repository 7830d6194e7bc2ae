package index

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/query"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// lineage walks over plain lists, with code of its own.
func (o oracle) lineage(n query.Node, r LineageRequest) LineageResult {
	out := LineageResult{Complete: true, Digests: []LineageDigest{{r.Digest, 0}}}
	depths, parent := map[string]int{r.Digest: 0}, map[string]LineageStep{}
	sums := map[string]int64{}
	stop := func(why string) LineageResult {
		out.Stopped, out.Reached = why, len(out.Digests)-1
		out.Followed = len(out.Steps)
		if r.To != "" {
			out.Steps, out.Digests = nil, nil
			for at := r.To; why == StoppedFound; {
				out.Digests = append(out.Digests, LineageDigest{at, depths[at]})
				if at == r.Digest {
					break
				}
				step := parent[at]
				step.Via = step.Via[:1]
				out.Steps, at = append(out.Steps, step), step.Via[0]
			}
			slices.Reverse(out.Steps)
			slices.Reverse(out.Digests)
		}
		for _, s := range out.Steps {
			if s.Document.Currency != "" {
				sums[s.Document.Currency] += s.Document.CostMicros
			}
		}
		for _, currency := range []string{"EUR", "USD"} {
			if sum, ok := sums[currency]; ok {
				out.Costs = append(out.Costs, Cost{sum, currency})
			}
		}
		return out
	}
	taken := map[string]bool{}
	for depth := 1; ; depth++ {
		level := slices.DeleteFunc(slices.Clone(out.Digests), func(g LineageDigest) bool { return g.Depth != depth-1 })
		if len(level) == 0 {
			return stop(StoppedEnd)
		}
		if depth > r.Depth {
			return stop(StoppedDepth)
		}
		for _, d := range o.search(n, r.Tenant) {
			var near, far []string
			for _, g := range d.Digests {
				spelt := FormatDigest(g.Algorithm, g.Value)
				comes := g.Direction != DirectionInput
				if r.Direction == LineageDown {
					comes = !comes
				}
				if !comes {
					far = append(far, spelt)
				} else if slices.Contains(level, LineageDigest{spelt, depth - 1}) && !slices.Contains(near, spelt) {
					near = append(near, spelt)
				}
			}
			late := r.Since != 0 && d.Time < r.Since || r.Until != 0 && d.Time >= r.Until
			if d.Kind != KindReceipt || late || len(near) == 0 || taken[d.Tenant+"/"+d.ID] {
				continue
			}
			if len(out.Steps) == r.Documents {
				return stop(StoppedDocuments)
			}
			taken[d.Tenant+"/"+d.ID] = true
			step := LineageStep{d, depth, near}
			out.Steps = append(out.Steps, step)
			for _, g := range far {
				if _, known := depths[g]; known {
					continue
				}
				if len(out.Digests)-1 == r.Digests {
					return stop(StoppedDigests)
				}
				depths[g], parent[g] = depth, step
				out.Digests = append(out.Digests, LineageDigest{g, depth})
				if g == r.To {
					return stop(StoppedFound)
				}
			}
		}
	}
}

func spelt(first byte) string { return FormatDigest("sha256", sha(first, "").Value) }

// summary is a result without what the oracle does not have, and without whole documents.
func summary(r LineageResult) string {
	var b strings.Builder
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%d %s/%s via %v\n", s.Depth, s.Document.Tenant, s.Document.ID, s.Via)
	}
	fmt.Fprintln(&b, r.Digests, r.Costs, r.Followed, r.Reached, r.Stopped, r.Complete)
	return b.String()
}

func (r *region) lineage(req LineageRequest) LineageResult {
	r.t.Helper()
	res, err := r.service.Lineage(context.Background(), req)
	if err != nil {
		r.t.Fatalf("lineage %+v: %v", req, err)
	}
	return res
}

// whole asks for everything there is about a digest.
func whole(digest, direction string) LineageRequest {
	return LineageRequest{Digest: digest, Direction: direction, Depth: LineageDepthMax, Documents: LineageDocumentsMax, Digests: LineageDigestsMax, RequireComplete: true}
}

// Whatever graph is stored, with cycles and hubs, over however many shards, heads and segments,
// a walk and a path are what a breadth-first search over lists gives, in its order.
func TestLineageAgreesWithBreadthFirstSearch(t *testing.T) {
	stops := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		r := newRegion(t, rapid.IntRange(1, 4).Draw(rt, "shards"), 8)
		digests := rapid.IntRange(1, 20).Draw(rt, "different digests")
		genDigest := rapid.OneOf(rapid.IntRange(0, digests), rapid.Just(0)) // 0 is a hub
		var all oracle
		for i := range rapid.IntRange(0, 50).Draw(rt, "documents") {
			d := Document{
				ID: fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "order"), "-", i), Tenant: genTenant.Draw(rt, "tenant"), Time: genTime.Draw(rt, "time"),
				Kind:     rapid.SampledFrom([]string{KindReceipt, KindReceipt, KindReceipt, KindDecision}).Draw(rt, "kind"),
				Decision: rapid.SampledFrom([]string{"", "allow", "deny"}).Draw(rt, "decision"),
				Currency: rapid.SampledFrom([]string{"", "USD", "EUR"}).Draw(rt, "currency"),
			}
			if d.Currency != "" {
				d.CostMicros = rapid.Int64Range(-5, 100).Draw(rt, "cost")
			}
			for range rapid.IntRange(0, 4).Draw(rt, "digests") {
				d.Digests = append(d.Digests, sha(byte(genDigest.Draw(rt, "digest")), rapid.SampledFrom([]string{DirectionInput, DirectionInput, DirectionOutput, DirectionSubject}).Draw(rt, "direction")))
			}
			all = append(all, normal(t, d))
		}
		r.ingest(all...)
		for i := range r.shards {
			r.machine(i).settle(t)
		}
		for range rapid.IntRange(1, 5).Draw(rt, "walks") {
			req := LineageRequest{
				Digest: spelt(byte(genDigest.Draw(rt, "start"))), Direction: rapid.SampledFrom([]string{LineageUp, LineageDown}).Draw(rt, "direction"),
				Depth: rapid.IntRange(1, 8).Draw(rt, "depth"), Tenant: rapid.SampledFrom([]string{"", "acme", "beta"}).Draw(rt, "of tenant"),
				Documents:       rapid.OneOf(rapid.IntRange(1, 10), rapid.Just(1000)).Draw(rt, "budget of documents"),
				Digests:         rapid.OneOf(rapid.IntRange(1, 10), rapid.Just(1000)).Draw(rt, "budget of digests"),
				RequireComplete: true, // and so not waited for within bounds
			}
			if rapid.Bool().Draw(rt, "ranged") {
				req.Since = rapid.Int64Range(1, 5).Draw(rt, "since")
				req.Until = req.Since + rapid.Int64Range(0, 500).Draw(rt, "until")
			}
			var n query.Node = &query.All{}
			if rapid.Bool().Draw(rt, "filtered") {
				n = &query.Not{Node: &query.Term{Field: query.Decision, Value: "deny"}}
				req.Query = n.String()
			}
			if to := spelt(byte(genDigest.Draw(rt, "to"))); to != req.Digest && rapid.Bool().Draw(rt, "path") {
				req.To = to
			}
			got, want := r.lineage(req), all.lineage(n, req)
			stops[want.Stopped]++
			if summary(got) != summary(want) {
				rt.Fatalf("%+v:\n got %s\nwant %s", req, summary(got), summary(want))
			}
			for i := range want.Steps {
				if !reflect.DeepEqual(got.Steps[i].Document, want.Steps[i].Document) {
					rt.Fatalf("document %+v, want %+v", got.Steps[i].Document, want.Steps[i].Document)
				}
			}
		}
	})
	for _, why := range []string{StoppedEnd, StoppedFound, StoppedDepth, StoppedDocuments, StoppedDigests} {
		if stops[why] == 0 {
			t.Errorf("no walk stopped for %s: %v", why, stops)
		}
	}
}

// Thousands of receipts used one digest, and something was made of each of theirs.
func TestLineageOfAHub(t *testing.T) {
	r := newRegion(t, 3, 512)
	numbered := func(n int, direction string) Digest {
		return Digest{Algorithm: "sha256", Value: fmt.Sprintf("%064x", n), Direction: direction}
	}
	const many = 3000
	var all oracle
	for i := range many {
		all = append(all,
			normal(t, Document{ID: fmt.Sprint("use-", i), Time: int64(i%50 + 1), Digests: []Digest{sha(0xAA, DirectionInput), numbered(i, DirectionOutput)}, CostMicros: 2, Currency: "USD"}),
			normal(t, Document{ID: fmt.Sprint("next-", i), Time: int64(i%7 + 1), Digests: []Digest{numbered(i, DirectionInput), numbered(many, DirectionSubject)}}))
	}
	r.ingest(all...)
	r.machine(0).settle(t)
	var messages atomic.Int64
	r.fail = func(raftfsm.GroupID, bool) error { messages.Add(1); return nil }
	got := r.lineage(whole(spelt(0xAA), LineageDown))
	if len(got.Steps) != 2*many || len(got.Digests) != many+2 || got.Stopped != StoppedEnd || !slices.Equal(got.Costs, []Cost{{2 * many, "USD"}}) {
		t.Fatalf("%d steps, %d digests, %s, %v", len(got.Steps), len(got.Digests), got.Stopped, got.Costs)
	}
	if n := messages.Load(); n != 3*3 { // three levels of one message for each shard, the last one finds nothing
		t.Errorf("%d messages for three levels and three shards", n)
	}
	for _, req := range []LineageRequest{
		{Digest: spelt(0xAA), Direction: LineageDown, Depth: 2, Documents: 100, Digests: 5000},
		{Digest: spelt(0xAA), Direction: LineageDown, Depth: 3, Documents: many + 17, Digests: 5000},
		{Digest: FormatDigest("sha256", numbered(many, "").Value), Direction: LineageUp, Depth: 1, Documents: 5000, Digests: 1234},
		{Digest: FormatDigest("sha256", numbered(many, "").Value), Direction: LineageUp, Depth: 3, Documents: 10_000, Digests: 5000, To: spelt(0xAA)},
	} {
		req.RequireComplete = true
		if got, want := r.lineage(req), all.lineage(&query.All{}, req); summary(got) != summary(want) {
			t.Errorf("%+v: %d steps, %d digests, %s; want %d, %d, %s", req, len(got.Steps), len(got.Digests), got.Stopped, len(want.Steps), len(want.Digests), want.Stopped)
		}
	}
}

// chain is three receipts: 1 -> 2 -> 3 -> 4.
func chain(t *testing.T, tenant string) []Document {
	var docs []Document
	for i := byte(1); i < 4; i++ {
		docs = append(docs, normal(t, Document{
			ID: fmt.Sprintf("%s-%d", tenant, i), Tenant: tenant, Time: int64(i),
			Digests:    []Digest{sha(i, DirectionInput), sha(i+1, DirectionOutput)},
			CostMicros: int64(i), Currency: "USD",
		}))
	}
	return docs
}

func stepIDs(r LineageResult) []string {
	out := []string{}
	for _, s := range r.Steps {
		out = append(out, s.Document.ID)
	}
	return out
}

// A tenant sees its own receipts only, though others have the same digests.
func TestLineageOfTenants(t *testing.T) {
	r := newRegion(t, 3, 2)
	r.ingest(chain(t, "acme")...)
	r.ingest(chain(t, "beta")[1:]...)
	for tenant, want := range map[string][]string{
		"acme":  {"acme-3", "acme-2", "acme-1"},
		"beta":  {"beta-3", "beta-2"},
		"gamma": {},
		"":      {"acme-3", "beta-3", "acme-2", "beta-2", "acme-1"},
	} {
		req := whole(spelt(4), LineageUp)
		req.Tenant = tenant
		if got := r.lineage(req); !slices.Equal(stepIDs(got), want) {
			t.Errorf("tenant %q: %v, want %v", tenant, stepIDs(got), want)
		}
		// Nor does a path lead through another's.
		req.To = spelt(1)
		if got := r.lineage(req); (got.Stopped == StoppedFound) != (tenant == "acme" || tenant == "") {
			t.Errorf("tenant %q: a path of %v", tenant, stepIDs(got))
		}
	}
}

// Every spelling of a digest begins the same walk, and one that is not known an empty one.
func TestLineageSpellings(t *testing.T) {
	r := newRegion(t, 2, 2)
	docs := append(chain(t, "acme"), normal(t, Document{
		ID: "commit", Digests: []Digest{{Algorithm: "gitcommit", Value: strings.Repeat("cd", 20), Direction: DirectionInput}, sha(1, DirectionSubject)},
	}))
	r.ingest(docs...)
	hex3 := sha(3, "").Value
	for _, spelling := range []string{
		"sha256:" + hex3, "SHA-256:" + strings.ToUpper(hex3), hex3, strings.ToUpper(hex3),
		"sha256:AwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "sha256-AwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	} {
		got := r.lineage(whole(spelling, LineageUp))
		if !slices.Equal(stepIDs(got), []string{"acme-2", "acme-1", "commit"}) || got.Digests[0].Digest != "sha256:"+hex3 {
			t.Errorf("%s: %v %v", spelling, stepIDs(got), got.Digests)
		}
	}
	// Hex of 40 characters is most often sha1, but may be a commit.
	got := r.lineage(whole(strings.Repeat("CD", 20), LineageDown))
	if len(got.Steps) != 4 || got.Digests[0] != (LineageDigest{"gitcommit:" + strings.Repeat("cd", 20), 0}) || !slices.Equal(got.Costs, []Cost{{6, "USD"}}) {
		t.Errorf("a commit: %s", summary(got))
	}
	got = r.lineage(whole(spelt(9), LineageUp))
	if len(got.Steps) != 0 || got.Stopped != StoppedEnd || !got.Complete || !slices.Equal(got.Digests, []LineageDigest{{spelt(9), 0}}) || len(got.Shards) != 2 {
		t.Errorf("an unknown digest: %s", summary(got))
	}
}

func TestLineageRefusesMistakes(t *testing.T) {
	r := newRegion(t, 2, 8)
	good := whole(spelt(1), LineageUp)
	for name, c := range map[string]struct {
		change  func(*LineageRequest)
		is      error
		message string
	}{
		"no digest":         {func(q *LineageRequest) { q.Digest = "" }, ErrCondition, "digest, character 1: the digest is missing; write ALGORITHM:HEX"},
		"a word":            {func(q *LineageRequest) { q.Digest = "abc-def" }, ErrCondition, "digest, character 4: this is not a digest in hex; write"},
		"a beginning":       {func(q *LineageRequest) { q.Digest = "sha256:ab12*" }, ErrCondition, "digest, character 12: the digest ends here, and no algorithm has values of this length; find the whole one with a search for digest:sha256:ab12*"},
		"bare hex":          {func(q *LineageRequest) { q.Digest = "ab12" }, ErrCondition, "character 5: the digest ends here"},
		"a wrong character": {func(q *LineageRequest) { q.Digest = "sha256:" + strings.Repeat("a", 60) + "!aaa" }, ErrCondition, "digest, character 68: "},
		"a wrong algorithm": {func(q *LineageRequest) { q.Digest = "sha 256:" + sha(1, "").Value }, ErrCondition, "digest, character 1: "},
		"too long":          {func(q *LineageRequest) { q.Digest = strings.Repeat("a", 200) }, ErrCondition, "digest, character 201: "},
		"far end":           {func(q *LineageRequest) { q.To = "é:x" }, ErrCondition, "to, character 1: "},
		"no path at all":    {func(q *LineageRequest) { q.To = sha(1, "").Value }, ErrCondition, "to: it is the digest that the path begins with"},
		"no direction":      {func(q *LineageRequest) { q.Direction = "sideways" }, ErrCondition, `"sideways" is neither up nor down`},
		"depth 0":           {func(q *LineageRequest) { q.Depth = 0 }, ErrCondition, "depth 0 is not between 1 and 100"},
		"depth 101":         {func(q *LineageRequest) { q.Depth = 101 }, ErrCondition, "depth 101"},
		"no documents":      {func(q *LineageRequest) { q.Documents = 0 }, ErrCondition, "a budget of 0 documents is not between 1 and 10000"},
		"no digests":        {func(q *LineageRequest) { q.Digests = 0 }, ErrCondition, "a budget of 0 digests is not between 1 and 50000"},
		"backwards":         {func(q *LineageRequest) { q.Since, q.Until = 2, 1 }, ErrCondition, "ends before it begins"},
		"query":             {func(q *LineageRequest) { q.Query = "a decison:deny" }, ErrQuery, "character 3"},
	} {
		req := good
		c.change(&req)
		if _, err := r.service.Lineage(context.Background(), req); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.ingest(manyTasks(t, 0, 500)...)
	r.ingest(manyTasks(t, 500, 500)...)
	r.ingest(manyTasks(t, 1000, 1500)...)
	good.Query = "task:t*"
	if _, err := r.service.Lineage(context.Background(), good); !errors.Is(err, ErrQuery) {
		t.Errorf("a prefix that only shards can judge: %v", err)
	}
}

// A shard that is missing is named and not asked again; what the others have is still found.
func TestLineageSaysWhichShardIsMissing(t *testing.T) {
	r := newRegion(t, 3, 8)
	var docs []Document
	for i := range 60 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(i), Digests: []Digest{sha(1, DirectionOutput), sha(2, DirectionInput)}}))
	}
	r.ingest(docs...)
	for from := range 3 { // the request after which shard 1 is gone
		asked := 0
		r.fail = func(g raftfsm.GroupID, _ bool) error {
			if g == 1 {
				if asked++; asked > from {
					return raftfsm.ErrNoLeader
				}
			}
			return nil
		}
		required := whole(spelt(1), LineageUp)
		partial := required
		partial.RequireComplete = false
		got := r.lineage(partial)
		complete := from > 1 // the second level finds nothing, and there is no third
		if got.Complete != complete || len(got.Shards) != 3 || (got.Shards[1].State == ShardUnreachable) == complete || got.Shards[0].State != ShardOK {
			t.Errorf("gone after %d: complete %v, %+v", from, got.Complete, got.Shards)
		}
		if all := len(got.Steps) == 60; all != (from > 0) || len(got.Steps) == 0 {
			t.Errorf("gone after %d: %d receipts", from, len(got.Steps))
		}
		if asked > from+1 {
			t.Errorf("gone after %d: asked %d times", from, asked)
		}
		asked = 0
		if _, err := r.service.Lineage(context.Background(), required); errors.Is(err, ErrIncomplete) == complete {
			t.Errorf("gone after %d, required: %v", from, err)
		}
	}
	r.fail = func(raftfsm.GroupID, bool) error { return raftfsm.ErrNoLeader }
	var all *ShardsError
	if _, err := r.service.Lineage(context.Background(), whole(spelt(1), LineageUp)); !errors.As(err, &all) || len(all.Shards) != 3 {
		t.Errorf("no shard: %v", err)
	}
}

// Large documents come in several answers, and end the walk before they are too much.
func TestLineageOfLargeDocuments(t *testing.T) {
	r := newRegion(t, 1, 1024)
	attributes := make([]Attribute, 25)
	for i := range attributes {
		attributes[i] = Attribute{Name: fmt.Sprint(i), Value: strings.Repeat("v", 8000)}
	}
	for i := range 45 { // of 200 KB: 9 MB
		r.ingest(normal(t, Document{ID: fmt.Sprint(i), Time: int64(1 + i), Digests: []Digest{sha(1, DirectionOutput)}, Attributes: attributes}))
	}
	got := r.lineage(whole(spelt(1), LineageUp))
	if n := len(got.Steps); got.Stopped != StoppedBytes || n < 40 || n > 43 {
		t.Errorf("%d documents, %s", n, got.Stopped)
	}
	req := whole(spelt(1), LineageUp)
	req.Query = "NOT id:1*"
	if got := r.lineage(req); len(got.Steps) != 34 || got.Stopped != StoppedEnd {
		t.Errorf("%d documents of 34, %s", len(got.Steps), got.Stopped)
	}
}

// A walk sees what there was when it began, and no receipt that comes between its levels.
func TestLineageIsOfOneMoment(t *testing.T) {
	r := newRegion(t, 1, 8)
	docs := chain(t, "acme")
	r.ingest(docs[1:]...)
	levels := 0
	r.fail = func(_ raftfsm.GroupID, write bool) error {
		if write {
			return nil
		}
		if levels++; levels == 2 {
			r.drivers[0].Propose(raftfsm.Command{Data: r.service.split([]Document{docs[0]}, newTally([]Document{docs[0]}))[0][0].command})
		}
		return nil
	}
	if got := r.lineage(whole(spelt(4), LineageUp)); !slices.Equal(stepIDs(got), []string{"acme-3", "acme-2"}) {
		t.Errorf("the walk found %v", stepIDs(got))
	}
	if got := r.lineage(whole(spelt(4), LineageUp)); !slices.Equal(stepIDs(got), []string{"acme-3", "acme-2", "acme-1"}) {
		t.Errorf("the next walk found %v", stepIDs(got))
	}
}

// Sums are exact, and stop where an int64 ends.
func TestSumCosts(t *testing.T) {
	cost := func(micros int64, currency string) LineageStep {
		return LineageStep{Document: Document{CostMicros: micros, Currency: currency}}
	}
	got := sumCosts([]LineageStep{cost(openEnd, "USD"), cost(5, "EUR"), cost(2, "USD"), cost(-2, "USD"), cost(0, ""), cost(openEnd, "JPY"), cost(1, "JPY"), cost(-openEnd, "CHF"), cost(-openEnd, "CHF")})
	if want := []Cost{{-openEnd, "CHF"}, {5, "EUR"}, {openEnd, "JPY"}, {openEnd, "USD"}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
