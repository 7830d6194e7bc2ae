package elastic

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	// waitMax is how long a batch may have to wait for those before it. Longer waits in the
	// client serve nobody: its deadline runs.
	waitMax = 3 * time.Second
	// burst is how much may be done at once after a pause, in time of the rate.
	burst = 50 * time.Millisecond
	// Probing: at every probeEvery of the wall clock, so that all nodes do it together, for
	// probeFor, of which the first part lets what is under way come to its end.
	probeEvery   = 30 * time.Second
	probeFor     = 1200 * time.Millisecond
	probeSettles = 700 * time.Millisecond
)

// BusyError refuses a batch because those before it take too long. Nothing of it was done.
type BusyError struct {
	// After is when those before it will be done, at the rate of now.
	After time.Duration
}

// Error tells it.
func (e *BusyError) Error() string {
	return fmt.Sprintf("the batches under way take another %v", e.After.Round(time.Millisecond))
}

// RetryAfter is when a retry can succeed.
func (e *BusyError) RetryAfter() time.Duration { return e.After }

// Sources are what a Pacer looks at besides the checks.
type Sources struct {
	// Steady is a clock in nanoseconds, Wall the one that all nodes share.
	Steady func() int64
	Wall   func() time.Time
	// Work is a figure that grows while any node of the region does elastic work.
	Work func() uint64
	// L0 is how many sublevels the top level of the state has.
	L0 func() int
	// Peers is the least pace that a peer tells of, in bytes a second; +Inf when none paces.
	Peers func() float64
}

// Pacer lets elastic work through at the rate of a Controller. It is safe for use by several
// goroutines.
type Pacer struct {
	from Sources

	mu         sync.Mutex
	control    Controller
	own        float64 // the controller's rate, or the least while probing
	rate       float64 // in force: own, or that of a peer whose checks bear less
	answers    samples // checks that the API answered
	searches   samples // searches that the API answered
	commits    samples // checks that groups decided
	wakes      samples // how late the probe woke
	checked    int64   // when the last check was decided; 0 before the first
	searched   int64   // when the last search was answered; 0 before the first
	seen       Observation
	next       int64 // when the next byte may be done
	queued     int   // bytes of batches that have entered and are not yet done
	done       int   // bytes done in this interval
	work       uint64
	workedLast int64 // when Work grew last
	refused    uint64
	ended      bool  // Run has ended: what is left to do is not held up
	nextTurn   int64 // when background work may go on
	// begun has a value when checks have begun after a while without.
	begun chan struct{}
}

// NewPacer makes a pacer that lets everything through until Run has something to say.
func NewPacer(from Sources) *Pacer {
	return &Pacer{from: from, own: math.Inf(1), rate: math.Inf(1), begun: make(chan struct{}, 1)}
}

// Answered notes that a check was answered, and the time since it had arrived.
func (p *Pacer) Answered(took time.Duration) { p.note(&p.answers, took) }

// AnsweredMany notes that many checks were answered at once. How long that takes depends on how many
// they are, so it is nothing to compare.
func (p *Pacer) AnsweredMany() { p.note(nil, 0) }

// Checked notes that a group decided a check, and how long that took.
func (p *Pacer) Checked(took time.Duration) { p.note(&p.commits, took) }

// Searched notes that a search was answered, and how long that took.
func (p *Pacer) Searched(took time.Duration) {
	now := p.from.Steady()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.searches.add(now, took)
	p.searched = now
}

func (p *Pacer) note(s *samples, took time.Duration) {
	now := p.from.Steady()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != nil {
		s.add(now, took)
	}
	if !p.hasChecks(now) {
		select {
		case p.begun <- struct{}{}:
		default:
		}
	}
	p.checked = now
}

// hasChecks tells whether there are checks to give way to.
func (p *Pacer) hasChecks(now int64) bool { return lately(now, p.checked) }

func lately(now, at int64) bool { return at != 0 && now-at <= int64(samplesAge) }

// Enter admits a batch of so many bytes, or returns a *BusyError at once. Leave must be
// called with what Wait has not let through.
func (p *Pacer) Enter(bytes int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A batch finds room whenever the queue is empty, however large it is.
	if ahead := time.Duration(float64(p.queued) / p.rate * float64(time.Second)); ahead > waitMax {
		p.refused++
		return &BusyError{After: ahead}
	}
	p.queued += bytes
	return nil
}

// Leave gives back what a batch entered for and did not do.
func (p *Pacer) Leave(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued -= bytes
}

// Wait waits until the next bytes of a batch may be done. They count as done then.
func (p *Pacer) Wait(ctx context.Context, bytes int) error {
	for {
		wait, ok := p.take(bytes)
		if ok {
			return nil
		}
		// Not for longer than an interval: the rate may have changed.
		t := time.NewTimer(min(wait, Interval))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// take lets bytes through, or says when to ask again.
func (p *Pacer) take(bytes int) (time.Duration, bool) {
	now := p.from.Steady()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !math.IsInf(p.rate, 1) {
		p.next = max(p.next, now-int64(burst))
		if p.next > now {
			return time.Duration(p.next - now), false
		}
		p.next += int64(float64(bytes) / p.rate * float64(time.Second))
	}
	p.queued -= bytes
	p.done += bytes
	return 0, true
}

// Run observes and decides until ctx ends; from then on nothing waits.
func (p *Pacer) Run(ctx context.Context) {
	defer p.end()
	var probe sync.WaitGroup
	defer probe.Wait()
	probe.Go(func() { p.probeWakes(ctx) })
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.observe()
		case <-ctx.Done():
			return
		}
	}
}

