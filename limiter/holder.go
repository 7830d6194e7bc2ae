package limiter

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// tickBusy is how often leases are looked after while there are any, and tickIdle how often it is
	// looked whether there are. Longer than tickBusy burns what idles of the shortest leases.
	tickBusy = 10 * time.Millisecond
	tickIdle = 100 * time.Millisecond
	// gatherFor is for how long what nobody waits for is gathered: a message costs a group as much as
	// dozens of the renewals in it. Leases of short spans do not wait for that.
	gatherFor = 50 * time.Millisecond
	// sendersMax is how many messages of a group may be under way. One would let a key that is new
	// wait for those of others, more would only make messages smaller.
	sendersMax = 2
	// sendTimeout bounds a message. Checks that wait for it go to the leader then, which knows no
	// better while there is none.
	sendTimeout = time.Second
	// waitsMax is how many messages a check waits for. Mostly one suffices; more are needed when the first
	// was sent before it could ask, and when other checks take what it brings for another level.
	waitsMax = 4
)

// Recaller reaches the other holders of a region; *raftfsm.Host is one.
type Recaller interface {
	// Tell brings message to Leases.Recalled of all other members, and returns when all are done, or
	// ctx is.
	Tell(ctx context.Context, group raftfsm.GroupID, message []byte)
}

// SteadyClock is a clock that counts steadily, suspends included; *clock.Fast is one.
type SteadyClock interface {
	// Steady is in nanoseconds, above 0, and never goes back.
	Steady() int64
	// Sync is Steady after a closer look.
	Sync() int64
}

// LeaseOptions are what Leases need. Registry may be nil.
type LeaseOptions struct {
	Groups   Groups
	Recaller Recaller
	Clock    SteadyClock
	// Machines are those of this process. Nothing is held of other groups.
	Machines map[raftfsm.GroupID]*Machine
	// Follows tells whether a machine's state is recent; while it is not, its group decides itself.
	Follows  func(raftfsm.GroupID) bool
	Registry prometheus.Registerer
}

// Leases are the tokens that this process holds, so that most checks need nobody else. Give them to
// a Service, and Close them before the groups.
type Leases struct {
	options LeaseOptions
	table   *holderTable
	metrics *leaseMetrics
	// active is set while the region's level allows leases, and until Close.
	active, closed atomic.Bool
	// ahead is set once the region's level allows tokens that come later, for good: what is told again must
	// be told in the same way.
	ahead atomic.Bool
	// globals is the group of which the limits tell whether some are of the scope global; nil without
	// a machine.
	globals *holderGroup

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begins sync.Mutex // orders goes and Close

	recalls recallLog
	// pendingWait is that constant, but in tests.
	pendingWait time.Duration
	outside     outside
	mode        func() Mode
}

// NewLeases begins to hold leases for s, once the level of the region allows it.
func (s *Service) NewLeases(o LeaseOptions) (*Leases, error) {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("limiter: number of this holder: %w", err)
	}
	sources := map[raftfsm.GroupID]limitSource{}
	for id, m := range o.Machines { // any order
		sources[id] = &m.published
	}
	holder, seed := binary.LittleEndian.Uint64(random[:8]), binary.LittleEndian.Uint64(random[8:])
	l := &Leases{
		options:     o,
		mode:        func() Mode { return s.mode() },
		pendingWait: pendingWait,
		table:       newHolderTable(Holder(holder), seed, o.Clock.Steady, s.Group, sources),
	}
	if own := slices.Sorted(maps.Keys(l.table.groups)); len(own) > 0 {
		l.globals = l.table.groups[own[0]] // that of their counters, if it has a replica here
	}
	forget := l.table.forget
	for _, m := range o.Machines { // any order
		m.credited.Store(&forget)
	}
	for id, g := range l.table.groups { // any order
		g.covers = o.Machines[id].covers
	}
	l.metrics = newLeaseMetrics(l.table, o.Registry)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.look()
	for _, g := range l.table.groups { // any order
		for range sendersMax {
			l.wg.Go(func() { l.send(g) })
		}
	}
	l.wg.Go(l.run)
	s.leases = l
	return l, nil
}

// Close gives everything back, for at most as long as ctx lasts, and ends what runs. Checks are then
// decided by their groups.
func (l *Leases) Close(ctx context.Context) {
	if l.closed.Swap(true) {
		return
	}
	l.active.Store(false)
	// Twice: what was under way brings more.
	for range 2 {
		l.table.giveAllBack(l.options.Clock.Sync())
		for _, g := range l.table.groups { // any order
			for _, done := range g.queue.pending(math.MaxUint64) {
				select {
				case <-done:
				case <-ctx.Done():
				}
			}
		}
	}
	l.begins.Lock()
	l.cancel()
	l.begins.Unlock()
	l.wg.Wait()
}

// goes runs f until its end, which Close waits for; false once Close has ended what runs.
func (l *Leases) goes(f func()) bool {
	l.begins.Lock()
	defer l.begins.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.wg.Go(f)
	return true
}

