package limiter

import (
	"cmp"
	"slices"
)

const (
	// slotRowsRead is how many rows a denied acquire reads before its counter's slots are remembered.
	slotRowsRead = 128
	// slotMemos is of how many counters they are; each has as many as are held, 16 bytes a slot.
	slotMemos = 16
)

// slotMemo keeps the slots of counters of which denied acquires read many rows for their advice, so that it costs
// them once and not with every command. It holds what the rows hold, but for slots that have expired, so that
// forgetting a counter never changes an answer.
type slotMemo struct {
	// after is slotRowsRead, but in tests.
	after    int
	counters []counterSlots
	next     int // the place of the next one
}

// counterSlots are the slots of the counter with this prefix, in the order of their deadlines.
type counterSlots struct {
	prefix string
	slots  []timedSlot
}

type timedSlot struct {
	deadline int64
	weight   uint64
}

// find returns the slots of a counter; nil when they are not remembered.
func (m *slotMemo) find(prefix []byte) *counterSlots {
	if m == nil {
		return nil
	}
	for i := range m.counters {
		if c := &m.counters[i]; c.prefix == string(prefix) {
			return c
		}
	}
	return nil
}

// put remembers a counter, in the place of the oldest one if need be.
func (m *slotMemo) put(prefix []byte, slots []timedSlot) {
	c := counterSlots{prefix: string(prefix), slots: slots}
	if len(m.counters) < slotMemos {
		m.counters = append(m.counters, c)
		return
	}
	m.counters[m.next] = c
	m.next = (m.next + 1) % slotMemos
}

// change follows a slot that comes or goes.
func (m *slotMemo) change(prefix []byte, deadline int64, weight uint64, there bool) {
	c := m.find(prefix)
	if c == nil {
		return
	}
	at, _ := slices.BinarySearchFunc(c.slots, deadline, func(s timedSlot, d int64) int { return cmp.Compare(s.deadline, d) })
	if there {
		c.slots = slices.Insert(c.slots, at, timedSlot{deadline, weight})
		return
	}
	for ; at < len(c.slots) && c.slots[at].deadline == deadline; at++ {
		if c.slots[at].weight == weight { // whose it was makes no difference
			c.slots = slices.Delete(c.slots, at, at+1)
			return
		}
	}
}

// until is when slots of the weight need have freed themselves, or all have.
func (c *counterSlots) until(now int64, need uint64) int64 {
	expired := 0
	for expired < len(c.slots) && c.slots[expired].deadline <= now {
		expired++
	}
	c.slots = slices.Delete(c.slots, 0, expired)
	var freed uint64
	until := now
	for i := 0; i < len(c.slots) && freed < need; i++ {
		freed, until = freed+c.slots[i].weight, c.slots[i].deadline
	}
	return until
}
