package limiter

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Limits that only watch change nothing about any decision.
func TestShadowsDecideNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plain, watched := drive(t, 3), drive(t, 3)
		limits := genLimits().Draw(rt, "limits")
		plain.set(limits...)
		for i, l := range genLimits().Draw(rt, "shadows") {
			l.ID, l.Enforcement = fmt.Sprint("shadow-", i), EnforcementShadow
			limits = append(limits, l)
		}
		watched.set(limits...)
		var now time.Duration
		for range rapid.IntRange(1, 40).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			r := genRequest().Draw(rt, "request")
			a, b := plain.check(now, r), watched.check(now, r)
			if a.Allow != b.Allow || a.Reason != b.Reason || a.LimitID != b.LimitID || a.Kind != b.Kind || a.RetryAfterMs != b.RetryAfterMs {
				rt.Fatalf("at %v, %+v: %v\nwith shadows %v", now, r, a, b)
			}
		}
	})
}

// A limit that only watches would deny exactly what it denies when it is enforced.
func TestShadowsTellTheTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		enforced, watching := drive(t, 3), drive(t, 3)
		limits := genLimits().Draw(rt, "limits")
		if len(limits) == 0 {
			rt.Skip("no limit")
		}
		l := limits[0]
		enforced.set(l)
		l.Enforcement = EnforcementShadow
		watching.set(l)
		var now time.Duration
		for range rapid.IntRange(1, 40).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			r := genRequest().Draw(rt, "request")
			want, got := enforced.check(now, r), watching.check(now, r)
			if !got.Allow || got.WouldDeny() == want.Allow {
				rt.Fatalf("at %v, %+v: %v\nas a shadow %v", now, r, want, got)
			}
		}
	})
}

// The canaries of a small share are about that many, and stay canaries when it grows.
func TestCanariesStayIn(t *testing.T) {
	in := func(share uint32) map[string]bool {
		out := map[string]bool{}
		for i := range 10_000 {
			if tenant := fmt.Sprint("tenant-", i); !(Limit{Canary: share}).shadows(tenant) {
				out[tenant] = true
			}
		}
		return out
	}
	small, large := in(5), in(30)
	if len(small) < 400 || len(small) > 600 || len(in(100)) != 10_000 {
		t.Errorf("%d of 10000 are in a share of 5%%, %d in one of 100%%", len(small), len(in(100)))
	}
	for tenant := range small {
		if !large[tenant] {
			t.Errorf("%s left the canaries when there were more", tenant)
		}
	}
	if got := weight("acme", canarySalt) % 100; got != 31 {
		t.Errorf("acme is in from a share of %d%% on; the choice must never change", got+1)
	}
}

// With debt, a large request passes only when nothing is used, and what it took beyond the limit
// is paid back before anything else passes: advice is exact all the same.
func TestDebtIsPaidBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drive(t, 2)
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Oversize: OversizeDebt}
		if parts := rapid.IntRange(1, 3).Draw(rt, "parts"); parts&1 != 0 {
			l.TokenBucket = TokenBucket{genRate().Draw(rt, "rate"), rapid.Uint32Range(1, 20).Draw(rt, "burst")}
		} else if parts&2 != 0 {
			l.Window = genWindow().Draw(rt, "window")
		}
		if len(problemsOf(l)) > 0 {
			rt.Skip("refused by Validate")
		}
		d.set(l)
		var now time.Duration
		for range rapid.IntRange(1, 20).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			r := Request{Tenant: "acme", Cost: rapid.Uint32Range(1, 200).Draw(rt, "cost")}
			before := d.check(now, Request{Tenant: "acme"})
			got := d.check(now, r)
			for _, level := range before.Levels {
				if got.Allow && r.Cost > level.Limit && level.Remaining < level.Limit {
					rt.Fatalf("%d of %d passed beside others: %v", r.Cost, level.Limit, before)
				}
			}
			if got.Reason != ReasonLimited {
				continue
			}
			now = takeAdvice(rt, d, now, r, got)
		}
	})
}

func TestPoliciesBelongToThePlatform(t *testing.T) {
	for _, c := range []struct {
		l    Limit
		want string
	}{
		{Limit{Selector: "acme/x", Window: Window{5, "1h"}}, "acme"},
		{Limit{Selector: "acme/x", Access: AccessBanned}, "*"},
		{Limit{Selector: "acme", Overrides: "b"}, "*"},
	} {
		if got := c.l.Keeper(); got != c.want {
			t.Errorf("%+v is kept by %s, want %s", c.l, got, c.want)
		}
	}
}
