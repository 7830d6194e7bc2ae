package limiter

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// load is three holders of one group that are asked by Zipf's law, in its own time, with commands that take as
// long as on a busy machine. It counts what checks cost others.
type load struct {
	*machineGroup
	now     int64 // in nanoseconds, of all clocks
	latency int64
	holders []*loadHolder
	events  []simEvent
	waiting map[*renewals][]func()

	checks, waited, central, messages, renewals, recalls int
}

type loadHolder struct {
	*load
	table *holderTable
	log   recallLog
	// sending counts the messages under way.
	sending int
}

func newLoad(t *testing.T, latency time.Duration, limits ...Limit) *load {
	l := &load{machineGroup: &machineGroup{driven: drive(t, 1<<20)}, now: int64(2 * time.Second), latency: int64(latency), waiting: map[*renewals][]func(){}}
	l.configure(1_000_000, limits...)
	for i := range 3 {
		table := newHolderTable(Holder(i+1), uint64(i+1), func() int64 { return l.now }, func(string) raftfsm.GroupID { return testGroup }, map[raftfsm.GroupID]limitSource{testGroup: l.published()})
		table.groups[testGroup].covers = l.Machine().(*Machine).covers
		l.holders = append(l.holders, &loadHolder{load: l, table: table})
	}
	return l
}

func (l *load) after(d int64, do func()) {
	l.events = append(l.events, simEvent{at: l.now + d, do: do})
}

// command is executed half of the latency from now, and answered when all of it has passed.
func (l *load) command(data []byte, answered func(result)) {
	l.after(l.latency/2, func() {
		r := l.apply(l.now/1000, data)
		l.after(l.latency/2, func() { answered(r) })
	})
}

// pass lets time pass.
func (l *load) pass(d time.Duration) {
	l.now += int64(d)
	for due := true; due; {
		due = false
		events := l.events
		l.events = nil
		for _, e := range events {
			if e.at > l.now {
				l.events = append(l.events, e)
				continue
			}
			due = true
			e.do()
		}
	}
	for _, h := range l.holders {
		h.table.tick(l.now)
		h.askBlankets()
		h.pump()
	}
}

// landed lets those go on who waited for a message.
func (l *load) landed(b *renewals) {
	b.group.queue.finish(b)
	for _, retry := range l.waiting[b] {
		retry()
	}
	delete(l.waiting, b)
}

func (h *loadHolder) askBlankets() {
	h.table.dueBlankets(h.now, func(g *holderGroup, limit uint64, b *limitBlankets) {
		c, sent, message := blanketCommand{holder: h.table.holder, limit: limit, epoch: h.table.newEpoch()}, h.now, b.asking
		h.messages++
		h.command(appendBlanket(nil, c), func(r result) {
			b.asked(c.epoch, &r.blanket, sent, h.now)
			for _, retry := range h.waiting[message] {
				retry()
			}
			delete(h.waiting, message)
		})
	})
}

func (h *loadHolder) pump() {
	for h.sending < sendersMax {
		b, all := h.table.prepare(h.table.groups[testGroup], h.now)
		switch {
		case b == nil:
			return
		case len(all) == 0:
			h.landed(b)
			continue
		}
		h.sending++
		h.messages++
		h.renewals += len(all)
		h.command(appendLease(nil, leaseCommand{holder: h.table.holder, renewals: all, ahead: true}), func(r result) {
			h.table.answer(b, r.grants, h.now)
			h.sending--
			h.landed(b)
			h.pump()
		})
	}
}

// ask decides a batch as far as leases do, and the rest when the messages are answered that it waits for.
func (h *loadHolder) ask(all []*heldCheck, tries int) {
	h.table.checkMany(all)
	select {
	case <-h.table.wanted:
		h.askBlankets()
	default:
	}
	asked := map[*Request]bool{} // a key that is denied is asked for once
	lack, urgent := map[*renewals][]*heldCheck{}, false
	for _, c := range all {
		switch {
		case c.answer == heldSpent || c.answer == heldDenied:
		case c.answer == heldLacks && tries < waitsMax:
			h.waited += boolInt(tries == 0)
			lack[c.batch] = append(lack[c.batch], c)
			urgent = true
		default:
			h.central++
			if !asked[c.request] {
				asked[c.request] = true
				h.askGroup(c, true)
			}
		}
	}
	for b, checks := range lack { // any order
		h.waiting[b] = append(h.waiting[b], func() { h.ask(checks, tries+1) })
	}
	if urgent {
		h.pump()
	}
}

func (h *loadHolder) askGroup(c *heldCheck, again bool) {
	h.messages++
	sent := h.now
	h.command(appendRecallingCheck(nil, *c.request, holdID{}), func(r result) {
		if !again || !r.passesSoon() {
			h.table.deny(c.request, &r.decision, sent, len(r.recalls) > 0)
			return
		}
		if mine, _, _ := h.log.begin(c.request.Tenant, r.recalls, h.now); len(mine) > 0 {
			h.recalls++
			for _, other := range h.holders {
				other.table.recall(c.request.Tenant, mine, h.now)
				other.pump()
			}
		}
		h.after(int64(recallWait), func() { h.askGroup(c, false) })
	})
}

// With keys drawn by Zipf's law, the hottest of which ask for a hundred times what they have, few checks wait for
// anybody: neither those of keys at their limits, nor those of keys that are new or seldom asked for.
func TestFewChecksWait(t *testing.T) {
	const keys, perSecond, step = 200_000, 60_000, 5 * time.Millisecond
	l := newLoad(t, 40*time.Millisecond, limit("tenant", ScopeTenant, "*", "100000/s", 100_000), limit("key", ScopeKey, "*/*", "100/s", 3000))
	requests := make([]Request, keys)
	for k := range requests {
		requests[k] = Request{Tenant: "tenant-" + strconv.Itoa(k%1000), Key: strconv.Itoa(k), Cost: 1, Brief: true}
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	play := func(d time.Duration) {
		for ; d > 0; d -= step {
			for _, h := range l.holders {
				batch := make([]*heldCheck, perSecond*int(step/time.Millisecond)/1000/len(l.holders))
				for i := range batch {
					batch[i] = &heldCheck{request: &requests[zipf.Uint64()], decision: &Decision{}}
				}
				l.checks += len(batch)
				h.ask(batch, 0)
			}
			l.pass(step)
		}
	}
	play(6 * time.Second)
	l.checks, l.waited, l.central, l.messages, l.renewals, l.recalls = 0, 0, 0, 0, 0, 0
	play(4 * time.Second)
	t.Logf("of %d checks %d waited and %d were decided by the group; %d messages with %d renewals, %d recalls", l.checks, l.waited, l.central, l.messages, l.renewals, l.recalls)
	for what, c := range map[string]struct{ n, most int }{
		"waited":                    {l.waited, l.checks * 8 / 1000},
		"were decided by the group": {l.central, l.checks * 2 / 1000},
		"messages":                  {l.messages, 4 * 300},
		"renewals":                  {l.renewals, l.checks * 7 / 100},
		"recalls":                   {l.recalls, 4 * 5},
	} {
		if c.n > c.most {
			t.Errorf("%d of %d checks: %s, want %d at most", c.n, l.checks, what, c.most)
		}
	}
}
