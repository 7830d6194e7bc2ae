package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// The layouts of commands, queries and results; DESIGN.md, "Formats", has them in words.
const codecVersion = 1

const (
	opCheck     = 1
	opConfigure = 2
	opSweep     = 3
	opVersion   = 4 // query only
)

// outcome is the second byte of a result.
type outcome byte

const (
	outcomeDecided       outcome = 1 // a Decision follows
	outcomeTooManyLimits outcome = 2
	outcomeConfigured    outcome = 3 // the version in force follows; so with the next three
	outcomeNeedFull      outcome = 4
	outcomeStaged        outcome = 5
	outcomeSuperseded    outcome = 6
	outcomeSwept         outcome = 7 // whether rows are left follows
	outcomeMalformed     outcome = 8
)

// partsMax bounds how many commands one change may be split into.
const partsMax = 64

// LimitsMax bounds the limits of a region.
const LimitsMax = 10_000

var errCodec = errors.New("limiter: malformed bytes")

// errNewer marks a command of a newer build. Going on without it would let replicas differ,
// so a machine stops there.
var errNewer = fmt.Errorf("%w: made by a newer build", errCodec)

// configureCommand is a change, or one part of it. All parts of a change have the same From
// and To, and it takes effect with the last.
type configureCommand struct {
	Change
	part uint32
	last bool
}

func appendCheck(b []byte, r Request) []byte {
	b = append(b, codecVersion, opCheck)
	b = wire.AppendString(b, r.Tenant)
	b = wire.AppendString(b, r.Token)
	b = wire.AppendString(b, r.Key)
	return binary.AppendUvarint(b, uint64(r.Cost))
}

func appendConfigure(b []byte, c configureCommand) []byte {
	b = append(b, codecVersion, opConfigure)
	b = binary.AppendUvarint(b, uint64(c.From))
	b = binary.AppendUvarint(b, uint64(c.To))
	b = binary.AppendUvarint(b, uint64(c.part))
	b = appendBool(b, c.last)
	return appendSteps(b, c.Puts, c.Deletes)
}

// appendSteps is what a change does, without its versions.
func appendSteps(b []byte, puts []Limit, deletes []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(puts)))
	for _, l := range puts {
		b = appendLimit(b, l)
	}
	b = binary.AppendUvarint(b, uint64(len(deletes)))
	for _, id := range deletes {
		b = wire.AppendString(b, id)
	}
	return b
}

