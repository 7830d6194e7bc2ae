package limiter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Limits of the scope global have one counter each, in the group with the smallest id. A check takes
// their tokens first, without deciding yet: from leases of this node, or from that group under an id by
// which they can be given back. Then the tenant's levels are decided as ever. If they deny, the global
// tokens go back; if nobody knows what they decided, they stay spent.

// globalTenant is the tenant of global counters; no real one can have its name. A request for it
// matches the limits of the scope global and no others. Its token is the real tenant where that matters.
const globalTenant = anyTenant

// Names under which request ids are remembered.
const (
	opNameCheck   = "limiter.check"
	opNameReserve = "limiter.reserve"
)

const (
	// globalsFresh is for how long a node without a replica believes what it knows of whether there are
	// global limits.
	globalsFresh = time.Second
	// putBackTimeout bounds how long a denied check waits until its global tokens are back.
	putBackTimeout = time.Second
)

func validCounterTenant(s string) bool { return s == globalTenant || ValidName(s) }

// asker is the tenant for which limits may be shadows.
func (r *Request) asker() string {
	if r.Tenant == globalTenant {
		return r.Token
	}
	return r.Tenant
}

func globalProblems(l Limit) (out []problem) {
	if l.hasConcurrency() {
		out = append(out, problem{"concurrency", "does not go with the scope global; use tenant, token or key"})
	}
	if l.Access != "" {
		out = append(out, problem{"access", "does not go with the scope global; use tenant, token or key"})
	}
	if l.Overrides != "" {
		out = append(out, problem{"overrides", "does not go with the scope global; use tenant, token or key"})
	}
	return out
}

// remoteGlobals is what a node without a replica of a group knows.
type remoteGlobals struct {
	mu    sync.Mutex
	known time.Time
	any   bool
	// asking is set while one asks again; the others go on with what is known.
	asking bool
}

// globals tells whether global limits may be in force, and whether a tenant's name matters to them.
func (s *Service) globals(ctx context.Context) (some, canaries bool, err error) {
	if l := s.leases; l != nil && l.globals != nil {
		if set := l.globals.source.Load(); set != nil && !l.globals.shut.Load() {
			return len(set.globals) > 0, set.canaries, nil
		}
		some = s.groups.Level() >= raftfsm.LevelLeases
		return some, some, nil // what there is here may be old
	}
	if s.groups.Level() < raftfsm.LevelLeases {
		return false, false, nil
	}
	g := &s.remote
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.known) < globalsFresh || g.asking {
		return g.any, g.any, nil
	}
	ctx, cancel := context.WithTimeout(ctx, globalsFresh)
	defer cancel()
	if g.known.IsZero() { // nobody can go on before something is known
		if g.any, err = s.askForGlobals(ctx); err != nil {
			return false, false, fmt.Errorf("limiter: global limits: %w", err)
		}
		g.known = time.Now()
		return g.any, g.any, nil
	}
	g.asking = true
	g.mu.Unlock()
	some, err = s.askForGlobals(ctx)
	g.mu.Lock()
	if err == nil {
		g.any = some
	} // else what was known goes on: tenants without global limits need not suffer
	g.asking, g.known = false, time.Now()
	return g.any, g.any, nil
}

// askForGlobals asks the group of the global limits, or a replica of it, whether there are some.
func (s *Service) askForGlobals(ctx context.Context) (some bool, err error) {
	res, err := s.query(ctx, s.Group(globalTenant), appendPeek(nil, Request{Tenant: globalTenant}), raftfsm.Bounded)
	if err == nil && res.outcome != outcomePeeked && res.outcome != outcomeTooManyLimits {
		err = unexpected(res)
	}
	return res.outcome == outcomeTooManyLimits || len(res.decision.Levels) > 0, err
}

// globalPart is the part of a check that global limits decide.
type globalPart struct {
	op       string
	request  Request
	decision Decision
	held     heldCheck
	// leased is set while tokens of leases are pending, and id if the group can give them back.
	leased bool
	id     holdID
	// named is set if the check has a request id, so that other tries of it may be decided too. life then tells
	// apart the tries that the tenant's group takes for different requests.
	named bool
	life  uint64
	// looked is set once the tenant's limits were looked at first; denied if they deny, by the decision own;
	// ownFirst if they should decide before global limits.
	looked, denied, ownFirst bool
	own                      Decision
}

var globalParts = sync.Pool{New: func() any { return &globalPart{} }}

