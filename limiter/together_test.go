package limiter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func part(tenant, token string, cost uint32) Part {
	return Part{Request: Request{Tenant: tenant, Token: token, Cost: cost}}
}

// Parts that share a limit see each other's debits, and one that does not fit takes the others
// with it.
func TestPartsPassTogetherOrNotAtAll(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("shared", ScopeTenant, "acme", "1/d", 5), limit("own", ScopeToken, "acme/*", "1/d", 2))
	s := d.service()
	ask := func(parts ...Part) string {
		t.Helper()
		got, err := s.CheckTogether(t.Context(), parts)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, d := range got {
			lines = append(lines, strings.ReplaceAll(d.String(), "\n", "; "))
		}
		return strings.Join(lines, "\n")
	}
	peek := part("acme", "ana", 3)
	peek.Peek = true
	for _, step := range []struct{ got, want string }{
		{
			ask(part("acme", "ana", 1), part("acme", "bob", 2)),
			"allow; shared (tenant): 4 of 5 left; own (token): 1 of 2 left\nallow; shared (tenant): 2 of 5 left; own (token): 0 of 2 left",
		},
		{ // ana would have room, and keeps it
			ask(part("acme", "ana", 1), part("acme", "bob", 1)),
			"allow; shared (tenant): 2 of 5 left; own (token): 1 of 2 left\n" +
				"deny limited by own, retry after 86486487 ms; shared (tenant): 1 of 5 left; own (token): 0 of 2 left",
		},
		{ // each alone would fit into what is shared, both do not
			ask(part("acme", "cyd", 1), part("acme", "dan", 2)),
			"allow; shared (tenant): 2 of 5 left; own (token): 2 of 2 left\n" +
				"deny limited by shared, retry after 86486487 ms; shared (tenant): 1 of 5 left; own (token): 2 of 2 left",
		},
		{
			ask(part("acme", "cyd", 1), peek),
			"allow; shared (tenant): 2 of 5 left; own (token): 2 of 2 left\n" +
				"deny cost_exceeds_limit by own, retry after 0 ms; shared (tenant): 1 of 5 left; own (token): 1 of 2 left",
		},
	} {
		if step.got != step.want {
			t.Errorf("got\n%s\nwant\n%s", step.got, step.want)
		}
	}
	if got := d.check(0, part("acme", "cyd", 0).Request).String(); got != "allow\nshared (tenant): 2 of 5 left\nown (token): 2 of 2 left" {
		t.Errorf("after all: %s", got)
	}
}

// One part is a check; and what parts take, or leave when they do not pass, is what the same checks
// take one by one.
func TestPartsTakeWhatChecksTake(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		apart, together := drive(t, 3), drive(t, 3)
		limits := genLimits().Draw(rt, "limits")
		apart.set(limits...)
		together.set(limits...)
		var now time.Duration
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			now += genPause().Draw(rt, "pause")
			parts := rapid.SliceOfN(rapid.Map(genRequest(), func(r Request) Part {
				r.Tenant = "acme"
				return Part{Request: r}
			}), 1, 5).Draw(rt, "parts")
			together.Time = now
			before := together.StateHash()
			got, err := together.service().CheckTogether(t.Context(), parts)
			if err != nil {
				rt.Fatal(err)
			}
			all := true
			for _, d := range got {
				all = all && d.Allow
			}
			if !all {
				if together.StateHash() != before {
					rt.Fatal("parts that do not pass took something")
				}
				continue
			}
			for i, p := range parts {
				if want := apart.check(now, p.Request); fmt.Sprint(got[i]) != fmt.Sprint(want) {
					rt.Fatalf("part %d: %v\nalone %v", i, got[i], want)
				}
			}
		}
		if apart.StateHash() != together.StateHash() {
			rt.Fatal("the states differ")
		}
	})
}

func TestPartsAreOfOneTenant(t *testing.T) {
	d := drive(t, 8)
	_, err := d.service().CheckTogether(t.Context(), []Part{part("acme", "", 1), part("globex", "", 1)})
	if !errors.Is(err, ErrInvalid) || err.Error() != "parts[1].tenant: must be the same in all parts" {
		t.Errorf("got %v", err)
	}
	if _, err := d.service().CheckTogether(t.Context(), make([]Part, TogetherMax+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
}

// While a member is older, parts are decided one by one.
func TestPartsWithOldMembers(t *testing.T) {
	d := drive(t, 8)
	d.set(limit("one", ScopeToken, "acme/*", "1/d", 1))
	s := d.service()
	s.groups = oldMembers{d}
	got, err := s.CheckTogether(t.Context(), []Part{part("acme", "ana", 1), part("acme", "bob", 2)})
	if err != nil || !got[0].Allow || got[1].Allow {
		t.Fatalf("%v, %v", got, err)
	}
	if d.check(0, part("acme", "ana", 1).Request).Allow {
		t.Error("the first was not taken")
	}
}
