package limiter

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// Tables: the first byte of a row's key.
const (
	tableWall    byte = 'a' // nothing -> what is known of the wall clocks
	tableCounter byte = 'b' // uid of the limit, tenant, subject -> counter
	tableConfig  byte = 'c' // nothing -> version of the limits, next uid
	tableBlanket byte = 'd' // uid of the limit, holder, epoch -> blanket
	tableEmpty   byte = 'e' // nothing -> when a restore emptied all counters
	tableSlot    byte = 'h' // uid, tenant, subject -> weight held; and with deadline and id -> weight
	tableHeld    byte = 'k' // tenant, id -> slots that were acquired together
	tableLimit   byte = 'l' // limit id -> limit with its rates
	tablePlan    byte = 'n' // tenant -> plan
	tableTaken   byte = 'o' // tenant, request id -> what a check took
	tablePart    byte = 'p' // part -> the steps of an incomplete change, all in the first layout
	tablePart2   byte = 'q' // part -> steps of which a limit needs a later layout
	tableReserve byte = 'r' // tenant, id -> reservation
	tableStaged  byte = 's' // nothing -> versions of an incomplete change, parts present
	tableTenant  byte = 't' // tenant -> how many open reservations and held slots it has
	tableCursor  byte = 'w' // nothing -> where the sweep goes on
	tableDue     byte = 'x' // group time, key -> nothing: the row at key may go then
)

// rowVersion is the layout that builds of every level read. A counter that is only a bucket and
// a plain limit keep it; others have rowVersion2, which is written from raftfsm.LevelLimits on, or,
// where something is lent, rowVersion3, from raftfsm.LevelLeases on.
const (
	rowVersion  = 1
	rowVersion2 = 2
	rowVersion3 = 3 // of counters something is lent of, and of limits with a concurrency or for a plan
	rowVersion4 = 4 // of limits of which is known when their calendar period began; from raftfsm.LevelLeases on
	rowVersion5 = 5 // of limits with OnFailure; from raftfsm.LevelFailure on
)

// config is what a group knows besides the limits themselves.
type config struct {
	version uint32
	nextUID uint64
}

func appendCounterKey(b []byte, uid uint64, tenant, subject string) []byte {
	b = append(b, tableCounter)
	b = binary.BigEndian.AppendUint64(b, uid)
	b = append(b, byte(len(tenant)))
	b = append(b, tenant...)
	return append(b, subject...)
}

