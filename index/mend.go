package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// A segment of the state of which this node has other bytes than it should is mended: a file is made of what
// another replica has, it is searched from then on, and the next entry puts its bytes in the place of the rows. Until the
// file is there, who meets the damage gets an error, and asks another replica.

// mendPause is how long a segment waits that no other replica has whole now.
const mendPause = 5 * time.Second

// Keeper is what a replica keeps its segments whole with.
type Keeper struct {
	Shard string
	Peers Peers
	// Propose has the log execute a command, whoever leads.
	Propose func(ctx context.Context, command []byte) error
	// Every is how often all segments are read, and BytesPerSecond how fast at most.
	Every          time.Duration
	BytesPerSecond int
	Log            *slog.Logger
}

// unsound is a segment of the state that has to be mended.
type unsound struct {
	first uint64
	// row is what the segment should be; it is that of the state unless most replicas have another.
	row segmentRow
	// closed says that it could not be opened: without it nothing can be answered or applied.
	closed bool
	// whole is what it is mended with; nil until it is there.
	whole *sealed
}

// Attend has the replica keep its segments whole, by reading all now and then and by asking others.
func (m *Machine) Attend(k *Keeper) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keeper = k
	m.changed.Broadcast()
}

// Wholeness is how the segments of this replica are.
type Wholeness struct {
	// Unsound is how many are damaged now; Damaged and Mended count since the process started.
	Unsound         int
	Damaged, Mended uint64
	// Scrubbed is how many bytes were read in search of damage.
	Scrubbed uint64
}

// Wholeness tells how the segments are.
func (m *Machine) Wholeness() Wholeness {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Wholeness{Unsound: len(m.unsound), Damaged: m.damages.Load(), Mended: m.mends.Load(), Scrubbed: m.scrubbed.Load()}
}

// doubt notes that a segment of the state is not what it should be; the caller holds mu.
func (m *Machine) doubt(first uint64, row segmentRow, closed bool) {
	if m.doubted(first) != nil {
		return
	}
	m.unsound = append(m.unsound, &unsound{first: first, row: row, closed: closed})
	m.damages.Add(1)
	m.changed.Broadcast()
}

// doubted is what is known of a damaged segment; nil when there is nothing. The caller holds mu.
func (m *Machine) doubted(first uint64) *unsound {
	if i := slices.IndexFunc(m.unsound, func(u *unsound) bool { return u.first == first }); i >= 0 {
		return m.unsound[i]
	}
	return nil
}

// forgetDoubts drops segments that the log has replaced; the caller holds mu.
func (m *Machine) forgetDoubts(first, end uint64) {
	m.unsound = slices.DeleteFunc(slices.Clone(m.unsound), func(u *unsound) bool {
		if u.first < first || u.first >= end {
			return false
		}
		if u.whole != nil {
			_ = m.folder().Remove(u.whole.name) // else the next Load does
		}
		return true
	})
}

// isWhole is false while a segment is closed for its damage, so that not all documents are known. The caller holds mu.
func (m *Machine) isWhole() bool {
	return !slices.ContainsFunc(m.unsound, func(u *unsound) bool { return u.closed && u.whole == nil })
}

// awaitWhole waits until all segments are open.
func (m *Machine) awaitWhole() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.isWhole() && !m.interrupted {
		m.changed.Wait()
	}
	if m.interrupted {
		return raftfsm.ErrInterrupted
	}
	return nil
}

// Interrupt implements raftfsm.Interrupter: Apply waits for other replicas no longer.
func (m *Machine) Interrupt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupted = true
	m.changed.Broadcast()
}

// mend mends segments until the machine stops. Load starts it.
func (m *Machine) mend(ctx context.Context) {
	defer m.workers.Done()
	for {
		k, u := m.nextUnsound()
		if k == nil {
			return
		}
		err := m.fetch(ctx, k, u)
		if err == nil {
			k.Log.Info("a damaged segment is whole again, by another replica's bytes", "shard", k.Shard, "documents_from", u.first)
			m.writeSoon(ctx, k, u)
		} else if ctx.Err() == nil {
			k.Log.Warn("a damaged segment is not mended yet", "shard", k.Shard, "documents_from", u.first, "err", err)
			pause(ctx, mendPause)
		}
	}
}

// writeSoon has the log come with an entry, if it does not by itself, so that the rows are written.
func (m *Machine) writeSoon(ctx context.Context, k *Keeper, u *unsound) {
	for ctx.Err() == nil {
		// Any entry will do; this one changes nothing.
		if err := k.Propose(ctx, encodeLayout(layoutSegments)); err == nil {
			return
		}
		pause(ctx, leadPause)
		m.mu.RLock()
		written := m.doubted(u.first) != u
		m.mu.RUnlock()
		if written {
			return
		}
	}
}

