package limiter

import (
	"fmt"
	"time"
)

const (
	// ringSlots is K: how many slots the length of a window is cut into. With K+1 of them counted,
	// K/(K+1) of the limit can be used at a steady rate. More slots cost memory for each counter.
	ringSlots = 64
	// logMax is the largest limit whose admissions are each remembered by their microsecond. Such
	// a log needs no more room than a ring, and loses nothing of the limit.
	logMax = ringSlots
	// WindowMax bounds the length of a window, so that every wait fits RetryAfterMs.
	WindowMax = 31 * 24 * time.Hour
	// windowMin leaves a slot some microseconds, the resolution of group time.
	windowMin = time.Millisecond
	// slotsMax bounds the slots of a row; a ring has 65 at most, a log as many as its limit.
	slotsMax = 256
	// slotTokensMax bounds what one slot holds: a cost and what was there before it.
	slotTokensMax = 1 << 34
)

// ring is how a window counts: group time is cut into slots of tick microseconds, and what was
// taken in the present slot and the span slots before it counts as used. The oldest of these
// counts whole, although the window may have left a part of it: so no interval of the window's
// length ever admits more than the limit. A log is a ring whose slots are microseconds.
type ring struct{ tick, span uint64 }

// slot is what was taken in one slot of time: the microseconds [at*tick, (at+1)*tick).
type slot struct{ at, n uint64 }

func ringOf(w Window) (ring, error) {
	micros, err := parsePeriod(w.Length)
	if err != nil {
		return ring{}, err
	}
	if w.Limit <= logMax {
		return ring{tick: 1, span: micros}, nil
	}
	tick := (micros + ringSlots - 1) / ringSlots
	return ring{tick: tick, span: (micros + tick - 1) / tick}, nil
}

// freed is when what is in the slot at stops counting.
func (r ring) freed(at uint64) uint64 { return (at + r.span + 1) * r.tick }

// live is the part of slots, oldest first, that counts at a time. It shares their memory.
func (r ring) live(slots []slot, now int64) []slot {
	for len(slots) > 0 && r.freed(slots[0].at) <= uint64(now) {
		slots = slots[1:]
	}
	return slots
}

// wait is how long, in group time, until cost more fits into limit beside the live slots; 0
// when it fits now. cost is at most the limit.
func (r ring) wait(slots []slot, now int64, cost, limit uint32) u128 {
	used := sumOf(slots)
	for _, s := range slots {
		if used+uint64(cost) <= uint64(limit) {
			break
		}
		used -= s.n
		if used+uint64(cost) <= uint64(limit) {
			return u128{0, r.freed(s.at) - uint64(now)}
		}
	}
	return u128{}
}

// waitEmpty is how long, in group time, until nothing counts.
func (r ring) waitEmpty(slots []slot, now int64) u128 {
	if len(slots) == 0 {
		return u128{}
	}
	return u128{0, r.freed(slots[len(slots)-1].at) - uint64(now)}
}

func sumOf(slots []slot) uint64 {
	var sum uint64
	for _, s := range slots {
		sum += s.n
	}
	return sum
}

// addToSlots returns slots with n more in the slot at, which is the last one or a later one. The
// result shares no memory with slots. What is admitted fits into the limit and so into the slots;
// debt may not, and is then counted in a later slot, or as the most that a slot holds.
func addToSlots(slots []slot, at, n uint64) []slot {
	out := make([]slot, len(slots), len(slots)+1)
	copy(out, slots)
	if len(out) == slotsMax {
		out[slotsMax-1].at = at
	}
	return mergeSlot(out, at, n)
}

func mergeSlot(slots []slot, at, n uint64) []slot {
	if last := len(slots) - 1; last >= 0 && slots[last].at == at {
		slots[last].n = min(slots[last].n+n, slotTokensMax)
		return slots
	}
	return append(slots, slot{at, n})
}

// retick converts slots to another width at the time of a change. Each counts as taken as late as
// it can have been, so it is given back late, never early.
func retick(slots []slot, from, to uint64, changed int64) []slot {
	if from == 0 || to == 0 {
		return nil
	}
	var out []slot
	for _, s := range slots {
		out = mergeSlot(out, retickOne(s.at, from, to, changed), s.n)
	}
	return out
}

func retickOne(at, from, to uint64, changed int64) uint64 {
	return min((at+1)*from-1, uint64(changed)) / to
}

// windowProblem is what is wrong with the length of a window, or nothing.
func windowProblem(w Window) string {
	micros, err := parsePeriod(w.Length)
	switch {
	case err != nil:
		return `must be a period such as "1h" or "30s", with a whole number and one of the units ms, s, m, h, d`
	case micros < uint64(windowMin.Microseconds()) || micros > uint64(WindowMax.Microseconds()):
		return fmt.Sprintf("must be from %v to %d days", windowMin, WindowMax/(24*time.Hour))
	}
	return ""
}
