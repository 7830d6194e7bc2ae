package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// The layouts of commands, queries and results; DESIGN.md, "Formats", has them in words.
const (
	codecFirst   = 1
	codecMembers = 2 // the tables of members, and conditions on the table's version
	codecLimits  = 3 // changes of limits that are more than token buckets
	codecLeases  = 4 // changes of limits of raftfsm.LevelLeases and of plans, and queries by key
	codecFailure = 5 // changes of limits of raftfsm.LevelFailure
	codecCatalog = 6 // commands and queries of the catalog, see catalogcodec.go
)

const (
	opChange = 1
	opFeed   = 2
	opRecord = 3
	opRange  = 4 // in codecLeases
)

// opsMax bounds the steps of one command.
const opsMax = 1000

// kind is what a step does to its record.
type kind byte

const (
	// kindPut creates or replaces. Another owner's live record makes it foreign.
	kindPut kind = 1
	// kindCreate creates; a live record makes it existing.
	kindCreate kind = 2
	// kindKeep creates, or leaves a live record as it is.
	kindKeep kind = 3
	// kindDelete removes; a missing record, or another owner's, makes it unknown.
	kindDelete kind = 4
	// kindSeal seals for good; a missing record, or another owner's, makes it unknown.
	kindSeal kind = 5
)

// step is one part of a command.
type step struct {
	kind  kind
	key   string
	owner string // of the record; for kindDelete and kindSeal empty
	value []byte
}

// change is a command: all steps or none.
type change struct {
	table table
	// actor is the tenant that may touch only records of its own, or * for any.
	actor string
	// origin is the region where the change was made.
	origin string
	// expect makes the change conditional: the table must be at version expect-1. 0 means any.
	// Only tables of codecMembers take conditions.
	expect uint64
	steps  []step
}

// outcome is the second byte of a result.
type outcome byte

const (
	outcomeDone      outcome = 1
	outcomeForeign   outcome = 2 // a step touches another owner's record
	outcomeUnknown   outcome = 3 // a step names a record that does not exist
	outcomeExists    outcome = 4 // a step creates a record that exists
	outcomeFull      outcome = 5 // the table may not grow any more
	outcomeExhausted outcome = 6 // the table has no version numbers left
	outcomeMalformed outcome = 7
	outcomeStale     outcome = 8 // the table is not at the version that the change expects
)

// changeResult is what became of a change.
type changeResult struct {
	outcome outcome
	// step is the one that stood in the way.
	step int
	// version is the table's version afterwards.
	version uint32
	// created, replaced and unchanged count the puts.
	created, replaced, unchanged uint32
	message                      string
}

var errCodec = errors.New("meta: malformed bytes")

// errNewer marks a command of a newer build. Going on without it would let replicas differ,
// so a machine stops there. New tables and kinds of steps therefore raise the version.
var errNewer = fmt.Errorf("%w: made by a newer build", errCodec)

// codec is the first version that can say c.
func (c change) codec() byte {
	codec := c.table.codec()
	for _, s := range c.steps {
		switch {
		case c.table != tableLimits:
		case !isAssignment(s.key) && len(s.value) > 0 && s.value[0] >= limitValueFailure:
			codec = codecFailure
		case isAssignment(s.key) || len(s.value) > 0 && s.value[0] >= limitValueLeases:
			codec = max(codec, codecLeases)
		case len(s.value) > 0 && s.value[0] == limitValueLimits:
			codec = max(codec, codecLimits)
		}
	}
	return codec
}

func encodeChange(c change) []byte {
	b := []byte{c.codec(), opChange, byte(c.table)}
	b = wire.AppendString(b, c.actor)
	b = wire.AppendString(b, c.origin)
	if c.table.codec() >= codecMembers {
		b = binary.AppendUvarint(b, c.expect)
	}
	b = binary.AppendUvarint(b, uint64(len(c.steps)))
	for _, s := range c.steps {
		b = append(b, byte(s.kind))
		b = wire.AppendString(b, s.key)
		b = wire.AppendString(b, s.owner)
		b = wire.AppendString(b, s.value)
	}
	return b
}

