package meta

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/script"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Each line of a script's input is a limit: id, selector, burst.
func TestLimits(t *testing.T) {
	script.Run(t, "testdata/*.txt", func(t *testing.T) func([]string, string) string {
		r := newRegion(t, regionRules)
		s := r.service()
		report := func(c api.LimitChange, err error) string {
			if err != nil {
				return "error: " + err.Error()
			}
			return fmt.Sprintf("version %d: %d created, %d replaced, %d unchanged; in force %v", c.Version, c.Created, c.Replaced, c.Unchanged, c.InForce)
		}
		return func(words []string, input string) string {
			switch words[0] {
			case "set":
				var limits []limiter.Limit
				for line := range strings.Lines(input) {
					var id, selector string
					var burst uint32
					if _, err := fmt.Sscan(line, &id, &selector, &burst); err != nil {
						t.Fatal(err)
					}
					limits = append(limits, limit(id, selector, burst))
				}
				return report(s.SetLimits(t.Context(), words[1], limits, ""))
			case "delete":
				return report(s.DeleteLimits(t.Context(), words[1], words[2:], ""))
			case "list":
				limits, version, err := s.ListLimits(t.Context())
				if err != nil {
					return err.Error()
				}
				return showChange(limiter.Change{To: version, Puts: limits})
			case "since":
				var version uint32
				fmt.Sscan(words[1], &version)
				c, err := s.limitsSince(t.Context(), version)
				if err != nil {
					return err.Error()
				}
				return showChange(c)
			case "restart":
				r.meta.Restart()
				s = r.service()
				return ""
			}
			t.Fatalf("unknown command %q", words[0])
			return ""
		}
	})
}

func showChange(c limiter.Change) string {
	out := fmt.Sprintf("from %d to %d", c.From, c.To)
	for _, l := range c.Puts {
		out += fmt.Sprintf("\nput %s %s %d", l.ID, l.Selector, l.TokenBucket.Burst)
	}
	for _, id := range c.Deletes {
		out += "\ndelete " + id
	}
	return out
}

func TestRetriedChangeAnswersTheSame(t *testing.T) {
	s := newRegion(t, regionRules).service()
	set := func(id string, burst uint32) (api.LimitChange, error) {
		return s.SetLimits(t.Context(), "acme", []limiter.Limit{limit("a", "acme", burst)}, id)
	}
	first, err := set("r1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set("r2", 2); err != nil {
		t.Fatal(err)
	}
	if again, err := set("r1", 1); err != nil || again != first {
		t.Errorf("retry: %+v, %v; want the first answer %+v", again, err, first)
	}
	if limits, _, err := s.ListLimits(t.Context()); err != nil || limits[0].TokenBucket.Burst != 2 {
		t.Errorf("after the retry: %v, %v; want the later change to stand", limits, err)
	}
	_, err = set("r1", 3)
	wantError(t, "another change with a known id", err, raftfsm.ErrRequestReused)
}

func TestChangesOfLimitsAreBounded(t *testing.T) {
	s := newRegion(t, regionRules).service()
	many := func(from, n int) (out []limiter.Limit) {
		for i := range n {
			// As large as limits get: a thousand of them must fit one command.
			id := fmt.Sprintf("%0*d", nameBytesMax, from+i)
			l := limit(id, "*/"+strings.Repeat("x", limiter.SelectorBytesMax-2), math.MaxUint32)
			l.TokenBucket.Rate = "4294967295/4000000000ms"
			out = append(out, l)
		}
		return out
	}
	_, err := s.SetLimits(t.Context(), "*", many(0, opsMax+1), "")
	wantError(t, "too many limits in a request", err, limiter.ErrInvalid)
	_, err = s.SetLimits(t.Context(), "*", nil, "")
	wantError(t, "no limits in a request", err, limiter.ErrInvalid)
	_, err = s.SetLimits(t.Context(), "*", many(0, 1), strings.Repeat("x", limiter.RequestIDBytesMax+1))
	wantError(t, "a long request id", err, limiter.ErrInvalid)
	_, err = s.SetLimits(t.Context(), "Acme", many(0, 1), "")
	wantError(t, "a malformed tenant", err, limiter.ErrInvalid)
	_, err = s.DeleteLimits(t.Context(), "*", []string{"a", "a"}, "")
	wantError(t, "the same id twice", err, limiter.ErrInvalid)
	_, err = s.DeleteLimits(t.Context(), "*", []string{"A"}, "")
	wantError(t, "a malformed id", err, limiter.ErrInvalid)
	for i := 0; i < limiter.LimitsMax; i += opsMax {
		c, err := s.SetLimits(t.Context(), "*", many(i, opsMax), "")
		if err != nil || c.Created != opsMax || !c.InForce {
			t.Fatalf("limits %d to %d: %+v, %v", i, i+opsMax, c, err)
		}
	}
	_, err = s.SetLimits(t.Context(), "*", many(limiter.LimitsMax, 1), "")
	wantError(t, "one limit too many", err, limiter.ErrInvalid)
	if c, err := s.SetLimits(t.Context(), "*", many(7, 1), ""); err != nil || c.Unchanged != 1 {
		t.Errorf("replacing in a full region: %+v, %v", c, err)
	}
	if limits, _, err := s.ListLimits(t.Context()); err != nil || len(limits) != limiter.LimitsMax {
		t.Errorf("%d limits listed, %v; want %d", len(limits), err, limiter.LimitsMax)
	}
}

