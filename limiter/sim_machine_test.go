package limiter

import (
	"testing"
	"time"
)

// machineGroup is the machine as the simulation uses it: at a group time in microseconds.
type machineGroup struct {
	*driven
	// plain is set while holders do not understand tokens that come later.
	plain bool
}

func newMachineGroup(t testing.TB, limits ...Limit) *machineGroup {
	g := &machineGroup{driven: drive(t, 64)}
	g.configure(1_000_000, limits...)
	return g
}

// at moves the group's time, which never goes back.
func (g *machineGroup) at(now int64) {
	g.Time = max(g.Time, time.Duration(now)*time.Microsecond)
}

func (g *machineGroup) apply(now int64, command []byte) result {
	g.at(now)
	res, err := decodeResult(g.Apply(command)[0])
	if err != nil || res.outcome == outcomeMalformed {
		g.t.Fatalf("at %d: %s, error %v", now, res.message, err)
	}
	return res
}

func (g *machineGroup) renew(now int64, h Holder, all []Renewal) []Grant {
	return g.apply(now, appendLease(nil, leaseCommand{holder: h, renewals: all, ahead: !g.plain})).grants
}

// check decides with authority, and names the holders without whose tokens it had to deny.
func (g *machineGroup) check(now int64, r Request) (Decision, []Recall) {
	res := g.apply(now, appendRecallingCheck(nil, r, holdID{}))
	return res.decision, res.recalls
}

func (g *machineGroup) configure(now int64, limits ...Limit) {
	g.at(now)
	g.set(limits...)
}

func (g *machineGroup) published() limitSource { return &g.Machine().(*Machine).published }

// lent is how much a holder was granted in an epoch that has not ended.
func (g *machineGroup) lent(now int64, e simEpoch) uint64 {
	m := g.Machine().(*Machine)
	c, ok := m.cached(appendCounterKey(nil, e.uid, e.tenant, e.subject))
	if l := m.set.byUID[e.uid]; !ok && l != nil {
		c = m.set.present(l, counter{}, false, now)
	}
	for _, a := range c.accounts {
		if a.holder == e.holder && a.epoch == e.epoch && !a.ended && now < a.deadline {
			return a.granted
		}
	}
	return 0
}
