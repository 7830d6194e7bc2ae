package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// The layouts of commands, queries and results; docs/FORMAT.md has them in words. What codecFirst
// can say is said in it, so that builds of every level understand it; the rest is in
// codecLimits, which is used from raftfsm.LevelLimits on, codecLeases, from raftfsm.LevelLeases on,
// codecAhead, from raftfsm.LevelAhead on, and codecFailure, from raftfsm.LevelFailure on.
const (
	codecFirst  = 1
	codecLimits = 2
	codecLeases = 3
	codecAhead  = 4
	// codecFailure is of limits with OnFailure, and of the changes that put them.
	codecFailure = 5
	// codecBlankets is of commands that ask for blankets, from raftfsm.LevelBlankets on.
	codecBlankets = 6
)

const (
	opCheck     = 1
	opConfigure = 2
	opSweep     = 3
	opVersion   = 4 // query only
	// From here on in codecLimits.
	opRoll      = 5
	opCalendars = 6 // query only
	opPeek      = 7 // query only
	opBatch     = 8
	// From here on in codecLeases; so is a check that may be remembered for a refund, and any whose
	// result names leases in its way.
	opLease   = 9
	opReserve = 10
	opSettle  = 11
	opRefund  = 12
	opAcquire = 13
	opRelease = 14

	opWatched  = 23 // and another command, or query, which every limit only watches
	opTogether = 24
	opBlanket  = 25
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
	outcomeRolled        outcome = 9  // how many limits entered a period follows
	outcomeCalendars     outcome = 10 // what is known of the wall clocks and of the periods follows
	outcomePeeked        outcome = 11 // a Decision with all that is known of its levels follows
	outcomeBatch         outcome = 12 // the results of its checks follow
	outcomeLent          outcome = 13 // a Grant for each Renewal follows
	outcomeScarce        outcome = 14 // as outcomeDecided, then who holds what is missing
	outcomeReserved      outcome = 15 // a Decision, the id and for how long follow
	outcomeSettled       outcome = 16 // a Settlement follows
	outcomeRefunded      outcome = 17 // how many tokens follows
	outcomeAcquired      outcome = 18 // as outcomeReserved
	outcomeReleased      outcome = 19 // whether it was held follows
	outcomeUnknown       outcome = 20 // there is nothing under the id
	outcomeFull          outcome = 21 // the tenant holds too much already
	outcomeTogether      outcome = 23 // the results of its parts follow
	outcomeBlanket       outcome = 24 // how many tokens and for how long follow
)

// batchCommandMax bounds the checks in one command, so that their results stay within some
// megabytes however many limits match.
const batchCommandMax = 500

// partsMax bounds how many commands one change may be split into: more than the longest limits and
// assignments of a region need.
const partsMax = 128

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
	return appendRequest(append(b, codecFirst, opCheck), r)
}

// appendRecallingCheck is a check whose result names leases that are in its way. It can be refunded
// under id, unless that is zero.
func appendRecallingCheck(b []byte, r Request, id holdID) []byte {
	return append(appendRequest(append(b, codecLeases, opCheck), r), id[:]...)
}

func appendPeek(b []byte, r Request) []byte {
	return appendRequest(append(b, codecLimits, opPeek), r)
}

func appendBatch(b []byte, all []Request) []byte { return appendBatchIn(b, codecLimits, all) }

// appendRecallingBatch is to appendBatch what appendRecallingCheck is to appendCheck.
func appendRecallingBatch(b []byte, all []Request) []byte { return appendBatchIn(b, codecLeases, all) }

func appendBatchIn(b []byte, version byte, all []Request) []byte {
	b = binary.AppendUvarint(append(b, version, opBatch), uint64(len(all)))
	for _, r := range all {
		b = appendRequest(b, r)
	}
	return b
}

func appendRequest(b []byte, r Request) []byte {
	b = wire.AppendString(b, r.Tenant)
	b = wire.AppendString(b, r.Token)
	b = wire.AppendString(b, r.Key)
	return binary.AppendUvarint(b, uint64(r.Cost))
}

