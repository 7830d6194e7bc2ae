package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// rememberFor is how long a group remembers what a check with a request id took, and a reservation
// after its end.
const rememberFor = raftfsm.RequestMemory

// taken is what a reservation, or a check with a request id, took from counters.
type taken struct {
	token, key string
	cost       uint32
	at         int64 // group time of the debit
	// expires is until when a reservation may give back; for a check until it is forgotten.
	expires int64
	from    []takenFrom
	// settled is what became of it, when it has been settled.
	settled *Settlement
}

// takenFrom is one counter that was debited.
type takenFrom struct {
	uid uint64
	// gen is the generation of the limit at that time: when tokens come back and where the window
	// keeps them follows from it.
	gen uint64
	// period is the epoch of the calendar + 1, or 0 without one.
	period uint64
}

// takenBy is what a decision has debited.
func takenBy(levels []level, r Request, now, expires int64) *taken {
	t := &taken{token: r.Token, key: r.Key, cost: r.Cost, at: now, expires: expires}
	for i := range levels {
		l := &levels[i]
		if !l.debited {
			continue
		}
		from := takenFrom{uid: l.limit.uid, gen: l.counter.gen}
		if l.limit.hasCalendar() {
			from.period = l.counter.epoch + 1
		}
		t.from = append(t.from, from)
	}
	return t
}

// giveBack credits tokens of what was taken. A bucket gets what has not flowed back since by itself, a
// window what is still in its slot, a calendar what was taken in the present period.
func (m *Machine) giveBack(tx *raftfsm.Tx, now int64, tenant string, t *taken, tokens uint32) error {
	m.tellCredited(tx, tenant)
	return m.eachFrom(tx, now, tenant, t, func(l *limitState, from takenFrom, c *counter) bool {
		return l.credit(c, from, t.at, tokens, now)
	})
}

// tellCredited lets who remembers denials in this process know that they do not hold any more.
func (m *Machine) tellCredited(tx *raftfsm.Tx, tenant string) {
	tx.OnCommit(func() {
		if f := m.credited.Load(); f != nil {
			(*f)(tenant)
		}
	})
}

// overdraw debits tokens beyond what was taken, whether there is room or not.
func (m *Machine) overdraw(tx *raftfsm.Tx, now int64, tenant string, t *taken, tokens uint32) error {
	return m.eachFrom(tx, now, tenant, t, func(l *limitState, _ takenFrom, c *counter) bool {
		c.debit(l, tokens)
		return true
	})
}

// eachFrom calls f with every counter that was debited and still counts, settled to now, and
// stores those that f changes.
func (m *Machine) eachFrom(tx *raftfsm.Tx, now int64, tenant string, t *taken, f func(*limitState, takenFrom, *counter) (changed bool)) error {
	for _, from := range t.from {
		l := m.set.byUID[from.uid]
		if l == nil || !l.counts() {
			continue
		}
		var at level
		read := func(key []byte) (counter, bool, error) { return m.read(tx, key) }
		if err := at.load(l, Request{Tenant: tenant, Token: t.token, Key: t.key}, now, m.set, read); err != nil {
			return err
		}
		if !f(l, from, &at.counter) {
			continue
		}
		m.write(at.key, at.counter)
	}
	return nil
}

// credit gives tokens back that were taken from c at a time, and tells whether that changed it.
// What is lent out of a counter stays in used whatever is given back.
func (l *limitState) credit(c *counter, from takenFrom, at int64, tokens uint32, now int64) (changed bool) {
	if left := l.notFlowedBack(from.gen, at, tokens, now); !left.isZero() && !c.used.isZero() {
		c.used, changed = c.used.sub(left), true
		if lent := mul64(c.out(), c.unit); c.used.less(lent) {
			c.used = lent
		}
	}
	if number, ok := l.slotNow(from.gen, at, now); ok {
		c.slots, changed = takeFromSlot(c.slots, number, uint64(tokens)), true
	}
	if from.period == l.calendar.epoch+1 && l.hasCalendar() && c.spent > 0 {
		c.spent, changed = c.spent-min(c.spent, uint64(tokens)), true
	}
	return changed
}

