package raftfsm

import (
	"encoding/binary"
	"sync"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// RateErrorDenominator is 1/rho: clocks of a region's nodes are trusted to count seconds with
// a relative error below rho = 1/1000. Group time is slowed by rho, so that a leader with a
// fast clock still never runs ahead of real time. Real crystals err by less than 1/10000;
// a smaller rho would make retry advice and refill tighter by at most 0.1 %.
const RateErrorDenominator = 1000

// note is one replica's memory of when it appended the entry that carries stamp.
type note struct {
	index  uint64
	stamp  int64 // group time of the entry, microseconds
	boot   uint64
	steady int64 // own steady clock at the append, nanoseconds
}

const noteLen = 16

// encode is what the log store keeps beside the entry, on this replica only.
func (n note) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, noteLen), n.boot)
	return binary.BigEndian.AppendUint64(b, uint64(n.steady))
}

// timekeeper derives a group's time from committed stamps and the steady clock.
//
// Every replica notes when it appends a stamped entry. A new leader, once it has applied its
// whole log, anchors at the note of the last stamped entry and keeps that anchor for its
// term: time = stamp + (steady - anchor) * (1 - rho). Anchoring anew at every own commit
// would freeze time, keeping the better of two anchors would mint it, and so would the wall
// clock.
type timekeeper struct {
	clock clock.Clock

	mu     sync.Mutex
	last   note
	anchor note
	stamp  int64 // the last stamp given out in this term
}

// appended notes that the entry with this stamp has just been written to the own log.
func (k *timekeeper) appended(index uint64, stamp int64, steady int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = note{index: index, stamp: stamp, boot: k.clock.Boot(), steady: steady}
}

// reset replaces the last note, after a start, a truncated log or a received snapshot; index
// 0 means that the log holds no stamped entry. A note from another boot says nothing about
// how long ago it was: time continues from now.
func (k *timekeeper) reset(n note) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n.boot != k.clock.Boot() {
		n.boot, n.steady = k.clock.Boot(), k.clock.Steady()
	}
	k.last = n
}

// lead starts a term: applied is the group time after the whole log has been applied.
func (k *timekeeper) lead(applied int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.anchor = k.last
	if k.anchor.index == 0 {
		k.anchor = note{stamp: applied, steady: k.clock.Steady()}
	}
	k.stamp = applied
}

// now is the group's time for the next entry. Only the leader may ask, after lead.
func (k *timekeeper) now() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	elapsed := max(0, k.clock.Steady()-k.anchor.steady) / 1000
	k.stamp = max(k.stamp, k.anchor.stamp+elapsed-ceilDiv(elapsed, RateErrorDenominator))
	return k.stamp
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
