package limiter

import (
	"testing"
	"time"
)

// ahead is a machine with one limit, asked by holders that take tokens that come later. It has 50 tokens
// ahead at most: half a second's.
func ahead(t testing.TB, limits ...Limit) (*machineGroup, func(now int64, h Holder, r Renewal) Grant) {
	g := newMachineGroup(t, limits...)
	uid := g.published().Load().byID["a"].uid
	return g, func(now int64, h Holder, r Renewal) Grant {
		r.Limit, r.Tenant = uid, "acme"
		return g.renew(now, h, []Renewal{r})[0]
	}
}

func TestTokensAreLentAhead(t *testing.T) {
	_, renew := ahead(t, limit("a", ScopeTenant, "acme", "100/s", 200))
	const at = 2_000_000
	if g := renew(at, 1, Renewal{Epoch: 1, Seq: 1, Want: 200}); g.Granted != 200 || g.Coming != 0 {
		t.Fatalf("%+v, want the bucket", g)
	}
	// Whoever holds all that the bucket takes gets nothing ahead: it would overflow.
	if g := renew(at, 1, Renewal{Epoch: 1, Seq: 2, Want: 200}); g.Granted != 200 || g.Coming != 0 {
		t.Fatalf("%+v, want nothing more", g)
	}
	first := renew(at, 1, Renewal{Epoch: 1, Seq: 3, Spent: 200, Want: 200})
	if first.Granted != 225 || first.Coming != 25 || first.Delay != 10*time.Millisecond || first.Span != 240*time.Millisecond {
		t.Errorf("%+v, want a quarter of a second's tokens from 10 ms on", first)
	}
	// The next holder gets half of what is left, after those.
	second := renew(at, 2, Renewal{Epoch: 1, Seq: 1, Want: 200})
	if second.Refused || second.Granted != 13 || second.Coming != 13 || second.Delay != 260*time.Millisecond || second.Span != 120*time.Millisecond {
		t.Errorf("%+v, want the next 13", second)
	}
	// The same again is answered with when all of it has surely come.
	again := renew(at+100_000, 1, Renewal{Epoch: 1, Seq: 3, Spent: 200, Want: 200})
	if again.Granted != 225 || again.Coming != 25 || again.Delay != 280*time.Millisecond || again.Span != 0 {
		t.Errorf("%+v, want the same tokens when the bucket owes nothing", again)
	}
	// What is given back is there for others, in its time.
	renew(at+100_000, 1, Renewal{Epoch: 1, Seq: 4, Spent: 200, Returned: 25})
	if third := renew(at+100_000, 3, Renewal{Epoch: 1, Seq: 1, Want: 10}); third.Coming != 10 || third.Delay != 40*time.Millisecond {
		t.Errorf("%+v, want 10 after the 3 that are owed", third)
	}
	if g := renew(at+400_000, 1, Renewal{Epoch: 1, Seq: 4, Spent: 200, Returned: 25}); g.Coming != 0 {
		t.Errorf("%+v once everything has come", g)
	}
}