func appendLimit(b []byte, l Limit) []byte {
	b = wire.AppendString(b, l.ID)
	b = append(b, scopeCode(l.Scope))
	b = wire.AppendString(b, l.Selector)
	b = wire.AppendString(b, l.TokenBucket.Rate)
	return binary.AppendUvarint(b, uint64(l.TokenBucket.Burst))
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// scopeCode is the scope's number on disk; an unknown scope gets one that no reader accepts.
func scopeCode(scope string) byte {
	for i, s := range scopes {
		if s == scope {
			return byte(i)
		}
	}
	return byte(len(scopes))
}

// command is one decoded command; op says which part of it counts.
type command struct {
	op        byte
	check     Request
	configure configureCommand
}

// decodeCommand reads a command or a query. It accepts exactly what the append functions
// write for valid input, because what it lets through is executed.
func decodeCommand(b []byte) (command, error) {
	r := wire.NewReader(b)
	switch v := r.Byte(math.MaxUint8); {
	case v > codecVersion:
		return command{}, fmt.Errorf("%w: version %d, this build knows %d", errNewer, v, codecVersion)
	case v < codecVersion:
		return command{}, fmt.Errorf("%w: version %d", errCodec, v)
	}
	c := command{op: r.Byte(math.MaxUint8)}
	switch c.op {
	case opCheck:
		c.check.Tenant = r.String(nameBytesMax)
		c.check.Token = r.String(SubjectBytesMax)
		c.check.Key = r.String(SubjectBytesMax)
		c.check.Cost = uint32(r.Uvarint(math.MaxUint32))
		if !ValidName(c.check.Tenant) {
			return command{}, fmt.Errorf("%w: tenant %q", errCodec, c.check.Tenant)
		}
	case opConfigure:
		c.configure.From = uint32(r.Uvarint(math.MaxUint32))
		c.configure.To = uint32(r.Uvarint(math.MaxUint32))
		c.configure.part = uint32(r.Uvarint(partsMax - 1))
		c.configure.last = r.Byte(1) == 1
		c.configure.Puts, c.configure.Deletes = readSteps(r)
	case opSweep, opVersion:
	case 0:
		return command{}, fmt.Errorf("%w: no operation", errCodec)
	default:
		return command{}, fmt.Errorf("%w: operation %d", errNewer, c.op)
	}
	if err := r.Done(); err != nil {
		return command{}, fmt.Errorf("%w: operation %d: %w", errCodec, c.op, err)
	}
	if err := validSteps(c.configure.Change); err != nil {
		return command{}, err
	}
	return c, nil
}

func readSteps(r *wire.Reader) (puts []Limit, deletes []string) {
	for n := r.Count(LimitsMax); n > 0 && !r.Failed(); n-- {
		puts = append(puts, readLimit(r))
	}
	for n := r.Count(LimitsMax); n > 0 && !r.Failed(); n-- {
		deletes = append(deletes, r.String(nameBytesMax))
	}
	return puts, deletes
}

func readLimit(r *wire.Reader) Limit {
	return Limit{
		ID:       r.String(nameBytesMax),
		Scope:    scopes[r.Byte(byte(len(scopes)-1))],
		Selector: r.String(SelectorBytesMax),
		TokenBucket: TokenBucket{
			Rate:  r.String(rateBytesMax),
			Burst: uint32(r.Uvarint(math.MaxUint32)),
		},
	}
}

// validSteps refuses limits that Validate would refuse, and ids that occur twice.
func validSteps(c Change) error {
	if err := Validate(c.Puts); err != nil {
		return fmt.Errorf("%w: %w", errCodec, err)
	}
	seen := make(map[string]bool, len(c.Puts)+len(c.Deletes))
	for _, l := range c.Puts {
		seen[l.ID] = true
	}
	for _, id := range c.Deletes {
		if !ValidName(id) || seen[id] {
			return fmt.Errorf("%w: delete of %q", errCodec, id)
		}
		seen[id] = true
	}
	return nil
}

var reasonCodes = [...]string{"", ReasonLimited, ReasonCostExceedsLimit}

func appendDecision(b []byte, d *Decision) []byte {
	b = append(b, codecVersion, byte(outcomeDecided))
	b = appendBool(b, d.Allow)
	for i, reason := range reasonCodes {
		if reason == d.Reason {
			b = append(b, byte(i))
		}
	}
	b = binary.AppendUvarint(b, uint64(d.RetryAfterMs))
	b = wire.AppendString(b, d.LimitID)
	b = binary.AppendUvarint(b, uint64(d.Version))
	b = binary.AppendUvarint(b, uint64(len(d.Levels)))
	for _, l := range d.Levels {
		b = wire.AppendString(b, l.LimitID)
		b = append(b, scopeCode(l.Scope))
		b = binary.AppendUvarint(b, uint64(l.Burst))
		b = binary.AppendUvarint(b, uint64(l.Remaining))
	}
	return b
}

func readDecision(r *wire.Reader) Decision {
	d := Decision{
		Allow:        r.Byte(1) == 1,
		Reason:       reasonCodes[r.Byte(byte(len(reasonCodes)-1))],
		RetryAfterMs: uint32(r.Uvarint(math.MaxUint32)),
		LimitID:      r.String(nameBytesMax),
		Version:      uint32(r.Uvarint(math.MaxUint32)),
	}
	n := r.Count(levelsMax)
	if n > 0 {
		d.Levels = make([]Level, 0, n)
	}
	for ; n > 0 && !r.Failed(); n-- {
		d.Levels = append(d.Levels, Level{
			LimitID:   r.String(nameBytesMax),
			Scope:     scopes[r.Byte(byte(len(scopes)-1))],
			Burst:     uint32(r.Uvarint(math.MaxUint32)),
			Remaining: uint32(r.Uvarint(math.MaxUint32)),
		})
	}
	return d
}

// result is one decoded result; outcome says which part of it counts.
type result struct {
	outcome  outcome
	decision Decision
	version  uint32
	more     bool
	message  string
}

func appendVersionResult(b []byte, o outcome, version uint32) []byte {
	return binary.AppendUvarint(append(b, codecVersion, byte(o)), uint64(version))
}

func decodeResult(b []byte) (result, error) {
	r := wire.NewReader(b)
	if v := r.Byte(math.MaxUint8); v != codecVersion {
		return result{}, fmt.Errorf("%w: result of version %d, this build knows %d", errCodec, v, codecVersion)
	}
	res := result{outcome: outcome(r.Byte(math.MaxUint8))}
	switch res.outcome {
	case outcomeDecided:
		res.decision = readDecision(r)
	case outcomeTooManyLimits:
	case outcomeConfigured, outcomeNeedFull, outcomeStaged, outcomeSuperseded:
		res.version = uint32(r.Uvarint(math.MaxUint32))
	case outcomeSwept:
		res.more = r.Byte(1) == 1
	case outcomeMalformed:
		res.message = string(r.Rest())
	default:
		return result{}, fmt.Errorf("%w: outcome %d is unknown to this build", errCodec, res.outcome)
	}
	if err := r.Done(); err != nil {
		return result{}, fmt.Errorf("%w: outcome %d: %w", errCodec, res.outcome, err)
	}
	return res, nil
}
