package index

import (
	"context"
	"encoding/binary"
	"time"
)

// Damage that no search meets is found by reading: every replica reads its segments whole now and then, slowly, and
// compares with the others which it has. Most replicas are right about what a segment should be.

const (
	// ScrubEvery is how often a replica reads all its segments: several times before a second replica is likely to
	// be damaged too.
	ScrubEvery = 12 * time.Hour
	// ScrubBytesPerSecond is how fast at most: ten million documents in a few minutes, and a hundredth of what a disk
	// gives.
	ScrubBytesPerSecond = 4 << 20
)

// scrub reads segments until the machine stops. Load starts it.
func (m *Machine) scrub(ctx context.Context) {
	defer m.workers.Done()
	k := m.awaitKeeper()
	if k == nil {
		return
	}
	for {
		// Not at once: after a start there is more urgent work.
		if pause(ctx, k.Every); ctx.Err() != nil {
			return
		}
		m.readAll(ctx, k)
		m.compare(ctx, k)
	}
}

func (m *Machine) awaitKeeper() *Keeper {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.keeper == nil && !m.stopping {
		m.changed.Wait()
	}
	if m.stopping {
		return nil
	}
	return m.keeper
}

// readAll reads all segments of the state.
func (m *Machine) readAll(ctx context.Context, k *Keeper) {
	rest := m.turns()
	m.mu.RLock()
	all := m.storedSegments()
	m.mu.RUnlock()
	defer func() { _ = releaseAll(all) }() // what was read and cannot be closed changes nothing
	for _, s := range all {
		row, err := m.rowOf(s.Base())
		if err != nil {
			continue // it was replaced
		}
		runs, err := row.runs()
		if err != nil {
			k.Log.Error("a segment's row is damaged", "shard", k.Shard, "documents_from", s.Base(), "err", err)
			continue
		}
		err = s.ScrubWithin(spansOf(runs, int64(row.size)), func(bytes int) error {
			m.scrubbed.Add(uint64(bytes))
			pause(ctx, time.Duration(bytes)*time.Second/time.Duration(k.BytesPerSecond))
			rest()
			return ctx.Err()
		})
		if ctx.Err() != nil {
			return
		}
		if s.note(err) != nil && !s.replaced.Load() {
			k.Log.Error("a segment is damaged", "shard", k.Shard, "documents_from", s.Base(), "err", err)
		}
	}
}

// storedSegments are those of the state, which are held; the caller holds mu.
func (m *Machine) storedSegments() (all []segmentSource) {
	for _, s := range m.segments {
		if s.stored {
			s.hold()
			all = append(all, s)
		}
	}
	return all
}

// compare finds segments of which most replicas have other bytes.
func (m *Machine) compare(ctx context.Context, k *Keeper) {
	own, err := m.ownSegments()
	if err != nil {
		k.Log.Warn("the segments could not be compared with those of other replicas", "shard", k.Shard, "err", err)
		return
	}
	asked := map[uint64]int{}                 // replicas with the same documents in a segment, this one too
	others := map[uint64]map[segmentRow]int{} // how many of them have which
	for _, member := range k.Peers.Others() {
		theirs, err := segmentsOf(ctx, k.Peers, member)
		if err != nil {
			continue // it is asked again the next time
		}
		for first, row := range theirs { // any order
			mine, ok := own[first]
			if !ok || mine.tag() != row.tag() || row.size == 0 {
				continue // one of the two is further
			}
			if others[first] == nil {
				asked[first], others[first] = 1, map[segmentRow]int{}
			}
			asked[first]++
			others[first][row]++
		}
	}
	for first, rows := range others { // any order
		for row, n := range rows { // any order: at most one is of most replicas
			if row != own[first] && 2*n > asked[first] {
				k.Log.Error("a segment is another than most replicas have", "shard", k.Shard, "documents_from", first)
				m.mu.Lock()
				if s := m.storedAt(first); s != nil && s.Digest() == own[first].digest {
					m.doubt(first, row, false)
				}
				m.mu.Unlock()
			}
		}
	}
}

// ownSegments are the rows of this replica's segments.
func (m *Machine) ownSegments() (map[uint64]segmentRow, error) {
	own := map[uint64]segmentRow{}
	err := eachRow(m.store, []byte{tableSegment}, []byte{tableSegment + 1}, func(key, value []byte) error {
		row, err := decodeSegmentRow(value)
		if err == nil && len(key) == 9 {
			own[binary.BigEndian.Uint64(key[1:])] = row
		}
		return err
	})
	return own, err
}
