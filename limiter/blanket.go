package limiter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// blanketParts is of how many equal parts of a bucket one is lent of each counter, chunkMax tokens at
	// most. Fewer would be missed where a counter is exhausted, more would last for fewer checks.
	blanketParts = 256
	// blanketBurstMin is the smallest burst of which a part is worth lending so.
	blanketBurstMin = 4 * blanketParts
	// blanketFillMax is the longest time to fill a bucket: what ran out unspent must have flowed back long
	// before the next blanket does.
	blanketFillMax = 10 * time.Minute
	// blanketTTL is how long one lasts at most: the tokens are for that time, and holders remember
	// for as long what they have opened.
	blanketTTL = 5 * time.Second
	// blanketsMax bounds the blankets of a limit, those that have run out included: those of five nodes,
	// each with one that follows another, and of some that have restarted.
	blanketsMax = 16
)

// blanket lends its holder the same few tokens of every counter of a limit that has no row, so that keys that
// are seldom asked for cost nothing in the log. It is an account of each of them that is only written down
// once the counter gets a row; see absent.
type blanket struct {
	holder Holder
	epoch  uint64
	// tokens are those of each counter.
	tokens uint64
	// at is when it was lent and deadline until when it lasts, in microseconds of group time.
	at, deadline int64
}

// blanketCommand asks for a blanket; an epoch that is open already gets the same answer.
type blanketCommand struct {
	holder Holder
	limit  uint64
	epoch  uint64
}

// blanketGrant answers it. No tokens mean that there is no blanket.
type blanketGrant struct {
	tokens uint32
	ttl    time.Duration
}

// blanketTokens is how many tokens of each counter a blanket lends; 0 for a limit without blankets. A bucket
// alone forgets what ran out unspent.
func (l *limitState) blanketTokens() uint64 {
	if !l.hasBucket() || l.hasWindow() || l.hasCalendar() || l.Scope == ScopeGlobal || l.leaseSpan() == 0 {
		return 0
	}
	burst, r := uint64(l.TokenBucket.Burst), l.speed().rate
	fill := mul64(burst, r.unit).divFloor(r.refill)
	if burst < blanketBurstMin || fill.hi > 0 || fill.lo > uint64(blanketFillMax.Microseconds()) {
		return 0
	}
	return min(chunkMax, burst/blanketParts)
}

// present is a counter as it is now, whether it was found in a row or has none.
func (set *limitSet) present(l *limitState, c counter, found bool, now int64) counter {
	if found {
		return l.settle(c, now)
	}
	if all := set.blankets[l.uid]; len(all) > 0 {
		return absent(l, all, now, set.emptied)
	}
	return l.fresh(now, set.emptied)
}

// absent is a counter without a row while there are blankets: a fresh one of which each of them, in the order
// of time, has opened an account. What ended without a report was spent, for all that is known.
func absent(l *limitState, all []blanket, now, emptied int64) counter {
	c, g := l.fresh(now, emptied), l.speed()
	if c.unused() {
		c.t = max(all[0].at, g.start)
	}
	c.accounts = make([]account, 0, len(all))
	for _, b := range all {
		c.drain(g, b.at, l.calendar.since)
		c.used = c.used.add(mul64(b.tokens, c.unit))
		c.accounts = append(c.accounts, account{holder: b.holder, epoch: b.epoch, seq: 1, granted: b.tokens, deadline: b.deadline})
	}
	c.drain(g, now, l.calendar.since)
	if !l.hasCalendar() {
		c.spent = 0
	}
	c.accounts = slices.DeleteFunc(c.accounts, func(a account) bool { return a.ended })
	return c
}

// blanket lends one to a holder.
func (m *Machine) blanket(tx *raftfsm.Tx, now int64, c blanketCommand) ([]byte, error) {
	answer := appendBlanketGrant(nil, blanketGrant{})
	l := m.set.byUID[c.limit]
	if l == nil {
		return answer, nil
	}
	all := m.set.blankets[c.limit]
	for _, b := range all {
		if b.holder == c.holder && b.epoch >= c.epoch {
			if b.epoch == c.epoch && now < b.deadline {
				return appendBlanketGrant(nil, b.grant(now)), nil
			}
			return answer, nil
		}
	}
	all, err := m.lapse(tx, l, all, now)
	if err != nil {
		return nil, err
	}
	if b, ok := m.set.lendBlanket(l, all, c, now); ok {
		all = append(all, b)
		if err := tx.Set(blanketKey(c.limit, b.holder, b.epoch), appendBlanketRow(nil, b)); err != nil {
			return nil, fmt.Errorf("limiter: blanket: %w", err)
		}
		answer = appendBlanketGrant(nil, b.grant(now))
	}
	set := *m.set
	set.blankets = maps.Clone(set.blankets)
	if set.blankets == nil {
		set.blankets = map[uint64][]blanket{}
	}
	set.blankets[c.limit] = all
	m.set = &set
	return answer, nil
}

func (b *blanket) grant(now int64) blanketGrant {
	return blanketGrant{tokens: uint32(b.tokens), ttl: time.Duration(b.deadline-now) * time.Microsecond}
}

