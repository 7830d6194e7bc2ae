package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/index/query"
)

// Directions of a walk.
const (
	// LineageUp leads from what was made to what it was made from.
	LineageUp = "up"
	// LineageDown leads from what was used to what was made with it.
	LineageDown = "down"
)

// Reasons why a walk stopped.
const (
	StoppedEnd       = "end"       // nothing leads further
	StoppedFound     = "found"     // the other end of the path
	StoppedDepth     = "depth"     // digests at the last depth were not followed
	StoppedDocuments = "documents" // one more document than the budget
	StoppedDigests   = "digests"   // one more digest than the budget
	StoppedBytes     = "bytes"     // the documents would have more than lineageBytesMax
)

// Bounds of a walk.
const (
	LineageDepthMax     = 100
	LineageDocumentsMax = 10_000
	LineageDigestsMax   = 50_000
	// lineageBytesMax bounds the encoded documents of a walk.
	lineageBytesMax = 8 << 20
)

// LineageRequest is where a walk begins, and how far it goes.
//
// A walk goes from digest to digest through receipts: upstream from an output or subject of a
// receipt to its inputs, downstream from an input to the outputs and subjects.
type LineageRequest struct {
	// Digest is the start, in any spelling of ParseDigest. Hex without an algorithm is read in
	// every algorithm with values of that length, as in searches.
	Digest    string
	Direction string
	// To, when not empty, asks for a shortest path to this digest instead of the whole walk.
	To string
	// Depth is how many receipts may follow each other, 1 to LineageDepthMax.
	Depth int
	// Documents and Digests are the budget: how many receipts may be followed, and how many
	// digests reached beside the start.
	Documents, Digests int
	// Query, Tenant, Since and Until restrict the receipts that are followed, as the Query,
	// Tenant, From and To of a search do.
	Query, Tenant string
	Since, Until  int64
	// RequireComplete makes a shard that cannot answer an error.
	RequireComplete bool
}

// LineageResult is what a walk found, or the path.
type LineageResult struct {
	// Steps are the receipts followed, by depth, and then in the order of searches; those of a
	// path from its start to its end.
	Steps []LineageStep
	// Digests are the digests reached, by depth, and then in the order of the steps; the start,
	// at depth 0, is the first. Of a path they are those on it; none when it was not found.
	Digests []LineageDigest
	// Costs sums up the costs of Steps, by currency.
	Costs []Cost
	// Followed and Reached are how many receipts and digests the walk had, also beside a path.
	Followed, Reached int
	// Stopped is one of the Stopped constants.
	Stopped string
	// Complete is false when a shard could not answer; from then on it was not asked again.
	Complete bool
	Shards   []ShardState
}

// LineageStep is a receipt and how it was found.
type LineageStep struct {
	Document Document
	// Depth counts from 1.
	Depth int
	// Via are the digests by which it was found: of those at Depth-1 the ones it has on the
	// near side.
	Via []string
}

// LineageDigest is a digest and how many receipts lie between it and the start.
type LineageDigest struct {
	Digest string
	Depth  int
}

// Cost is a sum of money.
type Cost struct {
	Micros   int64
	Currency string
}

// Lineage walks level by level. Each is one lookup of all digests of the level in every shard,
// or some more where an answer would be too large. All levels see the documents that there
// were at the first one. The answer depends on these alone, and not on shards or their speed,
// unless one is missing.
//
// A shard that cannot answer is named in Shards and makes Complete false; when none can, or
// with RequireComplete when one cannot, the error is a *ShardsError. Other errors are ErrQuery
// and ErrCondition.
func (s *Service) Lineage(ctx context.Context, r LineageRequest) (LineageResult, error) {
	w, err := s.newWalk(r)
	if err != nil {
		return LineageResult{}, err
	}
	stopped, err := w.run(ctx)
	if err != nil {
		return LineageResult{}, err
	}
	out := LineageResult{Steps: w.steps, Followed: len(w.steps), Reached: len(w.order), Stopped: stopped}
	if r.To != "" {
		out.Steps = w.path()
	} else {
		out.Digests = w.digests()
	}
	if stopped == StoppedFound {
		out.Digests = pathDigests(out.Steps, w.end)
	}
	out.Costs = sumCosts(out.Steps)
	out.Shards, out.Complete = w.states()
	return out, nil
}

