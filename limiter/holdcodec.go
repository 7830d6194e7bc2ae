package limiter

import (
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// holdID names a reservation or slots, or is the digest of a request id.
type holdID [16]byte

func (id holdID) String() string { return hex.EncodeToString(id[:]) }

// parseHoldID reads an id as callers have it.
func parseHoldID(s string) (id holdID, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, false
	}
	return holdID(b), hex.EncodeToString(b) == s // upper case is another spelling
}

func readHoldID(r *wire.Reader) holdID { return holdID(r.Fixed(len(holdID{}))) }

// holdCommand is what the commands about reservations, refunds and slots have in common; what one
// does not need is zero.
type holdCommand struct {
	// Request is who asks for how much: the cost, the weight, or what was really spent.
	Request
	// id is what the command is about. A reserve, and an acquire that does not renew, have a
	// seed instead, of which the machine makes the id.
	id holdID
	// ttl is in milliseconds; 0 for what is usual.
	ttl uint64
	// renew makes an acquire hold slots for longer that are held already.
	renew bool
}

func appendHold(b []byte, op byte, c holdCommand) []byte {
	b = appendRequest(append(b, codecLeases, op), c.Request)
	b = append(b, c.id[:]...)
	b = binary.AppendUvarint(b, c.ttl)
	return appendBool(b, c.renew)
}

func readHold(r *wire.Reader, op byte) holdCommand {
	c := holdCommand{
		Request: readRequest(r), id: readHoldID(r),
		ttl:   r.Uvarint(uint64(HoldMax.Milliseconds())),
		renew: r.Byte(1) == 1,
	}
	takes := op == opReserve || op == opAcquire && !c.renew
	if c.ttl != 0 && c.ttl < uint64(HoldMin.Milliseconds()) || takes && c.Cost == 0 {
		r.Fail()
	}
	return c
}

// holdResult is what the results about reservations, refunds and slots tell.
type holdResult struct {
	id         holdID
	ttl        uint32 // milliseconds
	settlement Settlement
	released   bool
}

// appendHeldResult is the answer to a reserve or an acquire.
func appendHeldResult(o outcome, d *Decision, id holdID, micros int64) []byte {
	b := appendAnswer([]byte{codecLeases, byte(o)}, d, codecLeases, false)
	b = append(b, id[:]...)
	return binary.AppendUvarint(b, uint64(micros)/1000)
}

func appendSettlement(s Settlement) []byte {
	return appendSettlementFields([]byte{codecLeases, byte(outcomeSettled)}, s)
}

func appendSettlementFields(b []byte, s Settlement) []byte {
	for _, n := range [...]uint32{s.Actual, s.Refunded, s.Overdrawn} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return appendBool(b, s.Late)
}

func readSettlement(r *wire.Reader) Settlement {
	var s Settlement
	for _, n := range [...]*uint32{&s.Actual, &s.Refunded, &s.Overdrawn} {
		*n = uint32(r.Uvarint(math.MaxUint32))
	}
	s.Late = r.Byte(1) == 1
	return s
}

// readHeld reads the rest of a result with one of the outcomes above outcomeReserved.
func readHeld(r *wire.Reader, res *result) {
	switch res.outcome {
	case outcomeReserved, outcomeAcquired:
		res.decision = readAnswer(r, codecLeases, false)
		res.hold.id = readHoldID(r)
		res.hold.ttl = uint32(r.Uvarint(uint64(HoldMax.Milliseconds())))
	case outcomeSettled:
		res.hold.settlement = readSettlement(r)
	case outcomeRefunded:
		res.hold.settlement.Refunded = uint32(r.Uvarint(math.MaxUint32))
	case outcomeReleased:
		res.hold.released = r.Byte(1) == 1
	}
}
