package limiter

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A set of plans says what a plain map says, and a change leaves the sets before it alone.
func TestPlanSetsAgreeWithMaps(t *testing.T) {
	tenant := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint("tenant-", rapid.IntRange(0, 30).Draw(t, "tenant")) })
	rapid.Check(t, func(rt *rapid.T) {
		sets, want := []planSet{{}}, []map[string]string{{}}
		for i := range rapid.IntRange(1, 8).Draw(rt, "changes") {
			next := maps.Clone(want[i])
			var puts []Assignment
			for _, name := range rapid.SliceOfN(tenant, 0, 9).Draw(rt, "enter") {
				a := Assignment{name, rapid.SampledFrom([]string{"gold", "basic"}).Draw(rt, "plan")}
				puts, next[name] = append(puts, a), planPrefix+a.Plan
			}
			leavers := rapid.SliceOfN(tenant, 0, 5).Draw(rt, "leave")
			for _, name := range leavers {
				delete(next, name)
			}
			sets, want = append(sets, sets[i].with(puts, leavers)), append(want, next)
		}
		for i := range sets {
			found := map[string]string{}
			sets[i].tenants(func(name string) { found[name] = sets[i].owner(name) })
			if !maps.Equal(found, want[i]) {
				rt.Fatalf("set %d has %v, want %v", i, found, want[i])
			}
		}
	})
}

func TestPlanOfALimit(t *testing.T) {
	for selector, want := range map[string]string{"plan:gold": "gold", "plan:gold/x*": "gold", "gold": "", "*": "", "*/plan:x": "", "acme/plan:gold": ""} {
		l := Limit{ID: "a", Scope: ScopeKey, Selector: selector, TokenBucket: TokenBucket{"1/s", 1}}
		level, keeper := raftfsm.LevelFirst, l.Owner()
		if want != "" {
			level, keeper = raftfsm.LevelLeases, anyTenant
		}
		if l.Plan() != want || l.Level() != level || l.Keeper() != keeper {
			t.Errorf("%s: plan %q, level %d, keeper %s", selector, l.Plan(), l.Level(), l.Keeper())
		}
	}
}

func TestAssignmentsAreValidated(t *testing.T) {
	err := ValidateAssignments([]Assignment{{"acme", "gold"}, {"Acme", "go*ld"}, {"", ""}, {"acme", "basic"}, {"globex", ""}})
	const want = `assignments[1].tenant: must be 1 to 63 of the characters a-z 0-9 . _ -
assignments[1].plan: must be 1 to 63 of the characters a-z 0-9 . _ -
assignments[2].tenant: must be 1 to 63 of the characters a-z 0-9 . _ -
assignments[3].tenant: "acme" is the tenant of assignments[0] already`
	if !errors.Is(err, ErrInvalid) || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	if err := ValidateAssignments([]Assignment{{"acme", "gold"}, {"globex", ""}}); err != nil {
		t.Error(err)
	}
}

// The whole set of a version takes tenants off plans that it does not name, a step only those it
// names; both survive a restart.
func TestPlansFollowVersions(t *testing.T) {
	d := drive(t, 8)
	gold := limit("gold", ScopeTenant, "plan:gold", "1/s", 5)
	for _, step := range []struct {
		change Change
		on     string // who is on plan gold
	}{
		{Change{To: 1, Puts: []Limit{gold}, Plans: []Assignment{{"acme", "gold"}, {"globex", "gold"}}}, "acme globex"},
		{Change{From: 1, To: 2, Plans: []Assignment{{"initech", "gold"}, {"globex", "basic"}}}, "acme initech"},
		{Change{From: 2, To: 3, Leavers: []string{"acme", "nobody"}}, "initech"},
		{Change{From: 3, To: 4, Puts: []Limit{limit("other", ScopeTenant, "other", "1/s", 5)}}, "initech"},
		{Change{To: 5, Puts: []Limit{gold}, Plans: []Assignment{{"acme", "gold"}}}, "acme"},
		{Change{To: 6, Puts: []Limit{gold}}, ""},
	} {
		if needFull, v, err := d.service().Configure(t.Context(), testGroup, step.change); err != nil || needFull || v != step.change.To {
			t.Fatalf("%+v: version %d, %v", step.change, v, err)
		}
		for range 2 {
			var on []string
			for _, tenant := range []string{"acme", "globex", "initech", "nobody"} {
				if got := d.check(time.Second, Request{Tenant: tenant}); len(got.Levels) == 1 && got.Levels[0].LimitID == "gold" {
					on = append(on, tenant)
				}
			}
			if got := strings.Join(on, " "); got != step.on {
				t.Errorf("version %d: on plan gold are %q, want %q", step.change.To, got, step.on)
			}
			d.Restart()
		}
	}
	if rows := d.Machine().(*Machine).set.plans.shards; rows != nil {
		for i, shard := range rows {
			if len(shard) > 0 {
				t.Errorf("shard %d still has %v", i, shard)
			}
		}
	}
}

