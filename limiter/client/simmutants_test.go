package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// simFlaw is a planted bug.
type simFlaw int

const (
	flawNone simFlaw = iota
	flawNoRecheck
	flawAdoptsLease
	flawDebitsOne
	flawDeltaReports
	flawDeadlineFromReceipt
	flawRefusalExtends
	flawOldEpoch
	flawAddsGrants
	flawLostReturnIsSpent
	flawTTLDoubled
)

// tamper plants bugs in how answers are understood.
func (c *simClient) tamper(m *sentMessage, answers []*limiterv1.LeaseAnswer) {
	for i := range m.asks {
		for k := range m.asks[i].reports {
			sent := &m.asks[i].reports[k]
			l := sent.lease
			if answers == nil || len(answers[i].GetGrants()) == 0 {
				if c.flaw == flawLostReturnIsSpent && l.returned > 0 {
					l.left += uint32(l.returned)
					l.returned = 0
				}
				continue
			}
			g := answers[i].Grants[k]
			switch c.flaw {
			case flawDeadlineFromReceipt:
				sent.first = c.local()
			case flawRefusalExtends:
				if g.GetRefused() {
					answers[i].Grants[k] = &limiterv1.LeaseGrant{Granted: l.granted, TtlUs: uint64(l.ttl().Microseconds())}
				}
			case flawOldEpoch:
				if !g.GetRefused() && l.epoch != 0 {
					sent.epoch = l.epoch
				}
			case flawAddsGrants:
				if !g.GetRefused() && sent.seq > 1 {
					g.Granted += l.granted
				}
			case flawTTLDoubled:
				g.TtlUs *= 2
			}
		}
	}
}

// scene is a client of a limit of 1000 tokens a second and a burst of 100, of which a lease lasts for 200 ms.
type scene struct {
	*simClient
	began int64
}

func newScene(t testing.TB, flaw simFlaw) *scene {
	s := newSim(t, 1, simPlan{limits: []limiter.Limit{simBucket("a", limiter.ScopeTenant, simTenant, "1000/s", 100)}}, flaw)
	c := s.client(0, 1)
	c.table.connected(simTenant)
	p := &scene{c, s.now.Load()}
	p.check(1) // which makes its route known
	p.accept(p.tell())
	return p
}

func (p *scene) at(ms int64) { p.now.Store(p.began + ms*int64(time.Millisecond)) }

// check is one that is decided by leases or not at all.
func (p *scene) check(cost uint32) bool {
	r, asked := &Request{Tenant: simTenant, Key: "k0", Cost: cost}, uint64(0)
	_, v, _ := p.table.check(r, &asked)
	if v == passes {
		p.pass(r)
	}
	return v == passes
}

// sentLend is a message that the group has got, and its answer.
type sentLend struct {
	m       *sentMessage
	out     *limiterv1.LeaseRequest
	answers []*limiterv1.LeaseAnswer
}

// prepare makes the next message, and tell brings it to the group as well.
func (p *scene) prepare() *sentLend {
	m, out := p.table.prepare()
	if m == nil {
		p.t.Fatal("nothing is to be told")
	}
	return &sentLend{m: m, out: out}
}

func (p *scene) arrive(l *sentLend) *sentLend {
	l.answers = p.lend(l.out)
	return l
}

func (p *scene) tell() *sentLend { return p.arrive(p.prepare()) }

func (p *scene) accept(l *sentLend) {
	p.tamper(l.m, l.answers)
	p.table.answer(l.m, l.answers)
}

// lose breaks the connection, with the answer to a message under way, and makes another one.
func (p *scene) lose(l *sentLend) {
	p.table.disconnected("broken")
	p.accept(&sentLend{m: l.m})
	p.table.connected(simTenant)
}

