package limiter

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Words of a limit by their number on disk.
var (
	enforcementCodes = [...]string{EnforcementShadow, EnforcementOff}
	oversizeCodes    = [...]string{OversizeDebt}
	accessCodes      = [...]string{AccessUnlimited, AccessBanned}
	onFailureCodes   = [...]string{OnFailureDeny, OnFailureOpen}
)

// Fields of a limit in the layout of codecLimits, the last but one in that of codecLeases, and the last one
// in that of codecFailure, in the order in which they are written.
const (
	fieldBucket = 1 << iota
	fieldWindow
	fieldCalendar
	fieldEnforcement
	fieldCanary
	fieldOversize
	fieldAccess
	fieldOverrides
	fieldExpires
	fieldConcurrency
	fieldOnFailure
	fieldsAll    = 1<<iota - 1
	fieldsLimits = fieldConcurrency - 1
	fieldsLeases = fieldOnFailure - 1
)

func (l Limit) fields() uint64 {
	var f uint64
	if l.TokenBucket != (TokenBucket{}) {
		f |= fieldBucket
	}
	if l.Window != (Window{}) {
		f |= fieldWindow
	}
	if l.Calendar != (Calendar{}) {
		f |= fieldCalendar
	}
	if l.Enforcement != "" {
		f |= fieldEnforcement
	}
	if l.Canary != 0 {
		f |= fieldCanary
	}
	if l.Oversize != "" {
		f |= fieldOversize
	}
	if l.Access != "" {
		f |= fieldAccess
	}
	if l.Overrides != "" {
		f |= fieldOverrides
	}
	if l.Expires != 0 {
		f |= fieldExpires
	}
	if l.Concurrency != (Concurrency{}) {
		f |= fieldConcurrency
	}
	if l.OnFailure != "" {
		f |= fieldOnFailure
	}
	return f
}

// plain tells whether the first layout can say all of l, and builds that know only that one take it.
func (l Limit) plain() bool {
	return l.fields() == fieldBucket && l.TokenBucket.Burst > 0 && !l.forPlan() && l.Scope != ScopeGlobal
}

// codec is the first version that can say l.
func (l Limit) codec() byte {
	switch {
	case l.OnFailure != "":
		return codecFailure
	case l.plain():
		return codecFirst
	case l.Concurrency == (Concurrency{}) && !l.forPlan() && l.Scope != ScopeGlobal:
		return codecLimits
	}
	return codecLeases
}

// appendLimit writes l in the layout of a version; the first one is for plain limits.
func appendLimit(b []byte, l Limit, version byte) []byte {
	b = wire.AppendString(b, l.ID)
	b = append(b, scopeCode(l.Scope))
	b = wire.AppendString(b, l.Selector)
	if version == codecFirst {
		b = wire.AppendString(b, l.TokenBucket.Rate)
		return binary.AppendUvarint(b, uint64(l.TokenBucket.Burst))
	}
	fields := l.fields()
	b = binary.AppendUvarint(b, fields)
	if fields&fieldBucket != 0 {
		b = wire.AppendString(b, l.TokenBucket.Rate)
		b = binary.AppendUvarint(b, uint64(l.TokenBucket.Burst))
	}
	if fields&fieldWindow != 0 {
		b = binary.AppendUvarint(b, uint64(l.Window.Limit))
		b = wire.AppendString(b, l.Window.Length)
	}
	if fields&fieldCalendar != 0 {
		b = binary.AppendUvarint(b, uint64(l.Calendar.Limit))
		b = appendRule(b, l.Calendar)
	}
	if fields&fieldEnforcement != 0 {
		b = append(b, codeOf(enforcementCodes[:], l.Enforcement))
	}
	if fields&fieldCanary != 0 {
		b = binary.AppendUvarint(b, uint64(l.Canary))
	}
	if fields&fieldOversize != 0 {
		b = append(b, codeOf(oversizeCodes[:], l.Oversize))
	}
	if fields&fieldAccess != 0 {
		b = append(b, codeOf(accessCodes[:], l.Access))
	}
	if fields&fieldOverrides != 0 {
		b = wire.AppendString(b, l.Overrides)
	}
	if fields&fieldExpires != 0 {
		b = binary.AppendUvarint(b, uint64(l.Expires))
	}
	if fields&fieldConcurrency != 0 {
		b = binary.AppendUvarint(b, uint64(l.Concurrency.Limit))
		b = wire.AppendString(b, l.Concurrency.TTL)
	}
	if fields&fieldOnFailure != 0 {
		b = append(b, codeOf(onFailureCodes[:], l.OnFailure))
	}
	return b
}