func appendConfigure(b []byte, c configureCommand) []byte {
	version := versionOfSteps(c.Change)
	b = append(b, version, opConfigure)
	b = binary.AppendUvarint(b, uint64(c.From))
	b = binary.AppendUvarint(b, uint64(c.To))
	b = binary.AppendUvarint(b, uint64(c.part))
	b = appendBool(b, c.last)
	return appendSteps(b, c.Change, version)
}

// versionOfSteps is the layout that a change needs.
func versionOfSteps(c Change) byte {
	version := byte(codecFirst)
	if c.movesPlans() {
		version = codecLeases
	}
	for _, l := range c.Puts {
		version = max(version, l.codec())
	}
	return version
}

// appendSteps is what a change does, without its versions.
func appendSteps(b []byte, c Change, version byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(c.Puts)))
	for _, l := range c.Puts {
		b = appendLimit(b, l, version)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Deletes)))
	for _, id := range c.Deletes {
		b = wire.AppendString(b, id)
	}
	return appendPlanSteps(b, c)
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
	roll      rollCommand
	batch     []Request
	recalls   bool // checks name the leases in their way
	lease     leaseCommand
	blanket   blanketCommand
	hold      holdCommand
	parts     []Part
	// watched means that every limit is a shadow for it.
	watched bool
}

// decodeCommand reads a command or a query. It accepts exactly what the append functions
// write for valid input, because what it lets through is executed.
func decodeCommand(b []byte) (command, error) {
	r := wire.NewReader(b)
	version := r.Byte(math.MaxUint8)
	switch {
	case version > codecBlankets:
		return command{}, fmt.Errorf("%w: version %d, this build knows %d", errNewer, version, codecBlankets)
	case version < codecFirst:
		return command{}, fmt.Errorf("%w: version %d", errCodec, version)
	}
	c := command{op: r.Byte(math.MaxUint8)}
	spoken := byte(codecFirst) // what an append function would have written it in
	switch c.op {
	case opCheck:
		if c.recalls = version == codecLeases; c.recalls {
			spoken = codecLeases
		}
		c.check = readRequest(r)
		if c.recalls {
			c.hold.id = readHoldID(r)
		}
	case opReserve, opSettle, opRefund, opAcquire, opRelease:
		spoken = codecLeases
		c.hold = readHold(r, c.op)
	case opPeek:
		spoken = codecLimits
		c.check = readRequest(r)
	case opLease:
		c.lease = readLease(r)
		c.lease.ahead = version == codecAhead
		spoken = leaseVersion(c.lease.ahead)
	case opBatch:
		spoken = codecLimits
		if c.recalls = version == codecLeases; c.recalls {
			spoken = codecLeases
		}
		for n := r.Count(batchCommandMax); n > 0 && !r.Failed(); n-- {
			c.batch = append(c.batch, readRequest(r))
		}
	case opConfigure:
		c.configure.From = uint32(r.Uvarint(math.MaxUint32))
		c.configure.To = uint32(r.Uvarint(math.MaxUint32))
		c.configure.part = uint32(r.Uvarint(partsMax - 1))
		c.configure.last = r.Byte(1) == 1
		readSteps(r, &c.configure.Change, version)
		spoken = versionOfSteps(c.configure.Change)
	case opRoll:
		if spoken = codecLimits; version == codecLeases {
			spoken = codecLeases
		}
		c.roll = rollCommand{wall: readSeconds(r), periods: readPeriods(r), timed: version == codecLeases}
	case opCalendars:
		spoken = codecLimits
	case opTogether:
		spoken = codecLeases
		c.parts = readParts(r)
	case opBlanket:
		spoken = codecBlankets
		c.blanket = readBlanket(r)
	case opWatched:
		if version != codecLeases {
			return command{}, fmt.Errorf("%w: operation %d in version %d", errCodec, c.op, version)
		}
		return decodeWatched(r)
	case opSweep, opVersion:
	case 0:
		return command{}, fmt.Errorf("%w: no operation", errCodec)
	default:
		return command{}, fmt.Errorf("%w: operation %d", errNewer, c.op)
	}
	if err := r.Done(); err != nil {
		return command{}, fmt.Errorf("%w: operation %d: %w", errCodec, c.op, err)
	}
	if version != spoken {
		return command{}, fmt.Errorf("%w: operation %d in version %d", errCodec, c.op, version)
	}
	if err := validSteps(c.configure.Change); err != nil {
		return command{}, err
	}
	return c, nil
}