// uidOfKey is the limit that a bucket's row belongs to.
func uidOfKey(key []byte) (uint64, error) {
	if len(key) < 10 {
		return 0, fmt.Errorf("limiter: bucket row %x: the key is too short; the data folder is damaged", key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// Parts of a counter's row.
const (
	partBucket = 1 << iota
	partWindow
	partCalendar
	partAccounts
	partsAll = partBucket | partWindow | partCalendar | partAccounts
)

func (c *counter) parts() byte {
	var parts byte
	if c.unit != 0 {
		parts |= partBucket
	}
	if c.tick != 0 {
		parts |= partWindow
	}
	if c.spent != 0 {
		parts |= partCalendar
	}
	if len(c.accounts) > 0 {
		parts |= partAccounts
	}
	return parts
}

// rowVersionOf is the layout for such parts.
func rowVersionOf(parts byte) byte {
	switch {
	case parts == partBucket:
		return rowVersion
	case parts&partAccounts == 0:
		return rowVersion2
	}
	return rowVersion3
}

func appendCounter(b []byte, c counter) []byte {
	parts := c.parts()
	if parts == partBucket {
		b = append(b, rowVersion)
		b = binary.AppendUvarint(b, c.gen)
		b = binary.AppendUvarint(b, c.unit)
		b = binary.AppendUvarint(b, uint64(c.t))
		b = binary.AppendUvarint(b, c.used.lo)
		return binary.AppendUvarint(b, c.used.hi)
	}
	b = append(b, rowVersionOf(parts), parts)
	b = binary.AppendUvarint(b, c.gen)
	b = binary.AppendUvarint(b, uint64(c.t))
	if parts&partBucket != 0 {
		b = binary.AppendUvarint(b, c.unit)
		b = binary.AppendUvarint(b, c.used.lo)
		b = binary.AppendUvarint(b, c.used.hi)
	}
	if parts&partWindow != 0 {
		b = binary.AppendUvarint(b, c.tick)
		b = binary.AppendUvarint(b, uint64(len(c.slots)))
		at := uint64(0)
		for _, s := range c.slots {
			b = binary.AppendUvarint(b, s.at-at)
			b = binary.AppendUvarint(b, s.n)
			at = s.at
		}
	}
	if parts&partCalendar != 0 {
		b = binary.AppendUvarint(b, c.epoch)
		b = binary.AppendUvarint(b, c.spent)
	}
	if parts&partAccounts != 0 {
		b = binary.AppendUvarint(b, uint64(len(c.accounts)))
		for i := range c.accounts {
			b = appendAccount(b, &c.accounts[i])
		}
	}
	return b
}

func appendAccount(b []byte, a *account) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(a.holder))
	for _, v := range [...]uint64{a.epoch, a.seq, a.granted, a.spent, a.returned, uint64(a.deadline)} {
		b = binary.AppendUvarint(b, v)
	}
	return appendBool(b, a.ended)
}

func readAccount(r *wire.Reader) account {
	a := account{
		holder: Holder(binary.BigEndian.Uint64(r.Fixed(8))), epoch: r.Uvarint(math.MaxUint64), seq: r.Uvarint(math.MaxUint64),
		granted: r.Uvarint(math.MaxInt64), spent: r.Uvarint(math.MaxInt64), returned: r.Uvarint(math.MaxInt64),
		deadline: int64(r.Uvarint(math.MaxInt64)), ended: r.Byte(1) == 1,
	}
	if a.spent+a.returned > a.granted {
		r.Fail()
	}
	return a
}

func decodeCounter(b []byte) (counter, error) {
	r := wire.NewReader(b)
	var c counter
	parts := byte(partBucket)
	version := r.Byte(rowVersion3)
	switch version {
	case rowVersion:
		c.gen = r.Uvarint(math.MaxUint64)
		c.unit = r.Uvarint(math.MaxUint64)
		c.t = int64(r.Uvarint(math.MaxInt64))
		c.used.lo = r.Uvarint(math.MaxUint64)
		c.used.hi = r.Uvarint(math.MaxUint64)
	case rowVersion2, rowVersion3:
		parts = r.Byte(partsAll)
		c.gen = r.Uvarint(math.MaxUint64)
		c.t = int64(r.Uvarint(math.MaxInt64))
		if parts&partBucket != 0 {
			c.unit = r.Uvarint(math.MaxUint64)
			c.used.lo = r.Uvarint(math.MaxUint64)
			c.used.hi = r.Uvarint(math.MaxUint64)
		}
		if parts&partWindow != 0 {
			c.tick = r.Uvarint(math.MaxInt64)
			readSlots(r, &c)
		}
		if parts&partCalendar != 0 {
			c.epoch, c.spent = r.Uvarint(math.MaxUint64), r.Uvarint(slotTokensMax)
		}
		if parts&partAccounts != 0 {
			n := r.Count(accountsMax)
			c.accounts = make([]account, 0, n)
			for ; n > 0 && !r.Failed(); n-- {
				c.accounts = append(c.accounts, readAccount(r))
			}
		}
	}
	if err := r.Done(); err != nil || version == 0 || c.parts() != parts || rowVersionOf(parts) != version {
		return counter{}, errRow("counter")
	}
	return c, nil
}

// readSlots takes slots in the order of time.
func readSlots(r *wire.Reader, c *counter) {
	n := r.Count(slotsMax)
	if n > 0 {
		c.slots = make([]slot, 0, n)
	}
	at := uint64(0)
	for i := 0; i < n && !r.Failed(); i++ {
		step := r.Uvarint(math.MaxInt64)
		if at > math.MaxInt64-step || i > 0 && step == 0 {
			r.Fail()
		}
		at += step
		c.slots = append(c.slots, slot{at: at, n: r.Uvarint(slotTokensMax)})
	}
}

func encodeConfig(c config) []byte {
	b := []byte{rowVersion}
	b = binary.AppendUvarint(b, uint64(c.version))
	return binary.AppendUvarint(b, c.nextUID)
}

func decodeConfig(b []byte) (config, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	c := config{version: uint32(r.Uvarint(math.MaxUint32)), nextUID: r.Uvarint(math.MaxUint64)}
	if err := r.Done(); err != nil || v != rowVersion {
		return config{}, errRow("config")
	}
	return c, nil
}

func limitKey(id string) []byte { return append([]byte{tableLimit}, id...) }

func encodeLimitRow(l *limitState) []byte {
	version := byte(rowVersion)
	for _, g := range l.gens {
		if g.rate.unit == 0 || g.ring.tick != 0 {
			version = rowVersion2
		}
	}
	if l.calendar != (calendarState{}) {
		version = rowVersion2
	}
	version = max(version, l.codec()) // row and command layouts of a limit have the same numbers
	if l.calendar.since != 0 {
		version = max(version, rowVersion4)
	}
	b := appendLimit([]byte{version}, l.Limit, limitCodecOf(version))
	b = binary.AppendUvarint(b, l.uid)
	b = binary.AppendUvarint(b, l.firstGen)
	b = binary.AppendUvarint(b, uint64(len(l.gens)))
	for _, g := range l.gens {
		b = binary.AppendUvarint(b, uint64(g.start))
		b = binary.AppendUvarint(b, g.rate.refill)
		b = binary.AppendUvarint(b, g.rate.unit)
		if version >= rowVersion2 {
			b = binary.AppendUvarint(b, g.ring.tick)
			b = binary.AppendUvarint(b, g.ring.span)
		}
	}
	if version >= rowVersion2 {
		b = binary.AppendUvarint(b, l.calendar.epoch)
		b = binary.AppendUvarint(b, uint64(l.calendar.begin))
		b = binary.AppendUvarint(b, uint64(l.calendar.end))
	}
	if version >= rowVersion4 {
		b = binary.AppendUvarint(b, uint64(l.calendar.since))
	}
	return b
}

// limitCodecOf is the layout that a limit has in a row of a version.
func limitCodecOf(version byte) byte {
	if version == rowVersion4 {
		return codecLeases
	}
	return version
}

func decodeLimitRow(b []byte) (*limitState, error) {
	r := wire.NewReader(b)
	version := r.Byte(rowVersion5)
	l := readLimit(r, limitCodecOf(version))
	uid, firstGen := r.Uvarint(math.MaxUint64), r.Uvarint(math.MaxUint64)
	var gens []generation
	for n := r.Count(generationsMax); n > 0; n-- {
		g := generation{
			start: int64(r.Uvarint(math.MaxInt64)),
			rate:  rate{refill: r.Uvarint(math.MaxUint64), unit: r.Uvarint(math.MaxUint64)},
		}
		if version >= rowVersion2 {
			g.ring = ring{tick: r.Uvarint(math.MaxInt64), span: r.Uvarint(math.MaxInt64)}
		}
		if (g.rate.refill == 0) != (g.rate.unit == 0) || (g.ring.tick == 0) != (g.ring.span == 0) {
			return nil, errRow("limit")
		}
		gens = append(gens, g)
	}
	var calendar calendarState
	if version >= rowVersion2 {
		calendar = calendarState{epoch: r.Uvarint(math.MaxUint64), begin: readSeconds(r), end: readSeconds(r)}
	}
	if version >= rowVersion4 {
		calendar.since = int64(r.Uvarint(math.MaxInt64)) // 0 in rowVersion4 would have another version, see below
	}
	if err := r.Done(); err != nil || version == 0 || len(gens) == 0 {
		return nil, errRow("limit")
	}
	state := newLimitState(l, uid, firstGen, gens)
	state.calendar = calendar
	last := state.speed()
	if l.hasBucket() != (last.rate.unit != 0) || l.hasWindow() != (last.ring.tick != 0) || encodeLimitRow(state)[0] != version {
		return nil, errRow("limit")
	}
	return state, nil
}

// staged describes a change of which some parts have arrived.
type staged struct {
	from, to uint32
	parts    uint32
}

func partKey(part uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tablePart}, part)
}

// part2Key is the key of a part in the later layout.
func part2Key(part uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tablePart2}, part)
}

func encodeStaged(s staged) []byte {
	b := []byte{rowVersion}
	b = binary.AppendUvarint(b, uint64(s.from))
	b = binary.AppendUvarint(b, uint64(s.to))
	return binary.AppendUvarint(b, uint64(s.parts))
}

func decodeStaged(b []byte) (staged, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	s := staged{
		from:  uint32(r.Uvarint(math.MaxUint32)),
		to:    uint32(r.Uvarint(math.MaxUint32)),
		parts: uint32(r.Uvarint(partsMax)),
	}
	if err := r.Done(); err != nil || v != rowVersion {
		return staged{}, errRow("staged change")
	}
	return s, nil
}

func errRow(what string) error {
	return fmt.Errorf("limiter: malformed row of a %s; the data folder is damaged or newer than this build", what)
}
