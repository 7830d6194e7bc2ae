package index

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

func command(docs ...Document) []byte {
	b := commandHeader()
	for i := range docs {
		b = appendCommandDocument(b, AppendDocument(nil, &docs[i]))
	}
	return b
}

func outcomes(t testing.TB, result []byte, count int) []outcome {
	t.Helper()
	o, err := decodeResult(result, count)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func testMachine(headDocuments int) func() raftfsm.Machine {
	return func() raftfsm.Machine { return newMachine(headDocuments) }
}

// An id is taken once: the same content again is recognised, other content is refused, and
// neither changes anything. That holds within a command, within an entry, and later.
func TestApplyDecidesEachIDOnce(t *testing.T) {
	d := fsmtest.New(t, testMachine(4))
	a := normal(t, Document{ID: "a", Task: "build", Time: 5})
	other := normal(t, Document{ID: "a", Task: "test", Time: 5})
	foreign := normal(t, Document{ID: "a", Task: "test", Time: 5, Tenant: "beta"})
	got := d.Apply(command(a, a, other, foreign), command(other, a))
	if want := []outcome{outcomeIndexed, outcomeExisting, outcomeConflict, outcomeIndexed}; !slices.Equal(outcomes(t, got[0], 4), want) {
		t.Errorf("first command: %v, want %v", outcomes(t, got[0], 4), want)
	}
	if want := []outcome{outcomeConflict, outcomeExisting}; !slices.Equal(outcomes(t, got[1], 2), want) {
		t.Errorf("second command: %v, want %v", outcomes(t, got[1], 2), want)
	}
	before := d.StateHash()
	for range 3 { // in the head, then in a segment, then after a restart
		if got := outcomes(t, d.Apply(command(a, other))[0], 2); !slices.Equal(got, []outcome{outcomeExisting, outcomeConflict}) {
			t.Errorf("later: %v", got)
		}
		if d.StateHash() != before {
			t.Error("a refused document changed the state")
		}
		d.Apply(command(normal(t, Document{ID: "b"}), normal(t, Document{ID: "c"})))
		d.Machine().(*Machine).settle(t)
		d.Restart()
		before = d.StateHash()
	}
}

// A document without a time takes the entry's stamp, which does not count as content.
func TestApplyStampsDocumentsWithoutTime(t *testing.T) {
	d := fsmtest.New(t, testMachine(4))
	doc := normal(t, Document{ID: "a", TimeStamped: true})
	first := d.Wall.UnixNano()
	d.Apply(command(doc))
	d.Wall = d.Wall.AddDate(0, 0, 1)
	if got := outcomes(t, d.Apply(command(doc))[0], 1); got[0] != outcomeExisting {
		t.Errorf("again on another day: %v", got)
	}
	a := ask(t, d, shardQuery{limit: 1})
	if got, err := DecodeDocument(a.rows[0]); err != nil || got.Time != first || !got.TimeStamped {
		t.Errorf("stored %+v, %v; want time %d", got, err, first)
	}
}

func TestApplyRefusesMalformedCommands(t *testing.T) {
	d := fsmtest.New(t, testMachine(4))
	bad := normal(t, Document{ID: "a"})
	bad.Attributes = []Attribute{{Name: "a\x00b"}}
	got := d.Apply([]byte{commandVersion, commandIngest, 200}, nil, command(bad), appendCommandDocument(commandHeader(), []byte("?")))
	if !bytes.Equal(got[0], resultRefused) || !bytes.Equal(got[1], resultRefused) {
		t.Errorf("malformed commands: %v", got)
	}
	for _, r := range got[2:] {
		if o := outcomes(t, r, 1); o[0] != outcomeMalformed {
			t.Errorf("malformed document: %v", o)
		}
	}
}

func ask(t testing.TB, d *fsmtest.Driver, q shardQuery) *shardAnswer {
	t.Helper()
	a, err := decodeShardAnswer(d.Query(q.encode()))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The same commands in other entries, with restarts at other places, leave the same state,
// the same segments, and give the same answers.
func TestReplicasAgreeHoweverTheyCame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var cmds [][]byte
		for range rapid.IntRange(1, 12).Draw(rt, "commands") {
			var docs []Document
			for range rapid.IntRange(0, 9).Draw(rt, "documents") {
				d := genDocument(rt, 20)
				if err := Normalize(&d); err != nil {
					rt.Fatal(err)
				}
				docs = append(docs, d)
			}
			cmds = append(cmds, command(docs...))
		}
		one, many := fsmtest.New(t, testMachine(8)), fsmtest.New(t, testMachine(8))
		var first, second [][]byte
		for _, c := range cmds {
			first = append(first, one.Apply(c)...)
		}
		for rest := cmds; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "in one entry")
			second = append(second, many.Apply(rest[:n]...)...)
			rest = rest[n:]
			if rapid.Bool().Draw(rt, "restart") {
				many.Restart()
			}
		}
		if one.StateHash() != many.StateHash() {
			rt.Fatal("the states differ")
		}
		for i := range first {
			if !bytes.Equal(first[i], second[i]) {
				rt.Fatalf("results of command %d differ", i)
			}
		}
		if a, b := segmentDigests(t, one), segmentDigests(t, many); !slices.Equal(a, b) {
			rt.Fatalf("segments differ: %v, %v", a, b)
		}
		q := shardQuery{text: genNode(rt, 2).String(), limit: PageMax, exact: true}
		if !bytes.Equal(one.Query(q.encode()), many.Query(q.encode())) {
			rt.Fatalf("answers to %s differ", q.text)
		}
	})
}