// end spends what the client believes to have, and all that the group has, at a moment at which the leases of before are
// over and their tokens have flowed back.
func (p *scene) end(ms int64) error {
	p.at(ms)
	for p.check(1) {
	}
	for {
		d, err := p.asker.Check(context.Background(), limiter.Request{Tenant: simTenant, Key: "k0", Cost: 1})
		if err != nil {
			return err
		}
		if !d.Allow {
			return p.judge()
		}
		p.pass(&Request{Key: "k0", Cost: 1})
	}
}

// scenes are those in which a client must find out that its lease is over.
var scenes = []func(p *scene) error{
	func(p *scene) error { // the answer comes late
		p.at(1)
		p.check(1)
		l := p.tell()
		p.at(150)
		p.accept(l)
		return p.end(320)
	},
	func(p *scene) error { // the answer is lost, and told again late
		p.at(1)
		p.check(1)
		p.lose(p.tell())
		p.at(150)
		p.table.tick(tickEvery)
		p.accept(p.tell())
		return p.end(320)
	},
	func(p *scene) error { // a report comes after the end
		p.at(1)
		p.check(1)
		p.accept(p.tell())
		p.at(180)
		p.check(1)
		l := p.prepare()
		p.at(215)
		p.accept(p.arrive(l))
		return p.end(340)
	},
	func(p *scene) error { // time passes between the debit and the decision
		p.at(1)
		p.check(1)
		p.accept(p.tell())
		p.at(100)
		p.pauses = []time.Duration{0, 220 * time.Millisecond}
		p.check(1)
		return p.end(320)
	},
	func(p *scene) error { // the answer about one epoch comes in the next, over a connection that has ended
		p.at(1)
		p.check(60)
		old := p.tell()
		p.lose(old)
		p.at(250)
		p.table.tick(tickEvery)
		p.check(1)
		l := p.tell()
		if p.accept(l); p.flaw == flawOldEpoch {
			p.accept(old)
		}
		return p.end(330)
	},
	func(p *scene) error { // what was recalled is given back, and the answer to that is lost
		p.at(1)
		p.check(60)
		p.accept(p.tell())
		p.at(10)
		for c := range p.table.leases { // there is one
			p.table.event(&limiterv1.LeaseResponse{Recalls: []*limiterv1.LeaseRecall{{Tenant: c.tenant, Limit: c.limit, Subject: c.subject}}})
		}
		p.lose(p.tell())
		return p.end(20)
	},
}

// findFlaw plays the scenes, and random runs for what is in none of them.
func findFlaw(t *testing.T, flaw simFlaw) error {
	for _, play := range scenes {
		p := newScene(t, flaw)
		err := play(p)
		p.close()
		if err != nil {
			return err
		}
	}
	if flaw == flawNone {
		return nil // TestClientLeasesNeverExceedTheirLimits
	}
	for seed := uint64(1); seed <= 200; seed++ {
		s := newSim(t, seed, simPlanOf(seed), flaw)
		s.run()
		s.close()
		if err := s.judge(); err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

// Each of these bugs in a client admits more than a limit or reports what was not spent, and the judge must see it; it finds
// nothing in ours.
func TestClientSimulationCatchesMutants(t *testing.T) {
	for _, c := range []struct {
		name string
		flaw simFlaw
	}{
		{"ours", flawNone},
		{"no second look at the deadline after the debit", flawNoRecheck},
		{"a restart goes on under the number of its predecessor", flawAdoptsLease},
		{"only the first level is debited", flawDebitsOne},
		{"what is spent is reported as a difference", flawDeltaReports},
		{"deadline from receipt", flawDeadlineFromReceipt},
		{"refused report extends", flawRefusalExtends},
		{"an answer of a broken connection counts for the present epoch", flawOldEpoch},
		{"grants are added up instead of taking the largest", flawAddsGrants},
		{"what a lost message gave back is spent", flawLostReturnIsSpent},
		{"a lease lasts for longer than was said", flawTTLDoubled},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := findFlaw(t, c.flaw)
			t.Log(err)
			if (err != nil) != (c.flaw != flawNone) {
				t.Errorf("found %v", err)
			}
		})
	}
}