// begin makes the request of a check, or whatever op names, to its global limits.
func (g *globalPart) begin(op string, r *Request, canaries bool) {
	levels := g.decision.Levels[:0]
	*g = globalPart{op: op, request: Request{Tenant: globalTenant, Cost: r.Cost}, decision: Decision{Levels: levels}, named: r.RequestID != ""}
	if canaries || g.named { // a retry must be the same command
		g.request.Token = r.Tenant
	}
	g.held = heldCheck{request: &g.request, decision: &g.decision, holds: true}
}

// takeGlobal decides the global part of a check, unless g.denied tells that its tenant's limits deny it. What it takes
// must be settled.
func (s *Service) takeGlobal(ctx context.Context, mode Mode, r *Request, g *globalPart) error {
	if s.smallGlobals() {
		if denied, err := s.lookFirst(ctx, mode, r, g); denied || err != nil {
			return err
		}
	}
	if l := s.holding(); l != nil && mode == ModeEnforce && leasable(r) {
		decided, err := l.decide(ctx, &g.held)
		if err != nil {
			return fmt.Errorf("limiter: global limits: %w", err)
		}
		if decided {
			g.leased = g.held.answer == heldSpent
			return nil
		}
	}
	// This node has no tokens, so there may be few.
	if denied, err := s.lookFirst(ctx, mode, r, g); denied || err != nil {
		return err
	}
	return s.askGlobal(ctx, mode, r, g)
}

// askGlobal lets the group of the global limits decide, and take under an id.
func (s *Service) askGlobal(ctx context.Context, mode Mode, r *Request, g *globalPart) error {
	if r.Cost > 0 {
		if r.RequestID != "" {
			g.id = globalID(g.op, r)
		} else {
			_, _ = rand.Read(g.id[:]) // it never fails
		}
	}
	sent := s.steady()
	res, err := s.proposeGlobal(ctx, mode, r, g, "")
	if err == nil && s.askAgain(ctx, globalTenant, r.RequestID != "", &res) {
		sent = s.steady()
		res, err = s.proposeGlobal(ctx, mode, r, g, ".recalled")
	}
	if err != nil {
		return fmt.Errorf("limiter: global limits: %w", err)
	}
	d, err := decisionOf(res, outcomeDecided, r.Tenant, mode)
	if err != nil {
		return err
	}
	g.decision = d
	if !d.Allow && !g.named { // the answer to a retry is old
		s.decided(&g.request, &g.decision, sent, len(res.recalls) > 0)
	}
	return nil
}

// globalID is under which a request with a request id took from global limits.
func globalID(op string, r *Request) holdID {
	return holdID(raftfsm.NewRequestID(op+".global", r.Tenant, r.RequestID))
}

func (s *Service) proposeGlobal(ctx context.Context, mode Mode, r *Request, g *globalPart, try string) (result, error) {
	group := s.Group(globalTenant)
	if r.Cost == 0 && r.RequestID == "" {
		return s.query(ctx, group, inMode(mode, appendCheck(nil, g.request)), raftfsm.Linearizable)
	}
	cmd := raftfsm.Command{Data: inMode(mode, appendRecallingCheck(nil, g.request, g.id))}
	if r.RequestID != "" {
		op := g.op + ".global" + try
		if mode == ModeShadow {
			op += ".shadow"
		}
		cmd.RequestID = raftfsm.NewRequestID(op, r.Tenant, fmt.Sprint(g.life, " ", r.RequestID))
	}
	return s.propose(ctx, group, cmd)
}

