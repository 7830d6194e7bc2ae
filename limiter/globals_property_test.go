package limiter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// globalsModel is what checks against global limits must do, where no time passes: numbers that are added
// and compared, one group or many, whole or not at all.
type globalsModel struct {
	limits []Limit
	used   map[string]uint32
	// first are the first decisions under request ids, and held what reservations took, by the names of both.
	first map[string]*modelCheck
	held  map[string]*modelCheck
}

// modelCheck is a check that was decided.
type modelCheck struct {
	request         Request
	allow, global   bool // global is whether global limits let it pass
	tenants, shared []string
	settled         bool
	// was is what a settlement answered.
	was Settlement
}

func newGlobalsModel(limits []Limit) *globalsModel {
	return &globalsModel{limits: limits, used: map[string]uint32{}, first: map[string]*modelCheck{}, held: map[string]*modelCheck{}}
}

// counters are those of the global limits, or of a tenant's.
func (m *globalsModel) counters(global bool, r Request) (names []string, limits []Limit) {
	for _, l := range m.limits {
		name := l.ID
		switch {
		case global != (l.Scope == ScopeGlobal):
			continue
		case l.Scope == ScopeTenant:
			name += " " + r.Tenant
		case l.Scope == ScopeKey:
			name += " " + r.Tenant + " " + r.Key
		}
		names, limits = append(names, name), append(limits, l)
	}
	return names, limits
}

// fits tells whether a request passes, with what is used besides.
func (m *globalsModel) fits(global bool, r Request, besides map[string]uint32) bool {
	names, limits := m.counters(global, r)
	for i, l := range limits {
		if used := m.used[names[i]] + besides[names[i]]; !l.shadows(r.Tenant) && used+r.Cost > l.Window.Limit {
			return false
		}
	}
	return true
}

// take debits what fits, and tells where.
func (m *globalsModel) take(global bool, r Request) (taken []string) {
	names, limits := m.counters(global, r)
	for i, l := range limits {
		if !l.shadows(r.Tenant) || m.used[names[i]]+r.Cost <= l.Window.Limit {
			m.used[names[i]] += r.Cost
			taken = append(taken, names[i])
		}
	}
	return taken
}

func (m *globalsModel) give(names []string, n uint32) {
	for _, name := range names {
		m.used[name] -= min(n, m.used[name])
	}
}

// check decides one check, or one reservation.
func (m *globalsModel) check(r Request) *modelCheck {
	c := &modelCheck{request: r, global: m.fits(true, r, nil)}
	if c.allow = c.global && m.fits(false, r, nil); c.allow && r.Cost > 0 {
		c.shared, c.tenants = m.take(true, r), m.take(false, r)
	}
	return c
}

// together decides parts.
func (m *globalsModel) together(parts []Part) (allowed []bool) {
	whole, looks := Request{Tenant: parts[0].Tenant}, true
	shared := make([]bool, len(parts))
	for i, p := range parts {
		if shared[i] = true; p.Peek {
			shared[i] = m.fits(true, p.Request, nil)
			looks = looks && shared[i]
		} else {
			whole.Cost += p.Cost
		}
	}
	fits, besides, all := m.fits(true, whole, nil), map[string]uint32{}, true
	// Where one alone is denied by its tenant, nothing is taken, not even for those behind it.
	denied := slices.ContainsFunc(parts, func(p Part) bool { return !m.fits(false, p.Request, nil) })
	for i, p := range parts {
		own := m.fits(false, p.Request, besides)
		if own && !p.Peek && fits && looks && !denied {
			names, limits := m.counters(false, p.Request)
			for k, l := range limits {
				if !l.shadows(p.Tenant) || m.used[names[k]]+besides[names[k]]+p.Cost <= l.Window.Limit {
					besides[names[k]] += p.Cost
				}
			}
		}
		if !p.Peek {
			shared[i] = fits
		}
		allowed = append(allowed, own && shared[i])
		all = all && allowed[i]
	}
	if all {
		for name, n := range besides { // any order
			m.used[name] += n
		}
		m.take(true, whole)
	}
	return allowed
}

