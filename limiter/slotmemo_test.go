package limiter

import (
	"testing"
	"time"
)

// fill holds n slots of weight 1 of a concurrency of n, a second more each.
func fill(tb testing.TB, n uint32) (*driven, Request) {
	d := drive(tb, 8)
	d.set(Limit{ID: "c", Scope: ScopeTenant, Selector: "acme", Concurrency: Concurrency{Limit: n, TTL: "1h"}})
	for i := range n {
		ttl := time.Duration(1+i%3600) * time.Second
		if h, err := d.service().Acquire(tb.Context(), Request{Tenant: "acme", Cost: 1}, ttl); err != nil || !h.Allow {
			tb.Fatalf("slot %d: %+v, %v", i, h, err)
		}
	}
	return d, Request{Tenant: "acme", Cost: n}
}

// What is remembered of slots gives the same advice as their rows, as they come, go and expire.
func TestRememberedSlotsAdviseLikeTheirRows(t *testing.T) {
	d, r := fill(t, 300)
	m := d.Machine().(*Machine)
	same := func(what string) {
		t.Helper()
		for _, cost := range []uint32{150, 1, 2, 299, 300, 301} {
			r.Cost = cost
			remembered, err := d.service().Acquire(t.Context(), r, 0)
			if err != nil || remembered.Allow {
				t.Fatalf("%s, weight %d: %+v, %v", what, cost, remembered, err)
			}
			if m.slots.find(slotPrefix(1, "acme", "")) == nil {
				t.Fatalf("%s: the slots are not remembered", what)
			}
			kept := m.slots
			m.slots = slotMemo{after: concurrencyMax}
			if read, err := d.service().Acquire(t.Context(), r, 0); err != nil || read.String() != remembered.String() {
				t.Errorf("%s, weight %d: %v, and from the rows %v, %v", what, cost, remembered.Decision, read.Decision, err)
			}
			m.slots = kept
		}
	}
	same("full")
	d.Time += 100 * time.Second
	if h, err := d.service().Acquire(t.Context(), Request{Tenant: "acme", Cost: 100}, time.Minute); err != nil || !h.Allow {
		t.Fatalf("in the place of those that have expired: %+v, %v", h, err)
	}
	same("some expired, one taken")
}

// BenchmarkDeniedAcquire is of the largest weight, with as many slots held as can be.
func BenchmarkDeniedAcquire(b *testing.B) {
	d, r := fill(b, concurrencyMax)
	for name, after := range map[string]int{"remembered": slotRowsRead, "rows": concurrencyMax} {
		b.Run(name, func(b *testing.B) {
			d.Machine().(*Machine).slots = slotMemo{after: after}
			for b.Loop() {
				if h, err := d.service().Acquire(b.Context(), r, 0); err != nil || h.Allow {
					b.Fatal(h, err)
				}
			}
		})
	}
}
