package limiter

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// A command that decodes is exactly what the encoder writes, and no bytes at all make the
// machine fail.
func FuzzCommand(f *testing.F) {
	f.Add(appendCheck(nil, Request{Tenant: "acme", Token: "t", Key: "k", Cost: 3}))
	f.Add(appendConfigure(nil, configureCommand{last: true, Change: Change{
		From: 1, To: 300, Puts: []Limit{limit("a", ScopeKey, "acme/x*", "10/s", 500)}, Deletes: []string{"b"},
	}}))
	f.Add(appendConfigure(nil, configureCommand{part: 3, Change: Change{To: 7}}))
	f.Add([]byte{codecFirst, opSweep})
	f.Add([]byte{codecFirst, opVersion})
	f.Add(appendConfigure(nil, configureCommand{last: true, Change: Change{To: 2, Puts: []Limit{windowed("a", "acme", 500, "1h")}}}))
	f.Add(appendConfigure(nil, configureCommand{last: true, Change: Change{From: 1, To: 2, Plans: []Assignment{{"acme", "gold"}}, Leavers: []string{"globex"}}}))
	f.Add(appendRoll(nil, rollCommand{wall: 5, periods: []period{{Calendar{Period: PeriodDay, TimeZone: "UTC", Anchor: "06:00"}, 3, 9}}}))
	f.Add([]byte{codecLimits, opCalendars})
	f.Add(appendPeek(nil, Request{Tenant: "acme", Cost: 3}))
	f.Add(appendBatch(nil, []Request{{Tenant: "acme", Cost: 3}, {Tenant: "globex", Key: "k"}}))
	f.Add(appendRoll(nil, rollCommand{wall: 5, timed: true}))
	f.Add(appendRecallingBatch(nil, []Request{{Tenant: "acme", Cost: 3}, {Tenant: "globex", Key: "k"}}))
	f.Add(appendLease(nil, leaseCommand{holder: 1, renewals: []Renewal{
		{Limit: 1, Tenant: "acme", Epoch: 1, Seq: 1, Want: 300}, {Limit: 1, Tenant: "acme", Subject: "s", Epoch: 2, Seq: 3, Spent: 4, Returned: 5},
	}}))
	f.Add(appendRecallingCheck(nil, Request{Tenant: "acme", Cost: 3}, holdID{1}))
	for _, op := range []byte{opReserve, opSettle, opRefund, opAcquire, opRelease} {
		f.Add(appendHold(nil, op, holdCommand{Request: Request{Tenant: "acme", Token: "t", Cost: 3}, id: holdID{9}, ttl: 5000}))
	}
	f.Add(appendConfigure(nil, configureCommand{last: true, Change: Change{To: 2, Puts: []Limit{running("a", 5)}}}))
	f.Add(appendTogether(nil, []Part{{Request: Request{Tenant: "acme", Cost: 3}}, {Request: Request{Tenant: "acme"}, Peek: true}}))
	f.Add(inMode(ModeShadow, appendCheck(nil, Request{Tenant: "acme", Cost: 3})))
	f.Add([]byte{codecLeases, opWatched, codecLeases, opWatched, codecFirst, opSweep})
	f.Add(appendLease(nil, leaseCommand{holder: 1, renewals: []Renewal{{Limit: 1, Tenant: "acme", Epoch: 1, Seq: 1, Want: 300}}, ahead: true}))
	f.Add([]byte{codecAhead, opRoll, 5, 0})
	f.Add([]byte{codecBlankets + 1, opCheck})
	f.Add(appendConfigure(nil, configureCommand{last: true, Change: Change{To: 2, Puts: []Limit{onFailure(windowed("a", "acme", 5, "1h"), OnFailureOpen)}, Leavers: []string{"b"}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := decodeCommand(data); err == nil {
			if again := encodeCommand(c); !bytes.Equal(again, data) {
				t.Fatalf("%x decodes to %+v, which encodes to %x", data, c, again)
			}
		} else if errors.Is(err, errNewer) {
			return // the machine stops there
		}
		d := fsmtest.New(t, func() raftfsm.Machine { return newMachine(1) })
		if _, err := decodeResult(d.Apply(data)[0]); err != nil {
			t.Fatalf("result: %v", err)
		}
		if _, err := decodeResult(d.Query(data)); err != nil {
			t.Fatalf("answer: %v", err)
		}
	})
}

func encodeCommand(c command) []byte {
	if c.watched {
		c.watched = false
		return inMode(ModeShadow, encodeCommand(c))
	}
	switch c.op {
	case opCheck:
		if c.recalls {
			return appendRecallingCheck(nil, c.check, c.hold.id)
		}
		return appendCheck(nil, c.check)
	case opLease:
		return appendLease(nil, c.lease)
	case opReserve, opSettle, opRefund, opAcquire, opRelease:
		return appendHold(nil, c.op, c.hold)
	case opConfigure:
		return appendConfigure(nil, c.configure)
	case opRoll:
		return appendRoll(nil, c.roll)
	case opPeek:
		return appendPeek(nil, c.check)
	case opBatch:
		if c.recalls {
			return appendRecallingBatch(nil, c.batch)
		}
		return appendBatch(nil, c.batch)
	case opTogether:
		return appendTogether(nil, c.parts)
	case opCalendars:
		return []byte{codecLimits, opCalendars}
	}
	return []byte{codecFirst, c.op}
}

func FuzzResult(f *testing.F) {
	f.Add(appendDecision(nil, &Decision{
		Reason: ReasonLimited, LimitID: "a", Kind: KindTokenBucket, RetryAfterMs: 400, Version: 9,
		Levels: []Level{{LimitID: "a", Scope: ScopeKey, Kind: KindTokenBucket, Limit: 10, Remaining: 3}},
	}))
	f.Add(appendVersionResult(nil, outcomeNeedFull, 5))
	f.Add([]byte{codecFirst, byte(outcomeSwept), 1})
	f.Add(appendGrants(nil, []Grant{{Granted: 300, TTL: time.Second, Remaining: 4}, {Refused: true}}, false))
	f.Add(appendGrants(nil, []Grant{{Granted: 300, TTL: time.Second, Coming: 20, Delay: time.Millisecond, Span: time.Second}, {Refused: true}}, true))
	f.Add(append([]byte{codecAhead}, appendDecision(nil, &Decision{Reason: ReasonLimited, LimitID: "a", Kind: KindTokenBucket, RetryAfterMs: 400, Version: 9})[1:]...))
	f.Add([]byte{codecFirst, byte(outcomeLent), 0})
	f.Add(append([]byte{codecAhead}, appendScarce(nil, &Decision{Reason: ReasonLimited, LimitID: "a", Kind: KindWindow, RetryAfterMs: 400}, []Recall{{Limit: 1}})[1:]...))
	f.Add(appendScarce(nil, &Decision{Reason: ReasonLimited, LimitID: "a", Kind: KindWindow, RetryAfterMs: 400}, []Recall{{Limit: 1, Subject: "s", Holders: []Holder{2, 3}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := decodeResult(data)
		if err != nil {
			return
		}
		var again []byte
		switch res.outcome {
		case outcomeDecided:
			again = appendDecision(nil, &res.decision)
		case outcomeLent:
			again = appendGrants(nil, res.grants, data[0] == codecAhead)
		case outcomeScarce:
			again = appendScarce(nil, &res.decision, res.recalls)
		default:
			return
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", data, res.decision, again)
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(appendCounter(nil, counter{used: u128{1, 2}, unit: 3, gen: 4, t: 5}))
	f.Add(encodeLimitRow(newLimitState(limit("a", ScopeKey, "acme/x*", "10/s", 500), 7, 2, []generation{{start: 1, rate: rate{1, 2}}})))
	f.Add(appendCounter(nil, counter{used: u128{1, 2}, unit: 3, gen: 4, t: 5, tick: 6, slots: []slot{{7, 8}, {9, 10}}}))
	f.Add(encodeLimitRow(newLimitState(windowed("a", "acme", 100, "1h"), 7, 2, []generation{{start: 1, ring: ring{2, 3}}})))
	f.Add(appendCounter(nil, counter{used: u128{1, 2}, unit: 3, gen: 4, t: 5, accounts: []account{{holder: 6, epoch: 7, seq: 8, granted: 9, spent: 3, returned: 2, deadline: 10, ended: true}}}))
	f.Add(appendTaken(nil, &taken{token: "t", cost: 300, at: 5, expires: 900, from: []takenFrom{{1, 2, 3}}, settled: &Settlement{Actual: 7, Refunded: 293, Late: true}}))
	f.Add(appendHeld(nil, &held{key: "k", weight: 2, deadline: 900, from: []heldFrom{{1, ScopeKey}}}))
	f.Add(encodeLimitRow(newLimitState(running("a", 5), 7, 2, []generation{{start: 1}})))
	f.Add(encodeLimitRow(newLimitState(onFailure(windowed("a", "acme", 100, "1h"), OnFailureDeny), 7, 2, []generation{{start: 1, ring: ring{2, 3}}})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := decodeCounter(data); err == nil && !bytes.Equal(appendCounter(nil, b), data) {
			t.Fatalf("bucket %x does not survive", data)
		}
		if l, err := decodeLimitRow(data); err == nil && !bytes.Equal(encodeLimitRow(l), data) {
			t.Fatalf("limit %x does not survive", data)
		}
		if c, err := decodeTaken(data); err == nil && !bytes.Equal(appendTaken(nil, c), data) {
			t.Fatalf("debit %x does not survive", data)
		}
		if h, err := decodeHeld(data); err == nil && !bytes.Equal(appendHeld(nil, h), data) {
			t.Fatalf("held slot %x does not survive", data)
		}
		decodeWeight(data)
		decodeHeldBy(data)
		decodeConfig(data)
		decodeWall(data)
		decodeStaged(data)
	})
}

// What was written stays readable: these bytes are on people's disks and in their logs.
func TestBytesStayTheSame(t *testing.T) {
	for name, pair := range map[string][2]string{
		"check":             {string(appendCheck(nil, Request{Tenant: "acme", Token: "t", Key: "k", Cost: 300})), "\x01\x01\x04acme\x01t\x01k\xac\x02"},
		"configure":         {string(appendConfigure(nil, configureCommand{part: 2, last: true, Change: Change{From: 1, To: 2, Puts: []Limit{limit("a", ScopeToken, "*", "1/s", 5)}, Deletes: []string{"b"}}})), "\x01\x02\x01\x02\x02\x01\x01\x01a\x01\x01*\x031/s\x05\x01\x01b"},
		"decision":          {string(appendDecision(nil, &Decision{Reason: ReasonCostExceedsLimit, LimitID: "a", Kind: KindTokenBucket, Version: 3, Levels: []Level{{LimitID: "a", Scope: ScopeTenant, Kind: KindTokenBucket, Limit: 5, Remaining: 4}}})), "\x01\x01\x00\x02\x00\x01a\x03\x01\x01a\x00\x05\x04"},
		"bucket":            {string(appendCounter(nil, counter{used: u128{0, 10_000}, unit: 10_000, gen: 1, t: 128})), "\x01\x01\x90\x4e\x80\x01\x90\x4e\x00"},
		"key":               {string(appendCounterKey(nil, 2, "acme", "runs")), "b\x00\x00\x00\x00\x00\x00\x00\x02\x04acmeruns"},
		"counter":           {string(appendCounter(nil, counter{used: u128{0, 5}, unit: 3, gen: 1, t: 128, tick: 7, slots: []slot{{300, 2}, {301, 1}}})), "\x02\x03\x01\x80\x01\x03\x05\x00\x07\x02\xac\x02\x02\x01\x01"},
		"window":            {string(encodeLimitRow(newLimitState(windowed("a", "acme", 5, "1h"), 3, 1, []generation{{start: 9, ring: ring{1, 2}}}))), "\x02\x01a\x00\x04acme\x02\x05\x021h\x03\x01\x01\x09\x00\x00\x01\x02\x00\x00\x00"},
		"configured window": {string(appendConfigure(nil, configureCommand{last: true, Change: Change{To: 2, Puts: []Limit{{ID: "a", Scope: ScopeKey, Selector: "*", TokenBucket: TokenBucket{"1/s", 5}, Window: Window{9, "1m"}}}}})), "\x02\x02\x00\x02\x00\x01\x01\x01a\x02\x01*\x03\x031/s\x05\x09\x021m\x00"},
		"configured plans":  {string(appendConfigure(nil, configureCommand{last: true, Change: Change{From: 1, To: 2, Plans: []Assignment{{"acme", "gold"}}, Leavers: []string{"b"}}})), "\x03\x02\x01\x02\x00\x01\x00\x00\x01\x04acme\x04gold\x01\x01b"},
		"plan":              {string(planKey("acme")) + string(encodePlan("gold")), "nacme\x01\x04gold"},
		"limit of a plan":   {string(encodeLimitRow(newLimitState(limit("a", ScopeTenant, "plan:x", "1/s", 5), 3, 1, []generation{{start: 9, rate: rate{1, 1_000_000}}}))), "\x03\x01a\x00\x06plan:x\x01\x031/s\x05\x03\x01\x01\x09\x01\xc0\x84\x3d\x00\x00\x00\x00\x00"},
		"policies":          {string(AppendLimit(nil, Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Enforcement: EnforcementOff, Canary: 5, Oversize: OversizeDebt, Access: AccessBanned, Overrides: "b", Expires: 300})), "\x01a\x00\x04acme\xf8\x03\x01\x05\x00\x01\x01b\xac\x02"},
		"peek":              {string(appendPeek(nil, Request{Tenant: "acme", Cost: 300})), "\x02\x07\x04acme\x00\x00\xac\x02"},
		"batch":             {string(appendBatch(nil, []Request{{Tenant: "a", Cost: 1}, {Tenant: "b", Key: "k"}})), "\x02\x08\x02\x01a\x00\x00\x01\x01b\x00\x01k\x00"},
		"together":          {string(appendTogether(nil, []Part{{Request: Request{Tenant: "a", Cost: 1}}, {Request: Request{Tenant: "a", Key: "k"}, Peek: true}})), "\x03\x18\x02\x01a\x00\x00\x01\x00\x01a\x00\x01k\x00\x01"},
		"watched":           {string(inMode(ModeShadow, appendCheck(nil, Request{Tenant: "a", Cost: 1}))), "\x03\x17\x01\x01\x01a\x00\x00\x01"},
		"timed roll":        {string(appendRoll(nil, rollCommand{wall: 300, timed: true})), "\x03\x05\xac\x02\x00"},
		"timed limit":       {string(encodeLimitRow(&limitState{Limit: Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Calendar: Calendar{Limit: 9, Period: PeriodDay}}, uid: 3, gens: []generation{{}}, calendar: calendarState{epoch: 2, begin: 5, end: 7, since: 300}})), "\x04\x01a\x00\x04acme\x04\x09\x00\x00\x00\x03\x00\x01\x00\x00\x00\x00\x00\x02\x05\x07\xac\x02"},
		"peeked":            {string(appendPeeked(nil, &Decision{Allow: true, Version: 3, Levels: []Level{{LimitID: "a", Scope: ScopeTenant, Kind: KindWindow, Limit: 5, Remaining: 4, Used: 1, ResetMs: 7}}})), "\x02\x0b\x01\x00\x00\x00\x00\x03\x01\x01a\x00\x01\x00\x00\x05\x04\x01\x07"},
		"roll":              {string(appendRoll(nil, rollCommand{wall: 300, periods: []period{{Calendar{Period: PeriodMonth, TimeZone: "UTC", Anchor: "5"}, 1, 400}}})), "\x02\x05\xac\x02\x01\x01\x03UTC\x015\x01\x90\x03"},
		"spent":             {string(appendCounter(nil, counter{gen: 1, t: 2, spent: 3, epoch: 4})), "\x02\x04\x01\x02\x04\x03"},
		"lease":             {string(appendLease(nil, leaseCommand{holder: 1, renewals: []Renewal{{Limit: 2, Tenant: "acme", Subject: "s", Epoch: 3, Seq: 4, Spent: 5, Returned: 6, Want: 300}}})), "\x03\x09\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02\x04acme\x01s\x03\x04\x05\x06\xac\x02"},
		"grants":            {string(appendGrants(nil, []Grant{{Granted: 300, TTL: 128 * time.Microsecond, Remaining: 2}, {Refused: true}}, false)), "\x03\x0d\x02\x00\xac\x02\x80\x01\x02\x01\x00\x00\x00"},
		"lease ahead":       {string(appendLease(nil, leaseCommand{holder: 1, renewals: []Renewal{{Limit: 2, Tenant: "acme", Epoch: 3, Seq: 4, Want: 300}}, ahead: true})), "\x04\x09\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02\x04acme\x00\x03\x04\x00\x00\xac\x02"},
		"grants ahead":      {string(appendGrants(nil, []Grant{{Granted: 300, TTL: 128 * time.Microsecond, Remaining: 2}, {Granted: 5, Coming: 3, Delay: 300 * time.Microsecond, Span: 2 * time.Microsecond}}, true)), "\x04\x0d\x02\x00\xac\x02\x80\x01\x02\x00\x00\x05\x00\x00\x03\xac\x02\x02"},
		"scarce":            {string(appendScarce(nil, &Decision{Reason: ReasonLimited, RetryAfterMs: 7, LimitID: "a", Kind: KindTokenBucket, Version: 3}, []Recall{{Limit: 2, Subject: "s", Holders: []Holder{1}}})), "\x03\x0e\x09\x01\x01\x00\x01\x07\x01a\x03\x00\x01\x02\x01s\x01\x00\x00\x00\x00\x00\x00\x00\x01"},
		"lent":              {string(appendCounter(nil, counter{used: u128{0, 5}, unit: 3, gen: 1, t: 128, accounts: []account{{holder: 1, epoch: 2, seq: 3, granted: 4, spent: 1, returned: 2, deadline: 300}}})), "\x03\x09\x01\x80\x01\x03\x05\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x01\x02\xac\x02\x00"},
		"wall":              {string(encodeWall(wallState{passed: 300, rolls: 2})), "\x01\xac\x02\x02"},
		"windowed decision": {string(appendDecision(nil, &Decision{Reason: ReasonLimited, RetryAfterMs: 7, LimitID: "a", Kind: KindWindow, Version: 3, Levels: []Level{{LimitID: "a", Scope: ScopeTenant, Kind: KindWindow, Limit: 5, Remaining: 4}}})), "\x02\x01\x00\x01\x07\x01a\x02\x03\x01\x01a\x00\x01\x00\x00\x05\x04"},
		"remembered check":  {string(appendRecallingCheck(nil, Request{Tenant: "a", Cost: 1}, holdID{1, 15: 2})), "\x03\x01\x01a\x00\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"},
		"reserve":           {string(appendHold(nil, opReserve, holdCommand{Request: Request{Tenant: "a", Token: "t", Key: "k", Cost: 300}, id: holdID{1, 15: 2}, ttl: 1000})), "\x03\n\x01a\x01t\x01k\xac\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xe8\a\x00"},
		"renew":             {string(appendHold(nil, opAcquire, holdCommand{Request: Request{Tenant: "a"}, id: holdID{1, 15: 2}, renew: true})), "\x03\r\x01a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"},
		"reserved":          {string(appendHeldResult(outcomeReserved, &Decision{Allow: true, Version: 3}, holdID{1, 15: 2}, 60_000_000)), "\x03\x0f\x01\x00\x00\x00\x00\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xe0\xd4\x03"},
		"settled":           {string(appendSettlement(Settlement{Actual: 300, Refunded: 1, Overdrawn: 2, Late: true})), "\x03\x10\xac\x02\x01\x02\x01"},
		"taken":             {string(appendTaken(nil, &taken{token: "t", key: "k", cost: 300, at: 1, expires: 300, from: []takenFrom{{1, 2, 3}}, settled: &Settlement{Actual: 7}})), "\x01\x01t\x01k\xac\x02\x01\xac\x02\x01\x01\x02\x03\x01\a\x00\x00\x00"},
		"held":              {string(appendHeld(nil, &held{token: "t", weight: 2, deadline: 300, from: []heldFrom{{1, ScopeKey}}})), "\x01\x01t\x00\x02\xac\x02\x01\x01\x02"},
		"slot":              {string(slotKey(slotPrefix(2, "acme", "runs"), 300, holdID{1, 15: 2})) + string(encodeWeight(300)), "h\x00\x00\x00\x00\x00\x00\x00\x02\x04acme\x00\x04runs\x00\x00\x00\x00\x00\x00\x01,\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x01\xac\x02"},
		"due":               {string(dueKey(300, heldKey(tableReserve, "acme", holdID{1, 15: 2}))), "x\x00\x00\x00\x00\x00\x00\x01,r\x04acme\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"},
		"concurrency":       {string(AppendLimit(nil, running("a", 5))), "\x01a\x00\x04acme\x80\x04\x05\x0360s"},
		"limit":             {string(encodeLimitRow(newLimitState(limit("a", ScopeKey, "acme/*", "1/s", 5), 3, 1, []generation{{start: 9, rate: rate{1, 1_000_000}}}))), "\x01\x01a\x02\x06acme/*\x031/s\x05\x03\x01\x01\x09\x01\xc0\x84\x3d"},
		"limit on failure":  {string(encodeLimitRow(newLimitState(onFailure(limit("a", ScopeKey, "acme/*", "1/s", 5), OnFailureOpen), 3, 1, []generation{{start: 9, rate: rate{1, 1_000_000}}}))), "\x05\x01a\x02\x06acme/*\x81\x08\x031/s\x05\x01\x03\x01\x01\x09\x01\xc0\x84\x3d\x00\x00\x00\x00\x00\x00"},
		"on failure":        {string(appendConfigure(nil, configureCommand{last: true, Change: Change{From: 1, To: 2, Puts: []Limit{onFailure(windowed("a", "acme", 5, "1h"), OnFailureDeny)}, Leavers: []string{"b"}}})), "\x05\x02\x01\x02\x00\x01\x01\x01a\x00\x04acme\x82\x08\x05\x021h\x00\x00\x00\x01\x01b"},
		"blanket":           {string(appendBlanketRow(blanketKey(2, 3, 4), blanket{tokens: 5, at: 6, deadline: 300})), "d\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x01\x05\x06\xac\x02"},
		"ask for a blanket": {string(appendBlanket(nil, blanketCommand{holder: 3, limit: 2, epoch: 4})), "\x06\x19\x00\x00\x00\x00\x00\x00\x00\x03\x02\x04"},
		"blanket is lent":   {string(appendBlanketGrant(nil, blanketGrant{tokens: 5, ttl: 300 * time.Microsecond})), "\x03\x18\x05\xac\x02"},
		"config":            {string(encodeConfig(config{version: 4, nextUID: 5})), "\x01\x04\x05"},
		"staged":            {string(encodeStaged(staged{from: 1, to: 2, parts: 3})), "\x01\x01\x02\x03"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is now %q, was %q", name, pair[0], pair[1])
		}
	}
}

// A command that this build does not know stops the machine: answering it as malformed would
// let the replicas of a newer build, which execute it, differ.
func TestNewerCommandsStopTheMachine(t *testing.T) {
	m := NewMachine()
	for _, data := range [][]byte{{codecBlankets + 1, opCheck}, {codecFirst, 200}} {
		if _, err := m.execute(nil, 0, 0, data); !errors.Is(err, errNewer) {
			t.Errorf("command %x: %v", data, err)
		}
	}
	for _, data := range [][]byte{nil, {codecFirst}, {codecFirst, opCheck}, {codecFirst, opVersion}} {
		if out, err := m.execute(nil, 0, 0, data); err != nil || len(out) < 2 || out[1] != byte(outcomeMalformed) {
			t.Errorf("malformed command %x: %x, %v", data, out, err)
		}
	}
}
