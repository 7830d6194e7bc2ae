package limiter

import (
	"fmt"
	"hash/maphash"
	"testing"
	"time"
)

// knowsItsRows fails unless every counter that has a row is known.
func (d *driven) knowsItsRows() {
	d.t.Helper()
	m := d.Machine().(*Machine)
	it, err := m.store.NewIter([]byte{tableCounter}, []byte{tableCounter + 1})
	if err != nil {
		d.t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if !m.known.mayHave(m.hash(it.Key())) {
			d.t.Fatalf("the row %q is not known", it.Key())
		}
	}
	if err := it.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// seldomKnows fails if more than a few of n requests lead to counters that may have rows.
func (d *driven) seldomKnows(n int, request func(i int) Request) {
	d.t.Helper()
	m := d.Machine().(*Machine)
	known := 0
	for i := range n {
		r := request(i)
		if m.known.mayHave(m.hash(appendCounterKey(nil, 1, r.Tenant, r.Key))) {
			known++
		}
	}
	if known > n/20 {
		d.t.Errorf("%d of %d counters without a row may have one", known, n)
	}
}

func keyed(name string) func(i int) Request {
	return func(i int) Request { return Request{Tenant: "acme", Key: fmt.Sprint(name, "-", i), Cost: 2} }
}

// spend uses all of the limits of n keys.
func (d *driven) spend(at time.Duration, n int, request func(i int) Request) {
	d.t.Helper()
	for i := range n {
		if got := d.check(at, request(i)); !got.Allow {
			d.t.Fatalf("%s: %v", request(i).Key, got)
		}
	}
}

// spent fails if one of n keys has something left.
func (d *driven) spent(at time.Duration, n int, request func(i int) Request) {
	d.t.Helper()
	for i := range n {
		if got := d.check(at, request(i)); got.Allow {
			d.t.Fatalf("%s was forgotten: %v", request(i).Key, got)
		}
	}
}

// eachKey is a group whose keys may do two things an hour. It caches next to nothing.
func eachKey(t *testing.T) *driven {
	d := drive(t, 1)
	d.set(limit("a", ScopeKey, "acme/*", "2/h", 2))
	return d
}

func TestKnownRows(t *testing.T) {
	const rows = 100_000
	seed := maphash.MakeSeed()
	hash := func(name string, i int) uint64 { return maphash.String(seed, fmt.Sprint(name, i)) }
	for name, k := range map[string]*knownRows{"from nothing": newKnownRows(0), "made for them": newKnownRows(rows)} {
		for i := range rows {
			k.add(hash("row ", i))
		}
		others := 0
		for i := range rows {
			if !k.mayHave(hash("row ", i)) {
				t.Fatalf("%s: row %d is missing", name, i)
			}
			if k.mayHave(hash("other ", i)) {
				others++
			}
		}
		if others > rows/25 || k.n > rows || k.n < rows*19/20 {
			t.Errorf("%s: %d of %d rows were counted, and %d others are held", name, k.n, rows, others)
		}
	}
}

// A set that has got too large holds everything, so that every counter is looked for.
func TestTooManyRowsAreNotKnownApart(t *testing.T) {
	k := newKnownRows(0)
	k.most = 1000
	for i := range uint64(2000) {
		k.add(i * 0x9E3779B97F4A7C15)
	}
	if !k.full || k.filters != nil || !k.mayHave(1) {
		t.Errorf("full %v with %d filters, holds another: %v", k.full, len(k.filters), k.mayHave(1))
	}
}

// Rows are known as they are written, and after a restart.
func TestRowsAreKnownAfterARestart(t *testing.T) {
	d := eachKey(t)
	d.seldomKnows(3000, keyed("a"))
	d.spend(0, 3000, keyed("a"))
	d.knowsItsRows()
	d.Restart()
	d.knowsItsRows()
	d.spent(time.Minute, 3000, keyed("a"))
	d.seldomKnows(3000, keyed("b"))
	d.spend(time.Minute, 300, keyed("b"))
	d.knowsItsRows()
}

// A snapshot that replaces the state replaces what is known of it: of the old rows none is left.
func TestRowsAreKnownAfterASnapshot(t *testing.T) {
	leader, follower := eachKey(t), eachKey(t)
	leader.spend(0, 2000, keyed("a"))
	follower.spend(0, 2000, keyed("b"))
	follower.Install(leader.Driver)
	follower.knowsItsRows()
	follower.seldomKnows(2000, keyed("b"))
	follower.spent(time.Minute, 2000, keyed("a"))
	for _, d := range []*driven{leader, follower} {
		d.spend(2*time.Minute, 100, keyed("b"))
		d.spent(2*time.Minute, 100, keyed("b"))
		d.knowsItsRows()
	}
	if leader.StateHash() != follower.StateHash() {
		t.Error("state hashes differ")
	}
}

// Once the sweep has come round, what it has removed is not known any more, and all that was written
// meanwhile is: behind it, before it, again, and also when the machine restarts on the way.
func TestRowsAreKnownAfterASweep(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprint("restarts=", restarts), func(t *testing.T) {
			d := eachKey(t)
			d.spend(0, 5*sweepRowsMax/2, keyed("m"))
			at := 2 * time.Hour
			d.Time = at
			if !d.sweep() {
				t.Fatal("one command has swept all rows")
			}
			if restarts {
				d.Restart()
			}
			written := []func(int) Request{keyed("a"), keyed("z"), keyed("m")} // the last are on both sides
			for _, request := range written {
				d.spend(at, 300, request)
			}
			for d.sweep() {
				d.knowsItsRows()
			}
			d.knowsItsRows()
			if n := d.counters(); n != 900 {
				t.Errorf("%d rows are left, want 900", n)
			}
			for _, request := range written {
				d.spent(at, 300, request)
			}
			for d.sweep() { // a restart leaves this to the next round
				d.knowsItsRows()
			}
			d.knowsItsRows()
			d.seldomKnows(2000, func(i int) Request { return keyed("m")(300 + i) })
		})
	}
}

// A snapshot that arrives while the sweep goes round, here and where it comes from, ends what was begun.
func TestRowsAreKnownAfterASnapshotWithinASweep(t *testing.T) {
	leader, follower := eachKey(t), eachKey(t)
	leader.spend(0, 2*sweepRowsMax, keyed("a"))
	follower.spend(0, 2*sweepRowsMax, keyed("b"))
	if !leader.sweep() || !follower.sweep() {
		t.Fatal("one command has swept all rows")
	}
	follower.Install(leader.Driver)
	for follower.sweep() {
		follower.knowsItsRows()
	}
	follower.knowsItsRows()
	follower.spent(time.Minute, 2*sweepRowsMax, keyed("a"))
}

// A sweep sees what commands before it in its entry have written.
func TestSweepSeesItsEntry(t *testing.T) {
	const keys = sweepRowsMax + 10
	sweep := []byte{codecFirst, opSweep}
	var entry [][]byte
	for from := 0; from < keys; from += batchCommandMax {
		var batch []Request
		for i := range min(batchCommandMax, keys-from) {
			batch = append(batch, keyed("a")(from+i))
		}
		entry = append(entry, appendBatch(nil, batch))
	}
	apart, together := eachKey(t), eachKey(t)
	apart.Apply(entry...)
	result := apart.Apply(sweep)[0]
	all := together.Apply(append(entry, sweep)...)
	if got := all[len(all)-1]; string(got) != string(result) {
		t.Errorf("swept %x in the entry of the checks, %x in one of its own", got, result)
	}
	if apart.StateHash() != together.StateHash() {
		t.Error("state hashes differ")
	}
}
