package node

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/node/meta"
)

var sevenGroups = []string{"meta", "limiter-0", "limiter-1", "limiter-2", "index-0", "index-1", "index-2"}

func ids(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("node-%d.0a", i+1))
	}
	return out
}

// uneven is by how much the members' voters, and preferred leaders, differ.
func uneven(p placing) (voters, leaders int) {
	load, first := p.loads(), map[string]int{}
	for _, g := range p.groups {
		first[meta.MemberOf(g.Voters[0])]++
	}
	spread := func(of map[string]int) int {
		least, most := -1, 0
		for _, m := range p.members {
			if !m.active {
				continue
			}
			if n := of[m.id]; least < 0 || n < least {
				least = n
			}
			most = max(most, of[m.id])
		}
		return most - least
	}
	return spread(load), spread(first)
}

func placed(members []string, groups []meta.Placement) placing {
	p := placing{groups: groups, settled: map[string]bool{}}
	for _, id := range members {
		p.members = append(p.members, candidate{id: id, active: true, fit: true})
	}
	for _, g := range groups {
		p.settled[g.Group] = true
	}
	return p
}

// placedRegion carries changes out at once, and checks what must hold of each.
type placedRegion struct {
	placing
	// used are all replica ids that there have been, behind their group.
	used map[string]bool
}

type failer interface{ Fatalf(string, ...any) }

func (r *placedRegion) carryOut(t failer, m move) {
	i := slices.IndexFunc(r.groups, func(g meta.Placement) bool { return g.Group == m.to.Group })
	before, kept := r.groups[i].Voters, 0
	for _, v := range before {
		r.used[m.to.Group+" "+v] = true
		if slices.Contains(m.to.Voters, v) {
			kept++
		}
	}
	if len(before) > 1 && kept <= len(before)/2 {
		t.Fatalf("%s: of %v only %d stay in %v", m.why, before, kept, m.to.Voters)
	}
	for _, v := range m.to.Voters {
		if key := m.to.Group + " " + v; r.used[key] && !slices.Contains(before, v) && m.to.Group != metaName {
			t.Fatalf("%s: %s comes a second time", m.why, key)
		}
	}
	r.groups[i] = m.to
}

// settle carries changes out until none is due.
func (r *placedRegion) settle(t failer) {
	for moves := 0; ; moves++ {
		m, ok := r.next()
		if !ok {
			return
		}
		if moves > 500 {
			t.Fatalf("no end: %s", m.why)
		}
		r.carryOut(t, m)
	}
}

func TestARegionStartsEven(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		members := ids(n)
		groups := spread(members, sevenGroups)
		v, l := uneven(placed(members, groups))
		if v > 1 || l > 1 {
			t.Errorf("%d members: voters differ by %d, leaders by %d: %v", n, v, l, groups)
		}
		for _, g := range groups {
			if len(g.Voters) != min(3, n) || g.Generation != 0 {
				t.Errorf("%d members: %+v", n, g)
			}
		}
		slices.Reverse(members)
		if again := spread(members, sevenGroups); fmt.Sprint(again) != fmt.Sprint(groups) {
			t.Errorf("in another order of the members: %v, not %v", again, groups)
		}
	}
}