// look sees whether leases may be used at all, and of which groups.
func (l *Leases) look() {
	l.active.Store(!l.closed.Load() && l.options.Groups.Level() >= raftfsm.LevelLeases)
	if l.options.Groups.Level() >= raftfsm.LevelAhead {
		l.ahead.Store(true)
	}
	sets := map[limitSource]*limitSet{}
	again := false                      // some replica follows its group again, so that routes which were not lent may be now
	for id, g := range l.table.groups { // any order
		follows := l.options.Follows(id)
		again = g.shut.Swap(!follows) && follows || again
		sets[g.source] = g.source.Load()
	}
	l.outside.look(sets, l.mode(), again)
}

// run looks after the leases until Close.
func (l *Leases) run() {
	wait := tickIdle
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.table.wanted:
			l.askBlankets(l.options.Clock.Sync())
			continue
		case <-l.ctx.Done():
			return
		}
		l.look()
		wait = tickIdle
		now := l.options.Clock.Sync()
		if l.table.tick(now) {
			wait = tickBusy
		}
		l.askBlankets(now)
		timer.Reset(wait)
	}
}

// send carries the messages to a group until Close.
func (l *Leases) send(g *holderGroup) {
	for {
		b, all := l.table.prepare(g, l.options.Clock.Steady())
		if b == nil {
			select {
			case <-g.kick:
				continue
			case <-l.ctx.Done():
				return
			}
		}
		if g.queue.waits() {
			g.poke() // the other sender
		}
		if len(all) > 0 {
			l.renew(b, all)
		}
		g.queue.finish(b)
	}
}

// renew sends one message and takes the answer.
func (l *Leases) renew(b *renewals, all []Renewal) {
	ctx, cancel := context.WithTimeout(l.ctx, sendTimeout)
	defer cancel()
	grants, err := l.propose(ctx, b.group.id, leaseCommand{holder: l.table.holder, renewals: all, ahead: l.ahead.Load()})
	if err != nil {
		l.metrics.failed.Inc()
		l.table.fail(b)
		return
	}
	l.table.answer(b, grants, l.options.Clock.Steady())
}

// check decides a request from leases if it can; false means that its group must. An error comes from
// ctx, and then nothing was taken.
func (l *Leases) check(ctx context.Context, r *Request, d *Decision) (decided bool, err error) {
	c := heldCheck{request: r, decision: d}
	return l.decide(ctx, &c)
}

// decide is check for one that may have been looked at already: if it lacks tokens, it waits for those that
// were asked for on its behalf.
func (l *Leases) decide(ctx context.Context, c *heldCheck) (decided bool, err error) {
	if c.answer != heldLacks {
		l.table.check(c)
	}
	for tries := 0; c.answer == heldLacks && tries < waitsMax; tries++ {
		if err := l.await(ctx, c.batch); err != nil {
			return false, err
		}
		l.table.check(c)
	}
	return c.answer == heldSpent || c.answer == heldDenied, nil
}

// await waits until a message, and those before it, are answered or given up.
func (l *Leases) await(ctx context.Context, b *renewals) error {
	for _, done := range b.group.queue.pending(b.number) {
		select {
		case <-done:
		case <-l.ctx.Done():
		case <-ctx.Done():
			return &raftfsm.Error{Op: "renew leases", Group: fmt.Sprint(b.group.id), Outcome: raftfsm.OutcomeDefinite, Err: ctx.Err()}
		}
	}
	return nil
}

// checkMany decides what it can of the requests at places, and returns where the others are.
func (l *Leases) checkMany(ctx context.Context, all []Request, places []int, out []Outcome) (others []int) {
	many := heldMany.Get().(*heldChecks)
	defer many.free()
	checks, open := many.room(len(places))
	for i, place := range places {
		if c := &checks[i]; leasable(&all[place]) {
			c.request, c.decision, c.place = &all[place], &out[place].Decision, place
			open = append(open, c)
		} else {
			others = append(others, place)
		}
	}
	for tries := 0; len(open) > 0; tries++ {
		l.table.checkMany(open)
		lacking := open[:0]
		wait := map[raftfsm.GroupID]*renewals{}
		for _, c := range open {
			switch {
			case c.answer == heldLacks && tries < waitsMax:
				lacking = append(lacking, c)
				if known := wait[c.batch.group.id]; known == nil || known.number < c.batch.number {
					wait[c.batch.group.id] = c.batch
				}
			case c.answer == heldLacks || c.answer == heldNot:
				others = append(others, c.place)
			}
		}
		open = lacking
		for _, b := range wait { // any order
			if err := l.await(ctx, b); err != nil {
				for _, c := range open {
					out[c.place].Err = fmt.Errorf("limiter: check for tenant %s: %w", c.request.Tenant, err)
				}
				return others
			}
		}
	}
	slices.Sort(others)
	return others
}
