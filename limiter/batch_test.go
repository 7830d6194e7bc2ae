package limiter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A batch decides as the same checks one by one, also where a member does not know batches yet.
func TestBatchDecidesLikeSingleChecks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		single, batched := drive(t, 3), drive(t, 3)
		limits := genLimits().Draw(rt, "limits")
		single.set(limits...)
		batched.set(limits...)
		s := batched.service()
		if rapid.IntRange(0, 3).Draw(rt, "old members") == 0 {
			s.groups = oldMembers{batched}
		}
		var now time.Duration
		for range rapid.IntRange(1, 5).Draw(rt, "batches") {
			now += genPause().Draw(rt, "pause")
			all := rapid.SliceOfN(genRequest(), 0, 12).Draw(rt, "checks")
			for _, d := range []*driven{single, batched} {
				d.check(now, Request{Tenant: "nobody", Cost: 1}) // what takes nothing alone is as of the last entry
			}
			got, err := s.CheckBatch(t.Context(), all)
			if err != nil || len(got) != len(all) {
				rt.Fatalf("%d outcomes of %d, error %v", len(got), len(all), err)
			}
			for i, r := range all {
				if want := single.check(now, r); got[i].Err != nil || fmt.Sprint(got[i].Decision) != fmt.Sprint(want) {
					rt.Fatalf("check %d %+v: %v %v\nalone %v", i, r, got[i].Decision, got[i].Err, want)
				}
			}
		}
		if single.StateHash() != batched.StateHash() {
			rt.Fatal("the states differ")
		}
	})
}

type oldMembers struct{ *driven }

func (oldMembers) Level() int { return raftfsm.LevelMembers }

// A batch of any size takes few commands, each of which fits into an entry.
func TestLargeBatchIsSplit(t *testing.T) {
	d := drive(t, 8)
	d.set(windowed("w", "acme", 1500, "1h"))
	long := strings.Repeat("x", SubjectBytesMax)
	all := make([]Request, 2000)
	for i := range all {
		all[i] = Request{Tenant: "acme", Token: long, Key: long, Cost: 1}
	}
	got, err := d.service().CheckBatch(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range got {
		if o.Err != nil || o.Decision.Allow != (i < 1500) {
			t.Fatalf("check %d: %v, %v", i, o.Decision, o.Err)
		}
	}
}

func TestBatchRefusesBeforeItBegins(t *testing.T) {
	d := drive(t, 8)
	d.set(windowed("w", "acme", 5, "1h"))
	_, err := d.service().CheckBatch(t.Context(), []Request{{Tenant: "acme", Cost: 1}, {Tenant: "Acme"}, {Tenant: "acme", RequestID: strings.Repeat("r", RequestIDBytesMax+1)}})
	const want = `checks[1]: tenant: must be 1 to 63 of the characters a-z 0-9 . _ -
checks[2]: request_id: must be at most 128 bytes, not 129`
	if !errors.Is(err, ErrInvalid) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if got := d.check(0, Request{Tenant: "acme"}); got.Levels[0].Remaining != 5 {
		t.Errorf("something was taken: %v", got)
	}
}

// A batch that is repeated takes nothing again for its checks with request ids, which can be refunded.
func TestNamedChecksOfABatchAreDecidedOnce(t *testing.T) {
	r := startRegion(t, 1, limit("a", ScopeTenant, "*", "100/d", 1000), hourly("all", ScopeGlobal, anyTenant, 1_000_000))
	defer r.close()
	n := r.nodes[0]
	all := make([]Request, 100)
	for i := range all {
		all[i] = Request{Tenant: "acme", Cost: 1}
		if i%2 == 1 {
			all[i].RequestID = fmt.Sprint(i)
		}
	}
	for range 3 {
		out, err := n.CheckBatch(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Err != nil || !o.Decision.Allow || len(o.Decision.Levels) != 2 {
				t.Fatalf("check %d: %+v", i, o)
			}
		}
	}
	if used := r.used(t); used != 3*50+50 {
		t.Errorf("%d used, want 50 once and 50 three times", used)
	}
	if got, err := n.Refund(t.Context(), "acme", "1", 0); err != nil || got != 1 {
		t.Errorf("refund: %d, %v", got, err)
	}
	again := all[1]
	again.Cost = 2
	if out, err := n.CheckBatch(t.Context(), []Request{all[0], again}); err != nil || out[0].Err != nil || !errors.Is(out[1].Err, raftfsm.ErrRequestReused) {
		t.Errorf("another check with an id that was used: %+v, %v", out, err)
	}
}

// A peek answers what a check would, takes nothing, and tells what is used and until when.
func TestPeekTellsWhatACheckWould(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drive(t, 3)
		d.set(genLimits().Draw(rt, "limits")...)
		var now time.Duration
		for range rapid.IntRange(1, 20).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			r := genRequest().Draw(rt, "request")
			d.check(now, Request{Tenant: "nobody", Cost: 1}) // counters are seen as of the last entry
			got, err := d.service().Peek(t.Context(), r)
			if err != nil {
				rt.Fatal(err)
			}
			want := d.check(now, r)
			if got.Allow != want.Allow || got.Reason != want.Reason || got.RetryAfterMs != want.RetryAfterMs || got.LimitID != want.LimitID {
				rt.Fatalf("at %v, %+v: peek %v, check %v", now, r, got, want)
			}
			all, err := d.service().Peek(t.Context(), Request{Tenant: r.Tenant, Token: r.Token, Key: r.Key})
			if err != nil {
				rt.Fatal(err)
			}
			var longest uint32
			for _, l := range all.Levels {
				if l.Used+l.Remaining < l.Limit || l.Used > 0 && l.ResetMs == 0 {
					rt.Fatalf("level %+v", l)
				}
				longest = max(longest, l.ResetMs)
			}
			now += time.Duration(longest) * 999 * time.Microsecond
			d.check(now, Request{Tenant: "nobody", Cost: 1})
			all, err = d.service().Peek(t.Context(), Request{Tenant: r.Tenant, Token: r.Token, Key: r.Key})
			for _, l := range all.Levels {
				if err != nil || l.Used != 0 || l.ResetMs != 0 {
					rt.Fatalf("after its reset: %+v, %v", l, err)
				}
			}
		}
	})
}
