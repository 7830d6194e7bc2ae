package limiter

import (
	"context"
	"fmt"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A check takes global tokens before its tenant's limits decide. Where there are few of them, a tenant that is at a limit
// of its own would keep them from everybody else, so its limits are looked at first: in what this node knows,
// then by a read of its group, and only if that denies by a command that takes nothing, since a read is as of the
// group's last entry. What is denied so has taken nothing anywhere.

// smallGlobals tells whether some global limit may be lent to one check at a time.
func (s *Service) smallGlobals() bool {
	l := s.holding()
	if l == nil || l.globals == nil {
		return true
	}
	set := l.globals.source.Load()
	return set == nil || set.small
}

// lookFirst finds out, once for each check, whether its tenant's limits deny it whatever global limits say; then
// g.own has the decision. A check with a request id may be a retry of one that has passed: for that one it
// only learns that the tenant's limits should decide before the global ones.
func (s *Service) lookFirst(ctx context.Context, mode Mode, r *Request, g *globalPart) (denied bool, err error) {
	if g.looked || mode != ModeEnforce || r.Cost == 0 {
		return false, nil
	}
	g.looked = true
	if l := s.holding(); l != nil && leasable(r) {
		switch c := (heldCheck{request: r, decision: &g.own, only: true, looks: true}); l.table.look(&c) {
		case heldSpent: // it would pass
			return false, nil
		case heldDenied:
			g.own.Levels = slices.Insert(g.own.Levels, 0, l.table.levels(&g.held)...)
			g.denied = true
			return true, nil
		}
	}
	denied, err = s.lookAway(ctx, r)
	switch {
	case err != nil || !denied:
		return false, err
	case g.named:
		g.ownFirst = true
		return false, nil
	}
	return s.lookInGroup(ctx, r, g)
}

// lookAway reads from the tenant's group whether it would deny. Where limits say what is decided without the group, and
// it is away, it tells nothing.
func (s *Service) lookAway(ctx context.Context, r *Request) (denies bool, err error) {
	plain := *r
	plain.RequestID = ""
	read := func(ctx context.Context) error {
		d, err := s.peekTenant(ctx, ModeEnforce, plain)
		denies = err == nil && !d.Allow
		return err
	}
	group := s.Group(r.Tenant)
	if set := s.coveredSet(group); set != nil && set.away(ModeEnforce, r).covered {
		stand, err := s.standIn(ctx, group, read)
		if stand {
			return false, nil
		}
		return denies, err
	}
	err = read(ctx)
	return denies, err
}

// lookInGroup lets the tenant's group judge a check at the present moment, which takes nothing, with the leases that
// are in its way returned first.
func (s *Service) lookInGroup(ctx context.Context, r *Request, g *globalPart) (denied bool, err error) {
	group, cmd := s.Group(r.Tenant), raftfsm.Command{Data: appendTogether(nil, []Part{{Request: *r, Peek: true}})}
	var sent int64
	judge := func() (res result, err error) {
		sent = s.steady()
		all, err := s.propose(ctx, group, cmd)
		switch {
		case err != nil:
			return res, err
		case all.outcome == outcomeTooManyLimits:
			return all, nil
		case all.outcome != outcomeTogether || len(all.batch) != 1:
			return res, unexpected(all)
		}
		return all.batch[0], nil
	}
	res, err := judge()
	if err == nil && s.askAgain(ctx, r.Tenant, false, &res) {
		res, err = judge()
	}
	if err == nil {
		g.own, err = decisionOf(res, outcomeDecided, r.Tenant, ModeEnforce)
	}
	if err != nil {
		return false, fmt.Errorf("limiter: check for tenant %s: %w", r.Tenant, err)
	}
	if g.own.Allow {
		return false, nil
	}
	s.decided(r, &g.own, sent, len(res.recalls) > 0)
	g.denied = true
	s.joinGlobalLook(ctx, r, &g.own)
	return true, nil
}

// joinGlobalLook adds to a denial of a tenant's limits what global limits would say, for the advice. Without it, the
// advice is that of the tenant's limits.
func (s *Service) joinGlobalLook(ctx context.Context, r *Request, d *Decision) {
	p, err := s.peekTenant(ctx, ModeEnforce, Request{Tenant: globalTenant, Token: r.Tenant, Cost: r.Cost})
	if err != nil {
		return
	}
	asChecked(&p)
	d.join(&p)
}

// asChecked leaves of a peek what a check tells.
func asChecked(p *Decision) {
	p.Levels = slices.DeleteFunc(p.Levels, func(l Level) bool { return l.Kind == KindConcurrency })
	for i := range p.Levels {
		p.Levels[i].Used, p.Levels[i].ResetMs = 0, 0
	}
}

// ownThenGlobal decides a check with a request id whose tenant's limits have just denied the like of it: they decide first,
// under the id. If they let it pass, because there is room after all or since a try before this one has passed,
// global limits decide, and undo gives back what the tenant's limits took if these deny.
func (s *Service) ownThenGlobal(ctx context.Context, mode Mode, r *Request, g *globalPart, d *Decision, decide func() error, undo func(context.Context)) error {
	err := decide()
	if err != nil {
		return err
	}
	if !d.Allow {
		s.joinGlobalLook(ctx, r, d)
		return nil
	}
	if g.life, err = s.lifeOf(ctx, g.op, r); err == nil {
		err = s.takeGlobalAway(ctx, mode, r, g)
	}
	if err != nil {
		return err // a retry asks again
	}
	if g.decision.Allow {
		d.join(&g.decision)
		return nil
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	undo(within)
	return s.denyGlobally(ctx, mode, r, g, d)
}

// lookFirstAll is lookFirst for a batch, once for each subject and cost, and returns the places of those that are not
// denied.
func (s *Service) lookFirstAll(ctx context.Context, mode Mode, all []Request, places []int, parts []globalPart, out []Outcome) (open []int) {
	type subject struct {
		tenant, token, key string
		cost               uint32
	}
	firsts, first := []int(nil), map[subject]int{}
	of := func(i int) subject { return subject{all[i].Tenant, all[i].Token, all[i].Key, all[i].Cost} }
	for _, i := range places {
		if _, known := first[of(i)]; !known {
			first[of(i)] = i
			firsts = append(firsts, i)
		}
	}
	atOnce(firsts, func(i int) { _, out[i].Err = s.lookFirst(ctx, mode, &all[i], &parts[i]) })
	for _, i := range places {
		f := first[of(i)]
		parts[i].looked = true
		if i != f {
			out[i].Err = out[f].Err
			if parts[f].denied {
				parts[i].denied, parts[i].own = true, parts[f].own
				parts[i].own.Levels = slices.Clone(parts[f].own.Levels)
			}
		}
		switch {
		case out[i].Err != nil:
		case parts[i].denied:
			out[i].Decision = parts[i].own
		default:
			open = append(open, i)
		}
	}
	return open
}

// lookTogether is lookFirst for parts that pass together: if one of them would be denied by its tenant's limits alone,
// these judge all of them, each as if the others took nothing, and global has what global limits would say of whole. all
// is nil otherwise.
func (s *Service) lookTogether(ctx context.Context, mode Mode, parts []Part, whole *Request, global *Decision) (all []Decision, err error) {
	if mode != ModeEnforce || !s.smallGlobals() {
		return nil, nil
	}
	var denied bool
	for i := 0; i < len(parts) && !denied; i++ {
		if denied, err = s.lookAway(ctx, &parts[i].Request); err != nil {
			return nil, err
		}
	}
	if !denied {
		return nil, nil
	}
	looks := slices.Clone(parts)
	for i := range looks {
		looks[i].Peek = true
	}
	all, err = s.decideTogetherAway(ctx, mode, looks)
	if err != nil || !slices.ContainsFunc(all, func(d Decision) bool { return !d.Allow }) {
		return nil, err
	}
	*global = Decision{Allow: true}
	s.joinGlobalLook(ctx, whole, global)
	return all, nil
}
