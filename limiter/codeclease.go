package limiter

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// leaseCommandMax bounds the renewals in one command.
const leaseCommandMax = 500

// comingMax bounds how late a token that is lent ahead can come: later than any lease lasts.
const comingMax = 2 * RefillMax

// leaseCommand is renewals of one holder.
type leaseCommand struct {
	holder   Holder
	renewals []Renewal
	// ahead tells that the holder understands tokens that come later.
	ahead bool
}

func leaseVersion(ahead bool) byte {
	if ahead {
		return codecAhead
	}
	return codecLeases
}

func appendLease(b []byte, c leaseCommand) []byte {
	b = binary.BigEndian.AppendUint64(append(b, leaseVersion(c.ahead), opLease), uint64(c.holder))
	b = binary.AppendUvarint(b, uint64(len(c.renewals)))
	for _, r := range c.renewals {
		b = binary.AppendUvarint(b, r.Limit)
		b = wire.AppendString(b, r.Tenant)
		b = wire.AppendString(b, r.Subject)
		for _, v := range [...]uint64{r.Epoch, r.Seq, r.Spent, r.Returned, r.Want} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func readLease(r *wire.Reader) leaseCommand {
	c := leaseCommand{holder: Holder(binary.BigEndian.Uint64(r.Fixed(8)))}
	n := r.Count(leaseCommandMax)
	if n > 0 {
		c.renewals = make([]Renewal, 0, n)
	}
	for ; n > 0 && !r.Failed(); n-- {
		one := Renewal{
			Limit: r.Uvarint(math.MaxUint64), Tenant: r.Text(nameBytesMax), Subject: r.Text(SubjectBytesMax),
			Epoch: r.Uvarint(math.MaxUint64), Seq: r.Uvarint(math.MaxUint64),
			Spent: r.Uvarint(math.MaxInt64), Returned: r.Uvarint(math.MaxInt64), Want: r.Uvarint(math.MaxUint32),
		}
		if !validCounterTenant(one.Tenant) {
			r.Fail()
		}
		c.renewals = append(c.renewals, one)
	}
	return c
}

func appendGrants(b []byte, all []Grant, ahead bool) []byte {
	b = binary.AppendUvarint(append(b, leaseVersion(ahead), byte(outcomeLent)), uint64(len(all)))
	for _, g := range all {
		b = appendBool(b, g.Refused)
		b = binary.AppendUvarint(b, g.Granted)
		b = binary.AppendUvarint(b, uint64(g.TTL.Microseconds()))
		b = binary.AppendUvarint(b, uint64(g.Remaining))
		if ahead {
			b = binary.AppendUvarint(b, g.Coming)
		}
		if g.Coming > 0 {
			b = binary.AppendUvarint(b, uint64(g.Delay.Microseconds()))
			b = binary.AppendUvarint(b, uint64(g.Span.Microseconds()))
		}
	}
	return b
}

func readGrants(r *wire.Reader, ahead bool) []Grant {
	n := r.Count(leaseCommandMax)
	all := make([]Grant, 0, n)
	for ; n > 0 && !r.Failed(); n-- {
		g := Grant{
			Refused: r.Byte(1) == 1, Granted: r.Uvarint(math.MaxInt64),
			TTL:       time.Duration(r.Uvarint(uint64((leaseSpans * leaseSpanMax).Microseconds()))) * time.Microsecond,
			Remaining: uint32(r.Uvarint(math.MaxUint32)),
		}
		if ahead {
			g.Coming = r.Uvarint(min(g.Granted, math.MaxUint32))
		}
		if g.Coming > 0 {
			g.Delay, g.Span = readMicros(r, comingMax), readMicros(r, comingMax)
		}
		all = append(all, g)
	}
	return all
}

func readMicros(r *wire.Reader, most time.Duration) time.Duration {
	return time.Duration(r.Uvarint(uint64(most.Microseconds()))) * time.Microsecond
}

// appendScarce is a decision with the leases that are in its way.
func appendScarce(b []byte, d *Decision, lent []Recall) []byte {
	b = wire.AppendString(append(b, codecLeases, byte(outcomeScarce)), appendDecision(nil, d))
	return appendRecalls(b, lent)
}

func appendRecalls(b []byte, all []Recall) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, l := range all {
		b = binary.AppendUvarint(b, l.Limit)
		b = wire.AppendString(b, l.Subject)
		b = binary.AppendUvarint(b, uint64(len(l.Holders)))
		for _, h := range l.Holders {
			b = binary.BigEndian.AppendUint64(b, uint64(h))
		}
	}
	return b
}

func readRecalls(r *wire.Reader) []Recall {
	n := r.Count(levelsMax)
	all := make([]Recall, 0, n)
	for ; n > 0 && !r.Failed(); n-- {
		one := Recall{Limit: r.Uvarint(math.MaxUint64), Subject: r.String(SubjectBytesMax)}
		for holders := r.Count(accountsMax); holders > 0 && !r.Failed(); holders-- {
			one.Holders = append(one.Holders, Holder(binary.BigEndian.Uint64(r.Fixed(8))))
		}
		all = append(all, one)
	}
	return all
}

func appendBlanket(b []byte, c blanketCommand) []byte {
	b = binary.BigEndian.AppendUint64(append(b, codecBlankets, opBlanket), uint64(c.holder))
	return binary.AppendUvarint(binary.AppendUvarint(b, c.limit), c.epoch)
}

func readBlanket(r *wire.Reader) blanketCommand {
	return blanketCommand{holder: Holder(binary.BigEndian.Uint64(r.Fixed(8))), limit: r.Uvarint(math.MaxUint64), epoch: r.Uvarint(math.MaxUint64)}
}

func appendBlanketGrant(b []byte, g blanketGrant) []byte {
	b = binary.AppendUvarint(append(b, codecLeases, byte(outcomeBlanket)), uint64(g.tokens))
	return binary.AppendUvarint(b, uint64(g.ttl.Microseconds()))
}

func readBlanketGrant(r *wire.Reader) blanketGrant {
	return blanketGrant{tokens: uint32(r.Uvarint(chunkMax)), ttl: readMicros(r, leaseSpans*leaseSpanMax)}
}
