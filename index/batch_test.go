package index

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// batchesOf are the rows of documents that are not sealed, by the number of their first one.
func batchesOf(t testing.TB, d *fsmtest.Driver) map[uint64][]byte {
	t.Helper()
	all := map[uint64][]byte{}
	err := eachRow(d.Machine().(*Machine).store, []byte{tableBatch}, []byte{tableBatch + 1}, func(key, value []byte) error {
		n := uint64(0)
		for _, b := range key[1:] {
			n = n<<8 | uint64(b)
		}
		all[n] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The row of documents is the command that brought them, if all are new and in one head; otherwise it is
// what a command of those that are stored would be.
func TestRowsOfBatches(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	d.Apply(encodeLayout(layoutNewest))
	doc := func(id string) Document { return normal(t, Document{ID: id, Time: 5}) }
	stamped := normal(t, Document{ID: "stamped", TimeStamped: true})
	at := stamped
	at.Time = d.Wall.UnixNano()
	whole := command(doc("a"), doc("b"), doc("c"))
	d.Apply(whole)
	d.Apply(command(doc("a"), doc("d"), normal(t, Document{ID: "b", Task: "other"}), doc("e"), doc("d")))
	d.Apply(command(doc("a"), doc("b")))
	d.Apply(command(doc("f"), stamped))
	d.Apply(command(doc("g"), doc("h"), doc("i")))
	want := map[uint64][]byte{
		0: whole, 3: command(doc("d"), doc("e")), 5: command(doc("f"), at), 7: command(doc("g")), 8: command(doc("h"), doc("i")),
	}
	for range 2 {
		got := batchesOf(t, d)
		if len(got) != len(want) {
			t.Errorf("%d rows, want %d", len(got), len(want))
		}
		for first, row := range want {
			if !bytes.Equal(got[first], row) {
				t.Errorf("from %d on: %x, want %x", first, got[first], row)
			}
		}
		if n := rowsOf(t, d, tableDocument) + rowsOf(t, d, tableID); n > 0 {
			t.Errorf("%d rows of single documents", n)
		}
		if a := ask(t, d, shardQuery{limit: 20}); len(a.rows) != 10 {
			t.Errorf("%d documents are found, want 10", len(a.rows))
		}
		d.Restart()
	}
	settled(t, d)
	if got := batchesOf(t, d); len(got) != 1 || got[8] == nil {
		t.Errorf("%d rows are left behind the first segment", len(got))
	}
}

// Documents that had rows of their own when the layout changed stay where they are, before the others.
func TestBatchesFollowSingleRows(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	d.Apply(encodeLayout(layoutSegments))
	for _, c := range numbered(t, 0, 3) {
		d.Apply(c)
	}
	d.Apply(encodeLayout(layoutNewest), command(normal(t, Document{ID: "3"}), normal(t, Document{ID: "4"})))
	if single, batches := rowsOf(t, d, tableDocument), rowsOf(t, d, tableBatch); single != 3 || batches != 1 {
		t.Errorf("%d rows of single documents and %d of batches", single, batches)
	}
	d.Restart()
	to := fsmtest.New(t, testMachine(8))
	to.Apply(encodeLayout(layoutNewest))
	if err := to.Restore(d.Backup(2)...); err != nil {
		t.Fatal(err)
	}
	if to.StateHash() != d.StateHash() {
		t.Error("the restored rows are not the same")
	}
	for _, d := range []*fsmtest.Driver{d, to} {
		if a := ask(t, d, shardQuery{limit: 20}); len(a.rows) != 5 {
			t.Errorf("%d documents are found, want 5", len(a.rows))
		}
		for _, c := range numbered(t, 5, 9) {
			d.Apply(c)
		}
		settled(t, d)
		if single, batches := rowsOf(t, d, tableDocument), rowsOf(t, d, tableBatch); single != 0 || batches != 1 {
			t.Errorf("sealed: %d rows of single documents and %d of batches", single, batches)
		}
	}
}

func TestRestoreRefusesOtherBatches(t *testing.T) {
	docs := func(from, to int) (all []Document) {
		for n := from; n < to; n++ {
			all = append(all, normal(t, Document{ID: fmt.Sprint(n)}))
		}
		return all
	}
	row := func(first uint64, docs ...Document) []byte {
		return raftfsm.AppendRow(nil, batchKey(first), command(docs...))
	}
	single := func(n uint64) []byte {
		return raftfsm.AppendRow(nil, documentKey(n), AppendDocument(nil, &docs(int(n), int(n)+1)[0]))
	}
	for what, bad := range map[string][][]byte{
		"a gap":               {row(1, docs(0, 2)...)},
		"an id twice":         {row(0, docs(0, 2)...), row(2, docs(1, 3)...)},
		"an id twice in one":  {row(0, slices.Concat(docs(0, 2), docs(1, 2))...)},
		"two heads":           {row(0, docs(0, 5)...)},
		"nothing":             {row(0)},
		"no command":          {raftfsm.AppendRow(nil, batchKey(0), []byte("?"))},
		"no document":         {raftfsm.AppendRow(nil, batchKey(0), appendCommandDocument(commandHeader(), []byte("?")))},
		"a single one behind": {row(0, docs(0, 2)...), single(2)},
		"a place behind":      {row(0, docs(0, 2)...), raftfsm.AppendRow(nil, documentKey(2), nil)},
		"a mark too far":      {row(0, docs(0, 2)...), raftfsm.AppendRow(nil, markKey(1), mark{number: 3, time: 1}.encode())},
		"one behind in one":   {slices.Concat(row(0, docs(0, 2)...), single(2))},
	} {
		d := fsmtest.New(t, testMachine(4))
		if err := d.Restore(bad...); !errors.Is(err, raftfsm.ErrRestoreRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	d := fsmtest.New(t, testMachine(4))
	if err := d.Restore(single(0), row(1, docs(1, 4)...), row(4, docs(4, 6)...)); err != nil {
		t.Error(err)
	}
	d = fsmtest.New(t, testMachine(4)) // with places of documents that were disposed of
	gone := appendCommandDocument(command(docs(3, 4)...), nil)
	if err := d.Restore(single(0), raftfsm.AppendRow(nil, documentKey(1), nil), raftfsm.AppendRow(nil, batchKey(2), gone)); err != nil {
		t.Error(err)
	}
	if got := batchesOf(t, d)[2]; !bytes.Equal(got, gone) || rowsOf(t, d, tableDocument) != 2 {
		t.Errorf("the batch %x, want %x, and %d rows of single documents", got, gone, rowsOf(t, d, tableDocument))
	}
	if a := ask(t, d, shardQuery{limit: 20}); len(a.rows) != 2 {
		t.Errorf("%d documents are found, want 2", len(a.rows))
	}
}

// What is decoded into memory that many documents share is what is decoded alone, refusals included.
func TestArenaDecodesAlike(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var a arena
		a.reset()
		var want, got []Document
		for range rapid.IntRange(1, 20).Draw(rt, "documents") {
			d := oddDocuments(rt)
			enc := AppendDocument(nil, &d)
			if at := rapid.IntRange(0, 3*len(enc)).Draw(rt, "damage"); at < len(enc) {
				enc[at] ^= rapid.Byte().Draw(rt, "change")
			}
			a.expect(rapid.IntRange(0, len(enc)).Draw(rt, "expected"))
			alone, err := DecodeDocument(enc)
			shared, ok := a.decode(string(enc))
			if ok != (err == nil) {
				rt.Fatalf("%x: %v, but %v alone", enc, ok, err)
			}
			if ok {
				want, got = append(want, alone), append(got, shared)
			}
		}
		if !reflect.DeepEqual(got, want) { // after all, so that none has changed
			rt.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
