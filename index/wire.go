package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// What travels between nodes: a shard's query and its answer. Both begin with a version; a
// node refuses what it does not know.
const wireVersion = 1

var errWire = errors.New("index: malformed message of another node")

// shardQuery is a search of one shard.
type shardQuery struct {
	conditions
	text  string
	limit int
	exact bool
	// bound is the number of documents the search began with; nil when it begins now.
	bound *uint64
	after *position
	// since is how many of the shard's first documents do not exist for the search.
	since uint64
	// links, when not nil, restricts to the receipts that have one of these digests, as values
	// of terms, on the side of direction. Nothing is counted then beyond the rows.
	links     []string
	direction string
	extension
}

// rowsMax is how many rows an answer to q has at most.
func (q *shardQuery) rowsMax() int {
	if q.links != nil {
		return LineageDocumentsMax + 1
	}
	return PageMax
}

// shardAnswer is what a shard found.
type shardAnswer struct {
	// mistake is set when the query cannot be answered; then nothing else is.
	mistake *QueryError
	// behind is set when the shard has fewer documents than the query's bound or since.
	behind bool
	bound  uint64
	total  uint64
	capped bool // total is TotalMax and there are more
	more   bool // there are more documents behind the last row
	rows   [][]byte
	aggregated
	explain *ShardExplain
	// refusal says why the query cannot be answered, though it has no mistake.
	refusal string
	// lookup is by digest of the query's lookup; then there is nothing else but bound.
	lookup []lookupFound
	// missing says what is left out because it cannot be read; empty for nothing.
	missing string
}

const (
	flagExact = 1 << iota
	flagBound
	flagAfter
	flagSince
	flagUp
	flagDown
	flagExtended
)

func (q *shardQuery) encode() []byte {
	flags := byte(0)
	if q.exact {
		flags |= flagExact
	}
	if q.bound != nil {
		flags |= flagBound
	}
	if q.after != nil {
		flags |= flagAfter
	}
	if q.since > 0 {
		flags |= flagSince
	}
	if q.extended() {
		flags |= flagExtended
	}
	size := 0
	if q.links != nil {
		if q.direction == LineageDown {
			flags |= flagDown
		} else {
			flags |= flagUp
		}
		for _, link := range q.links {
			size += binary.MaxVarintLen16 + len(link)
		}
	}
	b := append(make([]byte, 0, 256+len(q.text)+size), wireVersion, flags)
	b = binary.AppendUvarint(b, uint64(q.limit))
	for _, s := range []string{q.tenant, q.pack, q.digest, q.text} {
		b = appendString(b, s)
	}
	b = binary.AppendVarint(b, q.from)
	b = binary.AppendVarint(b, q.to)
	if q.bound != nil {
		b = binary.AppendUvarint(b, *q.bound)
	}
	if q.after != nil {
		b = appendPosition(b, q.after)
	}
	if q.since > 0 {
		b = binary.AppendUvarint(b, q.since)
	}
	if q.links != nil {
		b = binary.AppendUvarint(b, uint64(len(q.links)))
		for _, link := range q.links {
			b = appendString(b, link)
		}
	}
	if q.extended() {
		b = q.appendExtension(b)
	}
	return b
}

func decodeShardQuery(b []byte) (*shardQuery, error) {
	r := wireReader{b: b}
	flags := r.header()
	q := &shardQuery{limit: int(min(r.uvarint(), LineageDocumentsMax+2)), exact: flags&flagExact != 0}
	for _, s := range []*string{&q.tenant, &q.pack, &q.digest, &q.text} {
		*s = string(r.bytes())
	}
	q.from, q.to = r.varint(), r.varint()
	if flags&flagBound != 0 {
		bound := r.uvarint()
		q.bound = &bound
	}
	if flags&flagAfter != 0 {
		q.after = r.position()
	}
	if flags&flagSince != 0 {
		q.since = r.uvarint()
	}
	if flags&(flagUp|flagDown) != 0 {
		q.direction, q.links = LineageUp, []string{}
		if flags&flagDown != 0 {
			q.direction, r.bad = LineageDown, r.bad || flags&flagUp != 0
		}
		for n := r.uvarint(); n > 0 && !r.bad; n-- {
			q.links = append(q.links, string(r.bytes()))
		}
	}
	if flags&flagExtended != 0 {
		r.extension(q)
	}
	if q.limit < 1 || q.limit > q.rowsMax() || flags >= flagExtended<<1 {
		r.bad = true
	}
	return q, r.end()
}

const (
	answerOK = iota
	answerMistake
	answerBehind
	answerLookup
	answerAggregated // answerOK, and more behind it
	answerRefusal
	answerPartial // what is missing, and another answer
)

