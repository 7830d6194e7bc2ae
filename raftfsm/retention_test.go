package raftfsm

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// retained is a log whose snapshot covers everything.
func retained(t *testing.T, path string, keep Retention) *logStore {
	t.Helper()
	clk := &timekeeper{clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	s, err := openLogStore(path, keep, clk, func(reason string, err error) { t.Errorf("%s: %v", reason, err) }, func(int, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	all := func() uint64 { return 1 << 40 }
	s.covered, s.applied = all, all
	return s
}

// write appends the entries [from, to] of about size bytes each, as they count.
func write(t *testing.T, s *logStore, from, to uint64, size int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: make([]byte, size-entryOverhead)}); err != nil {
			t.Fatal(err)
		}
	}
}

// compactTo is what Raft asks for after a snapshot at hi, and returns the log's first index then.
func compactTo(t *testing.T, s *logStore, hi uint64) uint64 {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(first, hi); err != nil {
		t.Fatal(err)
	}
	if first, err = s.FirstIndex(); err != nil {
		t.Fatal(err)
	}
	return first
}

// Behind a snapshot stays what fits into the entries and the bytes that are kept, whichever
// is less.
func TestWhatStaysBehindASnapshot(t *testing.T) {
	for name, c := range map[string]struct {
		keep Retention
		want uint64 // first index of a log of 100 entries of 1000 bytes
	}{
		"by entries": {Retention{TrailingEntries: 10, TrailingBytes: 1 << 20}, 91},
		"by bytes":   {Retention{TrailingEntries: 1000, TrailingBytes: 20_500}, 81},
		"all fits":   {Retention{TrailingEntries: 1000, TrailingBytes: 1 << 20}, 1},
	} {
		s := retained(t, filepath.Join(t.TempDir(), "log.bolt"), c.keep)
		write(t, s, 1, 100, 1000)
		if got := compactTo(t, s, 99); got != c.want {
			t.Errorf("%s: the log begins at %d, want %d", name, got, c.want)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

// A snapshot in the middle of the log takes nothing behind itself away.
func TestNothingBehindTheSnapshotGoes(t *testing.T) {
	s := retained(t, filepath.Join(t.TempDir(), "log.bolt"), Retention{TrailingEntries: 1, TrailingBytes: 1})
	defer s.close()
	write(t, s, 1, 100, 1000)
	if got := compactTo(t, s, 40); got != 41 {
		t.Fatalf("after a snapshot at 40 the log begins at %d", got)
	}
}

// While the state is on its way to a follower, what was written since stays for it, up to a
// bound; then the usual holds again.
func TestHeldEntriesStay(t *testing.T) {
	s := retained(t, filepath.Join(t.TempDir(), "log.bolt"), Retention{TrailingEntries: 5, TrailingBytes: 5000, HeldBytes: 50_000})
	defer s.close()
	write(t, s, 1, 20, 1000)
	release := s.hold(12)
	write(t, s, 21, 40, 1000)
	if got := compactTo(t, s, 39); got != 13 {
		t.Errorf("while entries after 12 are held the log begins at %d", got)
	}
	write(t, s, 41, 100, 1000)
	if got := compactTo(t, s, 99); got != 46 {
		t.Errorf("with 88 entries held and 55,000 bytes allowed the log begins at %d, want 46", got)
	}
	release()
	release()
	if got := compactTo(t, s, 99); got != 96 {
		t.Errorf("after the release the log begins at %d, want 96", got)
	}
}

// What stays does not depend on whether the last entry, which is in the file, is known yet: a log that is
// cut just then keeps what is held, and what stays behind a snapshot.
func TestEntriesThatAreNotKnownYetCutNothing(t *testing.T) {
	s := newLogSizes(Retention{TrailingEntries: 5, TrailingBytes: 5000, LeastBytes: 5000}, func() int64 { return 0 })
	for i := uint64(1); i <= 20; i++ {
		s.appended(i, 1000)
	}
	if got := s.keepFrom(21); got != 17 {
		t.Errorf("entries from %d on stay, want 17", got)
	}
	defer s.hold(12)()
	if got := s.keepFrom(21); got != 13 {
		t.Errorf("while entries after 12 are held, those from %d on stay", got)
	}
}

// Sizes that an earlier process wrote are learnt, and a log that goes on behind a gap, as
// after a received snapshot, is compacted across it.
func TestRetentionAfterARestartAndAcrossAGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.bolt")
	keep := Retention{TrailingEntries: 1000, TrailingBytes: 20_500}
	s := retained(t, path, keep)
	write(t, s, 1, 100, 1000)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = retained(t, path, keep)
	defer s.close()
	write(t, s, 101, 110, 1000)
	if got := compactTo(t, s, 109); got != 91 {
		t.Errorf("after a restart the log begins at %d, want 91", got)
	}
	write(t, s, 1_000_000, 1_000_009, 1000)
	if got := compactTo(t, s, 1_000_008); got != 1_000_000 {
		t.Errorf("behind a gap the log begins at %d, want 1000000", got)
	}
}

// Conflicting entries that are taken back do not count any more, and those that come instead do.
func TestReplacedEntriesAreCountedOnce(t *testing.T) {
	s := retained(t, filepath.Join(t.TempDir(), "log.bolt"), Retention{})
	defer s.close()
	s.applied, s.covered = func() uint64 { return 0 }, func() uint64 { return 0 }
	write(t, s, 1, 10, 1000)
	if err := s.DeleteRange(6, 10); err != nil {
		t.Fatal(err)
	}
	write(t, s, 6, 7, 3000)
	if got := s.sizes.bytes(); got != 5*1000+2*3000 {
		t.Fatalf("the log counts %d bytes", got)
	}
}

// Enough bytes ask for a snapshot, once.
func TestBytesAskForASnapshot(t *testing.T) {
	s := retained(t, filepath.Join(t.TempDir(), "log.bolt"), Retention{SnapshotBytes: 10_000})
	defer s.close()
	asked := func() bool {
		select {
		case <-s.sizes.full:
			return true
		default:
			return false
		}
	}
	write(t, s, 1, 9, 1000)
	if asked() {
		t.Error("asked for a snapshot after 9,000 bytes of 10,000")
	}
	write(t, s, 10, 15, 1000)
	if !asked() || asked() {
		t.Error("15,000 bytes did not ask for exactly one snapshot")
	}
}