func TestNextPlacement(t *testing.T) {
	two := func(voters ...string) []meta.Placement { return []meta.Placement{{Group: "limiter-0", Voters: voters}} }
	for _, tc := range []struct {
		name  string
		p     placing
		spoil func(p *placing)
		want  string // the voters of the next placement; "" for none
	}{
		{name: "a whole region is left alone", p: placed([]string{"a.1", "b.1", "c.1"}, two("a.1", "b.1", "c.1"))},
		{
			name: "the successor takes the place, also the first", p: placed([]string{"a.1", "b.1", "c.1", "d.1", "e.1"}, two("a.1", "b.1", "c.1")),
			spoil: func(p *placing) { p.members[0].active, p.members[0].successor = false, "e.1" }, want: "[e.1.1 b.1 c.1]",
		},
		{
			name: "without a successor the one with the fewest", p: placed([]string{"a.1", "b.1", "c.1", "d.1"}, two("a.1", "b.1", "c.1")),
			spoil: func(p *placing) { p.members[1].active = false }, want: "[a.1 d.1.1 c.1]",
		},
		{
			name: "a successor that cannot take it now", p: placed([]string{"a.1", "b.1", "c.1", "d.1", "e.1"}, two("a.1", "b.1", "c.1")),
			spoil: func(p *placing) {
				p.members[0].active, p.members[0].successor, p.members[4].fit = false, "e.1", false
			}, want: "[d.1.1 b.1 c.1]",
		},
		{
			name: "nobody can take it now", p: placed([]string{"a.1", "b.1", "c.1", "d.1"}, two("a.1", "b.1", "c.1")),
			spoil: func(p *placing) { p.members[0].active, p.members[3].fit = false, false },
		},
		{
			name: "a member that is gone", p: placed([]string{"b.1", "c.1", "d.1"}, two("a.1", "b.1", "c.1")), want: "[d.1.1 b.1 c.1]",
		},
		{
			name: "one member more than one", p: placed([]string{"a.1", "b.1"}, two("a.1")),
		},
		{
			name: "three members at last", p: placed([]string{"a.1", "b.1", "c.1"}, two("a.1")), want: "[a.1 b.1.1 c.1.2]",
		},
		{
			name: "the change before is under way", p: placed([]string{"a.1", "b.1", "c.1", "d.1"}, append(two("a.1", "b.1", "c.1"), meta.Placement{Group: "index-0", Voters: []string{"a.1", "b.1", "d.1.4"}})),
			spoil: func(p *placing) { p.members[0].active = false; p.settled["index-0"] = false }, want: "[c.1.1 b.1 d.1.4]",
		},
		{
			name: "the change before is under way, nothing else", p: placed([]string{"b.1", "c.1", "d.1", "e.1"}, append(two("a.1", "b.1", "c.1"), meta.Placement{Group: "index-0", Voters: []string{"c.1", "b.1", "d.1.4"}})),
			spoil: func(p *placing) { p.settled["index-0"] = false },
		},
		{
			name: "meta keeps the member's own id", p: placed([]string{"b.1", "c.1", "d.1"}, []meta.Placement{{Group: "meta", Voters: []string{"a.1", "b.1", "c.1"}}}), want: "[d.1 b.1 c.1]",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.spoil != nil {
				tc.spoil(&tc.p)
			}
			got := ""
			if m, ok := tc.p.next(); ok {
				got = fmt.Sprint(m.to.Voters)
			}
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// Whatever members come and go, in whatever order: groups keep a majority at every change,
// end with three voters on active members, evenly, and no replica id comes twice.
func TestPlacementsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := ids(rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(t, "seeds"))
		groups := sevenGroups[:rapid.IntRange(1, len(sevenGroups)).Draw(t, "groups")]
		p := placedRegion{placed(members, spread(members, groups)), map[string]bool{}}
		gone := map[string]bool{}
		for step := range rapid.IntRange(1, 8).Draw(t, "steps") {
			var active []int
			for i, m := range p.members {
				if m.active {
					active = append(active, i)
				}
			}
			fresh := candidate{id: fmt.Sprintf("new-%d.0b", step), active: true, fit: true}
			switch what := rapid.IntRange(0, 2).Draw(t, "what"); {
			case what == 0 && len(active) < meta.MembersMax:
				p.members = append(p.members, fresh)
			case what == 1 && len(active) > replicasWanted:
				p.members[rapid.SampledFrom(active).Draw(t, "leaves")].active = false
			default:
				p.members = append(p.members, fresh)
				old := rapid.SampledFrom(active).Draw(t, "replaced")
				p.members[old].active, p.members[old].successor = false, fresh.id
			}
			if rapid.Bool().Draw(t, "half way") {
				// Another change comes before this one is through.
				if m, ok := p.next(); ok {
					p.carryOut(t, m)
				}
				continue
			}
			shuffled := p.placing
			shuffled.members = rapid.Permutation(p.members).Draw(t, "order")
			a, aok := p.next()
			b, bok := shuffled.next()
			if aok != bok || fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("the order of the members decides: %v or %v", a, b)
			}
			p.settle(t)
		}
		p.settle(t)
		active := 0
		for _, m := range p.members {
			if m.active {
				active++
			} else {
				gone[m.id] = true
			}
		}
		for _, g := range p.groups {
			if want := min(3, active); len(g.Voters) != want && (active >= 3 || len(g.Voters) != 1) {
				t.Fatalf("%d active members, %s has %v", active, g.Group, g.Voters)
			}
			for _, v := range g.Voters {
				if gone[meta.MemberOf(v)] {
					t.Fatalf("%s is still on %s", g.Group, v)
				}
			}
		}
		voters, leaders := uneven(p.placing)
		if voters > 1 {
			t.Fatalf("voters differ by %d: %v", voters, p.groups)
		}
		if leaders > 1 && active <= len(groups) {
			t.Fatalf("preferred leaders differ by %d: %v", leaders, p.groups)
		}
	})
}