func (a *shardAnswer) encode() []byte {
	if a.missing != "" {
		rest := *a
		rest.missing = ""
		return append(appendString([]byte{wireVersion, answerPartial}, a.missing), rest.encode()...)
	}
	if m := a.mistake; m != nil {
		b := binary.AppendUvarint([]byte{wireVersion, answerMistake}, uint64(m.Position))
		return appendString(appendString(b, m.Message), m.Suggestion)
	}
	if a.behind {
		return []byte{wireVersion, answerBehind}
	}
	if a.lookup != nil {
		return a.encodeLookup()
	}
	if a.refusal != "" {
		return appendString([]byte{wireVersion, answerRefusal}, a.refusal)
	}
	kind := byte(answerOK)
	if a.aggregated.any() || a.explain != nil {
		kind = answerAggregated
	}
	size := 64
	for _, row := range a.rows {
		size += binary.MaxVarintLen32 + len(row)
	}
	b := append(make([]byte, 0, size), wireVersion, kind)
	b = binary.AppendUvarint(b, a.bound)
	b = binary.AppendUvarint(b, a.total)
	b = append(b, boolByte(a.capped), boolByte(a.more))
	b = binary.AppendUvarint(b, uint64(len(a.rows)))
	for _, row := range a.rows {
		b = appendString(b, string(row))
	}
	if kind == answerAggregated {
		b = append(a.aggregated.append(b), boolByte(a.explain != nil))
		if a.explain != nil {
			b = a.explain.append(b)
		}
	}
	return b
}

// decodeShardAnswer reads an answer; its rows alias b.
func decodeShardAnswer(b []byte) (*shardAnswer, error) {
	r := wireReader{b: b}
	a := &shardAnswer{}
	switch kind := r.header(); kind {
	case answerOK, answerAggregated:
		a.bound, a.total = r.uvarint(), r.uvarint()
		a.capped, a.more = r.bool(), r.bool()
		n := r.uvarint()
		if n > LineageDocumentsMax+1 {
			r.bad = true
		}
		for ; n > 0 && !r.bad; n-- {
			a.rows = append(a.rows, r.bytes())
		}
		if kind == answerAggregated {
			a.aggregated = r.aggregated()
			if r.bool() {
				a.explain = r.explain()
			}
			r.bad = r.bad || !a.aggregated.any() && a.explain == nil
		}
	case answerMistake:
		a.mistake = &QueryError{Position: int(min(r.uvarint(), 1<<20))}
		a.mistake.Message, a.mistake.Suggestion = string(r.bytes()), string(r.bytes())
	case answerBehind:
		a.behind = true
	case answerRefusal:
		if a.refusal = string(r.bytes()); a.refusal == "" {
			r.bad = true
		}
	case answerLookup:
		r.lookup(a)
	case answerPartial:
		missing := string(r.bytes())
		if r.bad || missing == "" || len(r.b) > 1 && r.b[1] == answerPartial {
			return nil, errWire
		}
		a, err := decodeShardAnswer(r.b)
		if err == nil {
			a.missing = missing
		}
		return a, err
	default:
		r.bad = true
	}
	return a, r.end()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPosition(b []byte, p *position) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.time))
	return appendString(appendString(b, p.id), p.tenant)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// wireReader reads a message; after a failure every method returns zero.
type wireReader struct {
	b   []byte
	bad bool
	// version is set when the message is of another one.
	version byte
}

func (r *wireReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *wireReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// header reads the version and the byte behind it.
func (r *wireReader) header() byte {
	if v := r.byte(); v != wireVersion {
		r.bad, r.version = true, v
	}
	return r.byte()
}

func (r *wireReader) bool() bool {
	v := r.byte()
	r.bad = r.bad || v > 1
	return v == 1
}

func (r *wireReader) uvarint() uint64 {
	n, w := binary.Uvarint(r.b)
	if w <= 0 {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	r.b = r.b[w:]
	return n
}

func (r *wireReader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *wireReader) bytes() []byte { return r.take(r.uvarint()) }

func (r *wireReader) position() *position {
	p := &position{}
	if b := r.take(8); b != nil {
		p.time = int64(binary.BigEndian.Uint64(b))
		r.bad = r.bad || p.time == math.MaxInt64 // documents are older, and time+1 must exist
	}
	p.id, p.tenant = string(r.bytes()), string(r.bytes())
	return p
}

func (r *wireReader) end() error {
	switch {
	case r.version != 0:
		return fmt.Errorf("%w: version %d, this build knows %d", errWire, r.version, wireVersion)
	case r.bad || len(r.b) > 0:
		return errWire
	}
	return nil
}