// genGlobals draws limits, one of them global and tight.
func genGlobals() *rapid.Generator[[]Limit] {
	return rapid.Custom(func(t *rapid.T) []Limit {
		most := func(label string, least, n uint32) uint32 { return rapid.Uint32Range(least, n).Draw(t, label) }
		limits := []Limit{
			hourly("all", ScopeGlobal, anyTenant, most("global", 1, 30)),
			hourly("each", ScopeTenant, anyTenant, most("tenant", 1, 20)),
		}
		if rapid.Bool().Draw(t, "keys") {
			limits = append(limits, hourly("key", ScopeKey, "*/*", most("key", 1, 10)))
		}
		if rapid.Bool().Draw(t, "second") {
			second := hourly("some", ScopeGlobal, anyTenant, most("second", 0, 20))
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				second.Enforcement = EnforcementShadow
			case 1:
				second.Canary = 50
			}
			limits = append(limits, second)
		}
		return limits
	})
}

var modelTenants, modelKeys = []string{"t0", "t1", "t2", "t3"}, []string{"", "k"}

func drawGlobalRequest(t *rapid.T, named bool) Request {
	r := Request{
		Tenant: rapid.SampledFrom(modelTenants).Draw(t, "tenant"), Key: rapid.SampledFrom(modelKeys).Draw(t, "of key"),
		Cost: rapid.Uint32Range(0, 6).Draw(t, "cost"),
	}
	if named && rapid.Bool().Draw(t, "named") {
		r.RequestID = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
	}
	return r
}

// compareUsed compares all counters.
func (m *globalsModel) compareUsed(t *rapid.T, r *realm, s *Service) {
	t.Helper()
	for _, tenant := range append(slices.Clone(modelTenants), globalTenant) {
		for _, key := range modelKeys {
			got := r.used(s, tenant, key)
			names, limits := m.counters(tenant == globalTenant, Request{Tenant: tenant, Key: key})
			for i, l := range limits {
				if want := m.used[names[i]]; got[l.ID] != want {
					t.Fatalf("%s: %d used, want %d", names[i], got[l.ID], want)
				}
			}
		}
	}
}

// named finds the first decision of a request, or nil. again is false if it came with other content.
func (m *globalsModel) named(op string, r Request) (name string, first *modelCheck, again bool) {
	name = op + " " + r.Tenant + " " + r.RequestID
	if first = m.first[name]; first == nil || r.RequestID == "" {
		return name, nil, true
	}
	// Who was denied by global limits was not asked for the key.
	return name, first, first.request.Cost == r.Cost && (first.request.Key == r.Key || !first.global)
}

// Whatever is asked in whatever way, the decisions and what is used of each limit are those of the model.
func TestGlobalLimitsAgreeWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := genGlobals().Draw(rt, "limits")
		r := startRealm(t, 3, limits...)
		m := newGlobalsModel(limits)
		steps := rapid.IntRange(1, 25).Draw(rt, "steps")
		for range steps {
			s := r.node() // any node
			switch rapid.SampledFrom([]string{"check", "check", "reserve", "settle", "refund", "batch", "together", "together"}).Draw(rt, "what") {
			case "check":
				m.tryCheck(rt, s)
			case "reserve":
				m.tryReserve(rt, s)
			case "settle":
				m.trySettle(rt, s)
			case "refund":
				m.tryRefund(rt, s)
			case "batch":
				m.tryBatch(rt, s)
			case "together":
				m.tryTogether(rt, s)
			}
			m.compareUsed(rt, r, s)
		}
	})
}

// mixedUp tells whether a request id comes again with other content after its tenant's limits have denied it. Global limits
// may not have been asked then, so that they take for it what they would take for another request of the tenant.
func (m *globalsModel) mixedUp(op string, q Request) bool {
	_, first, _ := m.named(op, q)
	return first != nil && !first.allow && (first.request.Cost != q.Cost || first.request.Key != q.Key)
}

// expect compares a decision with the model's.
func (m *globalsModel) expect(t *rapid.T, op string, q Request, d Decision, err error) (c *modelCheck) {
	name, first, again := m.named(op, q)
	switch {
	case !again:
		if !errors.Is(err, raftfsm.ErrRequestReused) {
			t.Fatalf("%s of %+v again: %v, %v", op, q, d, err)
		}
		return nil
	case first == nil:
		first = m.check(q)
		if q.RequestID != "" {
			m.first[name] = first
		}
	}
	if err != nil || d.Allow != first.allow {
		t.Fatalf("%s of %+v: %v, %v; want %v", op, q, d, err, first.allow)
	}
	return first
}

