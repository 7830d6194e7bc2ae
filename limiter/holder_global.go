package limiter

// look tells what would become of a check by what is here alone, and takes nothing.
func (t *holderTable) look(c *heldCheck) heldAnswer {
	t.check(c)
	return c.answer
}

// levels are what is known here of the limits of a check that is not decided.
func (t *holderTable) levels(c *heldCheck) (levels []Level) {
	s := t.hash(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := t.routeOf(s, c.tenantHash, c.hash, c.request)
	if r == nil {
		return nil
	}
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			return levels
		}
		levels = l.levels(levels, c.request)
	}
}

// settle ends checks whose tokens are pending: they are spent, or go back. All are of globalTenant. What
// was taken in an epoch that is over counts as spent whatever comes.
func (t *holderTable) settle(all []*globalPart, keep func(*globalPart) bool) {
	if len(all) == 0 {
		return
	}
	s := t.shardOf(all[0].held.tenantHash)
	s.mu.Lock()
	for _, g := range all {
		c, kept := &g.held, keep(g)
		c.told = false
		for i := 0; ; i++ {
			l := c.route.lease(i)
			if l == nil {
				break
			}
			if l.epoch != 0 && l.epoch <= c.epochs {
				c.told = t.settleLease(l, c.request.Cost, kept) || c.told
			}
		}
	}
	if s.settled != nil {
		close(s.settled)
		s.settled = nil
	}
	s.mu.Unlock()
	for _, g := range all {
		g.held.poke()
	}
}

// settleLease settles what a check took from one lease, and tells whether its group must hear of it now:
// what is lent one check at a time, or what others have asked for, must not idle.
func (t *holderTable) settleLease(l *lease, cost uint32, keep bool) (told bool) {
	l.pending -= cost
	switch {
	case keep:
		l.spend(cost)
	case l.limit.terms.single || l.scarce:
		l.returned += uint64(cost)
		l.dirty = true
	default:
		l.left += cost
	}
	if l.limit.terms.single || l.scarce {
		t.tell(l)
		return true
	}
	return false
}
