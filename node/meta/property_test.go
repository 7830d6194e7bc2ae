package meta

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// plainRules keep few records of any content; those that begin with x are dead.
func plainRules(table) rules {
	return rules{
		recordsMax:    4,
		tombstonesMax: 3,
		valid:         func(string, []byte) error { return nil },
		dead:          func(r record, _ int64) (bool, error) { return len(r.value) > 0 && r.value[0] == 'x', nil },
	}
}

// model is a table as plainly as it can be put: a map, and the history of every version.
type model struct {
	version uint32
	rows    map[string]record
	lost    uint32 // the last version at which something was forgotten
}

func genChange() *rapid.Generator[change] {
	return rapid.Custom(func(t *rapid.T) change {
		keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-f]`), 1, 3, rapid.ID[string]).Draw(t, "keys")
		c := change{table: tableSettings, actor: rapid.SampledFrom([]string{"*", "*", "acme", "globex"}).Draw(t, "actor"), origin: "us-west"}
		for _, key := range keys {
			s := step{kind: kind(rapid.IntRange(1, 5).Draw(t, "kind")), key: key}
			if s.kind < kindDelete {
				s.owner = rapid.SampledFrom([]string{"acme", "globex", "*"}).Draw(t, "owner")
				s.value = []byte(rapid.StringMatching(`[xy][01]`).Draw(t, "value"))
			}
			c.steps = append(c.steps, s)
		}
		return c
	})
}

// apply is the change as the package documents it.
func (m *model) apply(c change) changeResult {
	next := maps.Clone(m.rows)
	res := changeResult{outcome: outcomeDone, version: m.version}
	changed := map[string]bool{}
	live := func() (n int) {
		for _, r := range next {
			if !r.deleted {
				n++
			}
		}
		return n
	}
	before := live()
	for i, s := range c.steps {
		r, known := next[s.key]
		exists := known && !r.deleted
		own := c.actor == "*" || r.owner == c.actor
		fail := outcomeDone
		switch s.kind {
		case kindDelete, kindSeal:
			if !exists || !own {
				fail = outcomeUnknown
			}
		case kindCreate:
			if exists {
				fail = outcomeExists
			}
		case kindPut:
			if exists && !own {
				fail = outcomeForeign
			}
		}
		keeps := exists && s.kind == kindKeep
		if fail == outcomeDone && s.kind < kindDelete && !keeps && c.actor != "*" && s.owner != c.actor {
			fail = outcomeForeign
		}
		if fail != outcomeDone {
			return changeResult{outcome: fail, step: i, version: m.version}
		}
		was := r
		switch {
		case s.kind == kindDelete:
			r.deleted, r.value = true, nil
		case s.kind == kindSeal:
			r.sealed = true
		case !keeps:
			r.key, r.owner, r.value, r.deleted = s.key, s.owner, s.value, false
		}
		same := known && fmt.Sprint(was) == fmt.Sprint(r)
		if s.kind < kindDelete {
			switch {
			case same:
				res.unchanged++
			case exists:
				res.replaced++
			default:
				res.created++
			}
		}
		if !same {
			changed[s.key] = true
			r.version++
			r.tableVersion = m.version + 1
			next[s.key] = r
		}
	}
	if len(changed) == 0 {
		return res
	}
	lost := m.lost
	for after := live(); after > 4 && after > before; after-- {
		victim, found := oldest(next, func(r record) bool { return !r.deleted && !changed[r.key] && r.value[0] == 'x' })
		if !found {
			return changeResult{outcome: outcomeFull, version: m.version}
		}
		delete(next, victim)
		lost = m.version + 1
	}
	for {
		tombstones := 0
		for _, r := range next {
			if r.deleted {
				tombstones++
			}
		}
		victim, found := oldest(next, func(r record) bool { return r.deleted && !r.sealed })
		if tombstones <= 3 || !found {
			break
		}
		lost = max(lost, next[victim].tableVersion)
		delete(next, victim)
	}
	m.rows, m.lost = next, lost
	m.version++
	res.version = m.version
	return res
}

func oldest(rows map[string]record, ok func(record) bool) (key string, found bool) {
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if ok(rows[k]) && (!found || rows[k].tableVersion < rows[key].tableVersion) {
			key, found = k, true
		}
	}
	return key, found
}

func plainMachine() raftfsm.Machine { return newMachine(plainRules) }

// Random changes do what the model says, readers see what the model holds, and the changes
// since any version lead from that version to the present.
func TestChangesAgreeWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &region{t: t, meta: fsmtest.New(t, plainMachine), now: time.Unix(0, 0)}
		r.groups = map[raftfsm.GroupID]*fsmtest.Driver{metaGroup: r.meta}
		s := NewService(Options{Groups: r, Group: metaGroup, Region: "us-west"})
		m := &model{rows: map[string]record{}}
		history := []map[string]string{{}} // live values at each version
		var stamp timestamp
		for range rapid.IntRange(1, 25).Draw(rt, "changes") {
			r.meta.Wall = r.meta.Wall.Add(time.Duration(rapid.IntRange(-5, 5).Draw(rt, "clock step")))
			c := genChange().Draw(rt, "change")
			got, err := decodeResult(r.meta.Apply(encodeChange(c))[0])
			if want := m.apply(c); err != nil || got != want {
				rt.Fatalf("%+v:\ngot  %+v, %v\nwant %+v", c, got, err, want)
			}
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				r.meta.Restart()
			}
			if int(m.version) == len(history) {
				history = append(history, m.live())
			}
			whole, err := s.read(t.Context(), tableSettings, 0)
			if err != nil {
				rt.Fatal(err)
			}
			m.agree(rt, whole, &stamp)
			since := rapid.Uint32Range(0, m.version).Draw(rt, "since")
			f, err := s.read(t.Context(), tableSettings, since)
			if err != nil {
				rt.Fatal(err)
			}
			if f.since != since && since >= m.lost {
				rt.Fatalf("since %d: all of it, though nothing was lost after %d", since, m.lost)
			}
			reached := maps.Clone(history[f.since])
			if f.since == 0 {
				clear(reached)
			}
			for key, rec := range f.records {
				if delete(reached, key); !rec.deleted {
					reached[key] = string(rec.value)
				}
			}
			if !maps.Equal(reached, m.live()) || f.counters.version != m.version {
				rt.Fatalf("from version %d (asked %d) readers come to %v at %d; the table is %v at %d", f.since, since, reached, f.counters.version, m.live(), m.version)
			}
		}
	})
}

func (m *model) live() map[string]string {
	out := map[string]string{}
	for k, r := range m.rows {
		if !r.deleted {
			out[k] = string(r.value)
		}
	}
	return out
}

// agree compares everything that is stored, and sees that stamps only grow.
func (m *model) agree(t *rapid.T, f feed, stamp *timestamp) {
	if len(f.records) != len(m.rows) {
		t.Fatalf("stored %v, want %v", f.records, m.rows)
	}
	newest := *stamp
	for key, want := range m.rows {
		got := f.records[key]
		if got.tableVersion == m.version && newer(got.stamp, newest) {
			newest = got.stamp
		}
		if newer(got.stamp, newest) {
			t.Fatalf("record %s is stamped %+v, after the newest change %+v", key, got.stamp, newest)
		}
		got.stamp, got.origin = timestamp{}, ""
		if string(got.value) != string(want.value) {
			t.Fatalf("record %s has value %q, want %q", key, got.value, want.value)
		}
		got.value, want.value = nil, nil
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("record %+v, want %+v", got, want)
		}
	}
	*stamp = newest
}

func newer(a, b timestamp) bool {
	return a.wall > b.wall || a.wall == b.wall && a.logical > b.logical
}

func TestClockNeverGoesBack(t *testing.T) {
	clock := timestamp{}
	for _, step := range []struct {
		wall int64
		want timestamp
	}{
		{100, timestamp{100, 0}},
		{100, timestamp{100, 1}},
		{50, timestamp{100, 2}},
		{-7, timestamp{100, 3}},
		{101, timestamp{101, 0}},
	} {
		if clock = clock.next(step.wall); clock != step.want {
			t.Errorf("after wall time %d: %+v, want %+v", step.wall, clock, step.want)
		}
	}
	if got := (timestamp{7, 1<<32 - 1}).next(0); got != (timestamp{8, 0}) {
		t.Errorf("after the last logical step: %+v", got)
	}
}

// The same commands give the same results and state, however they are grouped into entries
// of one wall time and wherever the machine restarts.
func TestReplayIsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log [][]byte
		for range rapid.IntRange(1, 30).Draw(rt, "commands") {
			if rapid.IntRange(0, 9).Draw(rt, "noise") == 0 {
				log = append(log, append([]byte{codecFirst, opChange}, rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(rt, "bytes")...))
			} else {
				log = append(log, encodeChange(genChange().Draw(rt, "change")))
			}
		}
		run := func(name string) (results string, hash [32]byte) {
			d := fsmtest.New(t, plainMachine)
			for i := 0; i < len(log); {
				n := rapid.IntRange(1, len(log)-i).Draw(rt, name+" entry")
				for _, r := range d.Apply(log[i : i+n]...) {
					results += fmt.Sprintf("%x\n", r)
				}
				if rapid.Bool().Draw(rt, name+" restarts") {
					d.Restart()
				}
				i += n
			}
			return results, d.StateHash()
		}
		results, hash := run("first")
		again, sameHash := run("second")
		if again != results || sameHash != hash {
			rt.Fatalf("the second run differs; results\n%s\nand\n%s", results, again)
		}
	})
}

func TestSealOutlivesEverything(t *testing.T) {
	d := fsmtest.New(t, plainMachine)
	do := func(s step) {
		t.Helper()
		res, err := decodeResult(d.Apply(encodeChange(change{table: tableSettings, actor: "*", steps: []step{s}}))[0])
		if err != nil || res.outcome != outcomeDone {
			t.Fatalf("%+v: outcome %d, %v", s, res.outcome, err)
		}
	}
	do(step{kind: kindPut, key: "a", owner: "acme"})
	do(step{kind: kindSeal, key: "a"})
	do(step{kind: kindPut, key: "a", owner: "acme", value: []byte("again")})
	do(step{kind: kindDelete, key: "a"})
	for _, key := range []string{"b", "c", "d", "e", "f"} { // more deletions than are remembered
		do(step{kind: kindCreate, key: key, owner: "acme"})
		do(step{kind: kindDelete, key: key})
	}
	do(step{kind: kindCreate, key: "a", owner: "acme", value: []byte("and again")})
	rec, found, err := getRecord(d.Machine().(*Machine).store, tableSettings, "a")
	if err != nil || !found || !rec.sealed || rec.version != 5 {
		t.Errorf("record %+v, %v, %v; want it sealed at version 5", rec, found, err)
	}
}

// A table with more records than a newer build allows can be changed, but not grow.
func TestLoweredBound(t *testing.T) {
	most := uint32(3)
	d := fsmtest.New(t, func() raftfsm.Machine {
		return newMachine(func(t table) rules {
			r := plainRules(t)
			r.recordsMax = most
			return r
		})
	})
	for _, c := range []struct {
		step step
		most uint32
		want outcome
	}{
		{step{kind: kindCreate, key: "a", owner: "*"}, 3, outcomeDone},
		{step{kind: kindCreate, key: "b", owner: "*"}, 3, outcomeDone},
		{step{kind: kindCreate, key: "c", owner: "*"}, 3, outcomeDone},
		{step{kind: kindCreate, key: "d", owner: "*"}, 1, outcomeFull},
		{step{kind: kindPut, key: "a", owner: "*", value: []byte("new")}, 1, outcomeDone},
		{step{kind: kindSeal, key: "b"}, 1, outcomeDone},
		{step{kind: kindDelete, key: "c"}, 1, outcomeDone},
	} {
		most = c.most
		res, err := decodeResult(d.Apply(encodeChange(change{table: tableSettings, actor: "*", steps: []step{c.step}}))[0])
		if err != nil || res.outcome != c.want {
			t.Errorf("%+v with room for %d: outcome %d, %v; want %d", c.step, c.most, res.outcome, err, c.want)
		}
	}
}
