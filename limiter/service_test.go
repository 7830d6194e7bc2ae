package limiter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

func TestCheckRefusesMalformedRequests(t *testing.T) {
	s := drive(t, 1).service()
	long := strings.Repeat("x", SubjectBytesMax+1)
	_, err := s.Check(t.Context(), Request{Tenant: "Acme", Token: long, Key: "\xff", RequestID: long})
	const want = `tenant: must be 1 to 63 of the characters a-z 0-9 . _ -
token: must be at most 256 bytes, not 257
key: must be valid UTF-8
request_id: must be at most 128 bytes, not 257`
	if !errors.Is(err, ErrInvalid) || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestRetriedCheckIsDecidedOnce(t *testing.T) {
	d := drive(t, 1)
	d.set(limit("a", ScopeTenant, "*", "1/h", 3))
	s := d.service()
	ask := func(r Request) Decision {
		t.Helper()
		got, err := s.Check(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	r := Request{Tenant: "acme", Cost: 2, RequestID: "r1"}
	if first, again := ask(r), ask(r); !first.Allow || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("first %v, retry %v; want the same, allowed", first, again)
	}
	if left := ask(Request{Tenant: "acme"}).Levels[0].Remaining; left != 1 {
		t.Errorf("%d tokens left after one debit of 2 of 3, want 1", left)
	}
	// The same id of another tenant is another request.
	r.Tenant = "globex"
	if got := ask(r); !got.Allow || got.Levels[0].Remaining != 1 {
		t.Errorf("other tenant: %v, want a debit of its own", got)
	}
	r.Cost = 1
	if _, err := s.Check(t.Context(), r); !errors.Is(err, raftfsm.ErrRequestReused) {
		t.Errorf("other content with a known id: error %v, want ErrRequestReused", err)
	}
}

// A request that takes nothing and has no id is a read: it leaves no log entry.
func TestPeekProposesNothing(t *testing.T) {
	d := drive(t, 1)
	d.set(limit("a", ScopeTenant, "acme", "1/s", 3))
	d.check(0, Request{Tenant: "acme", Cost: 2})
	d.check(time.Second, Request{Tenant: "globex", Cost: 1})
	peek := NewService(readOnly{d}, []raftfsm.GroupID{testGroup})
	got, err := peek.Check(t.Context(), Request{Tenant: "acme"})
	if err != nil || !got.Allow || got.Levels[0].Remaining != 2 {
		t.Errorf("peek: %v, %v; want 2 left as of the last entry, a second later", got, err)
	}
	// After a restart, the time of the last entry is not known before the next one.
	d.Restart()
	got, err = peek.Check(t.Context(), Request{Tenant: "acme"})
	if err != nil || got.Levels[0].Remaining != 1 {
		t.Errorf("peek after a restart: %v, %v; want 1 left", got, err)
	}
}

type readOnly struct{ *driven }

func (readOnly) Propose(context.Context, raftfsm.GroupID, raftfsm.Command) (raftfsm.Result, error) {
	return raftfsm.Result{}, errors.New("proposed")
}

func TestCheckBoundsTheLimitsThatMatch(t *testing.T) {
	d := drive(t, 1)
	var limits []Limit
	for i := range levelsMax + 1 {
		limits = append(limits, limit(fmt.Sprint(i), ScopeTenant, "acme", "1/s", 3))
	}
	d.set(limits...)
	for _, cost := range []uint32{0, 1} {
		if _, err := d.service().Check(t.Context(), Request{Tenant: "acme", Cost: cost}); !errors.Is(err, ErrTooManyLimits) {
			t.Errorf("cost %d: error %v, want ErrTooManyLimits", cost, err)
		}
	}
	d.set(limits[1:]...)
	if got, err := d.service().Check(t.Context(), Request{Tenant: "acme", Cost: 1}); err != nil || len(got.Levels) != levelsMax {
		t.Errorf("%d levels, error %v; want %d", len(got.Levels), err, levelsMax)
	}
}

func TestConfigureFollowsVersions(t *testing.T) {
	d := drive(t, 1)
	s := d.service()
	a, b := limit("a", ScopeTenant, "acme", "1/s", 1), limit("b", ScopeTenant, "acme", "1/s", 2)
	for _, step := range []struct {
		what     string
		change   Change
		needFull bool
		version  uint32
		limits   int
	}{
		{"a change from a version not reached", Change{From: 3, To: 5, Puts: []Limit{a}}, true, 0, 0},
		{"the whole set", Change{To: 5, Puts: []Limit{a}}, false, 5, 1},
		{"the same again", Change{To: 5, Puts: []Limit{a}}, false, 5, 1},
		{"an older one", Change{To: 4, Puts: []Limit{b}}, false, 5, 1},
		{"a step", Change{From: 5, To: 6, Puts: []Limit{b}}, false, 6, 2},
		{"a step from before the present version", Change{From: 3, To: 7, Deletes: []string{"a", "never-there"}}, false, 7, 1},
		{"the whole set, which removes what it does not name", Change{To: 8, Puts: []Limit{a}}, false, 8, 1},
	} {
		needFull, version, err := s.Configure(t.Context(), testGroup, step.change)
		if err != nil || needFull != step.needFull || version != step.version {
			t.Errorf("%s: need full %v, version %d, error %v; want %v, %d", step.what, needFull, version, err, step.needFull, step.version)
		}
		d.Restart()
		got, err := s.Check(t.Context(), Request{Tenant: "acme"})
		if err != nil || len(got.Levels) != step.limits || got.Version != step.version {
			t.Errorf("%s: then %d limits at version %d, error %v; want %d at %d", step.what, len(got.Levels), got.Version, err, step.limits, step.version)
		}
	}
	if _, _, err := s.Configure(t.Context(), testGroup, Change{From: 8, To: 9, Puts: []Limit{{ID: "x"}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("an invalid limit: error %v, want ErrRefused", err)
	}
	if v, err := s.Version(t.Context(), testGroup, raftfsm.Linearizable); err != nil || v != 8 {
		t.Errorf("version %d, error %v after a refused change; want 8", v, err)
	}
}

// largest is as many of the largest limits as a region may have.
func largest() []Limit {
	out := make([]Limit, LimitsMax)
	for i := range out {
		id := fmt.Sprintf("%0*d", nameBytesMax, i)
		out[i] = limit(id, ScopeKey, "acme/"+id+strings.Repeat("x", SelectorBytesMax-5-len(id)), "1/s", 3)
	}
	return out
}

// The largest set of limits takes several commands, and takes effect with the last.
func TestConfigureInParts(t *testing.T) {
	d := drive(t, 1)
	s := d.service()
	whole := Change{To: 1, Puts: largest()}
	parts := splitChange(whole)
	if len(parts) < 10 || len(parts) > partsMax {
		t.Fatalf("%d parts, want 10 to %d", len(parts), partsMax)
	}
	for i, p := range parts {
		data := appendConfigure(nil, p)
		if len(data) > raftfsm.CommandBytesMax {
			t.Fatalf("part %d has %d bytes, more than a command may have", i, len(data))
		}
		if i == len(parts)/2 {
			// Another pusher of the same change catches up and does no harm.
			for _, again := range parts[:i] {
				d.Apply(appendConfigure(nil, again))
			}
			d.Restart()
		}
		res, err := decodeResult(d.Apply(data)[0])
		want := outcomeStaged
		if i == len(parts)-1 {
			want = outcomeConfigured
		}
		if err != nil || res.outcome != want {
			t.Fatalf("part %d: outcome %d %s, error %v; want %d", i, res.outcome, res.message, err, want)
		}
		if v, err := s.Version(t.Context(), testGroup, raftfsm.Linearizable); err != nil || (v == 1) != (want == outcomeConfigured) {
			t.Fatalf("version %d after part %d, error %v", v, i, err)
		}
	}
	last := whole.Puts[LimitsMax-1]
	key := strings.TrimPrefix(last.Selector, "acme/")
	if got, err := s.Check(t.Context(), Request{Tenant: "acme", Key: key, Cost: 1}); err != nil || len(got.Levels) != 1 || got.Levels[0].LimitID != last.ID {
		t.Errorf("check of the last limit: %v, %v", got, err)
	}
}

func TestConfigureInPartsGivesWayToANewerChange(t *testing.T) {
	d := drive(t, 1)
	s := d.service()
	old := splitChange(Change{To: 1, Puts: largest()})
	d.Apply(appendConfigure(nil, old[0]))
	d.Apply(appendConfigure(nil, old[1]))
	newer := splitChange(Change{To: 2, Puts: largest()[:2000]})
	d.Apply(appendConfigure(nil, newer[0]))
	for _, p := range []configureCommand{old[0], old[2], newer[2]} {
		res, err := decodeResult(d.Apply(appendConfigure(nil, p))[0])
		if err != nil || res.outcome != outcomeSuperseded {
			t.Errorf("part %d of version %d: outcome %d, error %v; want superseded", p.part, p.To, res.outcome, err)
		}
	}
	if needFull, v, err := s.Configure(t.Context(), testGroup, Change{To: 1, Puts: largest()}); needFull || v != 0 || err != nil {
		t.Errorf("the older change as a whole: need full %v, version %d, error %v; want version 0", needFull, v, err)
	}
	if needFull, v, err := s.Configure(t.Context(), testGroup, Change{To: 2, Puts: largest()[:2000]}); needFull || v != 2 || err != nil {
		t.Errorf("the newer change as a whole: need full %v, version %d, error %v; want version 2", needFull, v, err)
	}
}

// Tenants must stay where they are for as long as their region lives.
func TestPlacementNeverChanges(t *testing.T) {
	s := NewService(nil, []raftfsm.GroupID{1, 2, 3})
	for tenant, want := range map[string]raftfsm.GroupID{
		"acme": 1, "globex": 2, "a": 1, "tenant-1": 3, "tenant-2": 2, "0": 3, "x.y_z-1": 1,
	} {
		if got := s.Group(tenant); got != want {
			t.Errorf("tenant %s is in group %d, was in %d", tenant, got, want)
		}
	}
	if got := weight("acme", 1); got != 0xaa771990aa950a32 {
		t.Errorf("weight of acme in group 1 is %#x", got)
	}
	count := map[raftfsm.GroupID]int{}
	for i := range 30_000 {
		count[s.Group(fmt.Sprintf("tenant-%d", i))]++
	}
	for id, n := range count {
		if n < 9_500 || n > 10_500 {
			t.Errorf("group %d has %d of 30000 tenants, want about a third", id, n)
		}
	}
	// Without one group, only its own tenants would move.
	fewer := NewService(nil, []raftfsm.GroupID{1, 3})
	for i := range 1000 {
		tenant := fmt.Sprintf("tenant-%d", i)
		if g := s.Group(tenant); g != 2 && fewer.Group(tenant) != g {
			t.Errorf("tenant %s moved from group %d, which is still there", tenant, g)
		}
	}
}