// notFlowedBack is what of tokens, taken from a bucket under a generation, has not come back by
// itself, in present units and rounded down. What was taken under a forgotten generation has.
func (l *limitState) notFlowedBack(gen uint64, at int64, tokens uint32, now int64) u128 {
	if gen < l.firstGen {
		return u128{}
	}
	gens := l.gens[gen-l.firstGen:]
	left := mul64(uint64(tokens), gens[0].rate.unit)
	for i, g := range gens {
		if g.rate.unit == 0 {
			return u128{} // the bucket was removed
		}
		if i > 0 {
			left = left.mul(g.rate.unit).divFloor(gens[i-1].rate.unit)
		}
		until := now
		if i+1 < len(gens) {
			until = gens[i+1].start
		}
		if until > at {
			left, at = left.sub(mul64(g.rate.refill, uint64(until-at))), until
		}
	}
	return left
}

// slotNow is the slot in which a window keeps what was taken under a generation at a time, if it
// still counts.
func (l *limitState) slotNow(gen uint64, at, now int64) (number uint64, counts bool) {
	if gen < l.firstGen {
		return 0, false
	}
	gens := l.gens[gen-l.firstGen:]
	for i, g := range gens {
		switch {
		case g.ring.tick == 0:
			return 0, false // the window was removed
		case i == 0:
			number = uint64(at) / g.ring.tick
		case g.ring.tick != gens[i-1].ring.tick:
			number = retickOne(number, gens[i-1].ring.tick, g.ring.tick, g.start)
		}
		until := now
		if i+1 < len(gens) {
			until = gens[i+1].start
		}
		if g.ring.freed(number) <= uint64(until) {
			return 0, false
		}
	}
	return number, true
}

// takeFromSlot returns slots with n fewer in the slot at, if it is there. The result shares no memory
// with slots. A slot that is as full as can be counts no more exactly, and stays.
func takeFromSlot(slots []slot, at, n uint64) []slot {
	var out []slot
	for _, s := range slots {
		if s.at == at && s.n < slotTokensMax {
			s.n -= min(s.n, n)
		}
		if s.n > 0 {
			out = append(out, s)
		}
	}
	return out
}

// heldKey is the key of what a tenant has under an id in a table.
func heldKey(table byte, tenant string, id holdID) []byte {
	b := append([]byte{table, byte(len(tenant))}, tenant...)
	return append(b, id[:]...)
}

func appendTaken(b []byte, t *taken) []byte {
	b = append(b, rowVersion)
	b = wire.AppendString(b, t.token)
	b = wire.AppendString(b, t.key)
	b = binary.AppendUvarint(b, uint64(t.cost))
	b = binary.AppendUvarint(b, uint64(t.at))
	b = binary.AppendUvarint(b, uint64(t.expires))
	b = binary.AppendUvarint(b, uint64(len(t.from)))
	for _, f := range t.from {
		b = binary.AppendUvarint(b, f.uid)
		b = binary.AppendUvarint(b, f.gen)
		b = binary.AppendUvarint(b, f.period)
	}
	b = appendBool(b, t.settled != nil)
	if t.settled != nil {
		b = appendSettlementFields(b, *t.settled)
	}
	return b
}

func decodeTaken(b []byte) (*taken, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	t := &taken{
		token: r.String(SubjectBytesMax), key: r.String(SubjectBytesMax), cost: uint32(r.Uvarint(math.MaxUint32)),
		at: int64(r.Uvarint(math.MaxInt64)), expires: int64(r.Uvarint(math.MaxInt64)),
	}
	for n := r.Count(levelsMax); n > 0 && !r.Failed(); n-- {
		t.from = append(t.from, takenFrom{uid: r.Uvarint(math.MaxUint64), gen: r.Uvarint(math.MaxUint64), period: r.Uvarint(math.MaxUint64)})
	}
	if r.Byte(1) == 1 {
		s := readSettlement(r)
		t.settled = &s
	}
	if err := r.Done(); err != nil || v != rowVersion {
		return nil, errRow("debit")
	}
	return t, nil
}

// taken finds what a tenant's reservation or check took; nil when there is nothing.
func (m *Machine) taken(tx *raftfsm.Tx, key []byte) (*taken, error) {
	v, err := tx.Get(key)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("limiter: look up a debit: %w", err)
	}
	return decodeTaken(v)
}
