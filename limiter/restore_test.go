package limiter

import (
	"errors"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A restored group has the limits of the backup, and every counter is empty at the moment of
// the restore: those that had been used, those that never were, and those of limits that come
// later. They refill from then on, and survive restarts and sweeps.
func TestRestoredCountersAreEmpty(t *testing.T) {
	from := drive(t, 16)
	from.Time = 1000 * time.Hour // group time is another one there
	from.set(limit("t", ScopeTenant, "acme", "10/s", 20), limit("k", ScopeKey, "acme/*", "1/s", 5))
	from.set(limit("t", ScopeTenant, "acme", "2/s", 20), limit("k", ScopeKey, "acme/*", "1/s", 5))
	from.check(1000*time.Hour, Request{Tenant: "acme", Key: "used", Cost: 5})

	to := drive(t, 16)
	to.Time = time.Minute
	if err := to.Restore(from.Backup(2)...); err != nil {
		t.Fatal(err)
	}
	if v, err := to.service().Version(t.Context(), testGroup, raftfsm.Linearizable); err != nil || v != 2 {
		t.Fatalf("version %d, %v", v, err)
	}
	for _, key := range []string{"used", "never"} {
		if d := to.check(time.Minute, Request{Tenant: "acme", Key: key, Cost: 1}); d.Allow || d.RetryAfterMs != 1002 {
			t.Errorf("%s at once: %v", key, d)
		}
	}
	to.Restart()
	d := to.check(time.Minute+2500*time.Millisecond, Request{Tenant: "acme", Key: "used", Cost: 2})
	if !d.Allow || d.Levels[0].Remaining != 3 || d.Levels[1].Remaining != 0 {
		t.Errorf("after 2.5 s of 2/s and 1/s, two taken: %v", d)
	}
	// The sweep forgets no counter that would come back emptier.
	to.set(limit("t", ScopeTenant, "acme", "2/s", 20), limit("k", ScopeKey, "acme/*", "1/s", 50), limit("new", ScopeTenant, "beta", "1/s", 100))
	rows := to.counters()
	to.Time = time.Minute + 30*time.Second
	to.sweep()
	if got := to.counters(); got != rows-1 {
		t.Errorf("%d counters of %d are left, want all but the full one of 2/s", got, rows)
	}
	if d := to.check(time.Minute+30*time.Second, Request{Tenant: "beta"}); d.Levels[0].Remaining != 30 {
		t.Errorf("a limit that came after the restore: %v", d)
	}
	if d := to.check(time.Minute+200*time.Second, Request{Tenant: "beta", Cost: 100}); !d.Allow {
		t.Errorf("once all has refilled: %v", d)
	}
}

// The rate of a counter without a row is the one that held, also after it changed.
func TestEmptiedCounterFollowsItsRates(t *testing.T) {
	d := drive(t, 16)
	d.Time = time.Second
	if err := d.Restore(); err != nil {
		t.Fatal(err)
	}
	d.set(limit("t", ScopeTenant, "acme", "1/s", 100))
	d.Time = 11 * time.Second
	d.set(limit("t", ScopeTenant, "acme", "5/s", 100))
	if got := d.check(13*time.Second, Request{Tenant: "acme"}); got.Levels[0].Remaining != 20 {
		t.Errorf("after 10 s of 1/s and 2 s of 5/s: %v", got)
	}
	for i := range generationsMax + 1 { // the first rates are forgotten
		d.Time = time.Duration(20+i) * time.Second
		d.set(limit("t", ScopeTenant, "acme", []string{"2/s", "1/s"}[i%2], 100))
	}
	if got := d.check(37*time.Second, Request{Tenant: "acme"}); got.Levels[0].Remaining > 50 {
		t.Errorf("a forgotten rate gave tokens: %v", got)
	}
}

func TestRestoreRefusesOtherRows(t *testing.T) {
	used := drive(t, 16)
	used.set(limit("t", ScopeTenant, "acme", "1/s", 1))
	chunks := used.Backup(10)
	if err := used.Restore(chunks...); !errors.Is(err, raftfsm.ErrNotEmpty) {
		t.Errorf("a group with limits: %v", err)
	}
	good := used.Machine().(*Machine).set.byID["t"]
	for what, chunk := range map[string][]byte{
		"a counter":          raftfsm.AppendRow(nil, appendCounterKey(nil, 1, "acme", ""), appendCounter(nil, counter{unit: 1})),
		"another limit's id": raftfsm.AppendRow(nil, limitKey("u"), encodeLimitRow(good)),
		"a bad version":      raftfsm.AppendRow(nil, []byte{tableConfig}, []byte{9}),
		"no version":         raftfsm.AppendRow(nil, limitKey("t"), encodeLimitRow(good)),
	} {
		d := drive(t, 16)
		if err := d.Restore(chunk); !errors.Is(err, raftfsm.ErrRestoreRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
