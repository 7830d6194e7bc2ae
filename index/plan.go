package index

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/maestro-conductor/maestro/index/query"
)

// QueryError is a mistake in a query: where it is, what is wrong and how to mend it.
type QueryError = query.Error

// plan is a query in terms of the index: which postings to combine how.
type plan struct {
	op   planOp
	term term       // planTerm, planPrefix
	pre  *prefixUse // planPrefix
	// suffix is how the values of a planPrefix must end.
	suffix string
	min    int64   // planTime: from, included; planCost: least
	max    int64   // planTime: to, excluded, math.MaxInt64 is open; planCost: greatest
	kids   []*plan // planAnd, planOr, planLinks; planNot has one
}

type planOp uint8

const (
	planAll planOp = iota
	planNone
	planTerm
	planPrefix
	planTime
	planCost
	planAnd
	planOr
	planNot
	planLinks
)

// term is what a posting is filed under.
type term struct {
	group, value string
	key          string // group + value
}

func newTerm(group, value string) term { return term{group: group, value: value, key: group + value} }

// prefixUse is one prefix as the user wrote it; it may stand for several groups.
type prefixUse struct {
	text     string
	position int
	expanded map[string]struct{} // the distinct terms found
}

// conditions is what a search asks for beside the query's text.
type conditions struct {
	tenant, pack, digest string
	from, to             int64 // 0 is open
}

// compile turns a query and its conditions into a plan. Errors are *QueryError, or
// ErrCondition for a condition.
func compile(n query.Node, c conditions) (*plan, error) {
	root, err := compileNode(n)
	if err != nil {
		return nil, err
	}
	all := []*plan{root}
	if c.tenant != "" {
		all = append(all, termPlan(groupTenant, c.tenant))
	}
	if c.pack != "" {
		all = append(all, termPlan(groupPack, c.pack))
	}
	if c.digest != "" {
		p, ok := digestPlan(c.digest, digestGroups)
		if !ok {
			return nil, fmt.Errorf("%w: %s is not a digest; write ALGORITHM:HEX", ErrCondition, quote(c.digest))
		}
		all = append(all, p)
	}
	if c.from != 0 || c.to != 0 {
		from, to := int64(math.MinInt64), int64(math.MaxInt64)
		if c.from != 0 {
			from = c.from
		}
		if c.to != 0 {
			to = c.to
		}
		all = append(all, &plan{op: planTime, min: from, max: to})
	}
	return andPlan(all), nil
}

func andPlan(kids []*plan) *plan {
	kids = slices.DeleteFunc(kids, func(p *plan) bool { return p.op == planAll })
	switch len(kids) {
	case 0:
		return &plan{op: planAll}
	case 1:
		return kids[0]
	}
	return &plan{op: planAnd, kids: kids}
}

func orPlan(kids []*plan) *plan {
	switch len(kids) {
	case 0:
		return &plan{op: planNone}
	case 1:
		return kids[0]
	}
	return &plan{op: planOr, kids: kids}
}

func termPlan(group, value string) *plan {
	return &plan{op: planTerm, term: newTerm(group, string(appendValue(nil, value)))}
}

func compileNode(n query.Node) (*plan, error) {
	switch n := n.(type) {
	case *query.All:
		return &plan{op: planAll}, nil
	case *query.Term:
		return compileTerm(n)
	case *query.Word:
		return compileWord(n)
	case *query.TimeRange:
		return &plan{op: planTime, min: n.From, max: n.To}, nil
	case *query.CostRange:
		return &plan{op: planCost, min: n.Min, max: n.Max}, nil
	case *query.Not:
		kid, err := compileNode(n.Node)
		return &plan{op: planNot, kids: []*plan{kid}}, err
	case *query.And:
		kids, err := compileNodes(n.Nodes)
		return andPlan(kids), err
	case *query.Or:
		kids, err := compileNodes(n.Nodes)
		return orPlan(kids), err
	}
	return nil, errors.New("index: unknown kind of query node")
}

func compileNodes(nodes []query.Node) ([]*plan, error) {
	kids := make([]*plan, len(nodes))
	for i, n := range nodes {
		var err error
		if kids[i], err = compileNode(n); err != nil {
			return nil, err
		}
	}
	return kids, nil
}

// digestGroups are the groups of query.Digest.
var digestGroups = []string{groupInput, groupOutput, groupSubject}

func compileTerm(t *query.Term) (*plan, error) {
	use := &prefixUse{text: t.String(), position: t.Position, expanded: map[string]struct{}{}}
	switch t.Field {
	case query.Attr:
		return valuePlan(attributeGroup(t.Name), t.Value, t.Prefix, use)
	case query.Reason:
		return reasonPlan(t.Value, t.Prefix, use)
	case query.Digest:
		return compileDigest(t, digestGroups, use)
	case query.Input:
		return compileDigest(t, []string{groupInput}, use)
	case query.Output:
		return compileDigest(t, []string{groupOutput}, use)
	case query.Subject:
		return compileDigest(t, []string{groupSubject}, use)
	}
	group, ok := fieldGroups[t.Field]
	if !ok {
		return nil, &QueryError{Position: t.Position, Message: "the field " + string(t.Field) + " takes a range"}
	}
	return valuePlan(group, t.Value, t.Prefix, use)
}

