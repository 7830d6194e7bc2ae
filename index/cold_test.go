package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// frozen is a shard whose old segments become cold ones in a folder.
type frozen struct {
	*kept
	tb      testing.TB
	dir     string
	freezer *Freezer
	n       int // documents
}

const coldHead = 1024

// newFrozen has two merged segments, one single one, and a head.
func newFrozen(t testing.TB, replicas int) *frozen { return newFrozenFrom(t, replicas, layoutBatches) }

// newFrozenFrom is newFrozen of a shard that had a layout before its nodes got a store.
func newFrozenFrom(t testing.TB, replicas int, layout byte) *frozen {
	dir := t.TempDir()
	f := newFrozenIn(t, replicas, objectstore.NewDir(dir), layout)
	f.dir = dir
	return f
}

// newFrozenIn is newFrozenFrom with another store.
func newFrozenIn(t testing.TB, replicas int, store objectstore.Store, layout byte) *frozen {
	f := &frozen{tb: t}
	f.kept = newKeptOf(t, t, replicas, f.machine(store))
	f.freezer = &Freezer{
		Owner: "region", Shard: "index-0", Level: func() int { return raftfsm.LevelCurrent }, After: time.Hour, Keep: 24 * time.Hour,
		Peers: keptPeers{f.kept}, Stopped: func() bool { return f.stopped }, Log: slog.New(slog.DiscardHandler),
		Propose: f.retainer.Propose,
	}
	f.apply(encodeLayout(layout))
	f.lead()
	for f.n < 9*coldHead+100 {
		var docs []Document
		for range 256 {
			d := benchDocument(f.n)
			d.Tenant = []string{"acme", "beta"}[f.n/5%2]
			d.Kind = RetentionKinds[f.n%3]
			docs, f.n = append(docs, normal(t, d)), f.n+1
		}
		f.store(docs...)
		f.lead()
	}
	f.pass(2 * time.Minute)
	f.apply(retentionHeader(retentionMark))
	return f
}

// machine makes machines that read cold segments of a store.
func (f *frozen) machine(store objectstore.Store) func() raftfsm.Machine {
	return func() raftfsm.Machine {
		m := newMachine(coldHead, 4)
		cache, err := objectstore.NewCache(store, filepath.Join(f.tb.TempDir(), "cache"), 1<<20)
		if err != nil {
			f.tb.Fatal(err)
		}
		m.UseObjects(cache)
		return m
	}
}

func (f *frozen) freeze() error {
	return f.leader().freezeAll(context.Background(), f.freezer, func() time.Time { return f.replicas[0].Wall })
}

// objects are the names in the store.
func (f *frozen) objects() (names []string) {
	f.tb.Helper()
	err := filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		f.tb.Fatal(err)
	}
	return names
}

func (f *frozen) pieces() int { return rowsOf(f.tb, f.replicas[0], tablePiece) }

var coldQueries = []shardQuery{
	{limit: 50, exact: true},
	{text: "decision:deny", limit: 20, exact: true},
	{text: "tenant:acme kind:event", limit: 1000, exact: true},
	{text: "task:task-7 -pack:pack-3", limit: 100, exact: true},
	{text: "execution:run-*", limit: 1, exact: true},
	{limit: 1, exact: true, extension: extension{facets: []string{"pack", "decision"}, histogram: HistogramAuto}},
	{limit: 10, extension: extension{order: OrderCost}},
	{limit: 10, extension: extension{order: OrderOldest}},
}

// answers are those of all queries, which all replicas agree on and which lack nothing.
func (f *frozen) answers() (all [][]byte) {
	f.tb.Helper()
	for _, q := range coldQueries {
		want := f.replicas[0].Query(q.encode())
		for n, d := range f.replicas[1:] {
			if !bytes.Equal(d.Query(q.encode()), want) {
				f.tb.Fatalf("the answer of replica %d to %q differs", n+1, q.text)
			}
		}
		if a, err := decodeShardAnswer(want); err != nil || a.missing != "" {
			f.tb.Fatalf("%q: %q, %v", q.text, a.missing, err)
		}
		all = append(all, want)
	}
	return all
}