// However much is owed, no token comes early because a number is too small for the time.
func TestWhatIsOwedForAgesComesLast(t *testing.T) {
	l := limit("a", ScopeTenant, "acme", "1/d", 40)
	speed, err := speedOf(l, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newLimitState(l, 1, 0, []generation{speed})
	for _, days := range []uint64{0, 1, 97, 98, 99, 1 << 32, 213_503_983, 1 << 40} { // of which 2^64 microseconds are 213503982
		c := counter{unit: speed.rate.unit, used: s.capacity.add(mul64(days, speed.rate.unit))}
		want := comingMax
		if days < 98 {
			want = time.Duration(days) * 24 * time.Hour
		}
		if got := c.comes(s, 0); got != want {
			t.Errorf("%d tokens at one a day come after %v, want %v", days, got, want)
		}
	}
}

func TestNothingIsLentAhead(t *testing.T) {
	shadow := limit("a", ScopeTenant, "acme", "100/s", 200)
	shadow.Enforcement = EnforcementShadow
	windowed := windowed("a", "acme", 200, "2s")
	both := limit("a", ScopeTenant, "acme", "100/s", 200)
	both.Window = Window{Limit: 1000, Length: "10s"}
	for name, c := range map[string]struct {
		limit Limit
		plain bool
	}{
		"to who does not understand it": {limit("a", ScopeTenant, "acme", "100/s", 200), true},
		"of a shadow":                   {shadow, false},
		"of a window":                   {windowed, false},
		"of a bucket and a window":      {both, false},
		"of a slow bucket":              {limit("a", ScopeTenant, "acme", "10/s", 200), false},
	} {
		t.Run(name, func(t *testing.T) {
			g, renew := ahead(t, c.limit)
			g.plain = c.plain
			renew(2_000_000, 1, Renewal{Epoch: 1, Seq: 1, Want: 200})
			if g := renew(2_000_000, 1, Renewal{Epoch: 1, Seq: 2, Spent: 200, Want: 200}); g.Granted != 200 || g.Coming != 0 {
				t.Errorf("%+v", g)
			}
		})
	}
}

// A holder does not deny by what comes to it while others have many tokens that may idle: these are
// recalled first.
func TestNothingIsLentAheadOfWhatOthersHold(t *testing.T) {
	_, renew := ahead(t, limit("a", ScopeTenant, "acme", "100/s", 400))
	renew(2_000_000, 1, Renewal{Epoch: 1, Seq: 1, Want: 201})
	renew(2_000_000, 2, Renewal{Epoch: 1, Seq: 1, Want: 199})
	if g := renew(2_000_000, 2, Renewal{Epoch: 1, Seq: 2, Spent: 199, Want: 10}); g.Coming != 0 {
		t.Errorf("%+v beside 201 tokens", g)
	}
	renew(2_000_000, 1, Renewal{Epoch: 1, Seq: 2, Spent: 1})
	if g := renew(2_000_000, 2, Renewal{Epoch: 1, Seq: 3, Spent: 199, Want: 10}); g.Coming != 10 {
		t.Errorf("%+v beside 200 tokens", g)
	}
}

// aheadHolder is one holder of one key that has spent its bucket and is told when the next tokens come.
func aheadHolder(t *testing.T) (s *sim, h *simHolder) {
	s = newSim(t, 1, simPlan{limits: []Limit{limit("a", ScopeTenant, "acme", "100/s", 100)}, holders: 1, lasts: time.Hour}, flawNone)
	h = s.holders[0]
	for range 101 {
		h.ask(Request{Tenant: "acme", Cost: 1}, 1)
		playUntil(s, s.now+int64(2*time.Millisecond))
	}
	playUntil(s, s.now+int64(50*time.Millisecond))
	return s, h
}

func playUntil(s *sim, until int64) {
	s.plan.lasts = time.Duration(until - s.now)
	s.run()
	s.now = until
}

// held asks the table alone.
func (h *simHolder) held(cost uint32) (heldAnswer, Decision) {
	var d Decision
	c := heldCheck{request: &Request{Tenant: "acme", Cost: cost}, decision: &d}
	if h.table.check(&c); c.answer == heldSpent {
		h.passed(*c.request)
		h.spentHere(*c.request)
	}
	h.pump()
	return c.answer, d
}

// What is denied by what comes passes when the denial says, not a millisecond earlier, and nobody else is
// asked.
func TestDeniedUntilTokensCome(t *testing.T) {
	s, h := aheadHolder(t)
	for h.table.sumLeft() > 0 {
		h.held(1)
	}
	denials := 0
	for range 1000 {
		answer, d := h.held(1)
		switch answer {
		case heldSpent:
			continue
		case heldLacks: // it asks for the next ones
			playUntil(s, s.now+int64(5*time.Millisecond))
			continue
		case heldNot:
			t.Fatalf("the group is asked after %d denials", denials)
		case heldDenied:
		}
		denials++
		if d.Source != SourceLease || d.Reason != ReasonLimited || d.LimitID != "a" || d.Kind != KindTokenBucket || d.RetryAfterMs == 0 || len(d.Levels) != 1 {
			t.Fatalf("%+v", d)
		}
		at := s.now + int64(d.RetryAfterMs)*int64(time.Millisecond)
		playUntil(s, at-int64(time.Millisecond))
		if answer, early := h.held(1); answer != heldDenied || early.RetryAfterMs != 1 {
			t.Fatalf("a millisecond early: %d, %+v", answer, early)
		}
		playUntil(s, at)
		if answer, _ := h.held(1); answer != heldSpent {
			t.Fatalf("when the denial said: %d", answer)
		}
	}
	if denials < 100 {
		t.Errorf("%d denials", denials)
	}
	if err := s.judge(); err != nil {
		t.Error(err)
	}
}

// What comes says nothing any more about a limit that was changed, to a shadow or to a larger one.
func TestNothingIsDeniedAheadOfAChangedLimit(t *testing.T) {
	shadow := limit("a", ScopeTenant, "acme", "100/s", 100)
	shadow.Enforcement = EnforcementShadow
	for name, changed := range map[string]Limit{
		"a shadow":       shadow,
		"a larger burst": limit("a", ScopeTenant, "acme", "100/s", 1000),
		"another rate":   limit("a", ScopeTenant, "acme", "100000/s", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			s, h := aheadHolder(t)
			for {
				if answer, _ := h.held(1); answer == heldDenied {
					break
				}
			}
			s.group.configure(s.groupTime(), changed)
			answer, d := h.held(1)
			if answer == heldDenied {
				t.Fatalf("%+v by what the old limit lent", d)
			}
			if changed.Enforcement == EnforcementShadow {
				return
			}
			playUntil(s, s.now+int64(20*time.Millisecond))
			if answer, d = h.held(1); answer != heldSpent {
				t.Errorf("%d, %+v, want to pass with what the new limit has", answer, d)
			}
		})
	}
}

