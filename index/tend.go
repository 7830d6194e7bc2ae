package index

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// noteDamage has a segment built again, or one of the state mended, which no documents are left to build of; until
// then who needs the damaged part gets an error.
func (m *Machine) noteDamage(s *sealed) {
	if s.cold.Load() && m.isObjectDamaged(s) {
		return // its rows are whole, and no replica has more
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.stored {
		if row, err := m.rowOf(s.Base()); err == nil && m.storedAt(s.Base()) == s {
			m.doubt(s.Base(), row, false)
		}
		return
	}
	if m.damaged == nil {
		m.damaged = s
		m.changed.Broadcast()
	}
}

// isObjectDamaged tells whether what is damaged of a cold segment is in the store.
func (m *Machine) isObjectDamaged(s *sealed) bool {
	m.mu.RLock()
	row, err := m.rowOf(s.Base())
	m.mu.RUnlock()
	if err != nil {
		return false
	}
	runs, err := row.runs()
	if err != nil || s.ScrubWithin(spansOf(runs, int64(row.size)), func(int) error { return nil }) != nil {
		return false
	}
	m.objectsDamaged.Add(1)
	return true
}

// tend repairs and merges segments until the machine stops. Load starts it. It is apart from
// the sealer, because a merge takes seconds, and heads must not wait for it.
func (m *Machine) tend() {
	defer m.workers.Done()
	for {
		run, repair := m.nextTask()
		if run == nil {
			return
		}
		var fresh []segmentSource
		var err error
		if repair {
			fresh, err = m.rebuild(run[0])
		} else {
			fresh, err = m.merge(run)
		}
		if err == nil && !repair && m.offerMerged(fresh) {
			continue
		}
		switch {
		case errors.Is(err, errStopping):
			return
		case errors.Is(err, segment.ErrCorrupt) && !repair:
			if m.findDamage(run) {
				continue
			}
			fallthrough
		case err != nil && repair && m.isStored(run[0]): // its rows are gone, and not needed
			continue
		case err != nil:
			m.mu.Lock()
			m.failed = err
			m.changed.Broadcast()
			m.mu.Unlock()
			return
		}
		if err := m.exchange(run, fresh); err != nil {
			m.mu.Lock()
			m.failed = err
			m.changed.Broadcast()
			m.mu.Unlock()
			return
		}
	}
}

// nextTask waits for a damaged segment, or for segments to be merged; it is nil when the
// machine stops. They stay listed, and so open, until the worker exchanges them.
func (m *Machine) nextTask() (run []segmentSource, repair bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.stopping {
		if at := slices.IndexFunc(m.segments, func(s segmentSource) bool { return s.sealed == m.damaged }); at >= 0 {
			return m.segments[at : at+1], true
		}
		if m.damaged != nil {
			m.damaged = nil
			m.changed.Broadcast()
		}
		if run := m.mergeable(); run != nil {
			return run, false
		}
		if run := m.outdatedFile(); run != nil {
			return run, true
		}
		m.changed.Wait()
	}
	return nil, false
}

// outdatedFile is the first file that is not as the layout wants it before it is moved into the state: one of more than
// a head, which is built as several again, or one of an earlier version of the format.
func (m *Machine) outdatedFile() []segmentSource {
	if m.layout < layoutSegments {
		return nil
	}
	for i, s := range m.segments {
		if !s.stored && (int(s.width) > m.headDocuments || s.Version() != formatOf(m.layout)) {
			return m.segments[i : i+1]
		}
	}
	return nil
}

// window is where the numbers of the merged segment begin that a segment is to be a part of.
func (m *Machine) window(s segmentSource) uint64 {
	size := uint64(m.headDocuments * m.mergedHeads)
	return s.Base() / size * size
}

// mergeable is the first run of segments of one head each that make up a merged one. Which
// documents are in a segment depends on their numbers alone, so that replicas have the same. In the layout
// of segments they are those of the state, and the merged one is a file until the log has it replace them.
func (m *Machine) mergeable() []segmentSource {
	if m.layout >= layoutSegments && (m.merged != nil || len(m.unsound) > 0) {
		return nil
	}
	return m.mergeRun()
}

// mergeRun is that without regard to what this node has begun. Segments that retention has dropped are
// missing in a run; with one that is left there is nothing to merge.
func (m *Machine) mergeRun() []segmentSource {
	if m.pending != nil {
		return nil
	}
	for i := 0; i < len(m.segments); {
		first, n, whole := m.window(m.segments[i]), i, true
		for ; n < len(m.segments) && m.window(m.segments[n]) == first; n++ {
			s := m.segments[n]
			whole = whole && int(s.width) == m.headDocuments && (s.stored || m.layout < layoutSegments)
		}
		end := first + uint64(m.headDocuments*m.mergedHeads)
		if whole && (n-i == m.mergedHeads || n-i > 1 && m.layout >= layoutRetention && m.moved >= end) {
			return m.segments[i:n]
		}
		i = n
	}
	return nil
}

func (m *Machine) merge(run []segmentSource) ([]segmentSource, error) {
	parts := make([]*segment.Segment, len(run))
	for i, s := range run {
		parts[i] = s.Segment
	}
	base, docs := m.window(run[0]), m.headDocuments*m.mergedHeads
	rest := m.unhurried()
	err := m.folder().Write(segmentName(base, docs), func(w io.Writer) error {
		return segment.Merge(w, newestFormat(run), base, parts, nil, func() error {
			if m.isStopping() {
				return errStopping
			}
			rest()
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("index: merge documents from %d on: %w", base, err)
	}
	s, err := m.openSegment(base, docs)
	return []segmentSource{{s}}, err
}

// unhurried is turns, but nobody rests while Apply waits.
func (m *Machine) unhurried() (rest func()) {
	turn := m.turns()
	return func() {
		if m.hurry.Load() == 0 {
			turn()
		}
	}
}

// findDamage reads segments whole and notes a damaged one.
func (m *Machine) findDamage(run []segmentSource) bool {
	for _, s := range run {
		if s.replaced.Load() || s.note(s.Verify()) != nil {
			return true
		}
	}
	return false
}

// rebuild makes the segments of a damaged or merged one's documents again, from their rows.
func (m *Machine) rebuild(old segmentSource) (fresh []segmentSource, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, releaseAll(fresh))
		}
	}()
	rest := m.unhurried()
	for from, end := old.Base(), old.Base()+old.width; from < end; {
		h := newHead(from)
		to := min(from+uint64(m.headDocuments), end)
		if err := m.readRows(from, to, func(chunk []Document, rows [][]byte) error {
			if m.isStopping() {
				return errStopping
			}
			rest()
			h.add(chunk, rows)
			return nil
		}); err != nil {
			return fresh, err
		}
		// Under the damaged one's name the new file takes its place, which searches have open.
		s, err := m.sealHead(h)
		if err != nil {
			return fresh, err
		}
		fresh = append(fresh, segmentSource{s})
		from = to
	}
	return fresh, nil
}

// exchange lists fresh segments in the place of old ones, which it removes. It is the other way round
// when the log has moved an old one into the state meanwhile.
func (m *Machine) exchange(old, fresh []segmentSource) error {
	m.mu.Lock()
	if slices.ContainsFunc(old, func(s segmentSource) bool { return s.stored }) {
		m.mu.Unlock()
		return m.discard(fresh)
	}
	at := slices.IndexFunc(m.segments, func(s segmentSource) bool { return s.sealed == old[0].sealed })
	m.segments = slices.Concat(m.segments[:at], fresh, m.segments[at+len(old):])
	m.changed.Broadcast()
	m.mu.Unlock()
	names := map[string]bool{}
	for _, s := range fresh {
		names[s.name] = true
	}
	var err error
	for _, s := range old {
		if !names[s.name] {
			err = errors.Join(err, m.folder().Remove(s.name))
		}
		err = errors.Join(err, s.release())
	}
	return err
}

// discard removes segments that were never listed.
func (m *Machine) discard(fresh []segmentSource) error {
	err := releaseAll(fresh)
	for _, s := range fresh {
		err = errors.Join(err, m.folder().Remove(s.name))
	}
	return err
}

// rowOf is the directory row of a segment of the state.
func (m *Machine) rowOf(first uint64) (segmentRow, error) {
	v, err := m.store.Get(segmentKey(first))
	if err != nil {
		return segmentRow{}, err
	}
	return decodeSegmentRow(v)
}

// isCold tells whether the segment with the first document is a cold one.
func (m *Machine) isCold(first uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.storedAt(first)
	return s != nil && s.cold.Load()
}

// isStored tells whether a file is a segment of the state, also in the moment before that is noted.
func (m *Machine) isStored(s segmentSource) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if s.stored {
		return true
	}
	_, err := m.rowOf(s.Base())
	return err == nil
}