// same fails when answers differ from before.
func (f *frozen) same(want [][]byte, when string) {
	f.tb.Helper()
	if got := f.answers(); !slices.EqualFunc(got, want, bytes.Equal) {
		f.tb.Fatalf("%s: the answers have changed", when)
	}
}

// Segments become cold when they are old enough, take much less on the disk, and answer as before: after a
// restart, a loss of power, and on a replica that gets a copy of the state. Ids stay taken.
func TestColdSegmentsAnswerAsBefore(t *testing.T) {
	f := newFrozen(t, 2)
	want, pieces := f.answers(), f.pieces()
	must(t, f.freeze())
	if names := f.objects(); len(names) != 0 {
		t.Fatalf("before their age: %v", names)
	}
	f.pass(time.Hour)
	must(t, f.freeze())
	f.sameState()
	if names := f.objects(); len(names) != 2 || f.pieces() >= pieces*3/4 {
		t.Fatalf("%d objects, %d pieces of %d", len(names), f.pieces(), pieces)
	}
	t.Logf("%d of %d pieces are left, of two merged segments and one of a head", f.pieces(), pieces)
	f.same(want, "cold")
	f.replicas[0].Restart()
	f.replicas[1].LosePower(rand.New(rand.NewPCG(1, 2)))
	f.same(want, "after a restart")
	f.sameState()
	third := fsmtest.New(t, f.machine(objectstore.NewDir(f.dir)))
	third.Install(f.replicas[0])
	f.replicas = append(f.replicas, third)
	f.same(want, "with a copy")
	f.sameState()
	known := benchDocument(7)
	known.Tenant, known.Kind = "beta", RetentionKinds[1]
	other := known
	other.Reason = "another content"
	foreign := known
	foreign.Tenant = "gamma"
	got := outcomes(t, f.apply(command(normal(t, known), normal(t, other), normal(t, foreign))), 3)
	if !slices.Equal(got, []outcome{outcomeExisting, outcomeExisting, outcomeIndexed}) {
		t.Errorf("sent again: %v", got)
	}
	must(t, f.freeze()) // nothing more
	if names := f.objects(); len(names) != 2 {
		t.Errorf("%d objects", len(names))
	}
}

// Without the store, or with an object missing or damaged, answers have what is at hand, say what they lack, and are complete
// again with it.
func TestColdSegmentsWithoutTheirStore(t *testing.T) {
	for _, layout := range []byte{layoutBatches, layoutRandomTexts} {
		t.Run(fmt.Sprint("layout ", layout), func(t *testing.T) { coldWithoutStore(t, newFrozenFrom(t, 1, layout)) })
	}
}