func readRequest(r *wire.Reader) Request {
	q := Request{Tenant: r.Text(nameBytesMax), Token: r.Text(SubjectBytesMax), Key: r.Text(SubjectBytesMax), Cost: uint32(r.Uvarint(math.MaxUint32))}
	if !validCounterTenant(q.Tenant) {
		r.Fail()
	}
	return q
}

// readSteps appends to what c does.
func readSteps(r *wire.Reader, c *Change, version byte) {
	for n := r.Count(LimitsMax); n > 0 && !r.Failed(); n-- {
		c.Puts = append(c.Puts, readLimit(r, version))
	}
	for n := r.Count(LimitsMax); n > 0 && !r.Failed(); n-- {
		c.Deletes = append(c.Deletes, r.String(nameBytesMax))
	}
	if version >= codecLeases {
		readPlanSteps(r, c)
	}
}

// validSteps refuses limits that Validate would refuse, and ids that occur twice.
func validSteps(c Change) error {
	if err := ValidateStored(c.Puts); err != nil {
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
	return validPlanSteps(c)
}

var reasonCodes = [...]string{"", ReasonLimited, ReasonCostExceedsLimit, ReasonBanned}

// kindCodes are the kinds of levels by their number on disk.
var kindCodes = [...]string{KindTokenBucket, KindWindow, KindCalendar, KindUnlimited, KindBanned, KindConcurrency}

// plain tells whether the first layout can say all of d.
func (d *Decision) plain() bool {
	for _, l := range d.Levels {
		if l.Kind != KindTokenBucket || l.Shadow {
			return false
		}
	}
	return d.Kind == "" || d.Kind == KindTokenBucket
}

func appendDecision(b []byte, d *Decision) []byte {
	version := byte(codecLimits)
	if d.plain() {
		version = codecFirst
	}
	return appendAnswer(append(b, version, byte(outcomeDecided)), d, version, false)
}

// appendPeeked is the answer to a peek: all that is known of the levels.
func appendPeeked(b []byte, d *Decision) []byte {
	return appendAnswer(append(b, codecLimits, byte(outcomePeeked)), d, codecLimits, true)
}

func appendAnswer(b []byte, d *Decision, version byte, all bool) []byte {
	b = appendBool(b, d.Allow)
	b = append(b, codeOf(reasonCodes[:], d.Reason))
	b = binary.AppendUvarint(b, uint64(d.RetryAfterMs))
	b = wire.AppendString(b, d.LimitID)
	if version != codecFirst {
		b = append(b, 1+codeOf(kindCodes[:], d.Kind))
	}
	b = binary.AppendUvarint(b, uint64(d.Version))
	b = binary.AppendUvarint(b, uint64(len(d.Levels)))
	for _, l := range d.Levels {
		b = wire.AppendString(b, l.LimitID)
		b = append(b, scopeCode(l.Scope))
		if version != codecFirst {
			b = append(b, codeOf(kindCodes[:], l.Kind))
			b = appendBool(b, l.Shadow)
			b = appendBool(b, l.WouldDeny)
		}
		b = binary.AppendUvarint(b, uint64(l.Limit))
		b = binary.AppendUvarint(b, uint64(l.Remaining))
		if all {
			b = binary.AppendUvarint(b, uint64(l.Used))
			b = binary.AppendUvarint(b, uint64(l.ResetMs))
		}
	}
	return b
}

// codeOf is the place of word in words; 255 for an unknown one, which no reader accepts.
func codeOf(words []string, word string) byte { return byte(slices.Index(words, word)) }

func readDecision(r *wire.Reader, version byte) Decision {
	d := readAnswer(r, version, false)
	if d.plain() != (version == codecFirst) || version > codecLimits {
		r.Fail()
	}
	return d
}

func readAnswer(r *wire.Reader, version byte, all bool) Decision {
	d := Decision{
		Allow:        r.Byte(1) == 1,
		Reason:       reasonCodes[r.Byte(byte(len(reasonCodes)-1))],
		RetryAfterMs: uint32(r.Uvarint(math.MaxUint32)),
		LimitID:      r.String(nameBytesMax),
	}
	switch {
	case version == codecFirst && !d.Allow:
		d.Kind = KindTokenBucket
	case version != codecFirst:
		if k := r.Byte(byte(len(kindCodes))); k > 0 {
			d.Kind = kindCodes[k-1]
		}
	}
	d.Version = uint32(r.Uvarint(math.MaxUint32))
	n := r.Count(levelsMax * len(kindCodes))
	if n > 0 {
		d.Levels = make([]Level, 0, n)
	}
	for ; n > 0 && !r.Failed(); n-- {
		l := Level{LimitID: r.String(nameBytesMax), Scope: scopes[r.Byte(byte(len(scopes)-1))], Kind: KindTokenBucket}
		if version != codecFirst {
			l.Kind = kindCodes[r.Byte(byte(len(kindCodes)-1))]
			l.Shadow, l.WouldDeny = r.Byte(1) == 1, r.Byte(1) == 1
		}
		l.Limit, l.Remaining = uint32(r.Uvarint(math.MaxUint32)), uint32(r.Uvarint(math.MaxUint32))
		if all {
			l.Used, l.ResetMs = uint32(r.Uvarint(math.MaxUint32)), uint32(r.Uvarint(math.MaxUint32))
		}
		d.Levels = append(d.Levels, l)
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
	wall     wallState
	expires  int64
	batch    []result
	periods  []period
	grants   []Grant
	recalls  []Recall
	blanket  blanketGrant
	hold     holdResult
}

func appendVersionResult(b []byte, o outcome, version uint32) []byte {
	return binary.AppendUvarint(append(b, codecFirst, byte(o)), uint64(version))
}

func decodeResult(b []byte) (result, error) {
	r := wire.NewReader(b)
	version := r.Byte(math.MaxUint8)
	if version < codecFirst || version > codecAhead {
		return result{}, fmt.Errorf("%w: result of version %d, this build knows %d", errCodec, version, codecAhead)
	}
	res := result{outcome: outcome(r.Byte(math.MaxUint8))}
	switch res.outcome {
	case outcomeDecided:
		res.decision = readDecision(r, version)
	case outcomeTooManyLimits:
	case outcomeConfigured, outcomeNeedFull, outcomeStaged, outcomeSuperseded:
		res.version = uint32(r.Uvarint(math.MaxUint32))
	case outcomeSwept:
		res.more = r.Byte(1) == 1
	case outcomePeeked:
		res.decision = readAnswer(r, version, true)
	case outcomeBatch, outcomeTogether:
		for n := r.Count(batchCommandMax); n > 0 && !r.Failed(); n-- {
			one, err := decodeResult(r.Bytes(raftfsm.FrameBytesMax))
			if err != nil {
				return result{}, err
			}
			res.batch = append(res.batch, one)
		}
	case outcomeLent:
		if version != leaseVersion(version == codecAhead) {
			r.Fail()
		}
		res.grants = readGrants(r, version == codecAhead)
	case outcomeScarce:
		if version != codecLeases {
			r.Fail()
		}
		decided, err := decodeResult(r.Bytes(raftfsm.FrameBytesMax))
		if err != nil || decided.outcome != outcomeDecided {
			return result{}, fmt.Errorf("%w: outcome %d: no decision: %w", errCodec, res.outcome, err)
		}
		res.decision, res.recalls = decided.decision, readRecalls(r)
	case outcomeRolled:
		r.Uvarint(LimitsMax)
	case outcomeCalendars:
		res.wall.passed, res.expires = readSeconds(r), readSeconds(r)
		res.periods = readPeriods(r)
	case outcomeReserved, outcomeSettled, outcomeRefunded, outcomeAcquired, outcomeReleased, outcomeUnknown, outcomeFull:
		readHeld(r, &res)
	case outcomeBlanket:
		res.blanket = readBlanketGrant(r)
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