func segmentDigests(t testing.TB, d *fsmtest.Driver) []uint64 {
	m := d.Machine().(*Machine)
	m.settle(t)
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []uint64
	for _, s := range m.segments {
		out = append(out, s.Digest())
	}
	return out
}

// Postings of every size, in the head and in segments, with and without restart.
func TestLargePostings(t *testing.T) {
	d := fsmtest.New(t, testMachine(3000))
	var all oracle
	for n := 0; n < 7000; n += 500 {
		var docs []Document
		for i := n; i < n+500; i++ {
			doc := benchDocument(i)
			doc.Tenant, doc.Reason = "acme", "all of them"
			if i%3 == 0 {
				doc.Currency, doc.CostMicros = "", 0
			}
			docs = append(docs, normal(t, doc))
		}
		d.Apply(command(docs...))
		all = append(all, docs...)
	}
	d.Machine().(*Machine).settle(t)
	at := benchDocument(3500).Time
	for range 2 {
		for _, text := range []string{
			"", "decision:deny", "reason:them -decision:allow", "task:task-3 OR pack:pack-1*", "runner:runner-7", "cost:>0.3",
			"cost:[0.1 TO 0.11] AND decision:allow", "NOT cost:*", "execution:" + benchDocument(77).Execution, benchDocument(6999).ID,
		} {
			for _, c := range []conditions{{}, {from: at, to: at + 5e8}} {
				q := shardQuery{text: text, conditions: c, limit: PageMax, exact: true}
				n := parse(t, text)
				if c.from != 0 {
					n = andNode(n, c.from, c.to)
				}
				want := all.search(n, "")
				a := ask(t, d, q)
				if int(a.total) != len(want) || len(a.rows) != min(len(want), PageMax) {
					t.Fatalf("%q %v: %d of %d, want %d", text, c, len(a.rows), a.total, len(want))
				}
				for i, row := range a.rows {
					if got, err := DecodeDocument(row); err != nil || got.ID != want[i].ID {
						t.Fatalf("%q: document %d is %s, want %s", text, i, got.ID, want[i].ID)
					}
				}
			}
		}
		d.Restart()
	}
}

// Documents whose fields yield no term at all can be sealed like any other.
func TestSealReasonsWithoutWords(t *testing.T) {
	d := fsmtest.New(t, testMachine(2))
	d.Apply(command(normal(t, Document{ID: "a", Reason: "???"}), normal(t, Document{ID: "b", Reason: "…"})))
	d.Machine().(*Machine).settle(t)
	if a := ask(t, d, shardQuery{limit: 5}); a.total != 2 {
		t.Errorf("%d documents, want 2", a.total)
	}
}

// Searches beside writes and sealing see every acknowledged document, in order, once.
func TestSearchBesideIngest(t *testing.T) {
	d := fsmtest.New(t, testMachine(64))
	m := d.Machine().(*Machine)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			last := uint64(0)
			for {
				q := shardQuery{text: "kind:receipt -task:none", limit: 10, exact: true}
				b, err := m.Query(context.Background(), q.encode())
				if err != nil {
					t.Error(err)
					return
				}
				a, err := decodeShardAnswer(b)
				if err != nil || a.total != a.bound || a.total < last {
					t.Errorf("total %d of %d after %d, %v", a.total, a.bound, last, err)
					return
				}
				last = a.total
				select {
				case <-done:
					return
				default:
				}
			}
		}()
	}
	for n := range 150 {
		docs := make([]Document, 20)
		for i := range docs {
			docs[i] = normal(t, Document{ID: fmt.Sprint(n, "-", i), Time: int64(n * 7 % 50), Task: fmt.Sprint(i)})
		}
		d.Apply(command(docs...))
	}
	close(done)
	readers.Wait()
	if a := ask(t, d, shardQuery{limit: 1, exact: true}); a.total != 3000 {
		t.Errorf("%d documents, want 3000", a.total)
	}
}

// A segment of another format, or one that is damaged, is built again from the documents.
func TestLoadRebuildsUnreadableSegments(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for n := range 40 {
		d.Apply(command(normal(t, Document{ID: fmt.Sprint(n), Time: int64(n)})))
	}
	want := segmentDigests(t, d)
	q := shardQuery{limit: 100}
	answer := d.Query(q.encode())
	m := d.Machine().(*Machine)
	b := m.store.Derived().NewBatch()
	if err := b.Set(segmentKey(16, []byte("m")), []byte{99}); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	d.Restart()
	if got := segmentDigests(t, d); !slices.Equal(got, want) {
		t.Errorf("segments %v, want %v", got, want)
	}
	if !bytes.Equal(d.Query(q.encode()), answer) {
		t.Error("the answer changed")
	}
}

// Every machine that a test starts is closed at its end, and then nothing of it runs on.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
