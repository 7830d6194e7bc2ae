package index

import (
	"errors"
	"slices"
)

// Segments of the state are merged as they came to be there: every replica merges sixteen of them into a
// file, in the background, and the log has the file's bytes replace theirs.

// merges tells whether a move replaces segments of the state by one. That depends on the state alone.
func (m *Machine) merges(c moveCommand) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	run := m.mergeRun()
	return run != nil && newestFormat(run) == c.format && m.window(run[0]) == c.first && int(c.docs) == m.headDocuments*m.mergedHeads
}

// offerMerged takes a file that was merged of segments of the state. It is false when the merged segment
// is to be listed at once.
func (m *Machine) offerMerged(fresh []segmentSource) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.layout < layoutSegments {
		return false
	}
	if run := m.mergeRun(); run == nil || m.window(run[0]) != fresh[0].Base() {
		return false // they were files when the merge began, and are exchanged or moved
	}
	m.merged = fresh[0].sealed
	m.changed.Broadcast()
	return true
}

// dropMerged lets go of a merged file that is damaged.
func (m *Machine) dropMerged(s *sealed) error {
	m.mu.Lock()
	if m.merged != s {
		m.mu.Unlock()
		return nil
	}
	m.merged = nil
	m.changed.Broadcast()
	m.mu.Unlock()
	return errors.Join(s.release(), m.folder().Remove(s.name))
}

// forgetMerged removes the rows of the segments that a merged one replaces.
func (a *applier) forgetMerged(row segmentRow, first, end uint64) error {
	if err := a.tx.DeleteRange(segmentKey(first+1), segmentKey(end)); err != nil {
		return err
	}
	if err := a.tx.DeleteRange(pieceKey(first, 0, 0), pieceKey(first, row.tag(), 0)); err != nil {
		return err
	}
	if err := a.tx.DeleteRange(pieceKey(first, row.tag()+1, 0), pieceKey(first+1, 0, 0)); err != nil {
		return err
	}
	return a.tx.DeleteRange(pieceKey(first+1, 0, 0), pieceKey(end, 0, 0))
}

// replaceRun has who finds rows missing of the segments to be merged begin anew, from just before the rows
// go on.
func (m *Machine) replaceRun() {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.mergeRun() {
		s.replaced.Store(true)
	}
}

// finishMerge lists the merged segment in the place of those that it replaces. Who reads them begins anew.
func (m *Machine) finishMerge(s *sealed, row segmentRow, first uint64) {
	_ = s.file.move(rowReaderAt{row: row, first: first, read: m.store.Read}) // as in finishMove
	_ = m.folder().Remove(s.name)
	m.mu.Lock()
	at := slices.IndexFunc(m.segments, func(o segmentSource) bool { return o.Base() >= first })
	end := at + 1
	for end < len(m.segments) && m.segments[end].Base() < first+s.width {
		end++
	}
	old := m.segments[at:end]
	s.stored = true
	m.segments = slices.Concat(m.segments[:at], []segmentSource{{s}}, m.segments[end:])
	if m.merged == s {
		m.merged = nil
	}
	m.forgetDoubts(first, first+s.width)
	m.changed.Broadcast()
	m.mu.Unlock()
	_ = errors.Join(releaseAll(old), s.release())
}