// A group that cannot be reached gets the limits later; the change itself has happened.
func TestLimitsReachALaggingGroup(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	r.down[otherGroup] = true
	changed := s.LimitsChanged()
	c, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("a", "*", 1), limit("b", "*", 1)}, "")
	if err != nil || c.InForce || c.Version != 1 {
		t.Fatalf("%+v, %v; want version 1, not in force everywhere", c, err)
	}
	select {
	case <-changed:
	default:
		t.Error("LimitsChanged was not signalled")
	}
	if _, err := s.DeleteLimits(t.Context(), "*", []string{"a"}, ""); err != nil {
		t.Fatal(err)
	}
	wantError(t, "push to a group that is down", s.PushLimits(t.Context(), otherGroup), raftfsm.ErrNoLeader)
	r.down[otherGroup] = false
	if err := s.PushLimits(t.Context(), otherGroup); err != nil {
		t.Fatal(err)
	}
	if a, b := r.version(limitGroup), r.version(otherGroup); a != 2 || b != 2 {
		t.Errorf("groups have versions %d and %d, want 2", a, b)
	}
	if c, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit("b", "*", 2)}, ""); err != nil || !c.InForce {
		t.Errorf("%+v, %v; want in force", c, err)
	}
}

// smallRules keep few records and tombstones.
func smallRules(t table) rules {
	r := regionRules(t)
	r.recordsMax, r.tombstonesMax = 5, 3
	return r
}

