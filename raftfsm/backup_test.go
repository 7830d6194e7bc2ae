package raftfsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// shelf is a machine that keeps what it is given: a command is a key and a value.
type shelf struct {
	counters
	serves bool
}

func (s *shelf) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	for _, c := range e.Commands {
		key, value, _ := bytes.Cut(c, []byte("="))
		if err := tx.Set(key, value); err != nil {
			return nil, err
		}
	}
	return make([][]byte, len(e.Commands)), nil
}

// Keys from n on stay out of backups.
func (s *shelf) BackupRanges() [][2][]byte {
	return [][2][]byte{{[]byte("a"), []byte("c")}, {[]byte("c"), []byte("n")}}
}

func (s *shelf) ServesRestore(command []byte) bool { return s.serves && string(command) != "no=" }

func (s *shelf) RestoreBegin(tx *raftfsm.Tx) error {
	it, err := tx.NewIter(nil, nil)
	if err != nil {
		return err
	}
	found := it.First()
	if err := it.Close(); err != nil || !found {
		return err
	}
	return fmt.Errorf("%w: the shelf has something", raftfsm.ErrNotEmpty)
}

func (s *shelf) RestoreRows(tx *raftfsm.Tx, _ raftfsm.Entry, rows []raftfsm.Row) error {
	for _, r := range rows {
		if err := tx.Set(r.Key, r.Value); err != nil {
			return err
		}
		if string(r.Key) == "bad" {
			return fmt.Errorf("%w: a bad row", raftfsm.ErrRestoreRefused)
		}
	}
	return nil
}

func (s *shelf) RestoreEnd(tx *raftfsm.Tx, _ raftfsm.Entry) error {
	return tx.Set([]byte("restored"), nil)
}

func shelves() []raftfsm.Group {
	return []raftfsm.Group{{ID: groupA, Name: "a", Machine: &shelf{}}, {ID: groupB, Name: "b", Machine: &shelf{serves: true}}}
}

// startShelves runs nodes that know from earlier that all speak the present level, as those of a
// region do.
func startShelves(t *testing.T, n int) *hosttest.Cluster {
	t.Helper()
	return hosttest.Start(t, n, shelves, hosttest.Configure(func(_ int, o *raftfsm.Options) { o.Level = raftfsm.LevelCurrent }))
}

func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, h *raftfsm.Host, g raftfsm.GroupID, command string) {
	t.Helper()
	_, err := h.Propose(patiently(t), g, raftfsm.Command{Data: []byte(command), RequestID: raftfsm.NewRequestID(command)})
	if err != nil {
		t.Fatalf("put: %v", err)
	}
}

// fill gives a group a dozen chunks of rows.
func fill(t *testing.T, h *raftfsm.Host) {
	t.Helper()
	for i := range 24 {
		put(t, h, groupA, fmt.Sprintf("%c%02d=%s", 'a'+i%4, i, bytes.Repeat([]byte{byte(i) + 'a'}, 100<<10)))
	}
	put(t, h, groupA, "zero=stays out")
}

// backUp reads a whole group and begins anew when told to. before is called before each chunk.
func backUp(t *testing.T, h *raftfsm.Host, id byte, before func(chunk uint64)) (chunks []raftfsm.BackupChunk, restarts int) {
	t.Helper()
	for n := uint64(0); ; n++ {
		before(n)
		c, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{id}, n)
		if errors.Is(err, raftfsm.ErrBackupGone) {
			restarts++
			chunks, n = nil, ^uint64(0)
			continue
		}
		if err != nil {
			t.Fatalf("chunk %d: %v", n, err)
		}
		if chunks = append(chunks, c); c.Last {
			return chunks, restarts
		}
	}
}

func nothing(uint64) {}

func sumOf(chunks []raftfsm.BackupChunk) (sum raftfsm.RowsSum) {
	for _, c := range chunks {
		sum = sum.Add(c.Rows)
	}
	return sum
}

// restore writes the chunks. before is called before each step and returns the host to use.
func restore(t *testing.T, id byte, chunks []raftfsm.BackupChunk, before func(step int) *raftfsm.Host) {
	t.Helper()
	backup := raftfsm.BackupID{id}
	steps := []raftfsm.RestoreStep{{Op: raftfsm.RestoreProbe, Backup: backup}, {Op: raftfsm.RestoreBegin, Backup: backup}}
	for i, c := range chunks {
		steps = append(steps, raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Backup: backup, Chunk: uint64(i), Rows: c.Rows})
	}
	steps = append(steps, raftfsm.RestoreStep{Op: raftfsm.RestoreEnd, Backup: backup, Chunk: uint64(len(chunks)), Sum: sumOf(chunks)})
	for i, s := range steps {
		if _, err := before(i).Restore(patiently(t), groupA, s); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func rowsOf(t *testing.T, chunks []raftfsm.BackupChunk) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range chunks {
		rows, err := raftfsm.DecodeRows(c.Rows)
		if err != nil || uint64(len(rows)) != c.Count {
			t.Fatalf("%d rows of %d: %v", len(rows), c.Count, err)
		}
		for _, r := range rows {
			out[string(r.Key)] = string(r.Value)
		}
	}
	return out
}

