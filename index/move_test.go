package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// numbered are documents with ids from, from+1...
func numbered(t testing.TB, from, to int) [][]byte {
	var all [][]byte
	for n := from; n < to; n++ {
		d := Document{ID: fmt.Sprint(n), Time: int64(n * 7 % 50), Task: fmt.Sprint("task", n%3), Reason: "because"}
		if n%5 == 0 {
			d.Time, d.TimeStamped = 0, true
		}
		all = append(all, command(normal(t, d)))
	}
	return all
}

// rowsOf counts the rows of a table.
func rowsOf(t testing.TB, d *fsmtest.Driver, table byte) int {
	t.Helper()
	it, err := d.Machine().(*Machine).store.NewIter([]byte{table}, []byte{table + 1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// stateBut is the rows of the state but those of a table, which depend on when the entries came.
func stateBut(t testing.TB, d *fsmtest.Driver, table byte) string {
	t.Helper()
	var all []byte
	for _, r := range [][2]byte{{0, table}, {table + 1, 255}} {
		err := eachRow(d.Machine().(*Machine).store, []byte{r[0]}, []byte{r[1]}, func(key, value []byte) error {
			all = fmt.Appendf(all, "%x %x\n", key, value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return string(all)
}

var moveQueries = []shardQuery{
	{limit: 100},
	{text: "because", limit: 7, exact: true},
	{text: "task:task1", limit: 100},
	{text: "id:5", limit: 3},
	{text: "task:task* -task:task2", limit: 50, exact: true},
}

func answersOf(d *fsmtest.Driver) [][]byte {
	var all [][]byte
	for _, q := range moveQueries {
		all = append(all, d.Query(q.encode()))
	}
	return all
}

func settled(t testing.TB, d *fsmtest.Driver) {
	m := d.Machine().(*Machine)
	for open := true; open; {
		m.settle(t)
		lead(d)
		m.mu.Lock()
		open = m.mergeable() != nil || m.merged != nil
		m.mu.Unlock()
	}
}

// Documents that are sealed have no rows of their own, are found as before, and keep their ids.
func TestMovedDocumentsAreFound(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for _, c := range numbered(t, 0, 60) { // a merged segment, and single ones
		d.Apply(c)
	}
	d.Machine().(*Machine).settle(t)
	want := answersOf(d)
	if n := rowsOf(t, d, tableID); n != 60 {
		t.Fatalf("%d rows of ids before the layout changes", n)
	}
	for range 2 {
		d.Apply(encodeLayout(layoutNewest))
		settled(t, d)
		for table, n := range map[byte]int{tableDocument: 4, tableID: 0, tableSegment: 4, tablePiece: 4, tableSealing: 0} {
			if got := rowsOf(t, d, table); got != n {
				t.Errorf("%d rows %c, want %d", got, table, n)
			}
		}
		if got := answersOf(d); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Error("the answers have changed")
		}
		if names, err := d.Folder().List(); err != nil || len(names) > 0 {
			t.Errorf("files %v, %v", names, err)
		}
		d.Restart()
	}
	before := d.StateHash()
	same, other := normal(t, Document{ID: "1", Time: 7, Task: "task1", Reason: "because"}), normal(t, Document{ID: "2"})
	stamped := normal(t, Document{ID: "55", TimeStamped: true, Task: "task1", Reason: "because"})
	inHead := normal(t, Document{ID: "59", Time: 59 * 7 % 50, Task: "task2", Reason: "because"})
	got := outcomes(t, d.Apply(command(same, other, stamped, inHead))[0], 4)
	if !slices.Equal(got, []outcome{outcomeExisting, outcomeConflict, outcomeExisting, outcomeExisting}) || d.StateHash() != before {
		t.Errorf("sent again: %v", got)
	}
	foreign := normal(t, Document{ID: "1", Tenant: "beta"})
	if got := outcomes(t, d.Apply(command(foreign, foreign))[0], 2); !slices.Equal(got, []outcome{outcomeIndexed, outcomeExisting}) {
		t.Errorf("another tenant's: %v", got)
	}
}

// Replicas whose segments are built at other times, that are restarted or lose their power at other
// places, or that get a copy of the state, have the same rows and give the same answers.
func TestReplicasAgreeOnMoves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		leader := fsmtest.New(t, testMachine(4))
		follower := fsmtest.NewCrashable(t, testMachine(4))
		third := fsmtest.New(t, testMachine(4))
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		m := func() *Machine { return leader.Machine().(*Machine) }
		apply := func(c []byte) {
			got := leader.Apply(c)[0]
			if !bytes.Equal(follower.Apply(c)[0], got) {
				rt.Fatal("results differ")
			}
		}
		layouts := rapid.SliceOfN(rapid.ByteRange(0, layoutNewest), 24, 24).Draw(rt, "layouts")
		slices.Sort(layouts)
		for n := range 24 {
			docs := make([]Document, rapid.IntRange(1, 7).Draw(rt, "documents"))
			for i := range docs {
				docs[i] = genDocument(rt, 40)
				if err := Normalize(&docs[i]); err != nil {
					rt.Fatal(err)
				}
			}
			apply(command(docs...))
			if rapid.Bool().Draw(rt, "lead") {
				m().settle(t)
				m().mu.Lock()
				next := m().nextCommands(layouts[n])
				m().mu.Unlock()
				for _, c := range next {
					apply(c)
				}
			}
			switch rapid.IntRange(0, 11).Draw(rt, "then") {
			case 0:
				follower.Restart()
			case 1:
				follower.LosePower(rng)
			case 2:
				follower.Sync()
			case 3:
				third.Install(follower)
			case 4:
				leader.Restart()
			}
		}
		third.Install(leader)
		hash := leader.StateHash()
		if follower.StateHash() != hash || third.StateHash() != hash {
			rt.Fatal("the states differ")
		}
		q := shardQuery{text: genNode(rt, 2).String(), limit: PageMax, exact: true}
		want := leader.Query(q.encode())
		if !bytes.Equal(follower.Query(q.encode()), want) || !bytes.Equal(third.Query(q.encode()), want) {
			rt.Fatalf("answers to %s differ", q.text)
		}
		if n := m().differing.Load(); n > 0 {
			rt.Fatalf("%d segments are not the leader's", n)
		}
	})
}

// The order in which layout and segments came does not show in the state, once all is sealed.
func TestStateOfAnUpgradedShardIsThatOfANewOne(t *testing.T) {
	old, young := fsmtest.New(t, testMachine(8)), fsmtest.New(t, testMachine(8))
	young.Apply(encodeLayout(layoutNewest))
	for _, c := range numbered(t, 0, 72) {
		old.Apply(c)
		young.Apply(c)
	}
	old.Machine().(*Machine).settle(t)
	old.Apply(encodeLayout(layoutNewest))
	settled(t, old)
	settled(t, young)
	if stateBut(t, old, tableMark) != stateBut(t, young, tableMark) {
		t.Error("the states differ")
	}
}

// A large segment moves in parts; a leader that ends in between, and replicas that are restarted with
// another build, change nothing.
func TestMovesInParts(t *testing.T) {
	fill := func() (*fsmtest.Driver, []moveCommand) {
		d := fsmtest.New(t, testMachine(2000))
		d.Apply(encodeLayout(layoutNewest))
		var docs []Document
		for i := range 4000 {
			docs = append(docs, normal(t, benchDocument(i)))
		}
		d.Apply(command(docs...))
		d.Machine().(*Machine).settle(t)
		var parts []moveCommand
		for n := range uint32(3) {
			parts = append(parts, moveCommand{docs: 2000, format: segment.Version, digest: d.Machine().(*Machine).segments[0].Digest(), part: n, parts: 3})
		}
		return d, parts
	}
	whole, parts := fill()
	one := parts[0]
	one.parts = 1
	if got := whole.Apply(one.encode()); !bytes.Equal(got[0], resultDone) {
		t.Fatalf("at once: %v", got)
	}
	d, _ := fill()
	refused := func(c moveCommand) {
		t.Helper()
		if got := d.Apply(c.encode()); !bytes.Equal(got[0], resultRefused) {
			t.Errorf("part %d of %d was not refused", c.part, c.parts)
		}
	}
	done := func(c moveCommand) {
		t.Helper()
		if got := d.Apply(c.encode()); !bytes.Equal(got[0], resultDone) {
			t.Errorf("part %d of %d: %v", c.part, c.parts, got)
		}
	}
	refused(parts[1])
	done(parts[0])
	refused(parts[2])
	other := parts[0]
	other.parts = 2
	done(other) // the next leader begins anew
	refused(parts[1])
	done(parts[0])
	refused(parts[0].at(1).of(2))
	done(parts[1])
	// Another build had written these.
	d.Overwrite(pieceKey(0, 2000, 0), []byte("other bytes"))
	d.Restart()
	done(parts[2])
	refused(parts[2])
	refused(one)
	if d.StateHash() != whole.StateHash() {
		t.Error("the states differ")
	}
	if a := ask(t, d, shardQuery{limit: 1, exact: true}); a.total != 4000 {
		t.Errorf("%d documents", a.total)
	}
}

func (c moveCommand) at(part uint32) moveCommand  { c.part = part; return c }
func (c moveCommand) of(parts uint32) moveCommand { c.parts = parts; return c }

// A move that does not fit changes nothing.
func TestMovesThatDoNotFitAreRefused(t *testing.T) {
	d := fsmtest.New(t, testMachine(4))
	move := moveCommand{docs: 4, format: segment.Version, parts: 1}
	for _, c := range numbered(t, 0, 10) {
		d.Apply(c)
	}
	before := d.StateHash()
	try := func(what string, b []byte) {
		t.Helper()
		if got := d.Apply(b)[0]; !bytes.Equal(got, resultRefused) || d.StateHash() != before {
			t.Errorf("%s: %v", what, got)
		}
	}
	try("before the layout", move.encode())
	d.Apply(encodeLayout(layoutNewest))
	d.Apply(retentionHeader(retentionMark))
	before = d.StateHash()
	for what, c := range map[string]moveCommand{
		"gap": {first: 4, docs: 4, format: segment.Version, parts: 1}, "size": {docs: 8, format: segment.Version, parts: 1},
		"old format": {docs: 4, format: segment.Version - 1, parts: 1},
	} {
		try(what, c.encode())
	}
	try("nothing", []byte{commandVersion, commandMove})
	try("more", append(move.encode(), 0))
	try("parts", move.at(1).encode())
	try("layout", []byte{commandVersion, commandLayout})
	for range 2 { // in one entry, only the first has an effect
		got := d.Apply(move.encode(), moveCommand{first: 4, docs: 4, format: segment.Version, parts: 1}.encode())
		if !bytes.Equal(got[1], resultRefused) && !bytes.Equal(got[0], resultRefused) {
			t.Errorf("two in one entry: %v", got)
		}
	}
	before = d.StateHash()
	try("beyond the documents", moveCommand{first: 8, docs: 4, format: segment.Version, parts: 1}.encode())
	for _, c := range [][]byte{{commandVersion, commandLayout, layoutNewest + 1}, moveCommand{first: 8, docs: 4, format: segment.Version + 1, parts: 1}.encode()} {
		a := applier{m: d.Machine().(*Machine), layout: layoutSegments}
		if _, err := a.execute(c); !errors.Is(err, errCommandVersion) {
			t.Errorf("of a newer build: %v", err)
		}
	}
}

// What is damaged in a segment of the state is an error wherever it is met, and never an answer.
func TestDamagedPieces(t *testing.T) {
	d := fsmtest.New(t, testMachine(2000))
	var docs []Document
	for i := range 2000 {
		docs = append(docs, normal(t, benchDocument(i)))
	}
	d.Apply(command(docs...))
	d.Apply(encodeLayout(layoutNewest))
	settled(t, d)
	q := shardQuery{text: "decision:allow", limit: PageMax, exact: true}
	want := d.Query(q.encode())
	key := pieceKey(0, 2000, 1)
	piece, err := d.Machine().(*Machine).store.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for at := 0; at < len(piece); at += 997 {
		bad := bytes.Clone(piece)
		bad[at] ^= 0x10
		d.Overwrite(key, bad)
		d.Restart()
		m := d.Machine().(*Machine)
		switch got, err := m.Query(context.Background(), q.encode()); {
		case err != nil && !errors.Is(err, segment.ErrCorrupt):
			t.Fatal(err)
		case err != nil:
			failed++
		case !bytes.Equal(got, want):
			t.Fatalf("a changed byte %d changed the answer", at)
		}
		if err := m.segments[0].Verify(); !errors.Is(err, segment.ErrCorrupt) {
			t.Fatalf("a changed byte %d: %v", at, err)
		}
	}
	if failed == 0 {
		t.Error("no query met the damage")
	}
	d.Overwrite(key, piece)
	d.Overwrite(pieceKey(0, 2000, 0), piece[:5])
	again := newMachine(2000, 4)
	if err := again.Load(d.Machine().(*Machine).store); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Query(context.Background(), q.encode()); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("with a segment that cannot be opened: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A file that is damaged before it is moved is built again first.
func TestDamagedFilesAreNotMoved(t *testing.T) {
	for what, at := range map[string]int{"first block": 8, "middle": 1000, "directory": -40} {
		good, bad := fsmtest.New(t, testMachine(8)), fsmtest.New(t, testMachine(8))
		for _, c := range numbered(t, 0, 20) {
			good.Apply(c)
			bad.Apply(c)
		}
		bad.Machine().(*Machine).settle(t)
		damage(t, bad, at)
		bad.Restart()
		for _, d := range []*fsmtest.Driver{good, bad} {
			d.Apply(encodeLayout(layoutNewest))
			if got := outcomes(t, d.Apply(command(normal(t, Document{ID: "3"})))[0], 1); got[0] != outcomeConflict {
				t.Errorf("%s: an id in the file: %v", what, got)
			}
			settled(t, d)
		}
		if good.StateHash() != bad.StateHash() {
			t.Errorf("%s: the states differ", what)
		}
		if n := rowsOf(t, bad, tableSegment); n != 2 {
			t.Errorf("%s: %d segments are moved, want 2", what, n)
		}
	}
}

// Searches beside moves see every document once.
func TestSearchBesideMoves(t *testing.T) {
	d := fsmtest.New(t, testMachine(64))
	d.Apply(encodeLayout(layoutNewest))
	m := d.Machine().(*Machine)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			q := shardQuery{text: "kind:receipt -task:none", limit: 1000, exact: true}
			b, err := m.Query(context.Background(), q.encode())
			if err != nil {
				t.Error(err)
				return
			}
			a, err := decodeShardAnswer(b)
			if err != nil || a.total != a.bound || len(a.rows) != min(1000, int(a.total)) {
				t.Errorf("%d rows, total %d of %d, %v", len(a.rows), a.total, a.bound, err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	for n := range 100 {
		var docs []Document
		for i := range 20 {
			docs = append(docs, normal(t, Document{ID: fmt.Sprint(n, "-", i), Time: int64(n * 7 % 50), Task: fmt.Sprint(i)}))
		}
		d.Apply(command(docs...))
		lead(d)
	}
	close(done)
	<-ended
}

// The leader brings its shard to the layout and moves what is sealed, with a pause after failures.
func TestLeadMovesWhatIsSealed(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for _, c := range numbered(t, 0, 30) {
		d.Apply(c)
	}
	m := d.Machine().(*Machine)
	ctx, cancel := context.WithCancel(context.Background())
	moved := 0
	m.Lead(ctx, func() byte { return layoutNewest }, func(_ context.Context, c []byte) error {
		if got := d.Apply(c)[0]; !bytes.Equal(got, resultDone) {
			t.Errorf("refused: %v", got)
		}
		if moved = rowsOf(t, d, tableSegment); moved == 3 {
			cancel()
		}
		return nil
	})
	if moved != 3 || m.layout != layoutNewest {
		t.Errorf("%d segments moved, layout %d", moved, m.layout)
	}
	young := newMachine(8, 4) // as long as a member does not know the layout, nothing is proposed
	ctx, cancel = context.WithCancel(context.Background())
	young.Lead(ctx, func() byte { cancel(); return 0 }, func(context.Context, []byte) error {
		t.Error("proposed")
		return nil
	})
}

// While some members know an earlier layout, the leader keeps to it, and moves what is sealed; it changes to the
// newest when all know that, though nothing else happens.
func TestLeadFollowsWhatMembersKnow(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for _, c := range numbered(t, 0, 20) {
		d.Apply(c)
	}
	m := d.Machine().(*Machine)
	m.settle(t)
	ctx, cancel := context.WithCancel(context.Background())
	asked := 0
	var proposed []string
	m.Lead(ctx, func() byte {
		if asked++; asked <= 4 { // for the layout, two segments, and nothing
			return layoutSegments
		}
		return layoutNewest
	}, func(_ context.Context, c []byte) error {
		if got := d.Apply(c)[0]; !bytes.Equal(got, resultDone) {
			t.Errorf("refused: %v", got)
		}
		proposed = append(proposed, fmt.Sprint(c[1:3]))
		if m.layout == layoutNewest {
			cancel()
		}
		return nil
	})
	layout := func(to byte) string { return fmt.Sprint(encodeLayout(to)[1:]) }
	want := []string{layout(layoutSegments), fmt.Sprint([]byte{commandMove, 0}), fmt.Sprint([]byte{commandMove, 8}), layout(layoutNewest)}
	if !slices.Equal(proposed, want) {
		t.Errorf("proposed %v, want %v", proposed, want)
	}
}

// A restored shard has the same segments; a backup whose segments are not whole is refused.
func TestRestoreSegments(t *testing.T) {
	from := fsmtest.New(t, testMachine(8))
	from.Apply(encodeLayout(layoutNewest))
	for _, c := range numbered(t, 0, 45) {
		from.Apply(c)
	}
	settled(t, from)
	for _, rows := range []int{1, 7, 1000} {
		to := fsmtest.New(t, testMachine(8))
		if err := to.Restore(from.Backup(rows)...); err != nil {
			t.Fatal(err)
		}
		if stateBut(t, from, tableClock) != stateBut(t, to, tableClock) {
			t.Error("the rows are not the same")
		}
		for range 2 {
			if got := answersOf(to); !slices.EqualFunc(got, answersOf(from), bytes.Equal) {
				t.Error("the answers are not the same")
			}
			to.Restart()
		}
		for _, c := range numbered(t, 40, 60) {
			to.Apply(c)
		}
		settled(t, to)
		if n := rowsOf(t, to, tableSegment); n != 4 {
			t.Errorf("%d segments later, want 4", n)
		}
	}
	chunks := from.Backup(1)
	rows := func(i int) raftfsm.Row {
		all, err := raftfsm.DecodeRows(chunks[i])
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	changed := rows(1)
	value := bytes.Clone(changed.Value)
	value[20] ^= 1
	for what, bad := range map[string][][]byte{
		"a changed piece":       slices.Concat(chunks[:1], [][]byte{raftfsm.AppendRow(nil, changed.Key, value)}, chunks[2:]),
		"a missing piece":       slices.Concat(chunks[:1], chunks[2:]),
		"a missing segment":     slices.Concat(chunks[:3], chunks[4:]),
		"a segment behind":      slices.Concat(chunks[:2], chunks[4:5], chunks[2:]),
		"a row of another":      {raftfsm.AppendRow(nil, []byte{tableID}, []byte("x"))},
		"a damaged directory":   slices.Concat(chunks[:2], [][]byte{raftfsm.AppendRow(nil, segmentKey(0), []byte("x"))}),
		"the wrong documents":   slices.Concat(chunks[:4], chunks[5:]),
		"a piece without bytes": {raftfsm.AppendRow(nil, pieceKey(0, 8, 0), nil)},
	} {
		d := fsmtest.New(t, testMachine(8))
		if err := d.Restore(bad...); !errors.Is(err, raftfsm.ErrRestoreRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Files of single heads and merged ones, of before the state had segments, go when they are moved.
func TestLoadPrefersTheState(t *testing.T) {
	d := fsmtest.New(t, testMachine(8))
	for _, c := range numbered(t, 0, 50) {
		d.Apply(c)
	}
	d.Machine().(*Machine).settle(t)
	d.Restart() // ends what still removes files
	old := files(t, d)
	d.Apply(encodeLayout(layoutNewest))
	settled(t, d)
	want := answersOf(d)
	for name, b := range old {
		if err := d.Folder().Write(name, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			t.Fatal(err)
		}
	}
	d.Restart()
	if got := files(t, d); len(got) > 0 {
		t.Errorf("%d files are left", len(got))
	}
	if got := answersOf(d); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Error("the answers have changed")
	}
}