// Tokens that nobody could expect are not denied for what comes.
func TestRefundsPassAheadOfWhatComes(t *testing.T) {
	r := startRegion(t, 1, limit("a", ScopeTenant, "acme", "16/s", 64))
	defer r.close()
	n := r.nodes[0]
	if d := n.ask(t, Request{Tenant: "acme", Cost: 40, RequestID: "r"}); !d.Allow {
		t.Fatalf("%+v", d)
	}
	for {
		if d := n.ask(t, Request{Tenant: "acme", Cost: 8}); !d.Allow && d.Source == SourceLease {
			break
		}
	}
	if _, err := n.Refund(t.Context(), "acme", "r", 0); err != nil {
		t.Fatal(err)
	}
	if d := n.ask(t, Request{Tenant: "acme", Cost: 8}); !d.Allow {
		t.Errorf("%+v after a refund", d)
	}
}

// Who asks again when a denial says gets its turn, however long ago the last one was and however often others
// ask: what is lent to it stays until it comes.
func TestPatientHoldersGetTheirTurn(t *testing.T) {
	s := newSim(t, 1, simPlan{limits: []Limit{limit("a", ScopeTenant, "acme", "100/s", 100)}, holders: 2, demand: 1000, cost: 1, lasts: 30 * time.Second}, flawNone)
	s.plan.demand = 0 // of this one
	h := s.start(2, 201)
	s.holders = append(s.holders, h)
	s.plan.demand = 1000
	tries, passed := 0, 0
	var ask func()
	ask = func() {
		answer, d := h.held(1)
		wait := 5 * time.Millisecond // for the answer of the group
		switch answer {
		case heldSpent:
			passed++
			wait = 3 * time.Second
		case heldDenied:
			tries++
			wait = time.Duration(d.RetryAfterMs) * time.Millisecond
		}
		s.after(wait, ask)
	}
	s.after(time.Millisecond, ask)
	s.run()
	if err := s.judge(); err != nil {
		t.Fatal(err)
	}
	if passed < 8 || tries > 2*passed {
		t.Errorf("%d passed in half a minute after %d denials, want one every 3 s, denied once", passed, tries)
	}
}