// valuePlan finds a value, or the values that begin so, in one group.
func valuePlan(group, value string, prefix bool, use *prefixUse) (*plan, error) {
	if !prefix {
		return termPlan(group, value), nil
	}
	if len(value) > valuePrefixBytes {
		return nil, &QueryError{
			Position:   use.position,
			Message:    "the prefix has " + strconv.Itoa(len(value)) + " bytes, more than " + strconv.Itoa(valuePrefixBytes),
			Suggestion: "shorten it",
		}
	}
	return &plan{op: planPrefix, term: newTerm(group, value), pre: use}, nil
}

// reasonPlan finds reasons that contain every word of the text; with prefix, the last one
// may be the beginning of a word.
func reasonPlan(text string, prefix bool, use *prefixUse) (*plan, error) {
	all := words(text)
	if len(all) == 0 {
		if prefix && text == "" {
			return valuePlan(groupReason, "", true, use)
		}
		return &plan{op: planNone}, nil
	}
	kids := make([]*plan, len(all))
	for i, w := range all {
		var err error
		if kids[i], err = valuePlan(groupReason, w, prefix && i == len(all)-1, use); err != nil {
			return nil, err
		}
	}
	return andPlan(kids), nil
}

func compileDigest(t *query.Term, groups []string, use *prefixUse) (*plan, error) {
	if t.Prefix {
		p, ok := digestPrefixPlan(t.Value, groups, use)
		if !ok {
			return nil, &QueryError{Position: t.Position, Message: "the beginning of a digest is hex", Suggestion: "write ALGORITHM:HEX* or HEX*"}
		}
		return p, nil
	}
	p, ok := digestPlan(t.Value, groups)
	if !ok {
		bad := &QueryError{Position: t.Position, Message: "this is not a whole digest", Suggestion: "write ALGORITHM:HEX, or put * behind the beginning of one"}
		var why *DocumentError
		if _, _, err := ParseDigest(t.Value); errors.As(err, &why) {
			bad.Message = why.Message
		}
		return nil, bad
	}
	return p, nil
}

// digestPlan finds a digest in any spelling. Hex without an algorithm stands for every
// algorithm with values of that length; ok is false for what is no digest.
func digestPlan(text string, groups []string) (p *plan, ok bool) {
	var kids []*plan
	for _, d := range digestReadings(text) {
		for _, g := range groups {
			kids = append(kids, termPlan(g, d))
		}
	}
	return orPlan(kids), len(kids) > 0
}

// digestReadings are the digests that a text can mean, as values of terms.
func digestReadings(text string) (all []string) {
	if isHex(text) {
		for _, a := range digestAlgorithms {
			if slices.Contains(a.sizes, len(text)/2) && len(text)%2 == 0 {
				all = append(all, string(appendDigestValue(nil, a.name, strings.ToLower(text))))
			}
		}
	} else if algorithm, value, err := ParseDigest(text); err == nil {
		all = append(all, string(appendDigestValue(nil, algorithm, value)))
	}
	return all
}

// linksPlan is the receipts that have any of the links on the side of a direction, and match
// the rest.
func linksPlan(direction string, links []string, rest *plan) *plan {
	groups := linkGroups(direction)
	linked := &plan{op: planLinks, kids: make([]*plan, 0, len(groups)*len(links))}
	for _, link := range links {
		for _, g := range groups {
			linked.kids = append(linked.kids, termPlan(g, link))
		}
	}
	kids := []*plan{linked, termPlan(groupKind, KindReceipt)}
	if rest.op == planAnd {
		return andPlan(append(kids, rest.kids...))
	}
	return andPlan(append(kids, rest))
}

// linkGroups are where a walk finds the receipts of a digest: upstream those that made it,
// downstream those that used it.
func linkGroups(direction string) []string {
	if direction == LineageDown {
		return []string{groupInput}
	}
	return []string{groupOutput, groupSubject}
}

// digestPrefixPlan finds digests whose hex begins so, of one algorithm where it is named.
func digestPrefixPlan(text string, groups []string, use *prefixUse) (p *plan, ok bool) {
	algorithm, value, named := strings.Cut(text, ":")
	if !named {
		algorithm, value = "", text
	}
	if value != "" && !isHex(value) || len(value) > valuePrefixBytes {
		return nil, false
	}
	suffix := ""
	if named {
		suffix = ":" + canonicalAlgorithm(algorithm)
	}
	kids := make([]*plan, len(groups))
	for i, g := range groups {
		kids[i] = &plan{op: planPrefix, term: newTerm(g, strings.ToLower(value)), pre: use}
	}
	return withSuffix(orPlan(kids), suffix), true
}

// withSuffix keeps only the expanded values that end so.
func withSuffix(p *plan, suffix string) *plan {
	for _, k := range p.kids {
		k.suffix = suffix
	}
	p.suffix = suffix
	return p
}

// compileWord searches ids, digests and reasons.
func compileWord(w *query.Word) (*plan, error) {
	use := &prefixUse{text: w.String(), position: w.Position, expanded: map[string]struct{}{}}
	id, err := valuePlan(groupID, w.Value, w.Prefix, use)
	if err != nil {
		return nil, err
	}
	reason, err := reasonPlan(w.Value, w.Prefix, use)
	if err != nil {
		return nil, err
	}
	kids := []*plan{id, reason}
	if w.Prefix {
		if p, ok := digestPrefixPlan(w.Value, digestGroups, use); ok {
			kids = append(kids, p)
		}
	} else if p, ok := digestPlan(w.Value, digestGroups); ok {
		kids = append(kids, p)
	}
	return orPlan(kids), nil
}