// When old deletions have been forgotten, a lagging group gets the whole set.
func TestForgottenDeletionsReachALaggingGroup(t *testing.T) {
	r := newRegion(t, smallRules)
	s := r.service()
	set := func(id string) {
		t.Helper()
		if _, err := s.SetLimits(t.Context(), "*", []limiter.Limit{limit(id, "*", 9)}, ""); err != nil {
			t.Fatal(err)
		}
	}
	set("stays")
	set("gone-0")
	r.down[otherGroup] = true
	for i := range 6 {
		set(fmt.Sprintf("gone-%d", i+1))
		if _, err := s.DeleteLimits(t.Context(), "*", []string{fmt.Sprintf("gone-%d", i)}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := s.limitsSince(t.Context(), 2); err != nil || c.From != 0 || len(c.Puts) != 2 {
		t.Errorf("changes since version 2: %+v, %v; want the whole set", c, err)
	}
	if c, err := s.limitsSince(t.Context(), 9); err != nil || c.From != 9 || len(c.Deletes) != 3 {
		t.Errorf("changes since version 9: %+v, %v; want three deletions", c, err)
	}
	r.down[otherGroup] = false
	if err := s.PushLimits(t.Context(), otherGroup); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"a", "b", "c", "d"} { // tenants of both groups
		d, err := r.limiter().Check(t.Context(), limiter.Request{Tenant: tenant})
		if err != nil || len(d.Levels) != 2 || d.Levels[0].LimitID != "gone-6" || d.Levels[1].LimitID != "stays" {
			t.Errorf("limits of tenant %s: %+v, %v; want gone-6 and stays", tenant, d.Levels, err)
		}
	}
}

// A list that takes several pages is of one moment, whatever changes between the pages.
func TestListIsOfOneMoment(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	for i := 0; i < 3*pageRecordsMax; i += opsMax {
		var limits []limiter.Limit
		for n := range opsMax {
			limits = append(limits, limit(fmt.Sprintf("limit-%05d", i+n), "*", 1))
		}
		if _, err := s.SetLimits(t.Context(), "*", limits, ""); err != nil {
			t.Fatal(err)
		}
	}
	pages := 0
	r.beforeQ = func() {
		pages++
		if pages != 3 {
			return
		}
		// Both are on pages that have been read.
		steps := []step{
			{kind: kindPut, key: "limit-00001", owner: "*", value: encodeLimit(limit("limit-00001", "*", 2))},
			{kind: kindDelete, key: "limit-00002"},
		}
		if _, err := s.change(t.Context(), change{table: tableLimits, actor: "*", steps: steps}, raftfsm.RequestID{}); err != nil {
			t.Error(err)
		}
	}
	limits, version, err := s.ListLimits(t.Context())
	if err != nil || pages < 4 {
		t.Fatalf("%d pages, %v; want at least 4", pages, err)
	}
	if len(limits) != 3*pageRecordsMax-1 || limits[1].TokenBucket.Burst != 2 || limits[2].ID != "limit-00003" || version != 7 {
		t.Errorf("%d limits at version %d: %+v ...; want the change and the deletion to show", len(limits), version, limits[:3])
	}
}

func TestWrongOwnersLearnLittle(t *testing.T) {
	s := newRegion(t, regionRules).service()
	if _, err := s.SetLimits(t.Context(), "globex", []limiter.Limit{limit("theirs", "globex", 1)}, ""); err != nil {
		t.Fatal(err)
	}
	_, missing := s.DeleteLimits(t.Context(), "acme", []string{"nobodys"}, "")
	_, foreign := s.DeleteLimits(t.Context(), "acme", []string{"theirs"}, "")
	wantError(t, "deleting a missing limit", missing, api.ErrLimitUnknown)
	if a, b := fmt.Sprint(missing), fmt.Sprint(foreign); strings.ReplaceAll(a, "nobodys", "theirs") != b || !errors.Is(foreign, api.ErrLimitUnknown) {
		t.Errorf("a missing limit says %q, a foreign one %q; want no difference", a, b)
	}
}

// A plain limit is written as it always was; any other raises the version of its value and of its
// change, and waits until every member reads it.
func TestLimitsOfALaterLevel(t *testing.T) {
	plain := limiter.Limit{ID: "a", Scope: limiter.ScopeTenant, Selector: "acme", TokenBucket: limiter.TokenBucket{Rate: "1/s", Burst: 1}}
	window := limiter.Limit{ID: "b", Scope: limiter.ScopeTenant, Selector: "acme", Window: limiter.Window{Limit: 5, Length: "1h"}}
	slots := limiter.Limit{ID: "c", Scope: limiter.ScopeTenant, Selector: "acme", Concurrency: limiter.Concurrency{Limit: 5, TTL: "30s"}}
	open := plain
	open.ID, open.OnFailure = "d", limiter.OnFailureOpen
	for _, c := range []struct {
		limit        limiter.Limit
		value, codec byte
	}{{plain, limitValueFirst, codecFirst}, {window, limitValueLimits, codecLimits}, {slots, limitValueLeases, codecLeases}, {open, limitValueFailure, codecFailure}} {
		value := encodeLimit(c.limit)
		data := encodeChange(change{table: tableLimits, actor: "acme", steps: []step{{kind: kindPut, key: c.limit.ID, owner: "acme", value: value}}})
		if value[0] != c.value || data[0] != c.codec {
			t.Errorf("%s: value %d, change %d; want %d, %d", c.limit.ID, value[0], data[0], c.value, c.codec)
		}
		if got, err := decodeLimit(c.limit.ID, value); err != nil || got != c.limit {
			t.Errorf("%s comes back as %+v, %v", c.limit.ID, got, err)
		}
		data[0] = codecFirst + codecLimits - data[0]
		if _, err := decodeChange(data); !errors.Is(err, errCodec) {
			t.Errorf("%s in version %d: %v", c.limit.ID, data[0], err)
		}
	}
	r := newRegion(t, regionRules)
	r.level = raftfsm.LevelMembers
	s := r.service()
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{plain, window}, ""); !errors.Is(err, api.ErrLevel) {
		t.Errorf("a window in a region of the second level: %v", err)
	}
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{plain}, ""); err != nil {
		t.Errorf("a plain limit: %v", err)
	}
	r.level = raftfsm.LevelLimits
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{plain, window}, ""); err != nil {
		t.Errorf("a window in a region of the third level: %v", err)
	}
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{slots}, ""); !errors.Is(err, api.ErrLevel) {
		t.Errorf("a concurrency in a region of the third level: %v", err)
	}
	r.level = raftfsm.LevelLeases
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{slots}, ""); err != nil {
		t.Errorf("a concurrency in a region of the fourth level: %v", err)
	}
	if all, _, err := s.ListLimits(t.Context()); err != nil || len(all) != 3 || all[1] != window || all[2] != slots {
		t.Errorf("limits %v, error %v", all, err)
	}
}

// A tenant cannot lift what the platform imposed on it by name.
func TestBansBelongToThePlatform(t *testing.T) {
	s := newRegion(t, regionRules).service()
	ban := limiter.Limit{ID: "ban", Scope: limiter.ScopeTenant, Selector: "acme", Access: limiter.AccessBanned}
	if _, err := s.SetLimits(t.Context(), api.AllTenants, []limiter.Limit{ban}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteLimits(t.Context(), "acme", []string{"ban"}, ""); !errors.Is(err, api.ErrLimitUnknown) {
		t.Errorf("deleting it: %v", err)
	}
	for _, l := range []limiter.Limit{
		{ID: "ban", Scope: limiter.ScopeTenant, Selector: "acme", TokenBucket: limiter.TokenBucket{Rate: "1/s", Burst: 1}},
		{ID: "own", Scope: limiter.ScopeTenant, Selector: "acme", Access: limiter.AccessUnlimited},
	} {
		if _, err := s.SetLimits(t.Context(), "acme", []limiter.Limit{l}, ""); !errors.Is(err, api.ErrLimitForeign) {
			t.Errorf("setting %s: %v", l.ID, err)
		}
	}
}
