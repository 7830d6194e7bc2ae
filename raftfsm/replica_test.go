package raftfsm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

func newCounters() raftfsm.Machine { return &counters{} }

func command(id, data string) raftfsm.Command {
	return raftfsm.Command{Data: []byte(data), RequestID: raftfsm.NewRequestID("test", id)}
}

// A repeated request id returns the first result, in the same entry and in later ones, also
// after a restart, and nothing is counted again.
func TestRequestIDsAreRemembered(t *testing.T) {
	d := fsmtest.New(t, newCounters)
	first := d.Propose(command("1", "k"), command("1", "k"), command("2", "k"))
	if !first[1].Repeated || !bytes.Equal(first[0].Data, first[1].Data) || first[0].Index != first[1].Index {
		t.Fatalf("repeat in one entry: %+v", first)
	}
	d.Restart()
	again := d.Propose(command("1", "k"))
	if !again[0].Repeated || !bytes.Equal(again[0].Data, first[0].Data) || again[0].Index != first[0].Index {
		t.Fatalf("repeat after a restart: %+v", again)
	}
	if got := binary.BigEndian.Uint64(d.Query([]byte("k"))); got != 2 {
		t.Fatalf("two requests counted %d times", got)
	}
}

// A request id that comes with other content is refused and changes nothing.
func TestRequestIDWithOtherContent(t *testing.T) {
	d := fsmtest.New(t, newCounters)
	out := d.Propose(command("1", "k"), command("1", "other"))
	if !errors.Is(out[1].Err, raftfsm.ErrRequestReused) || out[1].Data != nil {
		t.Fatalf("in one entry: %+v", out[1])
	}
	out = d.Propose(command("1", "other"))
	if !errors.Is(out[0].Err, raftfsm.ErrRequestReused) || out[0].Data != nil {
		t.Fatalf("in a later entry: %+v", out[0])
	}
	if got := binary.BigEndian.Uint64(d.Query([]byte("other"))); got != 0 {
		t.Fatalf("the refused request was counted %d times", got)
	}
}

// Ids are forgotten after their time, in group time, and their rows go too.
func TestRequestIDsExpire(t *testing.T) {
	d := fsmtest.New(t, newCounters)
	d.Propose(command("1", "k"))
	d.Time = raftfsm.RequestMemory - time.Microsecond
	if out := d.Propose(command("1", "k")); !out[0].Repeated {
		t.Fatal("forgotten too early")
	}
	d.Time = raftfsm.RequestMemory
	if out := d.Propose(command("1", "k")); out[0].Repeated {
		t.Fatal("remembered for too long")
	}
	// The second life of the id has an expiry of its own.
	d.Time = 2*raftfsm.RequestMemory - time.Microsecond
	if out := d.Propose(command("1", "k")); !out[0].Repeated {
		t.Fatal("the second life was forgotten with the first")
	}
	if got := binary.BigEndian.Uint64(d.Query([]byte("k"))); got != 2 {
		t.Fatalf("counted %d times, want 2", got)
	}
}

// The rows of ids go soon after they have expired, those that are older first, also when nothing has an id.
func TestRowsOfRequestIDsGo(t *testing.T) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: pebble.DefaultLogger})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := raftfsm.NewReplica(db, nil, groupA, newCounters())
	reopen := func() {
		if err := r.Open(); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	index := uint64(0)
	apply := func(at time.Duration, cmds ...raftfsm.Command) {
		index++
		if _, err := r.Apply(index, 1, raftfsm.EncodeEntry(1, at.Microseconds(), 0, cmds)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(rows int) {
		t.Helper()
		prefix := []byte{0, 0, 0, byte(groupA), 1, 'r'}
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: append(prefix[:5:5], 's')})
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if n != rows {
			t.Errorf("%d rows of ids, want %d", n, rows)
		}
	}
	plain := raftfsm.Command{Data: []byte("k")}
	for i := range 20 {
		apply(0, command(fmt.Sprint("first ", i), "k"))
	}
	apply(2*time.Second, command("second", "k"))
	apply(raftfsm.RequestMemory-time.Microsecond, plain)
	want(21)
	apply(raftfsm.RequestMemory, plain) // a few with each entry
	want(13)
	reopen()
	apply(raftfsm.RequestMemory, plain)
	apply(raftfsm.RequestMemory+time.Second, plain, command("third", "k"))
	want(2)
	apply(raftfsm.RequestMemory+2*time.Second, plain)
	want(1)
	reopen()
	apply(2*raftfsm.RequestMemory+time.Second, plain)
	want(0)
	apply(2*raftfsm.RequestMemory+time.Second, command("fourth", "k"))
	apply(3*raftfsm.RequestMemory+time.Second, plain)
	want(0)
}

// However commands are batched into entries, and wherever the process restarts, the state
// and the results are the same.
func TestReplayIsMetamorphic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(rt, "commands")
		cmds := make([]raftfsm.Command, n)
		for i := range cmds {
			key := fmt.Sprint("k", rapid.IntRange(0, 4).Draw(rt, "key"))
			cmds[i] = raftfsm.Command{Data: []byte(key)}
			if rapid.Bool().Draw(rt, "with id") {
				// The id says the content, so that none is refused.
				cmds[i] = command(fmt.Sprint(key, rapid.IntRange(0, 2).Draw(rt, "id")), key)
			}
		}
		a, b := fsmtest.New(t, newCounters), fsmtest.New(t, newCounters)
		var one, many [][]byte
		for _, c := range cmds {
			one = append(one, a.Propose(c)[0].Data)
		}
		for rest := cmds; len(rest) > 0; {
			k := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			for _, r := range b.Propose(rest[:k]...) {
				many = append(many, r.Data)
			}
			rest = rest[k:]
			if rapid.Bool().Draw(rt, "restart") {
				b.Restart()
			}
		}
		for i := range one {
			if !bytes.Equal(one[i], many[i]) {
				rt.Fatalf("command %d: %x one by one, %x in batches", i, one[i], many[i])
			}
		}
		if a.StateHash() != b.StateHash() {
			rt.Fatal("the state depends on batches or restarts")
		}
	})
}

// Another entry in the place of the last applied one means that a majority lost what it had
// synced: the replica must not go on as if nothing were wrong.
func TestReplacedEntryIsNoticed(t *testing.T) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: pebble.DefaultLogger})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := raftfsm.NewReplica(db, nil, groupA, newCounters())
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	entry := raftfsm.EncodeEntry(3, 0, 0, []raftfsm.Command{{Data: []byte("k")}})
	if _, err := r.Apply(7, 3, entry); err != nil {
		t.Fatal(err)
	}
	if out, err := r.Apply(7, 3, entry); err != nil || out != nil {
		t.Fatalf("the same entry again: %v, %v", out, err)
	}
	if _, err := r.Apply(7, 4, entry); err == nil || !strings.Contains(err.Error(), "lost synced data") {
		t.Fatalf("an entry of another term in its place: %v", err)
	}
}
