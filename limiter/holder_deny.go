package limiter

import (
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// denialMin is the shortest wait for which a denial is worth remembering.
	denialMin = 2 * time.Millisecond
	// denialMax is the longest for which one is: other holders may give back what the advice could not
	// count on. A key that is denied without end then costs its group a check a second for each node.
	denialMax = time.Second
)

// denial is what a group's leader has said of a route, until its own retry time.
type denial struct {
	decision Decision
	// cost is what was denied. What costs more is denied too, but for longer, or for good.
	cost uint32
	// generation is the tenant's at that time.
	generation uint32
	// passes is when the leader said that it would pass, and until when this counts.
	passes, until int64
}

// answer denies a check if the denial still says something about it.
func (n *denial) answer(c *heldCheck, now int64) bool {
	if now >= n.until || c.request.Cost != n.cost || n.generation != c.route.tenant.denials {
		return false
	}
	levels := append(c.decision.Levels[:0], n.decision.Levels...)
	*c.decision = n.decision
	c.decision.Levels = levels
	c.decision.RetryAfterMs = uint32((n.passes - now + int64(time.Millisecond) - 1) / int64(time.Millisecond))
	c.decision.Source = SourceCached
	return true
}

// deny remembers what a leader has decided about a request that was sent at a time. lent is set if
// others have what is lacking: it may come back at any moment.
func (t *holderTable) deny(r *Request, d *Decision, sent int64, lent bool) {
	wait := time.Duration(d.RetryAfterMs) * time.Millisecond
	if d.Allow || d.Reason != ReasonLimited || wait < denialMin {
		return
	}
	c := heldCheck{request: r}
	s := t.hash(&c)
	s.mu.Lock()
	defer s.mu.Unlock()
	route := t.routeOf(s, c.tenantHash, c.hash, r)
	if route == nil {
		if t.full(s) {
			return
		}
		tenant := t.tenantOf(s, c.tenantHash, r.Tenant)
		if tenant == nil {
			return
		}
		route = s.newRoute(tenant, c.hash, r, moment(sent))
		route.central = true
		s.routes.insert(route)
	}
	if route.tenant.set.version != d.Version {
		return // other limits than those of this node
	}
	if sent <= max(route.tenant.forgot, s.forgot) {
		return // the group may have decided before tokens came back
	}
	if route.more == nil {
		route.more = &routeMore{}
	}
	kept := *d
	kept.Levels = slices.Clone(d.Levels)
	passes := sent + int64(wait)
	most := denialMax
	if lent {
		most = scarceMin
	}
	// This node's clock may be slower than the leader's, which would deny too long by that much.
	slow := 2 * int64(wait) / raftfsm.RateErrorDenominator
	route.used = moment(sent)
	route.more.denial = &denial{
		decision: kept, cost: r.Cost, generation: route.tenant.denials,
		passes: passes, until: min(passes-slow-int64(time.Millisecond), sent+int64(most)),
	}
}

// forget drops what is remembered of denials of a tenant, because tokens came back to it that nobody
// could expect.
func (t *holderTable) forget(tenant string) {
	s := t.shardOf(hashString(t.seed, tenant))
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.tenants[tenant]; known != nil {
		known.denials++
		known.forgot = t.now()
	} else {
		s.forgot = t.now()
	}
}