// walk is one walk under way. Digests are as in terms.
type walk struct {
	s      *Service
	r      LineageRequest
	query  shardQuery
	starts []string
	ends   []string // what To can mean
	end    string   // the one that was found

	bounds  []uint64 // as in cursors
	missing []error  // why a shard is not asked any longer
	partial []string // what a shard has left out
	applied []uint64

	steps    []LineageStep
	bytes    int
	followed map[documentName]struct{}
	reached  map[string]origin
	order    []string // the digests reached beside the starts
	next     []string // those of the level that comes next
}

type documentName struct{ tenant, id string }

// origin is how a digest was reached: by which step, and by which digest the step.
type origin struct {
	depth int
	step  int
	via   string
}

func (s *Service) newWalk(r LineageRequest) (*walk, error) {
	switch {
	case r.Direction != LineageUp && r.Direction != LineageDown:
		return nil, fmt.Errorf("%w: direction: %s is neither up nor down", ErrCondition, quote(r.Direction))
	case r.Depth < 1 || r.Depth > LineageDepthMax:
		return nil, fmt.Errorf("%w: depth %d is not between 1 and %d", ErrCondition, r.Depth, LineageDepthMax)
	case r.Documents < 1 || r.Documents > LineageDocumentsMax:
		return nil, fmt.Errorf("%w: a budget of %d documents is not between 1 and %d", ErrCondition, r.Documents, LineageDocumentsMax)
	case r.Digests < 1 || r.Digests > LineageDigestsMax:
		return nil, fmt.Errorf("%w: a budget of %d digests is not between 1 and %d", ErrCondition, r.Digests, LineageDigestsMax)
	case r.Since != 0 && r.Until != 0 && r.Since > r.Until:
		return nil, fmt.Errorf("%w: the range of time ends before it begins", ErrCondition)
	}
	w := &walk{
		s: s, r: r,
		bounds: make([]uint64, len(s.shards)), missing: make([]error, len(s.shards)), partial: make([]string, len(s.shards)), applied: make([]uint64, len(s.shards)),
		followed: map[documentName]struct{}{}, reached: map[string]origin{},
	}
	var err error
	if w.starts, err = startsOf("digest", r.Digest); err != nil {
		return nil, err
	}
	if r.To != "" {
		if w.ends, err = startsOf("to", r.To); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(w.ends, func(end string) bool { return slices.Contains(w.starts, end) }) {
			return nil, fmt.Errorf("%w: to: it is the digest that the path begins with; name another one", ErrCondition)
		}
	}
	n, err := query.Parse(r.Query)
	if err != nil {
		return nil, err
	}
	c := conditions{tenant: r.Tenant, from: r.Since, to: r.Until}
	if _, err := compile(n, c); err != nil {
		return nil, err
	}
	w.query = shardQuery{conditions: c, text: r.Query, direction: r.Direction, limit: r.Documents + 1}
	for _, d := range w.starts {
		w.reached[d] = origin{}
	}
	return w, nil
}

// run walks and tells why it stopped.
func (w *walk) run(ctx context.Context) (string, error) {
	level := w.starts
	for depth := 1; len(level) > 0; depth++ {
		if depth > w.r.Depth {
			return StoppedDepth, nil
		}
		w.next = nil
		if stopped, err := w.level(ctx, level, depth); stopped != "" || err != nil {
			return stopped, err
		}
		level = w.next
	}
	return StoppedEnd, nil
}

// level follows the receipts of a level, and tells why the walk stops there, if it does.
func (w *walk) level(ctx context.Context, links []string, depth int) (stopped string, err error) {
	w.query.links, w.query.after = links, nil
	for {
		replies, err := w.ask(ctx)
		if err != nil {
			return "", err
		}
		m := merger{replies: replies, limit: w.query.limit}
		if err := m.run(); err != nil {
			return "", err
		}
		for i := range m.items {
			if stopped := w.follow(&m.items[i], depth); stopped != "" {
				return stopped, nil
			}
		}
		if !m.more || len(m.items) == 0 {
			return "", nil
		}
		w.query.after = positionOf(&m.items[len(m.items)-1], OrderNewest)
	}
}

// errBehind is the state of a shard that lost documents during the walk.
var errBehind = errors.New("the shard has fewer documents than when the walk began")