// A region with as many of the longest assignments and limits as it may have fits the parts of a
// change, which is in force with the last of them.
func TestPlansInParts(t *testing.T) {
	whole := Change{To: 1, Puts: largest()}
	for i := range whole.Puts { // of the longest rates, windows and names
		l := &whole.Puts[i]
		l.TokenBucket.Rate, l.Overrides = "4294967295/4000000000ms", fmt.Sprintf("%0*d", nameBytesMax, i+1)
		l.Window = Window{math.MaxUint32, "2678400000ms"}
		l.Calendar = Calendar{Limit: math.MaxUint32, Period: PeriodMonth, TimeZone: "America/Argentina/ComodRivadavia", Anchor: "28"}
		l.Expires = math.MaxInt32
	}
	for i := range AssignmentsMax {
		whole.Plans = append(whole.Plans, Assignment{fmt.Sprintf("%0*d", nameBytesMax, i), fmt.Sprintf("%0*d", nameBytesMax, AssignmentsMax-i)})
	}
	if err := Validate(whole.Puts); err != nil {
		t.Fatal(err)
	}
	parts := splitChange(whole)
	if len(parts) < 80 || len(parts) > partsMax {
		t.Fatalf("%d parts, want 80 to %d", len(parts), partsMax)
	}
	d := drive(t, 1)
	first, last := whole.Plans[0], whole.Plans[AssignmentsMax-1]
	d.set(limit("first", ScopeTenant, planPrefix+first.Plan, "1/s", 5))
	whole.From, whole.To, whole.Puts = 1, 2, []Limit{limit("last", ScopeTenant, planPrefix+last.Plan, "1/s", 7)}
	parts = splitChange(whole)
	for i, p := range parts {
		data := appendConfigure(nil, p)
		if len(data) > raftfsm.CommandBytesMax {
			t.Fatalf("part %d has %d bytes, more than a command may have", i, len(data))
		}
		if got := d.check(0, Request{Tenant: first.Tenant}); len(got.Levels) != 0 {
			t.Fatalf("before part %d: %v", i, got)
		}
		res, err := decodeResult(d.Apply(data)[0])
		want := outcomeStaged
		if i == len(parts)-1 {
			want = outcomeConfigured
		}
		if err != nil || res.outcome != want {
			t.Fatalf("part %d: outcome %d %s, error %v; want %d", i, res.outcome, res.message, err, want)
		}
	}
	d.Restart()
	for tenant, want := range map[string]string{first.Tenant: "first", last.Tenant: "last"} {
		if got := d.check(0, Request{Tenant: tenant}); len(got.Levels) != 1 || got.Levels[0].LimitID != want {
			t.Errorf("limits of tenant %s: %v, want %s", tenant, got, want)
		}
	}
}

