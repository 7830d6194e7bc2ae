package raftfsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/internal/disk"
)

// large writes entries [from, to] of 100 KB, whose data tells them apart.
func large(t *testing.T, f raft.LogStore, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		data := append([]byte(fmt.Sprint("entry ", i)), make([]byte, 100_000)...)
		if err := f.StoreLog(&raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: data, Extensions: []byte(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantLog checks that the log has exactly the entries [from, to], as large wrote them, and the vote.
func wantLog(t *testing.T, f LogFile, from, to uint64) {
	t.Helper()
	first, err1 := f.FirstIndex()
	last, err2 := f.LastIndex()
	if err1 != nil || err2 != nil || first != from || last != to {
		t.Fatalf("the log has %d to %d (%v, %v), want %d to %d", first, last, err1, err2, from, to)
	}
	for i := from; i <= to; i++ {
		var l raft.Log
		want := fmt.Sprint("entry ", i)
		if err := f.GetLog(i, &l); err != nil || string(l.Data[:len(want)]) != want || l.Data[len(want)] != 0 || string(l.Extensions) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %.20q with %q: %v", i, l.Data, l.Extensions, err)
		}
	}
	term, err1 := f.GetUint64([]byte("CurrentTerm"))
	vote, err2 := f.Get([]byte("LastVoteCand"))
	if err1 != nil || err2 != nil || term != 7 || string(vote) != "node-2" {
		t.Fatalf("term %d, vote %q: %v, %v", term, vote, err1, err2)
	}
}

func openVoted(t *testing.T, dir string) *boltFile {
	t.Helper()
	f, err := openBolt(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.SetUint64([]byte("CurrentTerm"), 7), f.Set([]byte("LastVoteCand"), []byte("node-2"))); err != nil {
		t.Fatal(err)
	}
	return f.(*boltFile)
}

// A log that is written anew has what it had, what came meanwhile, and no room that nobody needs; so it is after a
// restart, and a file that a crash has left half-written does not matter.
func TestLogIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	f := openVoted(t, dir)
	large(t, f, 1, 200)
	if err := f.DeleteRange(1, 150); err != nil {
		t.Fatal(err)
	}
	before, err := disk.FileBytes(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(200)
	done, err := f.shrink(func() error {
		if at < 240 { // somebody else appends
			large(t, f, at+1, at+20)
			at += 20
		}
		return nil
	})
	if !done || err != nil {
		t.Fatal(done, err)
	}
	wantLog(t, f, 151, at)
	if after, err := disk.FileBytes(filepath.Join(dir, logName)); err != nil || after > before*2/3 {
		t.Errorf("the file takes %d bytes, and took %d: %v", after, before, err)
	}
	large(t, f, at+1, at+3)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, freshName), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openBolt(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	wantLog(t, again, 151, at+3)
	if _, err := os.Stat(filepath.Join(dir, freshName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished file stays: %v", err)
	}
}

// Entries that are removed while a log is copied must not come back with the copy.
func TestLogThatChangesIsNotWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	f := openVoted(t, dir)
	defer f.Close()
	large(t, f, 1, 60)
	done, err := f.shrink(func() error {
		large(t, f, 61, 62)
		return f.DeleteRange(55, 62) // a conflict
	})
	if done || !errors.Is(err, errLogChanged) {
		t.Fatal(done, err)
	}
	stop := errors.New("stop")
	if done, err = f.shrink(func() error { return stop }); done || !errors.Is(err, stop) {
		t.Fatal(done, err)
	}
	wantLog(t, f, 1, 54)
	if _, err := os.Stat(filepath.Join(dir, freshName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished file stays: %v", err)
	}
}

// What a new version of the library might keep in a log would be lost, so it is refused.
func TestUnknownKeysOfALogAreRefused(t *testing.T) {
	f, err := openBolt(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Set([]byte("Other"), nil) == nil || f.SetUint64([]byte("Other"), 1) == nil {
		t.Fatal("an unknown key was stored")
	}
}

// What was written lately stays, within its bound; later only what always stays, which grows with the state.
func TestEntriesStayForAWhile(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	keep := Retention{TrailingEntries: 1000, TrailingBytes: 50_500, LeastBytes: 10_500, LeastShare: 10, TrailingTime: time.Minute}
	s, err := openLogStore(filepath.Join(t.TempDir(), "log.bolt"), keep, &timekeeper{clock: clk}, func(string, error) {}, func(int, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	all := func() uint64 { return 1 << 40 }
	s.covered, s.applied = all, all
	write(t, s, 1, 20, 1000)
	clk.Advance(40 * time.Second)
	write(t, s, 21, 40, 1000)
	if got := compactTo(t, s, 39); got != 1 {
		t.Errorf("after 40 s the log begins at %d", got)
	}
	clk.Advance(30 * time.Second)
	if got := compactTo(t, s, 39); got != 21 {
		t.Errorf("after 70 s the log begins at %d, want 21", got)
	}
	write(t, s, 41, 100, 1000)
	if got := compactTo(t, s, 99); got != 51 {
		t.Errorf("of 80 young entries the log begins with %d, want 51", got)
	}
	clk.Advance(2 * time.Minute)
	s.sizes.stateIs(300_500)
	if got := compactTo(t, s, 99); got != 71 {
		t.Errorf("behind a state of 300 KB the log begins at %d, want 71", got)
	}
	s.sizes.stateIs(0)
	if got := s.sizes.surplus(100); got != 20_000 {
		t.Errorf("%d bytes need not stay, want 20,000", got)
	}
	if got := compactTo(t, s, 99); got != 91 {
		t.Errorf("behind a small state the log begins at %d, want 91", got)
	}
}
