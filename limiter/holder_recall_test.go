package limiter

import (
	"testing"
	"unsafe"
)

// What is remembered of a recall does not change with the message that the request came in.
func TestRecallsKeepNoTextOfARequest(t *testing.T) {
	var log recallLog
	message := []byte("acme")
	all := []Recall{{Limit: 1, Holders: []Holder{1}}}
	log.begin(unsafe.String(&message[0], len(message)), all, 1)
	copy(message, "none")
	if mine, _, others := log.begin("acme", all, 2); len(mine) != 0 || len(others) != 1 {
		t.Errorf("after the message has gone: %d recalls to begin, %d under way", len(mine), len(others))
	}
}

// A check that not even all that is lent would let pass takes it from nobody, however it is asked.
func TestHopelessChecksRecallNothing(t *testing.T) {
	r := startRegion(t, 2, limit("a", ScopeTenant, "acme", "100/d", 1000))
	defer r.close()
	holder, asker := r.nodes[0], r.nodes[1]
	asker.ask(t, Request{Tenant: "acme", Cost: 500, RequestID: "much"})
	one := Request{Tenant: "acme", Cost: 1}
	if d := holder.ask(t, one); d.Source != SourceLease {
		t.Fatalf("%+v, want a lease", d)
	}
	large := Request{Tenant: "acme", Cost: 900}
	if d := asker.ask(t, large); d.Allow || d.RetryAfterMs < 1000 {
		t.Errorf("%+v, want the time until as much has flowed back", d)
	}
	if out, err := asker.CheckBatch(t.Context(), []Request{large, large}); err != nil || out[0].Decision.Allow || out[1].Decision.Allow {
		t.Errorf("batch: %+v, %v", out, err)
	}
	if out, err := asker.CheckTogether(t.Context(), []Part{{Request: large}}); err != nil || out[0].Allow {
		t.Errorf("together: %+v, %v", out, err)
	}
	large.RequestID = "large"
	if d := asker.ask(t, large); d.Allow {
		t.Errorf("with a request id: %+v", d)
	}
	if d := holder.ask(t, one); d.Source != SourceLease {
		t.Errorf("the holder afterwards: %+v, want its lease", d)
	}
	// What it does let pass it still has returned.
	if d := asker.ask(t, Request{Tenant: "acme", Cost: 498}); !d.Allow {
		t.Errorf("all that is left: %+v", d)
	}
}

// Whoever was recalled asks again a second later at most, however slowly the limit fills.
func TestRecalledHoldersAskAgainSoon(t *testing.T) {
	r := startRegion(t, 1, limit("a", ScopeTenant, "acme", "100/d", 1000))
	defer r.close()
	n := r.nodes[0]
	if d := n.ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLease {
		t.Fatalf("%+v, want a lease", d)
	}
	now := n.leases.options.Clock.Steady()
	n.leases.table.recall("acme", []Recall{{Limit: 1, Holders: []Holder{n.leases.table.holder}}}, now)
	s := n.leases.table.shardOf(hashString(n.leases.table.seed, "acme"))
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.anyLease(s.tenants["acme"], 1, "")
	if l == nil || !l.postponed(now+int64(scarceMin)/2) || l.postponed(now+int64(scarceMax)+2_000_000) {
		t.Errorf("%+v, want nothing asked for a moment, and for a second at most", l)
	}
}