// ask sends the query to the shards that have answered so far.
func (w *walk) ask(ctx context.Context) ([]reply, error) {
	first := !slices.ContainsFunc(w.bounds, func(b uint64) bool { return b > 0 })
	replies := w.s.scatter(ctx, w.query, &cursor{bounds: w.bounds, since: make([]uint64, len(w.bounds))}, w.missing, w.r.RequireComplete)
	var errs, partial []error
	for i := range replies {
		reply := &replies[i]
		if reply.err == nil && reply.answer.mistake != nil {
			return nil, reply.answer.mistake
		}
		if reply.err == nil && reply.answer.behind {
			reply.err = errBehind
		}
		if reply.err != nil {
			reply.answer, w.missing[i] = nil, reply.err
			errs = append(errs, reply.err)
			continue
		}
		w.bounds[i], w.applied[i] = reply.answer.bound+1, reply.applied
		if missing := reply.answer.missing; missing != "" {
			w.partial[i] = missing
			partial = append(partial, errAway)
		}
	}
	if first && len(errs) == len(replies) || len(errs)+len(partial) > 0 && w.r.RequireComplete {
		states, _ := w.states()
		return nil, &ShardsError{Shards: states, errs: append(errs, partial...)}
	}
	return replies, nil
}

func (w *walk) states() (states []ShardState, complete bool) {
	complete = true
	for i, shard := range w.s.shards {
		state := ShardState{Shard: shard.Name, State: ShardOK, Applied: w.applied[i]}
		if err := w.missing[i]; err != nil {
			state.State, state.Message = shardState(err)
			state.Missing = missingOf(len(w.applied))
			complete = false
		} else if missing := w.partial[i]; missing != "" {
			state.State, state.Message, state.Missing = ShardPartial, messageAway, missing
			complete = false
		}
		states = append(states, state)
	}
	return states, complete
}

// follow takes a receipt into the walk, and what it leads to.
func (w *walk) follow(d *Document, depth int) (stopped string) {
	name := documentName{d.Tenant, d.ID}
	if _, ok := w.followed[name]; ok {
		return ""
	}
	if len(w.steps) == w.r.Documents {
		return StoppedDocuments
	}
	if w.bytes += len(AppendDocument(nil, d)); w.bytes > lineageBytesMax {
		return StoppedBytes
	}
	w.followed[name] = struct{}{}
	near, far := w.sides(d)
	near = slices.DeleteFunc(near, func(g string) bool {
		o, ok := w.reached[g]
		return !ok || o.depth != depth-1
	})
	if len(near) == 0 {
		return "" // not what was asked for
	}
	w.steps = append(w.steps, LineageStep{Document: *d, Depth: depth, Via: formatAll(near)})
	for _, g := range far {
		if _, ok := w.reached[g]; ok {
			continue
		}
		if len(w.order) == w.r.Digests {
			return StoppedDigests
		}
		w.reached[g] = origin{depth: depth, step: len(w.steps) - 1, via: near[0]}
		w.order, w.next = append(w.order, g), append(w.next, g)
		if slices.Contains(w.ends, g) {
			w.end = g
			return StoppedFound
		}
	}
	return ""
}

// sides are the digests of a receipt by which the walk comes and goes, each once.
func (w *walk) sides(d *Document) (near, far []string) {
	seen := make(map[string]struct{}, len(d.Digests))
	for i := range d.Digests {
		g := &d.Digests[i]
		link := string(appendDigestValue(nil, g.Algorithm, g.Value))
		input := g.Direction == DirectionInput
		key := link
		if input {
			key += "<"
		}
		if _, ok := seen[key]; ok {
			continue
		}
		seen[key] = struct{}{}
		if input == (w.r.Direction == LineageDown) {
			near = append(near, link)
		} else {
			far = append(far, link)
		}
	}
	return near, far
}

// digests lists the starts that receipts have, or the likeliest one, and what was reached.
func (w *walk) digests() []LineageDigest {
	var out []LineageDigest
	for _, d := range w.starts {
		start := formatLink(d)
		if slices.ContainsFunc(w.steps, func(s LineageStep) bool { return s.Depth == 1 && slices.Contains(s.Via, start) }) {
			out = append(out, LineageDigest{Digest: start})
		}
	}
	if len(out) == 0 {
		out = append(out, LineageDigest{Digest: formatLink(w.starts[0])})
	}
	for _, d := range w.order {
		out = append(out, LineageDigest{formatLink(d), w.reached[d].depth})
	}
	return out
}

