package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// tableSegment of the derived data: number of the first document, 8 bytes, name of the part.
const tableSegment = 's'

// sealBatchBytes is how much of a segment is written at once, so that a large batch does not
// stall the others that share the store.
const sealBatchBytes = 1 << 20

func segmentKey(base uint64, part []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{tableSegment}, base), part...)
}

// openSegments opens the segments without a gap from document 0 and removes what follows: a
// half-written segment, one of another format, or one that the replicated state does not
// reach. The documents are still there to build it again.
func (m *Machine) openSegments(count uint64) (open []segmentSource, sealed uint64, err error) {
	for sealed < count {
		s, err := m.openSegment(sealed)
		if errors.Is(err, raftfsm.ErrNotFound) || errors.Is(err, segment.ErrVersion) || errors.Is(err, segment.ErrCorrupt) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("index: open segment %d: %w", sealed, err)
		}
		if s.Base() != sealed || sealed+uint64(s.Len()) > count {
			break
		}
		open = append(open, segmentSource{s})
		sealed += uint64(s.Len())
	}
	b := m.store.Derived().NewBatch()
	defer b.Close()
	if err := b.DeleteRange(segmentKey(sealed, nil), []byte{tableSegment + 1}); err != nil {
		return nil, 0, err
	}
	return open, sealed, b.Commit()
}

func (m *Machine) openSegment(base uint64) (*segment.Segment, error) {
	derived := m.store.Derived()
	read := func(part []byte) ([]byte, error) { return derived.Get(segmentKey(base, part)) }
	return segment.Open(read, m.cache)
}

// seal turns frozen heads into segments until the machine stops. Load starts it.
func (m *Machine) seal() {
	defer m.sealer.Done()
	for {
		h := m.nextFrozen()
		if h == nil {
			return
		}
		s, err := m.sealHead(h)
		m.mu.Lock()
		if err != nil {
			m.failed = err
		} else {
			m.segments = append(m.segments[:len(m.segments):len(m.segments)], segmentSource{s})
			m.frozen = slices.Clone(m.frozen[1:]) // lets go of the head's memory
		}
		m.changed.Broadcast()
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// nextFrozen waits for the oldest frozen head; it is nil when the machine stops.
func (m *Machine) nextFrozen() *head {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.frozen) == 0 && !m.stopping {
		m.changed.Wait()
	}
	if m.stopping {
		return nil
	}
	return m.frozen[0]
}

// turnTerms is how many terms are worked on between two chances to rest: some tens of
// microseconds.
const turnTerms = 64

// inTurns lets the work on terms rest, unless the machine stops.
func (m *Machine) inTurns(terms iter.Seq2[[]byte, []uint16]) iter.Seq2[[]byte, []uint16] {
	rest := m.turns()
	return func(yield func([]byte, []uint16) bool) {
		n := 0
		for term, arrivals := range terms {
			if n++; n%turnTerms == 0 && !m.isStopping() {
				rest()
			}
			if !yield(term, arrivals) {
				return
			}
		}
	}
}

func (m *Machine) isStopping() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stopping
}

func (m *Machine) sealHead(h *head) (*segment.Segment, error) {
	in := h.input()
	in.Terms = m.inTurns(in.Terms)
	parts, err := segment.Build(in)
	if err != nil {
		return nil, err
	}
	b := m.store.Derived().NewBatch()
	defer func() { b.Close() }()
	for i, p := range parts {
		if err := b.Set(segmentKey(h.base, p.Name), p.Value); err != nil {
			return nil, err
		}
		// The meta part comes last and alone: it makes the segment whole.
		if last := i >= len(parts)-2; !last && b.Size() < sealBatchBytes {
			continue
		}
		if err := b.Commit(); err != nil {
			return nil, fmt.Errorf("index: write segment %d: %w", h.base, err)
		}
		if err := b.Close(); err != nil {
			return nil, err
		}
		b = m.store.Derived().NewBatch()
	}
	return m.openSegment(h.base)
}