func (m *globalsModel) tryCheck(t *rapid.T, s *Service) {
	q := drawGlobalRequest(t, true)
	if m.mixedUp("check", q) {
		return
	}
	d, err := s.Check(context.Background(), q)
	m.expect(t, "check", q, d, err)
}

func (m *globalsModel) tryReserve(t *rapid.T, s *Service) {
	q := drawGlobalRequest(t, true)
	q.Cost = max(q.Cost, 1)
	if m.mixedUp("reserve", q) {
		return
	}
	h, err := s.Reserve(context.Background(), q, 0)
	if c := m.expect(t, "reserve", q, h.Decision, err); c != nil && c.allow {
		m.held[q.Tenant+" "+h.ID] = c
	}
}

func (m *globalsModel) trySettle(t *rapid.T, s *Service) {
	var names []string
	for name := range m.held { // any order
		names = append(names, name)
	}
	if len(names) == 0 {
		return
	}
	// In the order of what they took, since ids are random.
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Compare(fmt.Sprint(m.held[a].request, m.held[a].settled), fmt.Sprint(m.held[b].request, m.held[b].settled))
	})
	name := rapid.SampledFrom(names).Draw(t, "reservation")
	c, actual := m.held[name], rapid.Uint32Range(0, 8).Draw(t, "actual")
	got, err := s.Commit(context.Background(), c.request.Tenant, name[len(c.request.Tenant)+1:], actual)
	if !c.settled {
		c.settled, c.was = true, Settlement{Actual: actual, Refunded: c.request.Cost - min(actual, c.request.Cost), Overdrawn: actual - min(actual, c.request.Cost)}
		m.give(c.tenants, c.was.Refunded)
		for _, counter := range c.tenants {
			m.used[counter] += c.was.Overdrawn
		}
	}
	if err != nil || got != c.was {
		t.Fatalf("commit of %d of %+v: %+v, %v; want %+v", actual, c.request, got, err, c.was)
	}
}

func (m *globalsModel) tryRefund(t *rapid.T, s *Service) {
	q := drawGlobalRequest(t, false)
	q.RequestID = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
	n, err := s.Refund(context.Background(), q.Tenant, q.RequestID, q.Cost)
	_, c, _ := m.named("check", q)
	if c == nil || !c.allow || c.request.Cost == 0 {
		if !errors.Is(err, ErrRequestUnknown) {
			t.Fatalf("refund of %+v: %d, %v", q, n, err)
		}
		return
	}
	if !c.settled {
		c.settled, c.was.Refunded = true, c.request.Cost
		if q.Cost > 0 {
			c.was.Refunded = min(q.Cost, c.request.Cost)
		}
		m.give(c.tenants, c.was.Refunded)
		m.give(c.shared, c.was.Refunded)
	}
	if err != nil || n != c.was.Refunded {
		t.Fatalf("refund of %+v: %d, %v; want %d", q, n, err, c.was.Refunded)
	}
}

// tryBatch compares a batch for which there is room in all global limits with its checks one by one. Which
// checks get the last tokens is open, so where these are scarce, only that is compared what was taken.
func (m *globalsModel) tryBatch(t *rapid.T, s *Service) {
	var all []Request
	sum := uint32(0)
	for range rapid.IntRange(1, 12).Draw(t, "size") {
		all = append(all, drawGlobalRequest(t, false))
		sum += all[len(all)-1].Cost
	}
	roomy := true
	for _, tenant := range modelTenants {
		roomy = roomy && m.fits(true, Request{Tenant: tenant, Cost: sum}, nil)
	}
	out, err := s.CheckBatch(context.Background(), all)
	if err != nil {
		t.Fatal(err)
	}
	watched := len(m.limits) > 2 && slices.ContainsFunc(m.limits, func(l Limit) bool {
		return l.Scope == ScopeGlobal && (l.Enforcement == EnforcementShadow || l.Canary != 0) && m.used[l.ID]+sum > l.Window.Limit
	})
	for i, o := range out {
		if o.Err != nil {
			t.Fatalf("check %d: %v", i, o.Err)
		}
		switch {
		case roomy:
			if c := m.check(all[i]); c.allow != o.Decision.Allow {
				t.Fatalf("check %d of %+v: %v, want %v", i, all, o.Decision, c.allow)
			}
		case o.Decision.Allow:
			if !m.fits(false, all[i], nil) {
				t.Fatalf("check %d of %+v: %v; its tenant has no room", i, all, o.Decision)
			}
			m.take(true, all[i])
			m.take(false, all[i])
		}
	}
	if watched { // what a shadow that is full counts depends on the order
		m.learnShadows(t, s)
	}
}