// nextUnsound waits for a segment to be mended; nil when the machine stops.
func (m *Machine) nextUnsound() (*Keeper, *unsound) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.stopping {
		if m.keeper != nil {
			for _, u := range m.unsound {
				if u.whole == nil {
					return m.keeper, u
				}
			}
		}
		m.changed.Wait()
	}
	return nil, nil
}

// mendedName is the file of a segment that was mended. The next Load removes it: then the rows tell again what they are.
func mendedName(first uint64) string { return fmt.Sprintf("%016x.mended", first) }

// fetch makes a segment whole by the bytes of the first replica that has all of them.
func (m *Machine) fetch(ctx context.Context, k *Keeper, u *unsound) error {
	rest := m.unhurried()
	failed := errors.New("no other replica is known")
	for _, member := range k.Peers.Others() {
		err := m.folder().Write(mendedName(u.first), func(w io.Writer) error {
			return copySegment(ctx, k.Peers, member, u.first, u.row, w, rest)
		})
		if err != nil {
			failed = fmt.Errorf("from node %s: %w", member, err)
			continue
		}
		s, err := m.openFile(mendedName(u.first), u.first, int(u.row.docs))
		if err != nil {
			failed = fmt.Errorf("from node %s: %w", member, err)
			continue
		}
		if err = s.Verify(); err == nil && s.Digest() != u.row.digest {
			err = fmt.Errorf("%w: it has another digest", segment.ErrCorrupt)
		}
		if err != nil {
			failed = errors.Join(fmt.Errorf("from node %s: %w", member, err), s.release())
			continue
		}
		return m.adopt(u, s)
	}
	return failed
}

// adopt lists a whole segment in the place of a damaged one, unless the log has replaced that meanwhile.
func (m *Machine) adopt(u *unsound, s *sealed) error {
	m.mu.Lock()
	if m.doubted(u.first) != u {
		m.mu.Unlock()
		return errors.Join(s.release(), m.folder().Remove(s.name))
	}
	s.stored = true
	s.cold.Store(u.row.object != "")
	at, found := slices.BinarySearchFunc(m.segments, u.first, func(s segmentSource, first uint64) int {
		return compareUint(s.Base(), first)
	})
	var old []segmentSource
	if found {
		old = m.segments[at : at+1]
	}
	m.segments = slices.Concat(m.segments[:at], []segmentSource{{s}}, m.segments[at+len(old):])
	for _, o := range old {
		o.replaced.Store(true)
	}
	u.whole = s
	m.mends.Add(1)
	m.changed.Broadcast()
	m.mu.Unlock()
	return releaseAll(old)
}

func compareUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// writeMended puts what was mended in the place of the damaged rows. It is no part of the entry: the rows become what
// they should be on this node, whichever entry that happens to come with.
func (a *applier) writeMended() error {
	m := a.m
	m.mu.RLock()
	all := slices.DeleteFunc(slices.Clone(m.unsound), func(u *unsound) bool { return u.whole == nil })
	m.mu.RUnlock()
	for _, u := range all {
		var failed error
		err := m.store.Exchange(pieceKey(u.first, u.row.tag(), 0), pieceKey(u.first, u.row.tag()+1, 0), u.pieces(&failed))
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		if err := a.tx.Set(segmentKey(u.first), u.row.encode()); err != nil {
			return err
		}
		a.tx.OnCommit(func() {
			r, err := m.readerOf(u.first, u.row, m.store.Read)
			if err != nil {
				return // it reads the file on
			}
			_ = u.whole.file.move(r) // as in finishMove
			_ = m.folder().Remove(u.whole.name)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.unsound = slices.DeleteFunc(slices.Clone(m.unsound), func(o *unsound) bool { return o == u })
			m.changed.Broadcast()
		})
	}
	return nil
}

// numbersOf are the pieces of runs.
func numbersOf(runs []pieceRun) (all []uint32) {
	for _, r := range runs {
		for n := r.from; n < r.to; n++ {
			all = append(all, n)
		}
	}
	return all
}

// pieces are the rows of a mended segment.
func (u *unsound) pieces(failed *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		buf := make([]byte, pieceBytes)
		runs, err := u.row.runs()
		if *failed = err; err != nil {
			return
		}
		for _, n := range numbersOf(runs) {
			b := buf[:min(pieceBytes, u.row.size-uint64(n)*pieceBytes)]
			if _, err := u.whole.file.ReadAt(b, int64(n)*pieceBytes); err != nil {
				*failed = err
				return
			}
			if !yield(pieceKey(u.first, u.row.tag(), n), b) {
				return
			}
		}
	}
}