func (p *Pacer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.own, p.rate = true, math.Inf(1), math.Inf(1)
}

func (p *Pacer) observe() {
	now, work, l0, peers := p.from.Steady(), p.from.Work(), p.from.L0(), p.from.Peers()
	phase := time.Duration(p.from.Wall().UnixNano() % int64(probeEvery))
	p.mu.Lock()
	defer p.mu.Unlock()
	if work != p.work {
		p.work, p.workedLast = work, now
	}
	o := Observation{
		Felt: p.felt(now), Commit: p.commits.percentile(now, samplesWanted), Search: p.searches.percentile(now, samplesWanted),
		Checks: p.hasChecks(now), Searches: lately(now, p.searched),
		Done: p.done, Idle: now-p.workedLast > int64(samplesAge),
		Probe: phase >= probeSettles && phase < probeFor, L0: l0,
	}
	p.seen = o
	p.done = 0
	probing := phase < probeFor
	if !probing || o.Probe || o.Idle || !o.Checks && !o.Searches {
		p.control.Observe(o)
	}
	p.own = p.control.Rate()
	if probing && !math.IsInf(p.own, 1) {
		p.own = RateMin
	}
	p.rate = min(p.own, peers)
}

// felt adds up what a check has to pass. Without single checks it is how late goroutines wake.
func (p *Pacer) felt(now int64) time.Duration {
	late := p.wakes.percentile(now, wakesWanted)
	if late == 0 {
		return 0
	}
	return late + p.answers.percentile(now, samplesWanted)
}

// State is what the pacer does now.
type State struct {
	// Rate is how many bytes a second may be done; +Inf when nothing is paced.
	Rate float64
	// Felt and Commit are what was seen last, FeltBase and CommitBase the same without elastic work; 0
	// when not known.
	Felt, FeltBase, Commit, CommitBase, Search, SearchBase time.Duration
	// Queued are the bytes of the batches that have entered and are not yet done.
	Queued int
	// Refused counts the batches that were refused.
	Refused uint64
}

// State is for metrics.
func (p *Pacer) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return State{
		Rate: p.rate, Felt: p.seen.Felt, FeltBase: time.Duration(p.control.felt),
		Commit: p.seen.Commit, CommitBase: time.Duration(p.control.commit),
		Search: p.seen.Search, SearchBase: time.Duration(p.control.search),
		Queued: p.queued, Refused: p.refused,
	}
}

const (
	// turn is how long background work goes on at a time while checks are given way to, turnMax how
	// much of it counts, because it may hold a time in which the machine did something else, and
	// turnRest how many times as long it then rests. So all of a node's background work takes a third
	// of a core at least, and each piece of it a quarter when it is alone: a gigabyte of documents is
	// indexed within two minutes, and segments are built several times as fast as paced ingest fills
	// them.
	turn     = 2 * time.Millisecond
	turnMax  = 2 * turn
	turnRest = 3
	// turnsFade is the pace from which on rests become shorter, in proportion: checks have then been
	// well for some fifteen seconds, so the machine has room.
	turnsFade = 20 * RateMin
)

// Pace is what checks and searches of this node bear, in bytes a second, so that peers give way to
// them too; 0 when they bear anything. It does not hold what peers tell, or they would hold each other down.
func (p *Pacer) Pace() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if math.IsInf(p.own, 1) {
		return 0
	}
	return p.own
}

// Turns is for background work that takes long, such as building a segment or sending a copy of
// the state. Call the function it returns every so often: while checks are given way to, here or
// at a peer, it rests, and all such work of a node shares one measure.
func (p *Pacer) Turns() (rest func()) {
	began := p.from.Steady()
	return func() {
		worked := time.Duration(p.from.Steady() - began)
		if worked < turn {
			return
		}
		time.Sleep(p.turned(min(worked, turnMax)))
		began = p.from.Steady()
	}
}

// CompactionTurns are Turns for compactions of the state, which rest only while they keep up.
func (p *Pacer) CompactionTurns() (rest func()) {
	turns := p.Turns()
	return func() {
		p.mu.Lock()
		behind := p.seen.L0 > l0Calm
		p.mu.Unlock()
		if !behind {
			turns()
		}
	}
}

// turned takes note of work that was done and says how long to rest.
func (p *Pacer) turned(worked time.Duration) time.Duration {
	now := p.from.Steady()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || math.IsInf(p.rate, 1) {
		return 0
	}
	rest := turnRest * min(1, turnsFade/p.rate) * float64(worked)
	p.nextTurn = max(p.nextTurn, now) + int64(rest)
	return time.Duration(p.nextTurn - now)
}