// learnShadows takes over what global shadows count.
func (m *globalsModel) learnShadows(t *rapid.T, s *Service) {
	d, err := s.peekTenant(context.Background(), ModeEnforce, Request{Tenant: globalTenant})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range d.Levels {
		if l.LimitID == "some" {
			if l.Used > l.Limit {
				t.Fatalf("%d of %d used", l.Used, l.Limit)
			}
			m.used[l.LimitID] = l.Used
		}
	}
}

func (m *globalsModel) tryTogether(t *rapid.T, s *Service) {
	var parts []Part
	tenant := rapid.SampledFrom(modelTenants).Draw(t, "of")
	for range rapid.IntRange(1, 5).Draw(t, "parts") {
		p := Part{Request: drawGlobalRequest(t, false), Peek: rapid.IntRange(0, 3).Draw(t, "looks") == 0}
		p.Tenant = tenant
		parts = append(parts, p)
	}
	out, err := s.CheckTogether(context.Background(), parts)
	want := m.together(parts)
	if err != nil || len(out) != len(want) {
		t.Fatalf("%+v: %v, %v", parts, out, err)
	}
	for i := range out {
		if out[i].Allow != want[i] {
			t.Fatalf("part %d of %+v: %v, want %v", i, parts, out[i], want[i])
		}
	}
}

// faultyModel bounds what may have been taken where commands fail, are lost, late or repeated.
type faultyModel struct {
	*globalsModel
	// admitted is what passed and was not given back, and unsure what may have been taken besides, by tenant.
	admitted, unsure map[string]uint32
	passed, decided  map[string]bool   // by the name of a named check
	gone             map[string]bool   // refunded, perhaps
	costs            map[string]uint32 // of what has passed
}

// note learns what became of a check.
func (m *faultyModel) note(t *rapid.T, op string, q Request, d Decision, err error, disturbed bool) {
	name := op + " " + q.Tenant + " " + q.RequestID
	if err == nil && q.RequestID != "" {
		if was, ok := m.decided[name]; ok && was != d.Allow {
			t.Fatalf("%s: %v, and %v before", name, d, was)
		}
		m.decided[name] = d.Allow
	}
	switch {
	case err == nil && d.Allow && q.RequestID == "":
		m.admitted[q.Tenant] += q.Cost
	case err == nil && d.Allow && m.gone[name]:
		m.unsure[q.Tenant] += q.Cost
	case err == nil && d.Allow && !m.passed[name]:
		m.passed[name], m.costs[name] = true, q.Cost
		m.admitted[q.Tenant] += q.Cost
	case err != nil || disturbed:
		m.unsure[q.Tenant] += q.Cost
	}
}

// compare looks whether what is used covers what was admitted, and no more than may have been taken.
func (m *faultyModel) compare(t *rapid.T, r *realm, s *Service) {
	t.Helper()
	sum, most, owed := uint32(0), uint32(0), uint32(0)
	for _, tenant := range modelTenants {
		used := r.used(s, tenant, "")["each"]
		if used < m.admitted[tenant] || used > m.limits[1].Window.Limit {
			t.Fatalf("%s: %d used, %d admitted, of %d", tenant, used, m.admitted[tenant], m.limits[1].Window.Limit)
		}
		sum, most, owed = sum+m.admitted[tenant], most+m.admitted[tenant]+m.unsure[tenant], owed+used
	}
	// What a tenant's limit has taken has passed, or may have: it has global tokens.
	if used := r.used(s, globalTenant, "")["all"]; used < max(sum, owed) || used > most || used > m.limits[0].Window.Limit {
		t.Fatalf("all: %d used of %d, %d admitted, %d more at most; %d used of tenants' limits", used, m.limits[0].Window.Limit, sum, most-sum, owed)
	}
}

