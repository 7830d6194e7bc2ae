package raftfsm

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/clock"
)

func openTestLog(t *testing.T, path string) (*logStore, error) {
	t.Helper()
	keep := &timekeeper{clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	return openLogStore(path, Retention{}, keep, func(reason string, err error) { t.Errorf("%s: %v", reason, err) }, func(int, time.Duration) {})
}

// The library compares the text of the error for a key that is missing.
func TestMissingStableKeys(t *testing.T) {
	s, err := openTestLog(t, filepath.Join(t.TempDir(), "log.bolt"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	w := watchedStore{raftStore: s, watch: newWriteWatch(writeBounds{slow: time.Second, stalled: time.Second})}
	if _, err := w.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
		t.Errorf("missing bytes: %v", err)
	}
	if _, err := w.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("missing number: %v", err)
	}
	if err := w.GetLog(7, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("missing entry: %v", err)
	}
}

// A second process does not get at a log, nor at the state, that is in use.
func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.bolt")
	s, err := openTestLog(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := openTestLog(t, path); err == nil {
		t.Error("a log was opened twice")
	}
	dir := t.TempDir()
	db, err := pebble.Open(dir, &pebble.Options{Logger: pebble.DefaultLogger})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := pebble.Open(dir, &pebble.Options{Logger: pebble.DefaultLogger}); err == nil {
		t.Error("a state was opened twice")
	}
}

// deadlines is a connection that notes its read deadline.
type deadlines struct {
	net.Conn
	set time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = t; return nil }
func (d *deadlines) Read([]byte) (int, error)          { return 0, io.EOF }

// Every read from a peer has an end: a transfer whose sender has died must not hold a
// follower's main goroutine for ever.
func TestReadsHaveDeadlines(t *testing.T) {
	d := &deadlines{}
	c := &rollingConn{Conn: d}
	for range 2 {
		d.set = time.Time{}
		if _, err := c.Read(nil); err != io.EOF {
			t.Fatal(err)
		}
		if d.set.IsZero() || time.Until(d.set) > idleReadTimeout {
			t.Fatalf("deadline %v", d.set)
		}
	}
}
