package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/node/meta"
)

// replicasWanted is how many members vote in a group: one may be lost without a pause, and a
// majority is two disks. More would make every write slower.
const replicasWanted = 3

// metaName is the group that every member hosts: those that do not vote there follow it.
const metaName = "meta"

// candidate is a member as a place for replicas.
type candidate struct {
	id string
	// active members hold replicas; the others give theirs away, to successor if there is one.
	active    bool
	successor string
	// fit members can take a replica now: they answer, do not stop, and have room on the disk.
	fit bool
}

// placing is what the next change of placements is decided from. Deciding is a pure function
// of it, so that every node can say what the meta leader is about to do.
type placing struct {
	members []candidate
	// groups are the placements, in the order of the region's groups.
	groups []meta.Placement
	// settled are the groups whose replicas are where they belong.
	settled map[string]bool
}

// move is one change: where a group belongs from now on, and what for.
type move struct {
	to  meta.Placement
	why string
}

// next returns the next change, if one is due. It changes one group, and by one voter, or by
// those that it lacks; it leaves a group alone until the change before has been carried out,
// unless that cannot happen any more because the target is leaving itself. Repeated until
// nothing is due, no voter is on a member that leaves, loads differ by one at most, and
// preferred leaders are as even as the voters allow.
func (p placing) next() (move, bool) {
	p.members = slices.SortedFunc(slices.Values(p.members), func(a, b candidate) int { return strings.Compare(a.id, b.id) })
	waiting := slices.ContainsFunc(p.groups, func(g meta.Placement) bool { return !p.settled[g.Group] })
	blocked := waiting
	for _, g := range p.groups {
		if waiting && p.settled[g.Group] {
			continue
		}
		m, state := p.mend(g)
		if state == mendable {
			return m, true
		}
		blocked = blocked || state == unmendable
	}
	if blocked {
		return move{}, false
	}
	if m, ok := p.level(); ok {
		return m, true
	}
	return p.spreadLeaders()
}

type mendState int

const (
	whole mendState = iota
	mendable
	unmendable // a voter has to go, but nobody can take its place now
)

// mend replaces the first voter that must go, or adds those that are missing.
func (p placing) mend(g meta.Placement) (move, mendState) {
	state := whole
	for i, v := range g.Voters {
		from := p.member(meta.MemberOf(v))
		if from.active {
			continue
		}
		to := from.successor
		if !p.eligible(g, to) {
			to = p.leastLoaded(g)
		}
		if to == "" {
			state = unmendable
			continue
		}
		g.Voters = slices.Clone(g.Voters)
		g.Voters[i], g.Generation = newReplica(g, to)
		return move{g, fmt.Sprintf("%s: %s takes the place of %s, which leaves", g.Group, to, meta.MemberOf(v))}, mendable
	}
	active := 0
	for _, m := range p.members {
		if m.active {
			active++
		}
	}
	if active < replicasWanted || len(g.Voters) >= replicasWanted {
		return move{}, state
	}
	// All at once: a group must not rest on two voters, which stop when either does.
	g.Voters = slices.Clone(g.Voters)
	for len(g.Voters) < replicasWanted {
		to := p.leastLoaded(g)
		if to == "" {
			return move{}, unmendable
		}
		voter, generation := newReplica(g, to)
		g.Voters, g.Generation = append(g.Voters, voter), generation
	}
	return move{g, fmt.Sprintf("%s: %d voters", g.Group, replicasWanted)}, mendable
}

// level moves a replica from the most to the least loaded member, if they differ by two.
func (p placing) level() (move, bool) {
	load := p.loads()
	var most, least string
	for _, m := range p.members {
		switch {
		case !m.active:
			continue
		case !m.fit:
			return move{}, false // it is better to wait than to move around a member that is away
		}
		if most == "" || load[m.id] > load[most] {
			most = m.id
		}
		if least == "" || load[m.id] < load[least] {
			least = m.id
		}
	}
	if most == "" || load[most]-load[least] < 2 {
		return move{}, false
	}
	// Rather a group that most does not lead.
	var found move
	for _, g := range p.groups {
		i := indexOfMember(g.Voters, most)
		if i < 0 || indexOfMember(g.Voters, least) >= 0 || (i == 0 && found.why != "") {
			continue
		}
		to := g
		to.Voters = slices.Clone(g.Voters)
		to.Voters[i], to.Generation = newReplica(g, least)
		found = move{to, fmt.Sprintf("%s: moves from %s to %s, which has fewer replicas", g.Group, most, least)}
		if i > 0 {
			break
		}
	}
	return found, found.why != ""
}

