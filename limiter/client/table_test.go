package client

import (
	"context"
	"strings"
	"testing"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// lentTable is a connected table that knows the route of a key, and has no tokens of it.
func lentTable(t *testing.T, key string) *leaseTable {
	t.Helper()
	table := newLeaseTable(func() int64 { return int64(time.Hour) })
	table.connected("acme")
	var asked uint64
	if _, v, _ := table.check(&Request{Key: key, Cost: 1}, &asked); v != elsewhere {
		t.Fatalf("a first check: %v", v)
	}
	m, out := table.prepare()
	if m == nil || len(out.GetAsks()) != 1 || out.GetAsks()[0].GetKey() != key {
		t.Fatalf("asked %v", out)
	}
	table.answer(m, []*limiterv1.LeaseAnswer{{LimitsVersion: 1, Lent: true, Levels: []*limiterv1.LeaseLevel{
		{Limit: 1, Subject: key, SpanUs: 1_000_000, Most: 1000, Chunk: 16},
	}}})
	return table
}

// A token or key that no node takes is not asked for, since all that the same message tells would be
// refused with it, or the stream end.
func TestRefusedTextsAreNotAskedFor(t *testing.T) {
	table := lentTable(t, "k")
	long := strings.Repeat("x", textBytesMax+1)
	for _, r := range []Request{{Key: long}, {Token: long}, {Key: "\xff"}, {Token: "\xff"}, {Tenant: "\xff"}} {
		r.Cost = 1
		var asked uint64
		if _, v, _ := table.check(&r, &asked); v != elsewhere {
			t.Errorf("%+v: %v, want that a node decides", r, v)
		}
	}
	if m, out := table.prepare(); m != nil {
		t.Errorf("asked for %v", out)
	}
	var asked uint64
	if _, v, _ := table.check(&Request{Key: long[1:], Cost: 1}, &asked); v != elsewhere || len(table.ask) != 1 {
		t.Errorf("the longest key: %v, and %d asks", v, len(table.ask))
	}
}

// All checks of a batch share the time for which one waits for a node that does not answer.
func TestBatchWaitsOnce(t *testing.T) {
	l := &Limiter{table: lentTable(t, "k")}
	ctx, cancel := context.WithTimeout(t.Context(), 30*patience)
	defer cancel()
	var w waiting
	defer w.end()
	for range 100 {
		if _, ok := l.checkHere(ctx, &Request{Key: "k", Cost: 1}, &w); ok {
			t.Fatal("passed without a token")
		}
	}
	if !w.over || ctx.Err() != nil {
		t.Errorf("patience over: %v, and the call: %v", w.over, ctx.Err())
	}
}
