package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/internal/segment"
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
	return func() raftfsm.Machine { return newMachine(headDocuments, 4) }
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

// damage changes a byte of every segment, from the beginning or, when at is negative, the end.
func damage(t testing.TB, d *fsmtest.Driver, at int) {
	t.Helper()
	d.Restart() // ends what still removes files
	names, err := d.Folder().List()
	if err != nil || len(names) == 0 {
		t.Fatalf("segments %v, %v", names, err)
	}
	for _, name := range names {
		f, err := d.Folder().Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.Size())
		_, readErr := f.ReadAt(b, 0)
		if err := errors.Join(readErr, f.Close()); err != nil {
			t.Fatal(err)
		}
		b[(at+len(b))%len(b)] ^= 0x40
		if err := d.Folder().Write(name, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			t.Fatal(err)
		}
	}
}

// A segment of another format, or one that is found to be damaged as it is opened or read, is
// built again from the documents. Until then its documents are an error, never wrong.
func TestDamagedSegmentsAreBuiltAgain(t *testing.T) {
	for what, at := range map[string]int{"version": 6, "footer": -1, "directory": -40, "first block": 8} {
		d := fsmtest.New(t, testMachine(8))
		for n := range 60 { // a merged segment, and single ones
			d.Apply(command(normal(t, Document{ID: fmt.Sprint(n), Time: int64(n), Reason: "because"})))
		}
		want := segmentDigests(t, d)
		queries := []shardQuery{{limit: 100}, {text: "because", limit: 7}, {text: "id:5", limit: 3}}
		var answers [][]byte
		for _, q := range queries {
			answers = append(answers, d.Query(q.encode()))
		}
		damage(t, d, at)
		d.Restart()
		m := d.Machine().(*Machine)
		for range 20 { // each read finds one damaged segment at least
			for i, q := range queries {
				got, err := m.Query(context.Background(), q.encode())
				if err == nil && !bytes.Equal(got, answers[i]) {
					t.Fatalf("%s: the answer to %q changed", what, q.text)
				}
				if err != nil && !errors.Is(err, segment.ErrCorrupt) {
					t.Fatalf("%s: %v", what, err)
				}
			}
			m.settle(t)
		}
		for i, q := range queries {
			if !bytes.Equal(d.Query(q.encode()), answers[i]) {
				t.Errorf("%s: the answer to %q changed", what, q.text)
			}
		}
		if got := segmentDigests(t, d); !slices.Equal(got, want) {
			t.Errorf("%s: segments %x, want %x", what, got, want)
		}
	}
}

// Segments outlive a restart, and what a merge has replaced is gone.
func TestSegmentsOfHeadsBecomeOne(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for n := range 50 {
		d.Apply(command(normal(t, Document{ID: fmt.Sprint(n), Time: int64(n * 7 % 50)})))
	}
	want := []string{segmentName(0, 32), segmentName(32, 8), segmentName(40, 8)}
	before := segmentDigests(t, d)
	for range 2 {
		d.Restart() // ends what still removes files
		names, err := d.Folder().List()
		if slices.Sort(names); err != nil || !slices.Equal(names, want) {
			t.Errorf("files %v, %v; want %v", names, err, want)
		}
	}
	if got := segmentDigests(t, d); !slices.Equal(got, before) {
		t.Errorf("segments %x, want %x", got, before)
	}
}

// A crash leaves files of any stage of sealing and merging, and what no state reaches.
func TestLoadPicksTheRightSegments(t *testing.T) {
	from, to := fsmtest.New(t, testMachine(8)), fsmtest.New(t, testMachine(8))
	var single map[string][]byte
	for n := range 50 {
		c := command(normal(t, Document{ID: fmt.Sprint(n), Time: int64(n)}))
		from.Apply(c)
		if n < 36 {
			to.Apply(c)
		}
		if n == 30 {
			from.Machine().(*Machine).settle(t)
			single = files(t, from)
		}
	}
	from.Machine().(*Machine).settle(t)
	to.Machine().(*Machine).settle(t)
	from.Restart() // ends what still removes files
	to.Restart()
	want := files(t, to)
	for name, b := range files(t, from) { // among them two that are beyond the state
		single[name] = b
	}
	single["something else"] = nil
	for name, b := range single {
		if err := to.Folder().Write(name, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			t.Fatal(err)
		}
	}
	to.Restart()
	if got := files(t, to); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("files %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	if a := ask(t, to, shardQuery{limit: 100}); len(a.rows) != 36 {
		t.Errorf("%d documents, want 36", len(a.rows))
	}
}

func files(t testing.TB, d *fsmtest.Driver) map[string][]byte {
	t.Helper()
	names, err := d.Folder().List()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		f, err := d.Folder().Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.Size())
		_, readErr := f.ReadAt(b, 0)
		if err := errors.Join(readErr, f.Close()); err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

// Every machine that a test starts is closed at its end, and then nothing of it runs on.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
