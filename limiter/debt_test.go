package limiter

import (
	"testing"
	"time"
)

// What is lent ends or is reported beside a debt that nothing can count any more; rows stay readable.
func TestLeasesBesideDebtWithoutEnd(t *testing.T) {
	for name, spent := range map[string]bool{"reported": true, "burned": false} {
		t.Run(name, func(t *testing.T) {
			d := leasedMachine(t, Limit{
				ID: "a", Scope: ScopeTenant, Selector: "acme",
				Window: Window{Limit: 10_000, Length: "1d"}, Calendar: Calendar{Limit: 10_000, Period: PeriodMonth},
			})
			g := d.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 10})
			if later := d.renew(5, 2, Renewal{Epoch: 1, Seq: 1, Want: 10}); g.Granted != 10 || later.Granted != 10 {
				t.Fatalf("%+v, %+v", g, later)
			}
			d.owe(t, d.reserve(t, 6), 4_000_000_000)
			if !spent {
				d.Time = g.TTL + 2*time.Microsecond // the first lease has ended, the second one not yet
			}
			d.renew(d.Time.Microseconds(), 2, Renewal{Epoch: 1, Seq: 2, Spent: 10})
			d.readable(t)
		})
	}
}

// However many slots a debt has made, a lease that ends adds none that a row cannot hold.
func TestLeasesBesideDebtInManySlots(t *testing.T) {
	l := windowed("a", "acme", 10_000, "1d")
	d := leasedMachine(t, l)
	g := d.renew(1, 1, Renewal{Epoch: 1, Seq: 1, Want: 10})
	ids := d.reserve(t, slotsMax+2)
	l.Window.Limit = logMax // from here on each commit has a slot of its own
	d.set(l)
	d.owe(t, ids[:slotsMax+1], 2)
	d.Time += g.TTL
	d.owe(t, ids[slotsMax+1:], 2)
	d.readable(t)
}

func (d *leased) reserve(t *testing.T, times int) (ids []string) {
	t.Helper()
	for range times {
		h, err := d.service().Reserve(t.Context(), Request{Tenant: "acme", Cost: 1}, time.Hour)
		if err != nil || h.ID == "" {
			t.Fatalf("%+v, %v", h, err)
		}
		ids = append(ids, h.ID)
	}
	return ids
}

// owe commits reservations for more than was reserved, each at a moment of its own.
func (d *leased) owe(t *testing.T, ids []string, actual uint32) {
	t.Helper()
	for _, id := range ids {
		d.Time += time.Microsecond
		if _, err := d.service().Commit(t.Context(), "acme", id, actual); err != nil {
			t.Fatal(err)
		}
	}
}

// readable reads what is stored again, and denies a check.
func (d *leased) readable(t *testing.T) {
	t.Helper()
	d.Restart()
	d.driven.sweep()
	if got := d.driven.check(d.Time, Request{Tenant: "acme", Cost: 1}); got.Allow {
		t.Error("passed after debt")
	}
}