// spreadLeaders evens the preferred leaders out: it looks for the shortest chain of groups
// along which a preference can go from a member with the most to one with two fewer, and
// hands on the first of them.
func (p placing) spreadLeaders() (move, bool) {
	first := map[string]int{}
	most := 0
	for _, g := range p.groups {
		first[meta.MemberOf(g.Voters[0])]++
	}
	for _, n := range first {
		most = max(most, n)
	}
	type link struct {
		first move // the step with which the chain begins
		to    string
	}
	var chains []link
	seen := map[string]bool{}
	for _, m := range p.members {
		if m.active && first[m.id] == most {
			seen[m.id] = true
			chains = append(chains, link{to: m.id})
		}
	}
	for len(chains) > 0 {
		at := chains[0]
		chains = chains[1:]
		if first[at.to] <= most-2 {
			return at.first, true
		}
		for _, g := range p.groups {
			if meta.MemberOf(g.Voters[0]) != at.to {
				continue
			}
			for i, v := range g.Voters[1:] {
				id := meta.MemberOf(v)
				if seen[id] || !p.member(id).active {
					continue
				}
				seen[id] = true
				l := link{first: at.first, to: id}
				if l.first.why == "" {
					to := g
					to.Voters = slices.Clone(g.Voters)
					to.Voters[0], to.Voters[i+1] = to.Voters[i+1], to.Voters[0]
					l.first = move{to, fmt.Sprintf("%s: %s is to lead instead of %s, which leads more groups", g.Group, id, at.to)}
				}
				chains = append(chains, l)
			}
		}
	}
	return move{}, false
}

// newReplica is the id of a replica of g that is placed on a member now. The replica of meta
// is as old as the membership; others get a number that the group has not had.
func newReplica(g meta.Placement, member string) (id string, generation uint32) {
	if g.Group == metaName {
		return member, g.Generation
	}
	return fmt.Sprintf("%s.%d", member, g.Generation+1), g.Generation + 1
}

// whenAllFit is p once every active member can take replicas.
func (p placing) whenAllFit() placing {
	p.members = slices.Clone(p.members)
	for i := range p.members {
		p.members[i].fit = p.members[i].active
	}
	return p
}

// loads counts the voters of every member.
func (p placing) loads() map[string]int {
	load := map[string]int{}
	for _, g := range p.groups {
		for _, v := range g.Voters {
			load[meta.MemberOf(v)]++
		}
	}
	return load
}

// leastLoaded is the member that a replica of g goes to best, or "".
func (p placing) leastLoaded(g meta.Placement) string {
	load, best := p.loads(), ""
	for _, m := range p.members {
		if p.eligible(g, m.id) && (best == "" || load[m.id] < load[best]) {
			best = m.id
		}
	}
	return best
}

func (p placing) eligible(g meta.Placement, id string) bool {
	m := p.member(id)
	return m.active && m.fit && indexOfMember(g.Voters, id) < 0
}

// member finds a candidate; one that is no member any more is not active.
func (p placing) member(id string) candidate {
	for _, m := range p.members {
		if m.id == id {
			return m
		}
	}
	return candidate{id: id}
}

func indexOfMember(voters []string, member string) int {
	return slices.IndexFunc(voters, func(v string) bool { return meta.MemberOf(v) == member })
}

// spread places groups on the members that start a region: what the placer would make of it.
func spread(members, groups []string) []meta.Placement {
	p := placing{settled: map[string]bool{}}
	members = slices.Sorted(slices.Values(members))
	for _, id := range members {
		p.members = append(p.members, candidate{id: id, active: true, fit: true})
	}
	slot := 0
	for _, name := range groups {
		g := meta.Placement{Group: name}
		for range min(replicasWanted, len(members)) {
			g.Voters = append(g.Voters, members[slot%len(members)])
			slot++
		}
		p.groups = append(p.groups, g)
		p.settled[name] = true
	}
	for {
		m, ok := p.next()
		if !ok {
			return p.groups
		}
		p.groups[slices.IndexFunc(p.groups, func(g meta.Placement) bool { return g.Group == m.to.Group })] = m.to
	}
}

// byGroup orders the placements of a membership as the region's groups.
func byGroup(m map[string]meta.Placement, groups []string) []meta.Placement {
	var out []meta.Placement
	for _, name := range groups {
		if p, ok := m[name]; ok {
			out = append(out, p)
		}
	}
	return out
}
