package limiter

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
)

// batchWithGlobals decides checks at places, in whose way are global limits too.
func (s *Service) batchWithGlobals(ctx context.Context, mode Mode, all []Request, places []int, out []Outcome, canaries bool) {
	parts := make([]globalPart, len(all))
	for _, i := range places {
		parts[i].begin(opNameCheck, &all[i], canaries)
	}
	if s.smallGlobals() {
		places = s.lookFirstAll(ctx, mode, all, places, parts, out)
	}
	denied := s.takeGlobals(ctx, mode, all, places, parts, out)
	passed := make([]int, 0, len(places))
	for _, i := range places {
		if parts[i].denied {
			out[i].Decision = parts[i].own
		} else if out[i].Err == nil && parts[i].decision.Allow {
			passed = append(passed, i)
		}
	}
	s.decideMany(ctx, mode, all, passed, out)

	leased := make([]*globalPart, 0, len(passed))
	kept := make(map[*globalPart]bool, len(passed))
	var apart []int
	for _, i := range passed {
		g := &parts[i]
		keep := g.keeps(out[i].Decision.Allow, out[i].Decision.Source == SourceFailure, out[i].Err)
		if g.leased {
			leased, kept[g] = append(leased, g), keep
		} else if !keep {
			apart = append(apart, i)
		}
	}
	if len(leased) > 0 {
		s.leases.table.settle(leased, func(g *globalPart) bool { return kept[g] })
	}
	atOnce(apart, func(i int) { s.settleGlobal(ctx, &parts[i], false) })
	for _, i := range passed {
		if out[i].Err == nil {
			out[i].Decision.join(&parts[i].decision)
		}
	}
	atOnce(denied, func(i int) { out[i].Err = s.denyGlobally(ctx, mode, &all[i], &parts[i], &out[i].Decision) })
}

// takeGlobals decides the global parts of checks at places: those that leases let pass in one go, the
// others one by one. It returns where they deny.
func (s *Service) takeGlobals(ctx context.Context, mode Mode, all []Request, places []int, parts []globalPart, out []Outcome) (denied []int) {
	var others []int
	if mode == ModeShadow {
		s.watchGlobals(ctx, places, parts, out)
	} else {
		others = s.takeHeld(all, places, parts)
	}
	atOnce(others, func(i int) { out[i].Err = s.takeGlobalAway(ctx, mode, &all[i], &parts[i]) })
	for _, i := range places {
		if out[i].Err == nil && !parts[i].decision.Allow && !parts[i].denied {
			denied = append(denied, i)
		}
	}
	return denied
}

// takeHeld decides the global parts that this node's leases decide, and returns where the others are.
func (s *Service) takeHeld(all []Request, places []int, parts []globalPart) (others []int) {
	l := s.holding()
	if l == nil {
		return places
	}
	held := make([]*heldCheck, 0, len(places))
	for _, i := range places {
		if leasable(&all[i]) {
			held = append(held, &parts[i].held)
		}
	}
	l.table.checkMany(held)
	for _, i := range places {
		switch g := &parts[i]; g.held.answer {
		case heldSpent:
			g.leased = true
		case heldDenied:
		default:
			others = append(others, i)
		}
	}
	return others
}

// watchGlobals decides global parts where no limit denies, so that nothing has to be put back.
func (s *Service) watchGlobals(ctx context.Context, places []int, parts []globalPart, out []Outcome) {
	requests, outcomes := make([]Request, len(parts)), make([]Outcome, len(parts))
	for _, i := range places {
		requests[i] = parts[i].request
	}
	s.decideBatch(ctx, ModeShadow, s.Group(globalTenant), requests, places, outcomes, false)
	for _, i := range places {
		parts[i].decision, out[i].Err = outcomes[i].Decision, outcomes[i].Err
		s.coverGlobal(&parts[i], &out[i])
	}
}

// singlesAtOnce bounds how many checks of a batch are decided one by one at the same time: those that ask for
// global tokens that this node does not have, and those with a request id.
const singlesAtOnce = 32

// atOnce calls f for each place, some at a time.
func atOnce(places []int, f func(place int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, singlesAtOnce)
	for _, i := range places {
		slots <- struct{}{}
		wg.Go(func() {
			f(i)
			<-slots
		})
	}
	wg.Wait()
}

// togetherWithGlobals decides parts that pass together or not at all: what they take together must have
// room in the global limits, and what each of the others only looks at.
func (s *Service) togetherWithGlobals(ctx context.Context, mode Mode, parts []Part, canaries bool) ([]Decision, error) {
	whole, allow := Request{Tenant: parts[0].Tenant}, true
	looks := make([]*Decision, len(parts))
	for i, p := range parts {
		if !p.Peek {
			if p.Cost > math.MaxUint32-whole.Cost {
				return nil, &InvalidError{Field: "parts", Message: fmt.Sprintf("must cost at most %d tokens together while there are global limits", uint32(math.MaxUint32))}
			}
			whole.Cost += p.Cost
			continue
		}
		d, err := s.peekTenant(ctx, mode, Request{Tenant: globalTenant, Token: p.Tenant, Cost: p.Cost})
		if err != nil {
			return nil, err
		}
		for j := range d.Levels {
			d.Levels[j].Used, d.Levels[j].ResetMs = 0, 0
		}
		looks[i], allow = &d, allow && d.Allow
	}
	g := &globalPart{}
	if out, err := s.lookTogether(ctx, mode, parts, &whole, &g.decision); out != nil || err != nil {
		joinParts(out, looks, &g.decision)
		return out, err
	}
	g.begin(opNameCheck, &whole, canaries)
	g.looked = true // at the parts: whole is no request
	if err := s.takeGlobalAway(ctx, mode, &whole, g); err != nil {
		return nil, err
	}
	if allow = allow && g.decision.Allow; !allow {
		parts = slices.Clone(parts) // which take nothing now
		for i := range parts {
			parts[i].Peek = true
		}
	}
	out, err := s.decideTogetherAway(ctx, mode, parts)
	for i := range out {
		allow = allow && out[i].Allow
	}
	if g.decision.Allow {
		s.settleGlobal(ctx, g, g.keeps(allow, guessed(out), err))
	}
	joinParts(out, looks, &g.decision)
	return out, err
}

// joinParts adds to the decisions about parts what global limits say of all of them together, or of one that only looks.
func joinParts(out []Decision, looks []*Decision, whole *Decision) {
	for i := range out {
		global := whole
		if looks[i] != nil {
			global = looks[i]
		}
		out[i].join(global)
	}
}

// guessed tells whether no group has decided.
func guessed(all []Decision) bool { return len(all) > 0 && all[0].Source == SourceFailure }