func coldWithoutStore(t *testing.T, f *frozen) {
	f.pass(time.Hour)
	must(t, f.freeze())
	away := f.dir + "-away"
	object := f.objects()[0]
	whole, err := os.ReadFile(object)
	must(t, err)
	for what, c := range map[string]struct {
		begin, end func() error
		lost       string
	}{
		"no store":  {func() error { return os.Rename(f.dir, away) }, func() error { return os.Rename(away, f.dir) }, "2 cold segments with 8192 documents"},
		"no object": {func() error { return os.Remove(object) }, func() error { return os.WriteFile(object, whole, 0o600) }, "1 cold segments with 4096 documents"},
		"damaged":   {func() error { return os.WriteFile(object, make([]byte, len(whole)), 0o600) }, func() error { return os.WriteFile(object, whole, 0o600) }, "1 cold segments with 4096 documents"},
	} {
		must(t, c.begin())
		f.replicas[0].Restart() // without a cache, it starts all the same
		q := shardQuery{text: "decision:deny", limit: 1000, exact: true, extension: extension{order: OrderOldest}}
		a, err := decodeShardAnswer(f.replicas[0].Query(q.encode()))
		must(t, err)
		if !strings.Contains(a.missing, c.lost) {
			t.Errorf("%s: missing %q", what, a.missing)
		}
		for _, row := range a.rows {
			if d, err := DecodeDocument(row); err != nil || d.Decision != "deny" {
				t.Fatalf("%s: %v, %v", what, d, err)
			}
		}
		if least := (f.n - 8192) / 4; int(a.total) < least {
			t.Errorf("%s: %d documents, at least %d are at hand", what, a.total, least)
		}
		one := benchDocument(f.n)
		one.ID = "while-away-" + strings.ReplaceAll(what, " ", "-")
		if got := outcomes(t, f.apply(command(normal(t, one))), 1); got[0] != outcomeIndexed {
			t.Errorf("%s: ingest: %v", what, got)
		}
		var again []Document
		for n := range 100 {
			d := benchDocument(n)
			d.Tenant = []string{"acme", "beta"}[n/5%2]
			again = append(again, normal(t, d))
		}
		for n, got := range outcomes(t, f.apply(command(again...)), len(again)) {
			if got != outcomeExisting {
				t.Fatalf("%s: document %d of a cold segment is sent again: %v", what, n, got)
			}
		}
		must(t, c.end())
		f.replicas[0].Restart()
		if a, err := decodeShardAnswer(f.replicas[0].Query(q.encode())); err != nil || a.missing != "" {
			t.Errorf("%s is over: %q, %v", what, a.missing, err)
		}
	}
}

// Whoever dies between the upload, the entry and the removal of the rows: nothing is lost, and the next try ends it with the
// same object.
func TestFreezeIsInterrupted(t *testing.T) {
	f := newFrozen(t, 3)
	want := f.answers()
	f.pass(time.Hour)
	rng := rand.New(rand.NewPCG(3, 4))
	propose, errDead := f.freezer.Propose, errors.New("the leader has died")
	for step := range 4 {
		f.freezer.Propose = func(ctx context.Context, c []byte) ([]byte, error) {
			if c[1] != commandCold {
				return propose(ctx, c)
			}
			switch step {
			case 0:
				return nil, errDead // after the upload
			case 1:
				f.replicas[1].LosePower(rng) // before the entry
				return propose(ctx, c)
			case 2:
				got, err := propose(ctx, c)
				f.replicas[0].LosePower(rng) // behind it
				f.replicas[2].Restart()
				return got, errors.Join(err, errDead)
			}
			return propose(ctx, c)
		}
		if err := f.freeze(); err != nil && !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		f.sameState()
		f.same(want, fmt.Sprint("step ", step))
	}
	if names := f.objects(); len(names) != 2 {
		t.Errorf("%d objects, want 2", len(names))
	}
}

// A leader freezes nothing that another replica could not read.
func TestFreezeNeedsAllReplicas(t *testing.T) {
	f := newFrozen(t, 2)
	f.replicas = append(f.replicas, fsmtest.New(t, f.machine(objectstore.NewDir(t.TempDir()))))
	f.replicas[2].Install(f.replicas[0])
	f.replicas[2].Time, f.replicas[2].Wall = f.replicas[0].Time, f.replicas[0].Wall
	f.pass(time.Hour)
	pieces := f.pieces()
	if err := f.freeze(); err == nil || !strings.Contains(err.Error(), "cannot read object") {
		t.Errorf("with another folder at one replica: %v", err)
	}
	if f.pieces() != pieces {
		t.Error("pieces were removed")
	}
	f.sameState()
}

