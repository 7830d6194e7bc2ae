package limiter

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A flood of new keys through a tiny cache never resets a limit that is in use.
func TestFloodOfKeysResetsNothing(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("a", ScopeKey, "acme/*", "1/h", 2))
	victim := Request{Tenant: "acme", Key: "victim", Cost: 1}
	d.check(0, victim)
	d.check(0, victim)
	for i := range 5000 {
		d.check(0, Request{Tenant: "acme", Key: fmt.Sprint("flood-", i), Cost: 1})
		if i%100 == 0 {
			d.sweep()
		}
	}
	if got := d.check(time.Minute, victim); got.Allow {
		t.Errorf("the victim's limit was reset: %v", got)
	}
	if c := d.Machine().(*Machine).cache; len(c.ring) > 8*cacheCounterBytes {
		t.Errorf("%d counters in %d bytes of a cache of 8", c.n, len(c.ring))
	}
	if n := d.counters(); n != 5001 {
		t.Errorf("%d rows, want 5001", n)
	}
}

// A sweep goes on where the last one stopped, across restarts, and looks at a bounded number
// of rows each time.
func TestSweepIsBoundedAndComplete(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("fast", ScopeKey, "acme/*", "1/s", 1), limit("slow", ScopeToken, "acme/*", "1/h", 1))
	const keys = sweepRowsMax + sweepRowsMax/2
	for i := range keys {
		name := fmt.Sprint(i)
		d.check(0, Request{Tenant: "acme", Key: name, Token: name, Cost: 1})
	}
	d.Time = time.Second
	for i, want := range []struct {
		rows int
		more bool
	}{
		{2*keys - sweepRowsMax, true}, // two thirds of the fast limit's
		{keys, true},                  // the rest of them
		{keys, false},                 // the slow limit's stay
		{keys, true},                  // and from the start again
		{keys, false},
	} {
		if more := d.sweep(); more != want.more || d.counters() != want.rows {
			t.Errorf("sweep %d: %d rows left, more %v; want %+v", i, d.counters(), more, want)
		}
		d.Restart()
	}
}

func TestNothingIsWrittenWhenNothingChanges(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("a", ScopeTenant, "acme", "1/h", 2))
	d.check(0, Request{Tenant: "acme", Cost: 2})
	before := d.StateHash()
	d.check(time.Second, Request{Tenant: "acme", Cost: 1})   // denied
	d.check(time.Second, Request{Tenant: "acme", Cost: 3})   // can never pass
	d.check(time.Second, Request{Tenant: "acme", Cost: 0})   // takes nothing
	d.check(time.Second, Request{Tenant: "globex", Cost: 9}) // no limit matches
	d.sweep()
	if d.StateHash() != before {
		t.Error("the state has changed")
	}
}

// Only the last rates are remembered. A bucket older than those drains less, never more; one
// that a sweep has seen meanwhile loses nothing.
func TestManyChangesOfRate(t *testing.T) {
	for _, swept := range []bool{false, true} {
		d := drive(t, 8)
		d.set(limit("a", ScopeTenant, "acme", "1/s", 100))
		d.check(0, Request{Tenant: "acme", Cost: 100})
		for i := 1; i <= generationsMax+3; i++ {
			d.Time = time.Duration(i) * time.Second
			d.set(limit("a", ScopeTenant, "acme", fmt.Sprintf("%d/s", 1+i%2), 100))
			if swept {
				d.sweep()
			}
		}
		// 1/s and 2/s in turn for 19 s. Without a sweep, the first 4 s are forgotten.
		want := uint32(28)
		if !swept {
			want -= 1 + 2 + 1 + 2
		}
		got := d.check(d.Time, Request{Tenant: "acme"}).Levels[0].Remaining
		if got != want {
			t.Errorf("swept %v: %d tokens left, want %d", swept, got, want)
		}
	}
}