// lendBlanket is the blanket that there is for who asks, beside all others.
func (set *limitSet) lendBlanket(l *limitState, all []blanket, c blanketCommand, now int64) (blanket, bool) {
	tokens := l.blanketTokens()
	if tokens == 0 || len(all) >= blanketsMax || l.over(set.wall.passed) {
		return blanket{}, false
	}
	if fresh := l.fresh(now, set.emptied); !fresh.unused() { // soon after a restore
		return blanket{}, false
	}
	used := mul64(tokens, l.speed().rate.unit)
	if len(all) > 0 {
		used = used.add(absent(l, all, now, set.emptied).used)
	}
	if l.capacity.less(used) {
		return blanket{}, false
	}
	return blanket{holder: c.holder, epoch: c.epoch, tokens: tokens, at: now, deadline: now + min(blanketTTL, l.leaseTTL()).Microseconds()}, true
}

// lapse drops the blankets that have ended so long ago that counters are the same without them.
func (m *Machine) lapse(tx *raftfsm.Tx, l *limitState, all []blanket, now int64) ([]blanket, error) {
	all = slices.Clone(all)
	for i := 0; i < len(all); {
		without := slices.Delete(slices.Clone(all), i, i+1)
		if now < all[i].deadline || !sameAbsent(l, all, without, now, m.set.emptied) {
			i++
			continue
		}
		if err := tx.Delete(blanketKey(l.uid, all[i].holder, all[i].epoch)); err != nil {
			return nil, fmt.Errorf("limiter: blanket: %w", err)
		}
		all = without
	}
	return all, nil
}

// sameAbsent tells whether counters without a row are the same with either blankets, from now on.
func sameAbsent(l *limitState, a, b []blanket, now, emptied int64) bool {
	x := absent(l, a, now, emptied)
	if len(b) == 0 {
		return x.used.isZero() && len(x.slots) == 0 && x.spent == 0 && len(x.accounts) == 0
	}
	y := absent(l, b, now, emptied)
	return x.used == y.used && x.spent == y.spent && slices.Equal(x.slots, y.slots) && slices.Equal(x.accounts, y.accounts)
}

// keepBlankets takes over the blankets of the limits that stay, and removes the rows of the others.
func (m *Machine) keepBlankets(tx *raftfsm.Tx, set *limitSet) error {
	set.blankets = m.set.blankets
	for _, uid := range slices.Sorted(maps.Keys(m.set.blankets)) {
		if set.byUID[uid] != nil {
			continue
		}
		for _, b := range m.set.blankets[uid] {
			if err := tx.Delete(blanketKey(uid, b.holder, b.epoch)); err != nil {
				return fmt.Errorf("limiter: blanket: %w", err)
			}
		}
		set.blankets = maps.Clone(set.blankets)
		delete(set.blankets, uid)
	}
	return nil
}

// covers tells whether a replica has a blanket and no row of a counter: then whoever makes that row, also
// one that this replica does not know yet, writes the blanket's account into it.
func (m *Machine) covers(limit uint64, h Holder, epoch uint64, key []byte) bool {
	if !m.hasBlanket(limit, h, epoch) {
		return false
	}
	rows := m.rowless.Load() // after the blanket was seen
	return rows != nil && !rows.mayHave(m.hash(key))
}

// hasBlanket tells whether a replica has a blanket.
func (m *Machine) hasBlanket(limit uint64, h Holder, epoch uint64) bool {
	set := m.published.Load()
	return set != nil && slices.ContainsFunc(set.blankets[limit], func(b blanket) bool { return b.holder == h && b.epoch == epoch })
}

func blanketKey(limit uint64, h Holder, epoch uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{tableBlanket}, limit)
	b = binary.BigEndian.AppendUint64(b, uint64(h))
	return binary.BigEndian.AppendUint64(b, epoch)
}

func appendBlanketRow(b []byte, x blanket) []byte {
	b = append(b, rowVersion)
	for _, v := range [...]uint64{x.tokens, uint64(x.at), uint64(x.deadline)} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeBlanketRow(key, value []byte) (limit uint64, x blanket, err error) {
	r := wire.NewReader(value)
	version := r.Byte(rowVersion)
	x.tokens, x.at, x.deadline = r.Uvarint(chunkMax), int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
	if err := r.Done(); err != nil || version != rowVersion || len(key) != 25 || x.tokens == 0 || x.deadline <= x.at {
		return 0, blanket{}, errRow("blanket")
	}
	x.holder, x.epoch = Holder(binary.BigEndian.Uint64(key[9:])), binary.BigEndian.Uint64(key[17:])
	return binary.BigEndian.Uint64(key[1:]), x, nil
}

// loadBlankets reads the blankets of all limits, each in the order in which they were lent.
func loadBlankets(store rows) (_ map[uint64][]blanket, err error) {
	it, err := store.NewIter([]byte{tableBlanket}, []byte{tableBlanket + 1})
	if err != nil {
		return nil, fmt.Errorf("limiter: load blankets: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var out map[uint64][]blanket
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, fmt.Errorf("limiter: load blankets: %w", err)
		}
		uid, b, err := decodeBlanketRow(it.Key(), v)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[uint64][]blanket{}
		}
		out[uid] = append(out[uid], b)
	}
	for _, all := range out { // any order
		slices.SortFunc(all, byTime)
	}
	return out, nil
}

// byTime is a total order, so that replicas that loaded them and those that did not agree.
func byTime(a, b blanket) int {
	switch {
	case a.at != b.at:
		return cmp.Compare(a.at, b.at)
	case a.holder != b.holder:
		return cmp.Compare(a.holder, b.holder)
	}
	return cmp.Compare(a.epoch, b.epoch)
}