// A backup is of one moment, whatever is written and whichever leader dies meanwhile; and what
// is restored from it is the same again, though leaders die and steps are repeated.
func TestBackupAndRestore(t *testing.T) {
	from := startShelves(t, 3)
	fill(t, from.Host(0))
	written, stopped := 0, -1
	alive := func() *raftfsm.Host { return from.Host((stopped + 1) % 3) }
	var chunks []raftfsm.BackupChunk
	// Read through a node that stays, while the leader stops after some chunks.
	keep := (from.AwaitLeader("a") + 1) % 3
	reader := from.Host(keep)
	chunks, restarts := backUp(t, reader, 1, func(n uint64) {
		if n != 4 {
			return
		}
		written++
		put(t, reader, groupA, fmt.Sprintf("k-late-%d=x", written))
		if l := from.AwaitLeader("a"); stopped < 0 && l != keep {
			stopped = l
			from.Stop(l)
		}
	})
	if len(chunks) < 5 || stopped >= 0 && restarts == 0 {
		t.Fatalf("%d chunks after %d new beginnings", len(chunks), restarts)
	}
	rows := rowsOf(t, chunks)
	if _, found := rows["zero"]; found || rows["a00"] == "" || rows["d23"] == "" {
		t.Fatalf("the backup has %d rows, or one that stays out", len(rows))
	}
	// Of what was written at chunk 4 of the last reading, nothing is in it.
	if _, found := rows[fmt.Sprintf("k-late-%d", written)]; found {
		t.Error("the backup has what was written while it was read")
	}
	if again, _ := backUp(t, alive(), 2, nothing); len(rowsOf(t, again)) != 24+written {
		t.Errorf("the next backup has %d rows, want %d", len(rowsOf(t, again)), 24+written)
	}

	to := startShelves(t, 3)
	dead := -1
	restore(t, 1, chunks, func(step int) *raftfsm.Host {
		if step%8 == 3 {
			if dead >= 0 {
				to.Start(dead)
			}
			dead = to.AwaitLeader("a")
			to.Stop(dead)
		}
		return to.Host((dead + 1) % 3)
	})
	to.Start(dead)
	awaitEqualStates(t, to, groupA)
	to.AwaitLeader("a")
	restored, _ := backUp(t, to.Host(0), 3, nothing)
	if got := rowsOf(t, restored); len(got) != len(rows) || sumOf(restored) != sumOf(chunks) {
		t.Errorf("%d rows were restored, want %d", len(got), len(rows))
	}
	put(t, to.Host(0), groupA, "open=again")
}