// Retention reaches documents in cold segments: some are rewritten, all go, and the objects are removed once no backup that is
// kept can need them. While the store is away it waits.
func TestRetentionOfColdSegments(t *testing.T) {
	f := newFrozen(t, 2)
	f.pass(time.Hour)
	must(t, f.freeze())
	f.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Hour}}}
	f.pass(time.Hour)
	away := f.dir + "-away"
	must(t, os.Rename(f.dir, away))
	for _, d := range f.replicas {
		d.Restart()
	}
	wall := func() time.Time { return f.replicas[0].Wall }
	if err := f.leader().retainAll(context.Background(), f.retainer, wall); err == nil {
		t.Error("retention without the store has not failed")
	}
	must(t, os.Rename(away, f.dir))
	for _, d := range f.replicas {
		d.Restart()
	}
	f.lead()
	f.retain()
	f.lead()
	f.sameState()
	f.check()
	if n := len(f.query("tenant:acme NOT kind:disposition")); n != 0 {
		t.Errorf("%d documents of acme are left", n)
	}
	if n := len(f.query("tenant:beta NOT kind:disposition")); n == 0 {
		t.Error("the other tenant's documents are gone")
	}
	if names := f.objects(); len(names) != 2 {
		t.Errorf("%d objects while backups need them", len(names))
	}
	f.pass(23 * time.Hour) // what is left becomes cold again, and the old objects are kept for backups
	must(t, f.freeze())
	if names := f.objects(); len(names) != 4 {
		t.Errorf("%d objects, want 4", len(names))
	}
	f.policy = RetentionPolicy{Version: 2, Rules: []RetentionRule{{Age: time.Hour}}}
	f.pass(2 * time.Hour)
	must(t, f.freeze())
	if names := f.objects(); len(names) != 2 {
		t.Errorf("%d objects after a day, want 2", len(names))
	}
	f.retain()
	f.lead()
	f.check()
	f.pass(26 * time.Hour)
	must(t, f.freeze())
	if names := f.objects(); len(names) != 0 || rowsOf(t, f.replicas[0], tableGone) != 0 {
		t.Errorf("%d objects are left, and %d rows of them", len(names), rowsOf(t, f.replicas[0], tableGone))
	}
	f.sameState()
}

// A backup names the objects; a restored region reads them, answers the same, and removes none of them.
func TestRestoreWithColdSegments(t *testing.T) {
	f := newFrozen(t, 1)
	want := f.answers()
	f.pass(time.Hour)
	must(t, f.freeze())
	to := newKeptOf(t, t, 1, f.machine(objectstore.NewDir(f.dir)))
	must(t, to.replicas[0].Restore(f.replicas[0].Backup(3)...))
	g := &frozen{kept: to, tb: t, dir: f.dir, n: f.n}
	g.same(want, "restored")
	g.replicas[0].Restart()
	g.same(want, "restored and restarted")
	g.freezer = &Freezer{
		Owner: "another", Shard: "index-0", Level: f.freezer.Level, After: time.Hour, Keep: time.Minute, Peers: keptPeers{to},
		Stopped: f.freezer.Stopped, Log: f.freezer.Log, Propose: to.retainer.Propose,
	}
	to.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Age: time.Minute}}}
	to.pass(time.Hour)
	to.lead()
	to.retain()
	to.pass(3 * time.Hour)
	must(t, g.freeze())
	if n := len(to.query("NOT kind:disposition")); n != 0 {
		t.Errorf("%d documents are left in the restored region", n)
	}
	f.same(want, "the first region, after the restored one has disposed of everything")
}

// What a leader stored that died is given up when nobody names it, and not before.
func TestOrphansAreRemoved(t *testing.T) {
	f := newFrozen(t, 1)
	f.pass(time.Hour)
	must(t, f.freeze())
	orphan := filepath.Join(f.dir, "region", "index-0", "0000000000000000-00.segment")
	must(t, os.WriteFile(orphan, []byte("x"), 0o600))
	now := f.replicas[0].Wall
	for _, path := range f.objects() {
		must(t, os.Chtimes(path, now.Add(-25*time.Hour), now.Add(-25*time.Hour)))
	}
	must(t, f.freeze())
	f.pass(25 * time.Hour)
	f.freezer.swept = time.Time{}
	must(t, f.freeze())
	f.pass(25 * time.Hour)
	must(t, f.freeze())
	if names := f.objects(); len(names) != 2 || slices.Contains(names, orphan) {
		t.Errorf("%v", names)
	}
}