// Readers beside the applying goroutine always see limits and counters of one moment.
func TestPeeksBesideChanges(t *testing.T) {
	d := drive(t, 8)
	s := d.service()
	d.set(limit("a", ScopeTenant, "acme", "1/h", 10))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := s.Check(t.Context(), Request{Tenant: "acme"})
				if err != nil {
					t.Error(err)
					return
				}
				// The limit has burst 10 at odd versions and 20 at even ones, and loses its
				// only debit whenever its scope changes.
				l := got.Levels[0]
				if want := uint32(20 - 10*(got.Version%2)); l.Limit != want || l.Remaining != want && l.Remaining != want-1 {
					t.Errorf("version %d: %d of %d left", got.Version, l.Remaining, l.Limit)
					return
				}
			}
		})
	}
	for i := range 200 {
		l := limit("a", ScopeTenant, "acme", "1/h", 20)
		if i%2 == 1 {
			l = limit("a", ScopeKey, "acme/*", "1/h", 10)
		}
		d.set(l)
		d.Apply(appendCheck(nil, Request{Tenant: "acme", Cost: 1}))
	}
	close(stop)
	readers.Wait()
}

// A reader that sees the rows of a change before its limits are published waits for them.
func TestPeekWaitsForPublishedLimits(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("a", ScopeTenant, "acme", "1/h", 10))
	m := d.Machine().(*Machine)
	before := m.published.Load()
	d.set(limit("a", ScopeTenant, "acme", "1/h", 20))
	after := m.published.Swap(before)
	answer := make(chan Decision)
	go func() {
		got, err := d.service().Check(t.Context(), Request{Tenant: "acme"})
		if err != nil {
			t.Error(err)
		}
		answer <- got
	}()
	m.published.Store(after)
	if got := <-answer; got.Version != 2 || got.Levels[0].Limit != 20 {
		t.Errorf("%+v, want version 2 with burst 20", got)
	}
}

// A query that a restore has overtaken gives up as those that come later are refused.
func TestPeekGivesUpInARestore(t *testing.T) {
	d := drive(t, 8)
	m := d.Machine().(*Machine)
	before := m.published.Load()
	d.set(limit("a", ScopeTenant, "acme", "1/h", 20))
	m.published.Store(before)
	m.restoring.Store(true)
	if _, err := d.service().Check(t.Context(), Request{Tenant: "acme"}); !errors.Is(err, raftfsm.ErrRestoring) {
		t.Errorf("a query among rows of other limits: %v", err)
	}
}

func BenchmarkApplyCheck(b *testing.B) {
	for _, size := range []struct {
		name         string
		limits, keys int
	}{
		{"1 limit, 1 key", 1, 1},
		{"3 levels of 1000 limits, 1000 keys", 1000, 1000},
		{"3 levels of 1000 limits, 200000 keys", 1000, 200_000},
	} {
		b.Run(size.name, func(b *testing.B) {
			d := drive(b, cacheCounters)
			limits := []Limit{limit("tenant", ScopeTenant, "acme", "1000000/s", 1<<30)}
			if size.limits > 1 {
				limits = append(limits, limit("token", ScopeToken, "acme/*", "1000000/s", 1<<30), limit("key", ScopeKey, "*/route*", "1000000/s", 1<<30))
			}
			for i := len(limits); i < size.limits; i++ {
				limits = append(limits, limit(fmt.Sprint("other-", i), ScopeKey, fmt.Sprintf("acme/other-%d*", i), "1/s", 1))
			}
			d.set(limits...)
			cmds := make([][]byte, size.keys)
			for i := range cmds {
				cmds[i] = appendCheck(nil, Request{Tenant: "acme", Token: "t", Key: fmt.Sprint("route-", i), Cost: 1})
			}
			const batch = 64
			entry := make([][]byte, batch)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += batch {
				for i := range entry {
					entry[i] = cmds[(done+i)%len(cmds)]
				}
				d.Time += time.Millisecond
				d.Apply(entry...)
			}
		})
	}
}

var _ raftfsm.Machine = (*Machine)(nil)