// Level is the protocol level that every member must speak before l can be set.
func (l Limit) Level() int {
	switch l.codec() {
	case codecFirst:
		return raftfsm.LevelFirst
	case codecLimits:
		return raftfsm.LevelLimits
	case codecFailure:
		return raftfsm.LevelFailure
	}
	return raftfsm.LevelLeases
}

// AppendLimit writes a limit in the layout of its Level, or of raftfsm.LevelLimits if that is
// higher, for whoever keeps limits.
func AppendLimit(b []byte, l Limit) []byte { return appendLimit(b, l, max(codecLimits, l.codec())) }

// DecodeLimit is the inverse of AppendLimit.
func DecodeLimit(b []byte) (Limit, error) {
	r := wire.NewReader(b)
	l := readLimit(r, codecFailure)
	if err := r.Done(); err != nil {
		return Limit{}, fmt.Errorf("%w: limit: %w", errCodec, err)
	}
	return l, nil
}

func readLimit(r *wire.Reader, version byte) Limit {
	known := scopes[:]
	if version < codecLeases {
		known = tenantScopes
	}
	l := Limit{
		ID:       r.String(nameBytesMax),
		Scope:    known[r.Byte(byte(len(known)-1))],
		Selector: r.String(SelectorBytesMax),
	}
	fields := uint64(fieldBucket)
	switch version {
	case codecLimits:
		fields = r.Uvarint(fieldsLimits)
	case codecLeases:
		fields = r.Uvarint(fieldsLeases)
	case codecFailure:
		fields = r.Uvarint(fieldsAll)
	}
	if fields&fieldBucket != 0 {
		l.TokenBucket = TokenBucket{Rate: r.String(rateBytesMax), Burst: uint32(r.Uvarint(math.MaxUint32))}
	}
	if fields&fieldWindow != 0 {
		l.Window = Window{Limit: uint32(r.Uvarint(math.MaxUint32)), Length: r.String(rateBytesMax)}
	}
	if fields&fieldCalendar != 0 {
		most := uint32(r.Uvarint(math.MaxUint32))
		l.Calendar = readRule(r)
		l.Calendar.Limit = most
	}
	if fields&fieldEnforcement != 0 {
		l.Enforcement = enforcementCodes[r.Byte(byte(len(enforcementCodes)-1))]
	}
	if fields&fieldCanary != 0 {
		l.Canary = uint32(r.Uvarint(100))
	}
	if fields&fieldOversize != 0 {
		l.Oversize = oversizeCodes[r.Byte(byte(len(oversizeCodes)-1))]
	}
	if fields&fieldAccess != 0 {
		l.Access = accessCodes[r.Byte(byte(len(accessCodes)-1))]
	}
	if fields&fieldOverrides != 0 {
		l.Overrides = r.String(nameBytesMax)
	}
	if fields&fieldExpires != 0 {
		l.Expires = readSeconds(r)
	}
	if fields&fieldConcurrency != 0 {
		l.Concurrency = Concurrency{Limit: uint32(r.Uvarint(math.MaxUint32)), TTL: r.String(rateBytesMax)}
	}
	if fields&fieldOnFailure != 0 {
		l.OnFailure = onFailureCodes[r.Byte(byte(len(onFailureCodes)-1))]
	}
	if fields != l.fields() {
		r.Fail() // a field without content
	}
	return l
}
