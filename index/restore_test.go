package index

import (
	"errors"
	"fmt"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// A restored shard is the same, row by row, whatever was sealed when, and goes on.
func TestRestoredShardIsTheSame(t *testing.T) {
	from := fsmtest.New(t, testMachine(4))
	for i := range 23 {
		d := Document{ID: fmt.Sprint("d", i), Tenant: "acme", Time: int64(i)}
		if i%3 == 0 {
			d.Time, d.TimeStamped = 0, true
		}
		from.Apply(command(normal(t, d)))
	}
	to := fsmtest.New(t, testMachine(8))
	to.Wall = to.Wall.AddDate(1, 0, 0) // stamps stay what they were
	if err := to.Restore(from.Backup(5)...); err != nil {
		t.Fatal(err)
	}
	if from.StateHash() != to.StateHash() {
		t.Error("the rows are not the same")
	}
	for range 2 {
		if a := ask(t, to, shardQuery{limit: 100}); len(a.rows) != 23 {
			t.Errorf("%d documents are found, want 23", len(a.rows))
		}
		to.Restart()
	}
	got := outcomes(t, to.Apply(command(normal(t, Document{ID: "d1", Tenant: "acme", Time: 1}), normal(t, Document{ID: "new"})))[0], 2)
	if got[0] != outcomeExisting || got[1] != outcomeIndexed {
		t.Errorf("later: %v", got)
	}
}

func TestRestoreRefusesOtherDocuments(t *testing.T) {
	from := fsmtest.New(t, testMachine(4))
	from.Apply(command(normal(t, Document{ID: "a"}), normal(t, Document{ID: "b"})))
	chunks := from.Backup(1)
	if err := from.Restore(chunks...); !errors.Is(err, raftfsm.ErrNotEmpty) {
		t.Errorf("a shard with documents: %v", err)
	}
	rows, err := raftfsm.DecodeRows(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][][]byte{
		"a gap":        {chunks[1]},
		"an id twice":  {chunks[0], raftfsm.AppendRow(nil, documentKey(1), rows[0].Value)},
		"no document":  {raftfsm.AppendRow(nil, documentKey(0), []byte("?"))},
		"another row":  {raftfsm.AppendRow(nil, []byte{tableCount}, rows[0].Value)},
		"within chunk": {append(append([]byte(nil), chunks[0]...), chunks[0]...)},
	} {
		d := fsmtest.New(t, testMachine(4))
		if err := d.Restore(bad...); !errors.Is(err, raftfsm.ErrRestoreRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