// path lists the steps from the start to the end that was found, each by the one digest that
// the path goes through.
func (w *walk) path() []LineageStep {
	if w.end == "" {
		return nil
	}
	o := w.reached[w.end]
	steps := make([]LineageStep, o.depth)
	for ; o.depth > 0; o = w.reached[o.via] {
		step := w.steps[o.step]
		step.Via = []string{formatLink(o.via)}
		steps[o.depth-1] = step
	}
	return steps
}

func pathDigests(steps []LineageStep, end string) []LineageDigest {
	var out []LineageDigest
	for i := range steps {
		out = append(out, LineageDigest{steps[i].Via[0], i})
	}
	return append(out, LineageDigest{formatLink(end), len(steps)})
}

// sumCosts adds up exactly; a sum that an int64 cannot hold is the nearest one that it can.
func sumCosts(steps []LineageStep) []Cost {
	sums := map[string]*big.Int{}
	for i := range steps {
		d := &steps[i].Document
		if d.Currency == "" {
			continue
		}
		if sums[d.Currency] == nil {
			sums[d.Currency] = new(big.Int)
		}
		sums[d.Currency].Add(sums[d.Currency], big.NewInt(d.CostMicros))
	}
	var out []Cost
	for currency, sum := range sums {
		micros := sum.Int64()
		if !sum.IsInt64() {
			micros = openEnd
			if sum.Sign() < 0 {
				micros = -openEnd
			}
		}
		out = append(out, Cost{micros, currency})
	}
	slices.SortFunc(out, func(a, b Cost) int { return cmp.Compare(a.Currency, b.Currency) })
	return out
}

// formatLink spells a digest of a term as answers do.
func formatLink(link string) string {
	value, algorithm, _ := strings.Cut(link, ":")
	return FormatDigest(algorithm, value)
}

func formatAll(links []string) []string {
	out := make([]string, len(links))
	for i, link := range links {
		out[i] = formatLink(link)
	}
	return out
}

// startsOf reads a digest of a request, the likeliest reading first.
func startsOf(field, text string) ([]string, error) {
	all := digestReadings(text)
	if len(all) == 0 {
		position, message, suggestion := digestFault(text)
		return nil, fmt.Errorf("%w: %s, character %d: %s; %s", ErrCondition, field, position+1, message, suggestion)
	}
	if algorithm, value, err := ParseDigest(text); err == nil {
		likeliest := string(appendDigestValue(nil, algorithm, value))
		slices.SortStableFunc(all, func(a, b string) int {
			return cmp.Compare(boolByte(a != likeliest), boolByte(b != likeliest))
		})
	}
	return all, nil
}

// maxBareBytes is the longest digest that may come without an algorithm.
const maxBareBytes = 64

// digestFault says what is wrong with a digest, where in runes from 0, and how to mend it.
func digestFault(text string) (position int, message, suggestion string) {
	const write = "write ALGORITHM:HEX, such as sha256: and 64 hex characters"
	if text == "" {
		return 0, "the digest is missing", write
	}
	name, value, named := strings.Cut(text, ":")
	sizes := digestSizes(canonicalAlgorithm(name))
	if !named {
		value, sizes = text, []int{maxBareBytes}
	}
	var why *DocumentError
	if _, _, err := ParseDigest(text); errors.As(err, &why) {
		message = why.Message
	}
	if named && !validAlgorithm(canonicalAlgorithm(name)) {
		return 0, message, write
	}
	if beginning := strings.TrimSuffix(value, "*"); isHex(beginning) && (sizes == nil || len(beginning) < 2*slices.Max(sizes)) {
		whole := strings.TrimSuffix(text, "*")
		return utf8.RuneCountInString(whole), "the digest ends here, and no algorithm has values of this length",
			"find the whole one with a search for digest:" + whole + "*"
	}
	position = utf8.RuneCountInString(text)
	for i, c := range value {
		// Of a known algorithm base64 is taken too, so that more characters can be right.
		if !isHex(string(c)) && (sizes == nil || !named || c > 'z' || !letterOrDigit(c) && !strings.ContainsRune("+/-_=", c)) {
			position = utf8.RuneCountInString(text[:len(text)-len(value)+i])
			break
		}
	}
	if !named {
		return position, "this is not a digest in hex", write
	}
	return position, message, write
}
