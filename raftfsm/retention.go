package raftfsm

import (
	"math"
	"sync"
	"time"
)

// Retention is how much of a group's log is kept. Fields that are zero take the value of
// DefaultRetention.
//
// While much is written, a log's file becomes as large as what is written until a snapshot, what stays
// behind it, and what a transfer to a follower holds back. Afterwards it is written anew without the rest.
type Retention struct {
	// SnapshotEntries and SnapshotBytes are how much may follow the last snapshot. A local
	// snapshot is only a marker and one Pebble sync, so they can be small; they bound the
	// replay at start.
	SnapshotEntries uint64
	SnapshotBytes   int64
	// SnapshotInterval is how often entries are counted; bytes are counted as they are written.
	SnapshotInterval time.Duration
	// TrailingEntries and TrailingBytes are how much stays behind a snapshot at most, so that a
	// follower that was away shortly catches up from the log. More costs disk; fewer costs
	// state transfers.
	TrailingEntries uint64
	TrailingBytes   int64
	// TrailingTime is for how long entries stay, within TrailingBytes: as long as a node takes to be
	// restarted. Older ones stay up to LeastBytes, or a LeastShare of the group's state if that is more: who
	// was away for longer gets the state, and that costs the less the smaller it is.
	TrailingTime time.Duration
	LeastBytes   int64
	LeastShare   int64
	// TidyInterval is how often a log is looked at for what need not stay any more.
	TidyInterval time.Duration
	// HeldBytes is how much more stays while the state is on its way to a follower, which will
	// need what was written meanwhile.
	HeldBytes int64
}

// DefaultRetention suits entries of a few kilobytes and restarts of minutes: 128 MiB are a
// minute or so of the heaviest ingest of one group, and much more of anything else. A gigabyte
// is on its way for about a minute (the step catchup of the bench), and ingest may go on meanwhile.
var DefaultRetention = Retention{
	SnapshotEntries: 8192, SnapshotBytes: 16 << 20, SnapshotInterval: 30 * time.Second,
	TrailingEntries: 8192, TrailingBytes: 128 << 20, HeldBytes: 512 << 20,
	TrailingTime: time.Minute, LeastBytes: 8 << 20, LeastShare: 32, TidyInterval: 10 * time.Second,
}

// withDefaults fills what is zero.
func (r Retention) withDefaults() Retention {
	d := DefaultRetention
	if r.SnapshotEntries == 0 {
		r.SnapshotEntries = d.SnapshotEntries
	}
	if r.SnapshotBytes == 0 {
		r.SnapshotBytes = d.SnapshotBytes
	}
	if r.SnapshotInterval == 0 {
		r.SnapshotInterval = d.SnapshotInterval
	}
	if r.TrailingEntries == 0 {
		r.TrailingEntries = d.TrailingEntries
	}
	if r.TrailingBytes == 0 {
		r.TrailingBytes = d.TrailingBytes
	}
	if r.TrailingTime == 0 {
		r.TrailingTime = d.TrailingTime
	}
	if r.LeastBytes == 0 {
		r.LeastBytes = d.LeastBytes
	}
	if r.LeastShare == 0 {
		r.LeastShare = d.LeastShare
	}
	if r.TidyInterval == 0 {
		r.TidyInterval = d.TidyInterval
	}
	if r.HeldBytes == 0 {
		r.HeldBytes = d.HeldBytes
	}
	return r
}

// logSizes knows how many bytes the entries at the end of a log take, and from where on they
// must stay. It is safe for use by several goroutines.
type logSizes struct {
	keep Retention
	now  func() int64 // a steady clock, in nanoseconds
	// full is sent to when SnapshotBytes have been written since the last snapshot; it never
	// blocks.
	full chan struct{}

	mu sync.Mutex
	// sizes are those of the entries from first on; older ones are not known.
	first uint64
	sizes []int64
	total int64
	// written are the bytes since the last request for a snapshot.
	written int64
	held    map[*uint64]struct{} // entries after these indexes stay
	// marks say when the entries from an index on began to be written, oldest first: those before the next mark
	// within a marksEach of TrailingTime.
	marks []timeMark
	least int64 // what stays however old
}

// timeMark is the first entry that was written at a moment or later.
type timeMark struct {
	index uint64
	at    int64
}

// marksEach is how many marks there are for TrailingTime.
const marksEach = 8

// entryOverhead is what bolt and the encoding add to an entry: key, page share, field names.
const entryOverhead = 128

func newLogSizes(keep Retention, now func() int64) *logSizes {
	keep = keep.withDefaults()
	return &logSizes{keep: keep, now: now, full: make(chan struct{}, 1), held: map[*uint64]struct{}{}, least: keep.LeastBytes}
}

// stateIs notes how large the group's state is.
func (s *logSizes) stateIs(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least = max(s.keep.LeastBytes, bytes/s.keep.LeastShare)
}

