// Package query is the search language of the index: it turns text such as
//
//	kind:receipt AND (task:build OR task:test) -decision:deny cost:>0.5
//
// into a tree, and a tree back into text.
//
// # Language
//
//   - field:value finds a value exactly; field:"quoted value" when it holds spaces,
//     parentheses or quotes (\" and \\ inside quotes); field:pre* and field:"pre fix"* find
//     what begins so. Fields are those of Fields, and attr.NAME or attr."any name".
//   - sha256:HEX is short for digest:sha256:HEX; so are the other algorithms, as in SHA-256:HEX.
//   - A bare word searches ids, digests and the words of reasons.
//   - time takes a date (that day), a time in RFC 3339, a comparison (time:>=2023-07-10), or
//     time:[a TO b], which includes a and excludes b. Times without a zone are UTC.
//   - cost takes an amount in units of its currency with at most six decimals, a comparison,
//     or cost:[a TO b], which includes both ends. In either, * is an open end.
//   - AND, OR and NOT are upper case; -x is NOT x; terms side by side are joined by AND. NOT
//     binds tightest, then AND, then OR; parentheses group. * and the empty text find
//     everything.
package query

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of one query.
const (
	// TextBytesMax bounds the text.
	TextBytesMax = 8 << 10
	// TermsMax bounds how many conditions a query has.
	TermsMax = 256
	// DepthMax bounds how deeply parentheses and NOT nest.
	DepthMax = 32
)

// Field is what a term looks at.
type Field string

// The fields of a document.
const (
	ID        Field = "id"
	Kind      Field = "kind"
	Tenant    Field = "tenant"
	Region    Field = "region"
	Execution Field = "execution"
	Task      Field = "task"
	Pack      Field = "pack"
	Rule      Field = "rule"
	Decision  Field = "decision"
	Reason    Field = "reason"
	Runner    Field = "runner"
	Currency  Field = "currency"
	// Digest is an artifact in any direction; Input, Output and Subject in one of them.
	Digest  Field = "digest"
	Input   Field = "input"
	Output  Field = "output"
	Subject Field = "subject"
	// Attr is a free attribute, named by Term.Name.
	Attr Field = "attr"
	// Time and Cost take ranges.
	Time Field = "time"
	Cost Field = "cost"
)

// Fields lists the field names other than attr.NAME, in the order of the documentation.
var Fields = []Field{
	ID, Kind, Tenant, Region, Execution, Task, Pack, Rule, Decision, Reason, Runner, Currency,
	Digest, Input, Output, Subject, Time, Cost,
}

// digestAlgorithms may stand in the place of a field; h1 is how Go writes dirhash.
var digestAlgorithms = []string{
	"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
	"blake2b", "blake2b-256", "blake2b-512", "blake2s", "blake3", "gitcommit", "gittree", "gitblob", "gittag", "dirhash", "h1",
	"ripemd160", "sm3",
}

// isAlgorithm tells whether a word names a digest algorithm, in any of its spellings: sha256,
// SHA-256, sha512_256.
func isAlgorithm(word string) bool {
	word = strings.ReplaceAll(strings.ToLower(word), "_", "-")
	if rest, ok := strings.CutPrefix(word, "sha-"); ok {
		word = "sha" + rest
	}
	return slices.Contains(digestAlgorithms, word)
}

// Node is a condition: *All, *Term, *Word, *TimeRange, *CostRange, *And, *Or or *Not.
type Node interface {
	// String is text that parses to the same condition.
	String() string
}

// All matches every document.
type All struct{}

// Term matches documents whose field has the value, or a value that begins with it.
type Term struct {
	Field Field
	// Name is the attribute's name when Field is Attr.
	Name   string
	Value  string
	Prefix bool
	// Position is where the term begins in the text, in runes from 0.
	Position int
}

// Word is text without a field.
type Word struct {
	Value    string
	Prefix   bool
	Position int
}

// TimeRange matches times in [From, To), nanoseconds since 1970 UTC. math.MinInt64 and
// math.MaxInt64 are open ends.
type TimeRange struct {
	From, To int64
	Position int
}

// CostRange matches costs from Min to Max, both included, in millionths of any currency's
// unit. math.MinInt64 and math.MaxInt64 are open ends.
type CostRange struct {
	Min, Max int64
	Position int
}

// And matches what all of at least two nodes match.
type And struct{ Nodes []Node }

// Or matches what any of at least two nodes matches.
type Or struct{ Nodes []Node }

// Not matches what Node does not match.
type Not struct{ Node Node }

func (*All) String() string { return "*" }

func (t *Term) String() string {
	name := string(t.Field)
	if t.Field == Attr {
		name = "attr." + attributeName(t.Name)
	}
	return name + ":" + value(t.Value, t.Prefix, true)
}

func (w *Word) String() string { return value(w.Value, w.Prefix, false) }

func (r *TimeRange) String() string {
	return "time:[" + timeBound(r.From, math.MinInt64) + " TO " + timeBound(r.To, math.MaxInt64) + "]"
}

func (r *CostRange) String() string {
	return "cost:[" + costBound(r.Min, math.MinInt64) + " TO " + costBound(r.Max, math.MaxInt64) + "]"
}

func (a *And) String() string {
	parts := make([]string, len(a.Nodes))
	for i, n := range a.Nodes {
		parts[i] = group(n, false)
	}
	return strings.Join(parts, " AND ")
}

func (o *Or) String() string {
	parts := make([]string, len(o.Nodes))
	for i, n := range o.Nodes {
		parts[i] = group(n, true)
	}
	return strings.Join(parts, " OR ")
}

func (n *Not) String() string { return "NOT " + group(n.Node, false) }

// group puts an operand in parentheses where its operator binds less than the outer one.
func group(n Node, inOr bool) string {
	switch n.(type) {
	case *Or:
		return "(" + n.String() + ")"
	case *And:
		if !inOr {
			return "(" + n.String() + ")"
		}
	}
	return n.String()
}

// value spells a value so that it reads back as itself.
func value(v string, prefix, withField bool) string {
	if !plain(v, withField) {
		v = quote(v)
	}
	if prefix {
		v += "*"
	}
	return v
}

// plain tells whether a value needs no quotes.
func plain(v string, withField bool) bool {
	if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r == '*' || r == '"' || breaksWord(r) }) {
		return false
	}
	if withField {
		return !strings.ContainsRune("<>[", rune(v[0]))
	}
	return v[0] != '-' && !strings.ContainsRune(v, ':') && v != "AND" && v != "OR" && v != "NOT"
}

func attributeName(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r == '*' || r == '"' || breaksWord(r) }) {
		return quote(name)
	}
	return name
}

func quote(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
}

func timeBound(ns, open int64) string {
	if ns == open {
		return "*"
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

func costBound(micros, open int64) string {
	if micros == open {
		return "*"
	}
	sign, u := "", uint64(micros)
	if micros < 0 {
		sign, u = "-", uint64(-micros)
	}
	s := sign + strconv.FormatUint(u/1_000_000, 10)
	if frac := u % 1_000_000; frac != 0 {
		s += "." + strings.TrimRight(strconv.FormatUint(1_000_000+frac, 10)[1:], "0")
	}
	return s
}
