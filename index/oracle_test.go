package index

import (
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/index/query"
)

// oracle answers searches by looking at every document, with code of its own.
type oracle []Document

func (o oracle) search(n query.Node, tenant string) []Document {
	var out []Document
	for _, d := range o {
		if (tenant == "" || d.Tenant == tenant) && matches(&d, n) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Document) int { return segment.Compare(sortKey(&a), sortKey(&b)) })
	return out
}

// inOrder is what search returns, in another order.
func inOrder(newest []Document, o Order) []Document {
	out := slices.Clone(newest)
	switch o {
	case OrderOldest:
		slices.Reverse(out)
	case OrderCost:
		slices.SortStableFunc(out, func(a, b Document) int {
			switch {
			case a.Currency == "" || b.Currency == "":
				return strings.Compare(b.Currency, a.Currency) // the empty one comes last
			case a.CostMicros > b.CostMicros:
				return -1
			case a.CostMicros < b.CostMicros:
				return 1
			}
			return 0
		})
	}
	return out
}

func matches(d *Document, n query.Node) bool {
	switch n := n.(type) {
	case *query.All:
		return true
	case *query.And:
		return !slices.ContainsFunc(n.Nodes, func(k query.Node) bool { return !matches(d, k) })
	case *query.Or:
		return slices.ContainsFunc(n.Nodes, func(k query.Node) bool { return matches(d, k) })
	case *query.Not:
		return !matches(d, n.Node)
	case *query.TimeRange:
		return d.Time >= n.From && d.Time < n.To
	case *query.CostRange:
		return d.Currency != "" && d.CostMicros >= n.Min && d.CostMicros <= n.Max
	case *query.Word:
		return same(d.ID, n.Value, n.Prefix) || reasonHas(d.Reason, n.Value, n.Prefix) || digestMatches(d, "", n.Value, n.Prefix)
	case *query.Term:
		return matchesTerm(d, n)
	}
	panic("unknown node")
}

func matchesTerm(d *Document, n *query.Term) bool {
	field := map[query.Field]string{
		query.ID: d.ID, query.Kind: d.Kind, query.Tenant: d.Tenant, query.Region: d.Region, query.Execution: d.Execution,
		query.Task: d.Task, query.Pack: d.Pack, query.Rule: d.Rule, query.Decision: d.Decision, query.Runner: d.Runner,
		query.Currency: d.Currency,
	}
	if v, ok := field[n.Field]; ok {
		return v != "" && same(v, n.Value, n.Prefix)
	}
	switch n.Field {
	case query.Attr:
		return slices.ContainsFunc(d.Attributes, func(a Attribute) bool { return a.Name == n.Name && same(a.Value, n.Value, n.Prefix) })
	case query.Reason:
		return reasonHas(d.Reason, n.Value, n.Prefix)
	case query.Digest:
		return digestMatches(d, "", n.Value, n.Prefix)
	}
	return digestMatches(d, string(n.Field), n.Value, n.Prefix)
}

func same(v, want string, prefix bool) bool {
	return v == want || prefix && strings.HasPrefix(v, want)
}

func reasonHas(reason, text string, prefix bool) bool {
	have, want := reasonWords(reason), reasonWords(text)
	for i, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return same(h, w, prefix && i == len(want)-1) }) {
			return false
		}
	}
	return len(want) > 0
}

// reasonWords knows only ASCII, which is what the tests generate.
func reasonWords(s string) []string {
	var out []string
	for _, w := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_-.", r)
	}) {
		if w = strings.Trim(w, "_-."); w != "" {
			out = append(out, w)
		}
	}
	return out
}

func digestMatches(d *Document, direction, text string, prefix bool) bool {
	for _, g := range d.Digests {
		if direction != "" && g.Direction != direction {
			continue
		}
		text := strings.ToLower(text)
		if text == g.Value || text == FormatDigest(g.Algorithm, g.Value) {
			return true
		}
		if prefix && text != "" && (strings.HasPrefix(g.Value, text) || strings.Contains(text, ":") && strings.HasPrefix(FormatDigest(g.Algorithm, g.Value), text)) {
			return true
		}
	}
	return false
}
