package limiter

// CheckHeld decides checks from the tokens that this node holds, and asks nobody: no group, and for no more
// tokens, so that what it decides ends with the leases. It is for a node that may have missed something, and
// returns the places of the checks that it leaves open: those of small limits or of none, with a request id
// or of cost 0, and all while limits are not enforced. A check of which the limits may be old is left open too.
func (s *Service) CheckHeld(all []Request, out []Outcome) (open []int) {
	leased := make([]int, 0, len(all))
	for i := range all {
		if leasable(&all[i]) {
			leased = append(leased, i)
		} else {
			open = append(open, i)
		}
	}
	l := s.holding()
	if l == nil || l.globals == nil || s.mode() != ModeEnforce {
		return places(len(all))
	}
	set := l.globals.source.Load()
	if set == nil || l.globals.shut.Load() {
		return places(len(all))
	}
	checks := make([]heldCheck, len(all))
	if len(set.globals) == 0 {
		return append(open, l.checkHeld(all, leased, checks, out)...)
	}

	parts, held := make([]globalPart, len(all)), make([]*heldCheck, len(leased))
	for at, i := range leased {
		g := &parts[i]
		g.begin(opNameCheck, &all[i], set.canaries)
		g.held.only = true
		held[at] = &g.held
	}
	l.table.checkMany(held)
	passed := make([]int, 0, len(leased))
	taken := make([]*globalPart, 0, len(leased))
	for _, i := range leased {
		switch g := &parts[i]; g.held.answer {
		case heldSpent:
			passed, taken = append(passed, i), append(taken, g)
		case heldDenied:
			out[i] = Outcome{Decision: Decision{Allow: true, Version: g.decision.Version, Levels: out[i].Decision.Levels[:0]}}
			out[i].Decision.join(&g.decision)
		default:
			open = append(open, i)
		}
	}
	open = append(open, l.checkHeld(all, passed, checks, out)...)
	kept := make(map[*globalPart]bool, len(passed))
	for _, i := range passed {
		if answer := checks[i].answer; answer == heldSpent || answer == heldDenied {
			kept[&parts[i]] = out[i].Decision.Allow
			out[i].Decision.join(&parts[i].decision)
		}
	}
	l.table.settle(taken, func(g *globalPart) bool { return kept[g] })
	return open
}

// checkHeld decides what a tenant's leases decide of the checks at places, and returns where the others are.
func (l *Leases) checkHeld(all []Request, places []int, checks []heldCheck, out []Outcome) (others []int) {
	held := make([]*heldCheck, len(places))
	for at, i := range places {
		checks[i] = heldCheck{request: &all[i], decision: &out[i].Decision, only: true}
		held[at] = &checks[i]
	}
	l.table.checkMany(held)
	for _, i := range places {
		switch checks[i].answer {
		case heldSpent, heldDenied:
			out[i].Err = nil
		default:
			others = append(others, i)
		}
	}
	return others
}

// places are the first n.
func places(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