// mark notes when an entry is written; the caller holds mu.
func (s *logSizes) mark(index uint64) {
	now := s.now()
	if n := len(s.marks); n == 0 || now-s.marks[n-1].at >= int64(s.keep.TrailingTime/marksEach) {
		s.marks = append(s.marks, timeMark{index, now})
	}
	s.dropMarks(now)
}

// dropMarks forgets those of entries that are old; the caller holds mu.
func (s *logSizes) dropMarks(now int64) {
	for len(s.marks) > 0 && now-s.marks[0].at >= int64(s.keep.TrailingTime+s.keep.TrailingTime/marksEach) {
		s.marks = s.marks[1:]
	}
}

// youngFrom is the first entry of a log that ends at last that was written not longer than TrailingTime ago,
// or a little more; the caller holds mu.
func (s *logSizes) youngFrom(last uint64) uint64 {
	s.dropMarks(s.now())
	if len(s.marks) == 0 {
		return last + 1
	}
	return s.marks[0].index
}

// appended notes an entry of size bytes that was just written.
func (s *logSizes) appended(index uint64, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index != s.first+uint64(len(s.sizes)) {
		// The log goes on elsewhere, behind a snapshot or a conflict.
		s.forgetFrom(index)
		if index != s.first+uint64(len(s.sizes)) {
			s.first, s.sizes, s.total = index, nil, 0
		}
	}
	s.sizes = append(s.sizes, size)
	s.total += size
	s.mark(index)
	if s.written += size; s.written >= s.keep.SnapshotBytes {
		s.written = 0
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

// older notes the size of the entry before the oldest known one, after a start.
func (s *logSizes) older(index uint64, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sizes) == 0 {
		s.first = index + 1
	}
	if index+1 != s.first {
		return
	}
	s.first = index
	s.sizes = append([]int64{size}, s.sizes...)
	s.total += size
}

// unknown is the youngest entry of a log that ends at last whose size is not known; more is
// false when older ones cannot matter.
func (s *logSizes) unknown(last uint64) (index uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sizes) == 0 {
		return last, true
	}
	enough := s.total > s.keep.TrailingBytes+s.keep.HeldBytes || uint64(len(s.sizes)) >= s.keep.TrailingEntries
	return s.first - 1, !enough
}

// forgetFrom drops the entries from index on; the caller holds mu.
func (s *logSizes) forgetFrom(index uint64) {
	for len(s.marks) > 0 && s.marks[len(s.marks)-1].index >= index {
		s.marks = s.marks[:len(s.marks)-1]
	}
	for len(s.sizes) > 0 && s.first+uint64(len(s.sizes)) > index {
		s.total -= s.sizes[len(s.sizes)-1]
		s.sizes = s.sizes[:len(s.sizes)-1]
	}
}

// removed notes that the entries [lo, hi] are gone.
func (s *logSizes) removed(lo, hi uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := s.first + uint64(len(s.sizes)); hi+1 >= end {
		s.forgetFrom(lo)
		return
	}
	gone := 0
	for ; gone < len(s.sizes) && s.first+uint64(gone) <= hi; gone++ {
		s.total -= s.sizes[gone]
	}
	// A copy, so that what is gone does not stay in memory before the slice.
	s.first, s.sizes = s.first+uint64(gone), append([]int64(nil), s.sizes[gone:]...)
}

// hold keeps the entries after index until release, which may be called more than once.
func (s *logSizes) hold(index uint64) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &index
	s.held[h] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, h)
	}
}

// keepFrom is the first index that stays in a log that ends at last.
func (s *logSizes) keepFrom(last uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := max(min(s.youngFrom(last), s.fits(last, s.least)), s.fits(last, s.keep.TrailingBytes))
	if last >= s.keep.TrailingEntries {
		from = max(from, last-s.keep.TrailingEntries+1)
	}
	held := uint64(math.MaxUint64)
	for h := range s.held {
		held = min(held, *h+1)
	}
	// What is held back has a bound too: a transfer that takes for ever must not fill the disk.
	return min(from, max(held, s.fits(last, s.keep.TrailingBytes+s.keep.HeldBytes)))
}

// fits is the first index from which on the known entries up to last take at most bytes. Entries at the end
// are in the file a moment before they are known, and count nothing. The caller holds mu.
func (s *logSizes) fits(last uint64, bytes int64) uint64 {
	from, total := last+1, int64(0)
	if n := uint64(len(s.sizes)); n > 0 {
		from = min(from, s.first+n)
	}
	for from > s.first && from-s.first <= uint64(len(s.sizes)) {
		if total += s.sizes[from-1-s.first]; total > bytes {
			break
		}
		from--
	}
	return from
}

// surplus is what the known entries take that need not stay in a log that ends at last.
func (s *logSizes) surplus(last uint64) (bytes int64) {
	from := s.keepFrom(last)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.first; i < from && i-s.first < uint64(len(s.sizes)); i++ {
		bytes += s.sizes[i-s.first]
	}
	return bytes
}

// bytes is what the known entries take.
func (s *logSizes) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
