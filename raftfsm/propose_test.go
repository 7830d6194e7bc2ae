package raftfsm

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
)

// A write that may have happened is repeated only if the group would notice the repeat.
func TestWhatIsTriedAgain(t *testing.T) {
	no := &Error{Op: "propose", Err: ErrNoLeader}
	full := &Error{Op: "propose", Err: ErrOverloaded}
	lost := &Error{Op: "propose", Err: ErrLost, Outcome: OutcomeUnknown}
	for _, tc := range []struct {
		err         error
		withID, try bool
	}{
		{no, false, true},
		{no, true, true},
		{full, true, false},
		{lost, false, false},
		{lost, true, true},
		{errors.New("other"), true, false},
	} {
		if got := retryable(tc.err, tc.withID); got != tc.try {
			t.Errorf("%v, with a request id %v: tried again %v, want %v", tc.err, tc.withID, got, tc.try)
		}
	}
}

// Once a try may have taken effect, a later definite failure does not take that back.
func TestUnknownStaysUnknown(t *testing.T) {
	no := &Error{Op: "propose", Err: ErrNoLeader}
	if got := OutcomeOf(withOutcome(no, true)); got != OutcomeUnknown {
		t.Errorf("after an unknown try: %v", got)
	}
	if got := OutcomeOf(withOutcome(no, false)); got != OutcomeDefinite {
		t.Errorf("after definite tries: %v", got)
	}
	if no.Outcome != OutcomeDefinite {
		t.Error("the error itself was changed")
	}
}

// What Raft's errors say about a write.
func TestOutcomesOfRaft(t *testing.T) {
	for err, want := range map[error]Outcome{
		raft.ErrNotLeader:                    OutcomeDefinite,
		raft.ErrEnqueueTimeout:               OutcomeDefinite,
		raft.ErrLeadershipTransferInProgress: OutcomeDefinite,
		raft.ErrLeadershipLost:               OutcomeUnknown,
		raft.ErrRaftShutdown:                 OutcomeUnknown,
		raft.ErrAbortedByRestore:             OutcomeUnknown,
		errors.New("disk"):                   OutcomeUnknown,
	} {
		if got := outcomeOfRaft(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// A log, a term or a vote that cannot be written ends the process, each with its reason.
func TestFailedWritesAreFatal(t *testing.T) {
	var reasons []string
	keep := &timekeeper{clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	s, err := openLogStore(filepath.Join(t.TempDir(), "log.bolt"), Retention{}, keep, func(reason string, _ error) { reasons = append(reasons, reason) }, func(int, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: EncodeEntry(1, 5, 0, nil)}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.lastNote(); err != nil || n.index != 1 || n.stamp != 5 || n.boot != keep.clock.Boot() {
		t.Fatalf("note of the written entry: %+v, %v", n, err)
	}
	var back raft.Log
	if err := s.GetLog(1, &back); err != nil || back.Extensions != nil {
		t.Fatalf("the note leaked out of the store: %+v, %v", back, err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	// A closed file fails every write, as a broken disk does.
	for _, write := range []func() error{
		func() error { return s.StoreLog(&raft.Log{Index: 2, Term: 1}) },
		func() error { return s.Set([]byte("LastVoteCand"), []byte("x")) },
		func() error { return s.SetUint64([]byte("CurrentTerm"), 2) },
	} {
		if write() == nil {
			t.Fatal("a write to a closed file succeeded")
		}
	}
	want := []string{"log_write_failed", "vote_write_failed", "vote_write_failed"}
	if len(reasons) != len(want) {
		t.Fatalf("fatal reasons %v, want %v", reasons, want)
	}
	for i := range want {
		if reasons[i] != want[i] {
			t.Fatalf("fatal reasons %v, want %v", reasons, want)
		}
	}
}

// Deadlines stay deadlines over a link, or callers would take them for internal errors.
func TestDeadlinesTravelOverLinks(t *testing.T) {
	for _, sentinel := range []error{context.DeadlineExceeded, context.Canceled} {
		err := decodeError(errorPayload(&Error{Op: "query", Group: "a", Err: sentinel}), "query", "a", "node-2")
		if !errors.Is(err, sentinel) {
			t.Errorf("%v came back as %v", sentinel, err)
		}
	}
}

// A leader that wants entries replaced which the state has already applied has lost what a
// majority had synced; compaction of the same entries is everyday work.
func TestAppliedEntriesAreNotReplaced(t *testing.T) {
	var reasons []string
	keep := &timekeeper{clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	s, err := openLogStore(filepath.Join(t.TempDir(), "log.bolt"), Retention{}, keep, func(reason string, _ error) { reasons = append(reasons, reason) }, func(int, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i := uint64(1); i <= 10; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: EncodeEntry(1, int64(i), 0, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	applied, covered := uint64(7), uint64(0)
	s.applied, s.covered = func() uint64 { return applied }, func() uint64 { return covered }
	if err := s.DeleteRange(8, 10); err != nil || len(reasons) != 0 {
		t.Fatalf("entries that were not applied: %v, %v", err, reasons)
	}
	if keep.last.index != 7 {
		t.Fatalf("time is anchored at entry %d, want 7", keep.last.index)
	}
	for _, r := range [][2]uint64{{7, 7}, {1, 7}} {
		if err := s.DeleteRange(r[0], r[1]); err == nil || reasons[len(reasons)-1] != "applied_entry_replaced" {
			t.Fatalf("entries %v, which were applied: %v, %v", r, err, reasons)
		}
	}
	covered = 7
	if err := s.DeleteRange(5, 7); err == nil {
		t.Fatal("a suffix was replaced below the snapshot")
	}
	reasons = nil
	if err := s.DeleteRange(1, 7); err != nil || len(reasons) != 0 {
		t.Fatalf("compaction: %v, %v", err, reasons)
	}
}