// Backups take plans along, and a restored group has them.
func TestRestoredPlans(t *testing.T) {
	from := drive(t, 16)
	from.set(limit("gold", ScopeTenant, "plan:gold", "1/s", 5))
	from.move(Change{Plans: []Assignment{{"acme", "gold"}, {"globex", "basic"}}})
	from.move(Change{Leavers: []string{"globex"}})
	to := drive(t, 16)
	to.Time = time.Minute
	if err := to.Restore(from.Backup(1)...); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := to.check(time.Minute+2*time.Second, Request{Tenant: "acme"}); len(got.Levels) != 1 || got.Levels[0].Remaining != 2 || got.Version != 3 {
			t.Errorf("two seconds after the restore: %v at version %d", got, got.Version)
		}
		if got := to.check(time.Minute+2*time.Second, Request{Tenant: "globex"}); len(got.Levels) != 0 {
			t.Errorf("a tenant that had left its plan: %v", got)
		}
		to.Restart()
	}
	for what, row := range map[string]raftfsm.Row{
		"a name nobody has": {Key: planKey("Acme"), Value: encodePlan("gold")},
		"no plan":           {Key: planKey("acme"), Value: encodePlan("")},
		"no tenant":         {Key: planKey(""), Value: encodePlan("gold")},
		"another layout":    {Key: planKey("acme"), Value: []byte{9}},
	} {
		if err := drive(t, 16).Restore(raftfsm.AppendRow(nil, row.Key, row.Value)); !errors.Is(err, raftfsm.ErrRestoreRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Plans cost a change nothing in the layouts of before: only what speaks of plans needs the later
// one, which refuses names that nobody has and tenants that occur twice.
func TestLayoutsOfPlans(t *testing.T) {
	gold := limit("gold", ScopeTenant, "plan:gold", "1/s", 5)
	for _, c := range []struct {
		change Change
		codec  byte
	}{
		{Change{To: 2, Puts: []Limit{limit("a", ScopeTenant, "acme", "1/s", 5)}, Deletes: []string{"b"}}, codecFirst},
		{Change{To: 2, Puts: []Limit{windowed("a", "acme", 5, "1h")}}, codecLimits},
		{Change{To: 2, Puts: []Limit{gold}}, codecLeases},
		{Change{To: 2, Plans: []Assignment{{"acme", "gold"}}}, codecLeases},
		{Change{To: 2, Leavers: []string{"acme"}}, codecLeases},
	} {
		if data := appendConfigure(nil, configureCommand{Change: c.change, last: true}); data[0] != c.codec {
			t.Errorf("%+v is written in version %d, want %d", c.change, data[0], c.codec)
		}
	}
	for what, c := range map[string]Change{
		"a tenant that occurs twice":         {To: 2, Plans: []Assignment{{"acme", "gold"}, {"acme", "basic"}}},
		"a tenant that enters and leaves":    {To: 2, Plans: []Assignment{{"acme", "gold"}}, Leavers: []string{"acme"}},
		"a tenant that nobody can be":        {To: 2, Plans: []Assignment{{"Acme", "gold"}}},
		"a plan that cannot be":              {To: 2, Plans: []Assignment{{"acme", "go*"}}},
		"a tenant that nobody can be leaves": {To: 2, Leavers: []string{"*"}},
	} {
		d := drive(t, 1)
		res, err := decodeResult(d.Apply(appendConfigure(nil, configureCommand{Change: c, last: true}))[0])
		if err != nil || res.outcome != outcomeMalformed {
			t.Errorf("%s: outcome %d, %v", what, res.outcome, err)
		}
	}
}

// A node that holds leases follows a tenant to its other plan, keeps what it holds for others, and
// does not repeat a denial of the plan before.
func TestLeasesFollowPlans(t *testing.T) {
	r := startRegion(t, 1, limit("gold", ScopeTenant, "plan:gold", "1000/s", 1000), limit("basic", ScopeTenant, "plan:basic", "1/h", 1), limit("all", ScopeTenant, "other", "1000/s", 1000))
	defer r.close()
	n := r.nodes[0]
	move := func(plan string) {
		t.Helper()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.move(Change{Plans: []Assignment{{"acme", plan}}})
	}
	levels := func() string {
		t.Helper()
		d := n.ask(t, Request{Tenant: "acme", Cost: 1})
		if len(d.Levels) != 1 {
			t.Fatalf("%v", d)
		}
		return fmt.Sprintf("%s %v", d.Levels[0].LimitID, d.Allow)
	}
	move("basic")
	for i, want := range []string{"basic true", "basic false", "basic false"} {
		if got := levels(); got != want {
			t.Errorf("check %d: %s, want %s", i, got, want)
		}
	}
	n.ask(t, Request{Tenant: "other", Cost: 1})
	gen := func() uint32 {
		table := n.leases.table
		s := table.shardOf(hashString(table.seed, "other"))
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.tenants["other"].gen
	}
	before := gen()
	move("gold")
	if got := levels(); got != "gold true" {
		t.Errorf("on the better plan: %s", got)
	}
	if d := n.ask(t, Request{Tenant: "other", Cost: 1}); !d.Allow || gen() != before || d.Version != 3 {
		t.Errorf("another tenant: %v at version %d; its routes were made anew: %v", d, d.Version, gen() != before)
	}
	move("basic")
	if got := levels(); got != "basic false" {
		t.Errorf("back on the first plan: %s", got)
	}
}

func BenchmarkChangeOfOnePlan(b *testing.B) {
	d := drive(b, 1)
	c := Change{To: 1, Puts: largest()}
	for i := range AssignmentsMax {
		c.Plans = append(c.Plans, Assignment{fmt.Sprint("tenant-", i), "gold"})
	}
	if _, v, err := d.service().Configure(b.Context(), testGroup, c); err != nil || v != 1 {
		b.Fatal(v, err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		plan := []string{"gold", "basic"}[i%2]
		c := Change{From: uint32(i) + 1, To: uint32(i) + 2, Plans: []Assignment{{fmt.Sprint("tenant-", i%AssignmentsMax), plan}}}
		d.Apply(appendConfigure(nil, configureCommand{Change: c, last: true}))
	}
}
