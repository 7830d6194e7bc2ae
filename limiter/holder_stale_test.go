package limiter

import (
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// heldAlone is one holder's table beside its group, with messages that a test carries by hand.
type heldAlone struct {
	t     *testing.T
	group *machineGroup
	table *holderTable
	now   int64
}

func newHeldAlone(t *testing.T, limits ...Limit) *heldAlone {
	h := &heldAlone{t: t, group: newMachineGroup(t, limits...), now: int64(2 * time.Second)}
	h.table = newHolderTable(1, 1, func() int64 { return h.now }, func(string) raftfsm.GroupID { return testGroup },
		map[raftfsm.GroupID]limitSource{testGroup: h.group.published()})
	return h
}

func (h *heldAlone) check(cost uint32) (Decision, heldAnswer) {
	var d Decision
	c := heldCheck{request: &Request{Tenant: "acme", Cost: cost}, decision: &d}
	h.table.check(&c)
	return d, c.answer
}

// send carries the next message to the group; the answer comes back, or is lost.
func (h *heldAlone) send(lost bool) {
	h.t.Helper()
	b, all := h.table.prepare(h.table.groups[testGroup], h.now)
	if len(all) == 0 {
		h.t.Fatal("there is nothing to send")
	}
	grants := h.group.renew(h.now/1000, h.table.holder, all)
	if lost {
		h.table.fail(b)
	} else {
		h.table.answer(b, grants, h.now)
	}
	h.table.groups[testGroup].queue.finish(b)
}

// An answer to a message that was sent again is one to its first sending. What came back to the group since
// then, or another limit, is not in it, so it denies nothing.
func TestAnAnswerToARepeatedMessageIsOld(t *testing.T) {
	for name, change := range map[string]func(h *heldAlone){
		"a refund":        func(h *heldAlone) { h.table.forget("acme") },
		"a larger limit":  func(h *heldAlone) { h.group.configure(h.now/1000, limit("a", ScopeTenant, "acme", "100/s", 1000)) },
		"nothing changed": func(*heldAlone) {},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeldAlone(t, limit("a", ScopeTenant, "acme", "100/s", 200))
			if d, _ := h.group.check(h.now/1000, Request{Tenant: "acme", Cost: 200}); !d.Allow {
				t.Fatalf("%+v", d)
			}
			if _, answer := h.check(1); answer != heldLacks {
				t.Fatalf("answer %d", answer)
			}
			h.send(true) // the group lends what has yet to flow back, and nobody here knows
			change(h)
			if _, answer := h.check(1); answer != heldLacks {
				t.Fatalf("answer %d", answer)
			}
			h.send(false)
			d, answer := h.check(1)
			if denied := answer == heldDenied; denied != (name == "nothing changed") {
				t.Errorf("answer %d: %+v", answer, d)
			}
		})
	}
}

// A denial that was decided before tokens came back, and arrives afterwards, is not remembered.
func TestADenialFromBeforeARefundIsNotRemembered(t *testing.T) {
	for _, known := range []bool{true, false} {
		h := newHeldAlone(t, windowed("a", "acme", 10, "1h"))
		r := Request{Tenant: "acme", Cost: 1}
		deny := func(sent int64) {
			h.table.deny(&r, &Decision{Reason: ReasonLimited, LimitID: "a", Kind: KindWindow, RetryAfterMs: 5000, Version: h.group.published().Load().version}, sent, false)
		}
		if known { // the tenant, by an earlier denial that is over
			deny(h.now)
			h.now += int64(2 * time.Second)
		}
		sent := h.now
		h.now++
		h.table.forget("acme") // the replica here has applied the refund
		h.now++
		deny(sent)
		if d, answer := h.check(1); answer == heldDenied {
			t.Errorf("tenant known %v: denied by %+v", known, d)
		}
		deny(h.now)
		if _, answer := h.check(1); answer != heldDenied {
			t.Errorf("tenant known %v: answer %d, want a later denial to be remembered", known, answer)
		}
	}
}