// Whatever becomes of commands to the groups, what passes is taken from both, retries get one decision, and
// only what somebody does not know of is missing.
func TestGlobalLimitsUnderFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := []Limit{
			hourly("all", ScopeGlobal, anyTenant, rapid.Uint32Range(1, 30).Draw(rt, "global")),
			hourly("each", ScopeTenant, anyTenant, rapid.Uint32Range(1, 20).Draw(rt, "tenant")),
		}
		r := startRealm(t, 2, limits...)
		m := faultyModel{
			globalsModel: newGlobalsModel(limits), admitted: map[string]uint32{}, unsure: map[string]uint32{},
			passed: map[string]bool{}, decided: map[string]bool{}, gone: map[string]bool{}, costs: map[string]uint32{},
		}
		s := r.node()
		var named []Request // to be tried again
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			for _, id := range r.ids {
				r.faults[id] = nil
				for range rapid.IntRange(0, 2).Draw(rt, "faults") {
					r.faults[id] = append(r.faults[id], fault(rapid.IntRange(0, int(faultKinds)-1).Draw(rt, "fault")))
				}
			}
			broken := r.broken
			disturbed := func() bool { return r.broken > broken }
			ctx := context.Background()
			switch rapid.SampledFrom([]string{"check", "check", "again", "again", "reserve", "refund", "batch", "together", "land"}).Draw(rt, "what") {
			case "again":
				if len(named) > 0 {
					q := rapid.SampledFrom(named).Draw(rt, "again")
					d, err := s.Check(ctx, q)
					m.note(rt, "check", q, d, err, disturbed())
				}
			case "check":
				q := drawGlobalRequest(rt, true)
				if q.RequestID != "" {
					named = append(named, q)
				}
				d, err := s.Check(ctx, q)
				m.note(rt, "check", q, d, err, disturbed())
			case "reserve":
				q := drawGlobalRequest(rt, true)
				q.Cost = max(q.Cost, 1)
				h, err := s.Reserve(ctx, q, 0)
				m.note(rt, "reserve", q, h.Decision, err, disturbed())
			case "refund":
				q := Request{Tenant: rapid.SampledFrom(modelTenants).Draw(rt, "tenant"), RequestID: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "id")}
				name := "check " + q.Tenant + " " + q.RequestID
				if _, err := s.Refund(ctx, q.Tenant, q.RequestID, 0); errors.Is(err, ErrRequestUnknown) || m.gone[name] {
					break
				}
				m.gone[name] = true
				if m.passed[name] { // what it took may be there, or not
					m.admitted[q.Tenant] -= m.costs[name]
					m.unsure[q.Tenant] += m.costs[name]
				}
			case "batch":
				var all []Request
				for range rapid.IntRange(1, 6).Draw(rt, "size") {
					all = append(all, drawGlobalRequest(rt, false))
				}
				out, err := s.CheckBatch(ctx, all)
				if err != nil {
					rt.Fatal(err)
				}
				for i, o := range out {
					m.note(rt, "check", all[i], o.Decision, o.Err, disturbed())
				}
			case "together":
				parts, whole := []Part{}, Request{Tenant: rapid.SampledFrom(modelTenants).Draw(rt, "of")}
				for range rapid.IntRange(1, 4).Draw(rt, "parts") {
					p := Part{Request: drawGlobalRequest(rt, false)}
					p.Tenant = whole.Tenant
					parts, whole.Cost = append(parts, p), whole.Cost+p.Cost
				}
				out, err := s.CheckTogether(ctx, parts)
				all := !slices.ContainsFunc(out, func(d Decision) bool { return !d.Allow })
				m.note(rt, "check", whole, Decision{Allow: all}, err, disturbed())
			case "land":
				r.land()
			}
			m.compare(rt, r, s)
		}
	})
}
