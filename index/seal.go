package index

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// mergedHeads is how many segments of one head each are merged into one: the order of a
// segment costs nothing at a search, the number of segments does.
const mergedHeads = segment.DocumentsMax / headDocumentsMax

// errStopping ends work that nobody waits for.
var errStopping = errors.New("index: the machine stops")

// errReplaced ends the reading of a segment that a merge has replaced.
var errReplaced = errors.New("index: the segment was merged into another")

// sealed is an open segment. Its file is closed when nobody has it any more.
type sealed struct {
	*segment.Segment
	name string
	file *segmentData
	// width is how many numbers it has, from its base on. Those that no document has are of documents
	// that were disposed of.
	width uint64
	// replaced says that a merge has removed its rows.
	replaced atomic.Bool
	// stored says that it is a part of the replicated state; the machine's mu guards it.
	stored bool
	// cold says that the rows have a part of its bytes only.
	cold atomic.Bool
	// users are the machine, while it lists the segment, and the searches that read it.
	users atomic.Int32
	// damaged is called when a read has found the segment damaged.
	damaged func(*sealed)
	facets  aggregateCache
}

// hold is called while the machine lists the segment.
func (s *sealed) hold() { s.users.Add(1) }

func (s *sealed) release() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	s.Close()
	return s.file.Close()
}

// Close forgets what is cached of the segment.
func (s *sealed) Close() { s.Segment.Close() }

// note tells the machine of damage; it returns err.
func (s *sealed) note(err error) error {
	if err != nil && s.replaced.Load() {
		return errReplaced
	}
	corrupt := errors.Is(err, segment.ErrCorrupt)
	if corrupt {
		s.damaged(s)
	}
	if isAway(err) || corrupt && s.cold.Load() {
		return &coldError{s.Base(), err}
	}
	return err
}

// segmentName is the name of a segment's file: its first document and how many it has.
func segmentName(base uint64, docs int) string { return fmt.Sprintf("%016x-%06x.segment", base, docs) }

func parseSegmentName(name string) (base uint64, docs int, ok bool) {
	stem, ok := strings.CutSuffix(name, ".segment")
	first, second, cut := strings.Cut(stem, "-")
	base, err1 := strconv.ParseUint(first, 16, 64)
	n, err2 := strconv.ParseUint(second, 16, 31)
	ok = ok && cut && err1 == nil && err2 == nil && name == segmentName(base, int(n))
	return base, int(n), ok
}

// openSegments opens the segments of the state, then files without a gap, the largest there is at
// each place. It removes all other files: those that were merged or moved, and those that the replicated
// state does not reach. The documents are still there to build them again.
func (m *Machine) openSegments(count uint64, layout byte) (open []segmentSource, moved, end uint64, err error) {
	names, err := m.folder().List()
	if err != nil {
		return nil, 0, 0, err
	}
	at := map[uint64][]int{} // base -> numbers of documents
	for _, name := range names {
		// A merged file is of the segments of one state, and not of documents as such, once some are disposed of.
		if base, docs, ok := parseSegmentName(name); ok && (layout < layoutRetention || docs <= m.headDocuments) {
			at[base] = append(at[base], docs)
		}
	}
	if open, moved, err = m.openRows(count); err != nil {
		return nil, 0, 0, err
	}
	end = moved
	used := map[string]bool{}
	for found := true; found; {
		found = false
		sizes := at[end]
		slices.Sort(sizes)
		for _, docs := range slices.Backward(sizes) {
			if end+uint64(docs) > count {
				continue
			}
			s, err := m.openSegment(end, docs)
			if errors.Is(err, segment.ErrVersion) || errors.Is(err, segment.ErrCorrupt) {
				continue
			}
			if err != nil {
				return nil, 0, 0, errors.Join(err, releaseAll(open))
			}
			open, found = append(open, segmentSource{s}), true
			used[s.name] = true
			end += uint64(docs)
			break
		}
	}
	for _, name := range names {
		if !used[name] {
			if err := m.folder().Remove(name); err != nil {
				return nil, 0, 0, errors.Join(err, releaseAll(open))
			}
		}
	}
	return open, moved, end, m.dropOldSegments()
}

func releaseAll(all []segmentSource) error {
	var err error
	for _, s := range all {
		err = errors.Join(err, s.release())
	}
	return err
}

// tableOldSegment is where builds before the segments had files kept them.
const tableOldSegment = 's'

func (m *Machine) dropOldSegments() error {
	b := m.store.Derived().NewBatch()
	defer b.Close()
	if err := b.DeleteRange([]byte{tableOldSegment}, []byte{tableOldSegment + 1}); err != nil {
		return err
	}
	return b.Commit()
}

func (m *Machine) folder() *raftfsm.Folder { return m.store.Folder() }

// openSegment opens the file of a segment. It is held once, for who lists it.
func (m *Machine) openSegment(base uint64, docs int) (*sealed, error) {
	return m.openFile(segmentName(base, docs), base, docs)
}

func (m *Machine) openFile(name string, base uint64, docs int) (*sealed, error) {
	f, err := m.folder().Open(name)
	if err != nil {
		return nil, err
	}
	out, err := m.openData(&segmentData{r: f, file: f, size: f.Size()}, base, docs)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("index: open %s: %w", name, err), f.Close())
	}
	out.name = name
	return out, nil
}

// openData opens a segment wherever it is. It is held once.
func (m *Machine) openData(data *segmentData, base uint64, docs int) (*sealed, error) {
	s, err := segment.Open(data, data.Size(), m.cache)
	if err == nil && (s.Base() != base || s.Len() > docs) {
		err = fmt.Errorf("%w: it has %d documents from %d on", segment.ErrCorrupt, s.Len(), s.Base())
	}
	if err != nil {
		return nil, err
	}
	out := &sealed{Segment: s, file: data, width: uint64(docs), damaged: m.noteDamage}
	out.hold()
	return out, nil
}

// seal turns frozen heads into segments until the machine stops. Load starts it.
func (m *Machine) seal() {
	defer m.workers.Done()
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
func (m *Machine) inTurns(terms iter.Seq2[[]byte, *segment.Postings]) iter.Seq2[[]byte, *segment.Postings] {
	rest := m.turns()
	return func(yield func([]byte, *segment.Postings) bool) {
		n := 0
		for term, postings := range terms {
			if n++; n%turnTerms == 0 && m.hurry.Load() == 0 && !m.isStopping() {
				rest()
			}
			if !yield(term, postings) {
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

// sealHead makes a segment of a head that changes no more.
func (m *Machine) sealHead(h *head) (*sealed, error) {
	in := h.input()
	in.Terms = m.inTurns(in.Terms)
	m.mu.RLock()
	format := formatOf(m.layout)
	m.mu.RUnlock()
	err := m.folder().Write(segmentName(h.base, int(h.span)), func(w io.Writer) error { return segment.Build(w, format, in) })
	if err != nil {
		return nil, fmt.Errorf("index: seal documents from %d on: %w", h.base, err)
	}
	return m.openSegment(h.base, int(h.span))
}