// decodeChange accepts what encodeChange writes for steps with distinct keys.
func decodeChange(b []byte) (change, error) {
	r, op, err := openCodec(b, codecFailure)
	if err != nil {
		return change{}, err
	}
	if op > opRange {
		return change{}, fmt.Errorf("%w: operation %d", errNewer, op)
	}
	if op != opChange {
		return change{}, fmt.Errorf("%w: operation %d is not a command", errCodec, op)
	}
	c := change{table: table(r.Byte(byte(tableLast))), actor: r.String(nameBytesMax), origin: r.String(nameBytesMax)}
	if c.table.codec() >= codecMembers {
		c.expect = r.Uvarint(math.MaxUint32 + 1)
	}
	seen := map[string]bool{}
	for n := r.Count(opsMax); n > 0 && !r.Failed(); n-- {
		s := step{
			kind:  kind(r.Byte(byte(kindSeal))),
			key:   r.String(keyBytesMax),
			owner: r.String(nameBytesMax),
			value: r.Bytes(valueBytesMax),
		}
		if !r.Failed() && (s.kind == 0 || s.key == "" || seen[s.key]) {
			return change{}, fmt.Errorf("%w: step %d (kind %d, key %q)", errCodec, len(c.steps), s.kind, s.key)
		}
		seen[s.key] = true
		c.steps = append(c.steps, s)
	}
	if err := r.Done(); err != nil || c.table == 0 || c.codec() != b[0] {
		return change{}, fmt.Errorf("%w: change of table %d", errCodec, c.table)
	}
	return c, nil
}

// openCodec reads the version, at most newest, and the byte behind it.
func openCodec(b []byte, newest byte) (r *wire.Reader, op byte, err error) {
	r = wire.NewReader(b)
	switch v := r.Byte(math.MaxUint8); {
	case v > newest:
		return nil, 0, fmt.Errorf("%w: version %d, this build knows %d", errNewer, v, newest)
	case v < codecFirst:
		return nil, 0, fmt.Errorf("%w: version %d", errCodec, v)
	}
	return r, r.Byte(math.MaxUint8), nil
}

// readTable reads a table; 0 for one that is not written in this version of the codec.
func readTable(r *wire.Reader, version byte) table {
	t := table(r.Byte(byte(tableLast)))
	if t.codec() != version {
		return 0
	}
	return t
}

func encodeResult(res changeResult) []byte {
	b := []byte{codecFirst, byte(res.outcome)}
	for _, v := range [...]uint32{uint32(res.step), res.version, res.created, res.replaced, res.unchanged} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return append(b, res.message...)
}

func decodeResult(b []byte) (changeResult, error) {
	r, code, err := openCodec(b, codecFirst)
	if err != nil {
		return changeResult{}, err
	}
	res := changeResult{outcome: outcome(code), step: int(r.Uvarint(opsMax))}
	for _, field := range [...]*uint32{&res.version, &res.created, &res.replaced, &res.unchanged} {
		*field = uint32(r.Uvarint(math.MaxUint32))
	}
	res.message = string(r.Rest())
	if err := r.Done(); err != nil {
		return changeResult{}, fmt.Errorf("%w: result: %w", errCodec, err)
	}
	return res, nil
}

// position is a place in the order of changes: behind the record with this key that was
// last changed at this version.
type position struct {
	version uint32
	key     string
}

// page is a part of a table's records in the order of their last change.
type page struct {
	// counters are those of the table at the moment of the page.
	counters counters
	// last is true when no record follows.
	last    bool
	records []record
}

func encodeFeedQuery(t table, after position) []byte {
	b := []byte{t.codec(), opFeed, byte(t)}
	b = binary.AppendUvarint(b, uint64(after.version))
	return wire.AppendString(b, after.key)
}

func decodeFeedQuery(b []byte) (t table, after position, err error) {
	r, op, err := openCodec(b, codecMembers)
	if err != nil {
		return 0, position{}, err
	}
	t = readTable(r, b[0])
	after = position{version: uint32(r.Uvarint(math.MaxUint32)), key: r.String(keyBytesMax)}
	if err := r.Done(); err != nil || op != opFeed || t == 0 {
		return 0, position{}, fmt.Errorf("%w: query %d of table %d", errCodec, op, t)
	}
	return t, after, nil
}

func encodePage(p page) []byte {
	b := []byte{codecFirst, 0}
	if p.last {
		b[1] = 1
	}
	b = wire.AppendString(b, encodeCounters(p.counters))
	b = binary.AppendUvarint(b, uint64(len(p.records)))
	for _, rec := range p.records {
		b = wire.AppendString(b, rec.key)
		b = wire.AppendString(b, appendRecord(nil, rec))
	}
	return b
}

func decodePage(b []byte) (page, error) {
	r, last, err := openCodec(b, codecFirst)
	if err != nil {
		return page{}, err
	}
	p := page{last: last == 1}
	if p.counters, err = decodeCounters(r.Bytes(pageBytesMax)); err != nil {
		return page{}, err
	}
	for n := r.Count(pageRecordsMax); n > 0 && !r.Failed(); n-- {
		key := r.String(keyBytesMax)
		rec, err := decodeRecord(key, r.Bytes(2*rowValueBytesMax))
		if err != nil {
			return page{}, err
		}
		p.records = append(p.records, rec)
	}
	if err := r.Done(); err != nil || last > 1 {
		return page{}, fmt.Errorf("%w: page", errCodec)
	}
	return p, nil
}