// Everything that does not fit is refused and changes nothing, and the rest goes on.
func TestRestoreRefusals(t *testing.T) {
	c := startShelves(t, 1)
	h := c.Host(0)
	fill(t, h)
	chunks, _ := backUp(t, h, 1, nothing)
	to := startShelves(t, 1)
	step := func(s raftfsm.RestoreStep) (raftfsm.RestoreState, error) {
		t.Helper()
		if s.Backup == (raftfsm.BackupID{}) {
			s.Backup = raftfsm.BackupID{1}
		}
		return to.Host(0).Restore(patiently(t), groupA, s)
	}
	refused := func(what string, want error, s raftfsm.RestoreStep) {
		t.Helper()
		if _, err := step(s); !errors.Is(err, want) || raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite {
			t.Errorf("%s: %v", what, err)
		}
	}
	begin := raftfsm.RestoreStep{Op: raftfsm.RestoreBegin}
	if _, err := h.Restore(patiently(t), groupA, begin); !errors.Is(err, raftfsm.ErrNotEmpty) {
		t.Errorf("a group with rows: %v", err)
	}
	refused("rows before the beginning", raftfsm.ErrRestoreRefused, raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Rows: chunks[0].Rows})
	if _, err := step(raftfsm.RestoreStep{Op: raftfsm.RestoreProbe}); err != nil {
		t.Fatal(err)
	}
	if s, err := step(begin); err != nil || s != (raftfsm.RestoreState{}) {
		t.Fatalf("begin: %+v %v", s, err)
	}
	refused("another backup", raftfsm.ErrNotEmpty, raftfsm.RestoreStep{Op: raftfsm.RestoreBegin, Backup: raftfsm.BackupID{2}})
	refused("a gap", raftfsm.ErrRestoreRefused, raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Chunk: 1, Rows: chunks[1].Rows})
	refused("half a row", raftfsm.ErrRestoreRefused, raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Rows: chunks[0].Rows[:100]})
	refused("a bad row", raftfsm.ErrRestoreRefused, raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Rows: raftfsm.AppendRow(nil, []byte("bad"), nil)})
	_, err := to.Host(0).Propose(patiently(t), groupA, raftfsm.Command{Data: []byte("a=b")})
	if !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a command meanwhile: %v", err)
	}
	if _, err := to.Host(0).Query(patiently(t), groupA, []byte("a"), raftfsm.Linearizable); !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a query meanwhile: %v", err)
	}
	if _, err := to.Host(0).ReadBackup(patiently(t), groupA, raftfsm.BackupID{7}, 0); !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a backup meanwhile: %v", err)
	}
	for i, c := range chunks {
		for range 2 { // each comes twice
			if s, err := step(raftfsm.RestoreStep{Op: raftfsm.RestoreRows, Chunk: uint64(i), Rows: c.Rows}); err != nil || s.Next != uint64(i)+1 {
				t.Fatalf("chunk %d: %+v %v", i, s, err)
			}
		}
		if i == 2 { // it goes on after a crash
			to.Stop(0)
			to.Start(0)
			if s, err := step(begin); err != nil || s.Next != 3 {
				t.Fatalf("begin again: %+v %v", s, err)
			}
		}
	}
	end := raftfsm.RestoreStep{Op: raftfsm.RestoreEnd, Chunk: uint64(len(chunks)), Sum: sumOf(chunks[1:])}
	refused("another checksum", raftfsm.ErrRestoreRefused, end)
	end.Sum = sumOf(chunks)
	for range 2 {
		if s, err := step(end); err != nil || !s.Done {
			t.Fatalf("end: %+v %v", s, err)
		}
	}
	if s, err := step(begin); err != nil || !s.Done {
		t.Errorf("begin after the end: %+v %v", s, err)
	}
	refused("another backup after the end", raftfsm.ErrNotEmpty, raftfsm.RestoreStep{Op: raftfsm.RestoreBegin, Backup: raftfsm.BackupID{2}})
	// A group that serves meanwhile does so.
	if _, err := to.Host(0).Restore(patiently(t), groupB, raftfsm.RestoreStep{Op: raftfsm.RestoreBegin, Backup: raftfsm.BackupID{1}}); err != nil {
		t.Fatal(err)
	}
	put(t, to.Host(0), groupB, "a=b")
	one := raftfsm.Command{Data: []byte("no="), RequestID: raftfsm.NewRequestID("no")}
	if _, err := to.Host(0).Propose(patiently(t), groupB, one); !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a command that it does not take: %v", err)
	}
	if _, err := to.Host(0).ReadBackup(patiently(t), groupB, raftfsm.BackupID{7}, 0); !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a backup of a group that serves meanwhile: %v", err)
	}
	if _, err := to.Host(0).Restore(patiently(t), groupB, raftfsm.RestoreStep{Op: raftfsm.RestoreEnd, Backup: raftfsm.BackupID{1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Host(0).Propose(patiently(t), groupB, one); err != nil {
		t.Errorf("the same command after the end: %v", err)
	}
}

// A node serves few readings; one that is begun again takes no second place.
func TestBackupSessionsAreFew(t *testing.T) {
	c := startShelves(t, 1)
	h := c.Host(0)
	fill(t, h)
	open := func(id byte) error {
		_, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{id}, 0)
		return err
	}
	for id := range byte(4) {
		for range 3 {
			if err := open(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := open(4); !errors.Is(err, raftfsm.ErrOverloaded) {
		t.Errorf("a fifth reader: %v", err)
	}
	one, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{0}, 1)
	again, err2 := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{0}, 1)
	if err != nil || err2 != nil || !bytes.Equal(one.Rows, again.Rows) {
		t.Errorf("a chunk read twice: %v %v", err, err2)
	}
	if _, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{0}, 5); !errors.Is(err, raftfsm.ErrBackupGone) {
		t.Errorf("a chunk out of order: %v", err)
	}
}

// Every reading is counted when it begins, and once more by what became of it.
func TestBackupsAreCounted(t *testing.T) {
	r := prometheus.NewRegistry()
	c := hosttest.Start(t, 1, shelves, hosttest.Configure(func(_ int, o *raftfsm.Options) { o.Level, o.Registry = raftfsm.LevelCurrent, r }))
	h := c.Host(0)
	fill(t, h)
	if _, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{1}, 0); err != nil {
		t.Fatal(err)
	}
	before := counted(t, r, "mc_backup_bytes_total", "a")
	// A reading begun anew ends the one before.
	chunks, _ := backUp(t, h, 1, nothing)
	size := 0
	for _, c := range chunks {
		size += len(c.Rows)
	}
	// And one that is finished is not failed when its id is taken.
	if _, err := h.ReadBackup(patiently(t), groupA, raftfsm.BackupID{1}, 0); err != nil {
		t.Fatal(err)
	}
	for outcome, want := range map[string]float64{"started": 3, "finished": 1, "failed": 1} {
		if got := counted(t, r, "mc_backup_readings_total", "a", outcome); got != want {
			t.Errorf("%v readings %s, want %v", got, outcome, want)
		}
	}
	if got := counted(t, r, "mc_backup_bytes_total", "a"); before == 0 || got != 2*before+float64(size) {
		t.Errorf("%v bytes: %v twice in chunks that were begun only, and %d", got, before, size)
	}
}
