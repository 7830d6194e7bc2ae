package limiter

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Ask is what a holder outside the nodes says about the limits that match a token and a key: reports
// of its leases of these, or nothing, to learn which limits they are.
type Ask struct {
	Token, Key string
	// Reports name no tenant and no subject: those are of the ask.
	Reports []Renewal
}

// Route answers an Ask.
type Route struct {
	Version uint32
	// Lent is false when checks must go to a node.
	Lent   bool
	Levels []RouteLevel
	// Grants are for each report, or none when nobody knows what became of them.
	Grants []Grant
}

// RouteLevel is one limit of a route, as a holder must know it.
type RouteLevel struct {
	Limit   uint64
	Subject string
	// Span is for how much time's demand to ask at once; Most and Chunk are the largest cost that is
	// lent, and the least that is worth asking for.
	Span        time.Duration
	Most, Chunk uint32
	// Parts are what a check reports, without their state.
	Parts []Level
}

// OutsideHolder is the holder of a process that is no node. It depends on realm, whose identities use
// the number, so that nobody can speak for a holder of another realm, or for a node.
func OutsideHolder(realm string, number uint64) Holder {
	sum := sha256.Sum256(fmt.Appendf(nil, "holder outside %d %s", number, realm))
	return Holder(binary.BigEndian.Uint64(sum[:8]))
}

// Lend answers the asks of a holder outside the nodes, all of one tenant. Reports of limits that do not
// match their ask are refused: a holder reaches no counters but those that its checks would.
func (s *Service) Lend(ctx context.Context, h Holder, tenant string, asks []Ask) ([]Route, error) {
	for i := range asks {
		if err := validRequest(Request{Tenant: tenant, Token: asks[i].Token, Key: asks[i].Key}); err != nil {
			return nil, fmt.Errorf("asks[%d]: %w", i, err)
		}
	}
	routes := make([]Route, len(asks))
	l := s.holding()
	if l == nil {
		return routes, nil
	}
	group := l.table.groups[s.Group(tenant)]
	if group == nil || group.shut.Load() {
		return routes, nil
	}
	set := group.source.Load()
	if set == nil {
		return routes, nil
	}
	// Who is outside holds nothing of global limits, so checks come to a node while there are any.
	globals, _, err := s.globals(ctx)
	if err != nil {
		return routes, nil
	}
	enforced := s.mode() == ModeEnforce && !globals
	out := outsideReports{}
	for i := range asks {
		routes[i] = set.route(tenant, &asks[i], enforced, &out)
	}
	if err := l.lend(ctx, group.id, h, &out); err != nil {
		l.metrics.failed.Inc()
		for i := range routes {
			routes[i].Grants = nil
		}
		return routes, nil
	}
	for i, place := range out.places {
		routes[place.ask].Grants[place.report] = out.grants[i]
	}
	l.outside.heard(h, out.renewals)
	return routes, nil
}

// outsideReports are the reports that go to a group, and which grants they are for.
type outsideReports struct {
	renewals []Renewal
	places   []struct{ ask, report int }
	grants   []Grant
	asks     int
}

// route finds the limits of an ask and sorts out its reports.
func (set *limitSet) route(tenant string, a *Ask, enforced bool, out *outsideReports) Route {
	matched := set.matchCounters(nil, tenant, a.Token, a.Key)
	r := Route{Version: set.version, Lent: enforced && len(matched) > 0 && len(matched) <= levelsMax, Grants: make([]Grant, len(a.Reports))}
	for _, l := range matched {
		r.Lent = r.Lent && l.terms.span > 0
	}
	for i, report := range a.Reports {
		at := slices.IndexFunc(matched, func(l *limitState) bool { return l.uid == report.Limit })
		if at < 0 {
			r.Grants[i].Refused = true
			continue
		}
		report.Tenant, report.Subject = tenant, matched[at].subject(a.Token, a.Key)
		if !r.Lent {
			report.Want = 0
		}
		out.renewals = append(out.renewals, report)
		out.places = append(out.places, struct{ ask, report int }{out.asks, i})
	}
	out.asks++
	if !r.Lent {
		return r
	}
	for _, l := range matched {
		level := RouteLevel{
			Limit: l.uid, Subject: l.subject(a.Token, a.Key), Span: time.Duration(l.terms.span),
			Most: l.terms.most, Chunk: l.terms.chunk, Parts: slices.Clone(l.terms.levels),
		}
		for i := range level.Parts {
			level.Parts[i].Shadow = l.terms.watches && l.shadows(tenant)
		}
		r.Levels = append(r.Levels, level)
	}
	return r
}

// lend carries reports to their group.
func (l *Leases) lend(ctx context.Context, group raftfsm.GroupID, h Holder, out *outsideReports) error {
	for part := range slices.Chunk(out.renewals, renewalsMax) {
		grants, err := l.propose(ctx, group, leaseCommand{holder: h, renewals: part})
		if err != nil {
			return err
		}
		out.grants = append(out.grants, grants...)
	}
	return nil
}

// propose renews leases of one holder by one command.
func (l *Leases) propose(ctx context.Context, group raftfsm.GroupID, c leaseCommand) ([]Grant, error) {
	r, err := l.options.Groups.Propose(ctx, group, raftfsm.Command{Data: appendLease(nil, c)})
	if err != nil {
		return nil, err
	}
	res, err := decodeResult(r.Data)
	if err != nil {
		return nil, err
	}
	if res.outcome != outcomeLent || len(res.grants) != len(c.renewals) {
		return nil, unexpected(res)
	}
	return res.grants, nil
}