// lifeOf is the place in the tenant's log of the first try of a request with a request id, which stays the same for as
// long as that group remembers it. Global limits remember the request under it: else a group that lags behind,
// as after a change of its leader, could take a try for a repeated one that the tenant's decides anew, and not
// count it. It costs a command that takes nothing. 0 is when the tenant's limits stand in for their group.
func (s *Service) lifeOf(ctx context.Context, op string, r *Request) (life uint64, err error) {
	group := s.Group(r.Tenant)
	cmd := raftfsm.Command{Data: appendCheck(nil, Request{Tenant: r.Tenant}), RequestID: raftfsm.NewRequestID(op+".life", r.Tenant, r.RequestID)}
	ask := func(ctx context.Context) error {
		res, err := s.groups.Propose(ctx, group, cmd)
		life = res.Index
		return err
	}
	if set := s.coveredSet(group); set != nil && set.away(ModeEnforce, r).covered {
		var stand bool
		if stand, err = s.standIn(ctx, group, ask); stand {
			return 0, nil
		}
	} else {
		err = ask(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("limiter: check for tenant %s: %w", r.Tenant, err)
	}
	return life, nil
}

// settleGlobal makes final what a check took from global limits, or puts it back.
func (s *Service) settleGlobal(ctx context.Context, g *globalPart, keep bool) {
	if g.leased {
		g.leased = false
		one := [...]*globalPart{g}
		s.leases.table.settle(one[:], func(*globalPart) bool { return keep })
		return
	}
	if keep || g.id == (holdID{}) || !g.decision.Allow {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	_ = s.refundGlobal(ctx, g.id, 0) // when it fails the tokens stay spent, which admits less
}

// refundGlobal gives back what was taken under an id, or cost of it if that is less and not 0.
func (s *Service) refundGlobal(ctx context.Context, id holdID, cost uint32) error {
	c := holdCommand{Request: Request{Tenant: globalTenant, Cost: cost}, id: id}
	_, err := s.proposeHold(ctx, opRefund, "limiter.refund", c, raftfsm.RequestID{}, ModeEnforce)
	return err
}

// keeps tells whether what a check took from global limits stays spent: it passed, or nobody knows. Of one
// with a request id only the tenant's own decision, which every try of it gets, says that it did not pass:
// where this try failed, another one passes with the same tokens, or has. guessed means that no group has decided.
func (g *globalPart) keeps(allow, guessed bool, err error) bool {
	switch {
	case err == nil:
		return allow || guessed && g.named
	case errors.Is(err, ErrTooManyLimits), errors.Is(err, ErrTooManyHeld):
		return false
	case g.named:
		return true
	case errors.Is(err, ErrRefused), errors.Is(err, ErrLevel), errors.Is(err, ErrInvalid):
		return false
	}
	return raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite
}

// withGlobals decides what op names; decide decides the tenant's part, and undo gives back what that took.
func (s *Service) withGlobals(ctx context.Context, op string, mode Mode, r *Request, d *Decision, canaries bool, decide func() error, undo func(context.Context)) error {
	if err := validRequest(*r); err != nil {
		return err
	}
	g := globalParts.Get().(*globalPart)
	defer globalParts.Put(g)
	g.begin(op, r, canaries)
	if g.named {
		if _, err := s.lookFirst(ctx, mode, r, g); err != nil {
			return err
		}
		if g.ownFirst {
			g.ownFirst = false
			return s.ownThenGlobal(ctx, mode, r, g, d, decide, undo)
		}
		var err error
		if g.life, err = s.lifeOf(ctx, op, r); err != nil {
			return err
		}
	}
	if err := s.takeGlobalAway(ctx, mode, r, g); err != nil {
		return err
	}
	if g.denied {
		*d = g.own
		return nil
	}
	if !g.decision.Allow {
		return s.denyGlobally(ctx, mode, r, g, d)
	}
	err := decide()
	s.settleGlobal(ctx, g, g.keeps(d.Allow, d.Source == SourceFailure, err))
	if err == nil {
		d.join(&g.decision)
	}
	return err
}

// denyGlobally is the decision about a request that global limits deny. What its tenant's limits would
// say is asked too, for the advice, unless this node knew of the denial by itself.
func (s *Service) denyGlobally(ctx context.Context, mode Mode, r *Request, g *globalPart, d *Decision) error {
	*d = Decision{Allow: true, Version: g.decision.Version, Mode: mode, Source: g.decision.Source, Levels: d.Levels[:0]}
	if g.decision.Source == SourceLeader {
		own := *r
		own.RequestID = ""
		if p, err := s.peekTenant(ctx, mode, own); err == nil { // without it, the advice is that of the global limits
			asChecked(&p)
			*d = p
		}
	}
	d.join(&g.decision)
	return nil
}

// join adds the decision of global limits to that of a tenant's.
func (d *Decision) join(g *Decision) {
	d.Levels = slices.Insert(d.Levels, 0, g.Levels...)
	denies := !g.Allow && (d.Allow || d.outlasts(g))
	if denies {
		d.Allow, d.Reason, d.LimitID, d.Kind, d.RetryAfterMs = false, g.Reason, g.LimitID, g.Kind, g.RetryAfterMs
	}
	switch {
	case d.Source == SourceFailure || g.Source == SourceFailure:
		if denies {
			d.Source = g.Source
		} else if d.Allow {
			d.Source = SourceFailure // one of them has counted nothing
		}
	case g.Source == SourceLeader || d.Source == "":
		d.Source = g.Source
	}
}

// outlasts tells whether g denies for longer than d, or as long.
func (d *Decision) outlasts(g *Decision) bool {
	if never := d.never(); never || g.never() {
		return !never
	}
	return g.RetryAfterMs >= d.RetryAfterMs
}

// never tells whether time does not help a denied request.
func (d *Decision) never() bool { return d.Reason != ReasonLimited && d.Reason != ReasonAway }
