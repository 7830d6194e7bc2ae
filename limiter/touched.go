package limiter

import (
	"bytes"
	"slices"
)

// touchedCounters are the counters that the entry under way has read or written, so that each is decoded
// once and written once, in the order of keys, in which Pebble takes them for less.
type touchedCounters struct {
	places []uint32 // indexes of all, from 1, by linear probing; a power of two, at most half used
	all    []touchedCounter
	keys   []byte
	order  []uint32 // scratch of sorted
}

type touchedCounter struct {
	hash     uint64
	from, to int // of the key in keys
	counter  counter
	// found means that the counter has a row, or will have.
	found bool
	// dirty means that the row is to be written, and cached that the cache has what was read.
	dirty, cached bool
}

const (
	touchedPlacesMin = 64
	// touchedKept is for how many counters memory is kept after an entry: as many as two commands have.
	touchedKept = 1024
)

// get finds a counter; the result is valid until the next add.
func (t *touchedCounters) get(hash uint64, key []byte) *touchedCounter {
	if len(t.all) == 0 {
		return nil
	}
	mask := len(t.places) - 1
	for i := int(uint32(hash)) & mask; t.places[i] != 0; i = (i + 1) & mask {
		if at := &t.all[t.places[i]-1]; at.hash == hash && string(t.key(at)) == string(key) {
			return at
		}
	}
	return nil
}

// add adds a counter that is not there.
func (t *touchedCounters) add(hash uint64, key []byte) *touchedCounter {
	from := len(t.keys)
	t.keys = append(t.keys, key...)
	t.all = append(t.all, touchedCounter{hash: hash, from: from, to: len(t.keys)})
	if 2*len(t.all) > len(t.places) {
		t.places = make([]uint32, max(touchedPlacesMin, 2*len(t.places)))
		for i := range t.all {
			t.place(i)
		}
	} else {
		t.place(len(t.all) - 1)
	}
	return &t.all[len(t.all)-1]
}

func (t *touchedCounters) place(n int) {
	mask := len(t.places) - 1
	i := int(uint32(t.all[n].hash)) & mask
	for t.places[i] != 0 {
		i = (i + 1) & mask
	}
	t.places[i] = uint32(n) + 1
}

func (t *touchedCounters) key(at *touchedCounter) []byte { return t.keys[at.from:at.to] }

// sorted are the indexes of all in the order of keys.
func (t *touchedCounters) sorted() []uint32 {
	t.order = t.order[:0]
	for i := range t.all {
		t.order = append(t.order, uint32(i))
	}
	slices.SortFunc(t.order, func(a, b uint32) int { return bytes.Compare(t.key(&t.all[a]), t.key(&t.all[b])) })
	return t.order
}

// reset forgets all of them.
func (t *touchedCounters) reset() {
	if cap(t.all) > touchedKept {
		*t = touchedCounters{}
		return
	}
	clear(t.all) // what they point to is garbage
	clear(t.places)
	t.all, t.keys = t.all[:0], t.keys[:0]
}