// sumLeft is what may be spent at once.
func (t *holderTable) sumLeft() (n uint64) {
	for i := range t.shards {
		for class := range t.shards[i].leases {
			for _, l := range t.shards[i].leases[class].slots {
				if l != nil {
					n += uint64(l.left)
				}
			}
		}
	}
	return n
}

// A recall brings back what comes, too, and it does not come any more.
func TestWhatComesIsRecalled(t *testing.T) {
	s, h := aheadHolder(t)
	for {
		if answer, _ := h.held(1); answer == heldDenied {
			break
		}
	}
	l := h.leasesOf(Request{Tenant: "acme"})[0]
	if l.coming.total() == 0 {
		t.Fatal("nothing is lent ahead")
	}
	h.table.recall("acme", []Recall{{Limit: l.limit.uid, Holders: []Holder{h.table.holder}}}, h.local())
	if l.unspent() != 0 {
		t.Fatalf("%d tokens stay", l.unspent())
	}
	if answer, _ := h.held(1); answer == heldSpent {
		t.Error("spent what was given back")
	}
	h.pump()
	playUntil(s, s.now+int64(20*time.Millisecond))
	if row := h.group.lent(h.groupTime(), simEpoch{simCounter{l.limit.uid, "acme", ""}, h.table.holder, l.epoch}); row != l.granted {
		t.Errorf("the group knows of %d tokens, the holder of %d", row, l.granted)
	}
}

// Blocks come evenly, whichever part of them is asked for and when.
func TestBlocksComeInTime(t *testing.T) {
	b := block{first: 1_000, span: 100, n: 8}
	for now := int64(990); now < 1_110; now++ {
		came := b.came(now)
		if came > 0 && b.at(came-1) > now || came < b.n && b.at(came) <= now {
			t.Errorf("at %d: %d have come; the last at %d, the next at %d", now, came, b.at(max(came, 1)-1), b.at(min(came, b.n-1)))
		}
	}
	l := &lease{deadline: 1 << 62, tenant: &holderTenant{}}
	l.expect(3, sentRenewal{}, Grant{Coming: 5, Delay: 1000, Span: 4000}, 1_000_000)
	if got, want := l.coming.blocks[0].first, 1_000_000+slowed(1000)+slowed(4000)/2; got < want || got > want+2 || l.coming.blocks[0].n != 3 {
		t.Errorf("the last three of five: %+v, want from %d on", l.coming.blocks[0], want)
	}
	for range 2 * blocksMax {
		l.expect(2, sentRenewal{}, Grant{Coming: 2, Delay: 10_000, Span: 10_000}, 1_000_000)
	}
	if len(l.coming.blocks) != blocksMax || l.coming.total() != 3+2*2*blocksMax {
		t.Errorf("%d blocks with %d tokens", len(l.coming.blocks), l.coming.total())
	}
	last := int64(0)
	for cost := uint32(1); uint64(cost) <= l.coming.total(); cost++ {
		if at := l.passes(cost); at < last {
			t.Errorf("a cost of %d passes at %d, earlier than a smaller one", cost, at)
		} else {
			last = at
		}
	}
	if l.passes(uint32(l.coming.total())+1) != 0 {
		t.Error("more than comes would pass")
	}
}

// At a limit that all nodes ask for all the time, hardly a check reaches the group.
func TestSaturatedLimitsAreSharedInTime(t *testing.T) {
	s := newSim(t, 1, simPlan{limits: []Limit{limit("a", ScopeTenant, "acme", "100/s", 300)}, holders: 3, demand: 1000, cost: 1, lasts: 20 * time.Second}, flawNone)
	s.run()
	if err := s.judge(); err != nil {
		t.Fatal(err)
	}
	central := s.stats.checks - s.stats.local - s.stats.cached
	t.Logf("%+v, %d by the group", s.stats, central)
	if central > s.stats.checks/50 || s.stats.messages > 20*60 {
		t.Errorf("%d of %d checks went to the group, and %d messages", central, s.stats.checks, s.stats.messages)
	}
	if least := 300 + 20*100*97/100; s.stats.allowed < least {
		t.Errorf("%d passed, want %d", s.stats.allowed, least)
	}
}
