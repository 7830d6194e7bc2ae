package limiter

import (
	"slices"
	"strings"
)

const (
	anyTenant = "*"
	wildcard  = "*"
	// levelsMax bounds how many limits may match one request.
	levelsMax = 64
)

// pattern matches text in which every * stands for any run of characters, none included. Its
// time is linear in the text for each literal part: no backtracking.
type pattern struct {
	exact  bool
	prefix string
	middle []string
	suffix string
}

func compilePattern(s string) pattern {
	parts := strings.Split(s, wildcard)
	p := pattern{exact: len(parts) == 1, prefix: parts[0]}
	if p.exact {
		return p
	}
	p.suffix = parts[len(parts)-1]
	for _, m := range parts[1 : len(parts)-1] {
		if m != "" {
			p.middle = append(p.middle, m)
		}
	}
	return p
}

func (p pattern) match(s string) bool {
	if p.exact {
		return s == p.prefix
	}
	if len(s) < len(p.prefix)+len(p.suffix) || !strings.HasPrefix(s, p.prefix) || !strings.HasSuffix(s, p.suffix) {
		return false
	}
	s = s[len(p.prefix) : len(s)-len(p.suffix)]
	// Taking each part where it occurs first leaves the most room for the next.
	for _, m := range p.middle {
		at := strings.Index(s, m)
		if at < 0 {
			return false
		}
		s = s[at+len(m):]
	}
	return true
}

// limitSet is all limits of a group at one version, indexed for matching. It never changes
// once built, so that readers need no lock.
type limitSet struct {
	version uint32
	emptied int64 // when a restore emptied all counters, in group time; 0 for never
	wall    wallState
	related bool          // some limits say something about others: see narrow
	slots   bool          // some limits have a concurrency
	covered bool          // some limits say what becomes of checks without their group
	sorted  []*limitState // by id
	byID    map[string]*limitState
	byUID   map[uint64]*limitState
	tenants map[string]*tenantLimits // by owner: * and plans included
	plans   planSet
	// index tells apart sets whose limits may differ: those that a change of plans alone made share
	// the limits of the set before.
	index   *byte
	globals []*limitState // of the scope global, which only their own group counts
	// canaries is set if the tenant matters to some of them.
	canaries bool
	// small is set if some of them are lent to one check at a time.
	small bool
}

type tenantLimits struct {
	tenant []*limitState
	token  subjectIndex
	key    subjectIndex
}

// subjectIndex finds the limits whose pattern matches a token or a key: those without a
// wildcard by the whole text, the others by what stands before their first wildcard.
type subjectIndex struct {
	exact    map[string][]*limitState
	prefixes map[string][]*limitState
	lengths  []int // distinct lengths of the prefixes, ascending
}

// newLimitSet indexes limits, which are sorted by id.
func newLimitSet(version uint32, sorted []*limitState, emptied int64, wall wallState) *limitSet {
	s := &limitSet{
		version: version,
		emptied: emptied,
		wall:    wall,
		sorted:  sorted,
		byID:    make(map[string]*limitState, len(sorted)),
		byUID:   make(map[uint64]*limitState, len(sorted)),
		tenants: map[string]*tenantLimits{},
		index:   new(byte),
	}
	for _, l := range sorted {
		s.byID[l.ID] = l
		s.byUID[l.uid] = l
		if l.over(wall.passed) {
			continue
		}
		s.slots = s.slots || l.hasConcurrency()
		s.covered = s.covered || l.OnFailure != ""
		s.related = s.related || l.Access != "" || l.Overrides != ""
		if l.Scope == ScopeGlobal {
			s.globals = append(s.globals, l)
			s.canaries = s.canaries || l.Canary != 0
			s.small = s.small || l.single()
			continue
		}
		t := s.tenants[l.Owner()]
		if t == nil {
			t = &tenantLimits{}
			s.tenants[l.Owner()] = t
		}
		switch l.Scope {
		case ScopeTenant:
			t.tenant = append(t.tenant, l)
		case ScopeToken:
			t.token.add(l)
		case ScopeKey:
			t.key.add(l)
		}
	}
	return s
}

func (x *subjectIndex) add(l *limitState) {
	if l.pattern.exact {
		if x.exact == nil {
			x.exact = map[string][]*limitState{}
		}
		x.exact[l.pattern.prefix] = append(x.exact[l.pattern.prefix], l)
		return
	}
	if x.prefixes == nil {
		x.prefixes = map[string][]*limitState{}
	}
	prefix := l.pattern.prefix
	x.prefixes[prefix] = append(x.prefixes[prefix], l)
	if at, found := slices.BinarySearch(x.lengths, len(prefix)); !found {
		x.lengths = slices.Insert(x.lengths, at, len(prefix))
	}
}

func (x *subjectIndex) match(dst []*limitState, subject string) []*limitState {
	dst = append(dst, x.exact[subject]...)
	for _, n := range x.lengths {
		if n > len(subject) {
			break
		}
		for _, l := range x.prefixes[subject[:n]] {
			if l.pattern.match(subject) {
				dst = append(dst, l)
			}
		}
	}
	return dst
}

// match finds the limits that apply to a request in the order they are evaluated: scope
// tenant, then token, then key, and by id within a scope. An empty token or key is a subject
// like any other, so that leaving it out evades nothing. Those of the scope global apply to the
// requests of globalTenant alone.
func (s *limitSet) match(dst []*limitState, tenant, token, key string) []*limitState {
	if tenant == globalTenant {
		return append(dst, s.globals...)
	}
	own, plan, all := s.tenants[tenant], s.tenants[s.plans.owner(tenant)], s.tenants[anyTenant]
	for _, scope := range tenantScopes {
		begin := len(dst)
		for _, t := range [...]*tenantLimits{own, plan, all} {
			if t == nil {
				continue
			}
			switch scope {
			case ScopeTenant:
				dst = append(dst, t.tenant...)
			case ScopeToken:
				dst = t.token.match(dst, token)
			case ScopeKey:
				dst = t.key.match(dst, key)
			}
		}
		slices.SortFunc(dst[begin:], func(a, b *limitState) int { return strings.Compare(a.ID, b.ID) })
	}
	if s.related {
		return narrow(dst, tenant)
	}
	return dst
}

// matchCounters is match without limits that a check does not look at.
func (s *limitSet) matchCounters(dst []*limitState, tenant, token, key string) []*limitState {
	dst = s.match(dst, tenant, token, key)
	if !s.slots {
		return dst
	}
	return slices.DeleteFunc(dst, func(l *limitState) bool { return !l.counts() && l.Access == "" })
}

// matchSlots is match without limits that an acquire does not look at.
func (s *limitSet) matchSlots(dst []*limitState, tenant, token, key string) []*limitState {
	return slices.DeleteFunc(s.match(dst, tenant, token, key), func(l *limitState) bool { return !l.hasConcurrency() && l.Access == "" })
}
