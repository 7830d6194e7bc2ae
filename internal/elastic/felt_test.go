package elastic

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"
)

// Either signal makes elastic work give way: checks that nodes answer by themselves never wait for a
// group, and those that do may wait for a disk that the others do not need.
func TestEitherSignalCounts(t *testing.T) {
	own := Observation{Checks: true, Felt: time.Millisecond, Commit: 4 * time.Millisecond}
	for name, suffering := range map[string]Observation{
		"felt, groups decide none": {Checks: true, Felt: 3 * time.Millisecond},
		"felt":                     {Checks: true, Felt: 3 * time.Millisecond, Commit: own.Commit},
		"commits":                  {Checks: true, Felt: own.Felt, Commit: 12 * time.Millisecond},
	} {
		c := Controller{}
		own.Idle = true
		for range 10 {
			c.Observe(own)
		}
		before := c.Rate()
		for range 10 {
			c.Observe(suffering)
		}
		if c.Rate() != RateMin || before <= RateMin {
			t.Errorf("%s: the rate is %v, and was %v", name, c.Rate(), before)
		}
	}
}

// While checks are answered, a lack of any that groups decide is no lack of checks.
func TestChecksFromLeasesKeepThePace(t *testing.T) {
	c := Controller{}
	c.Observe(Observation{Checks: true, Felt: time.Millisecond, Commit: 4 * time.Millisecond, Idle: true})
	for range 100 {
		before := c.Rate()
		c.Observe(Observation{Checks: true, Felt: time.Millisecond})
		if c.Rate() > before+rateStep {
			t.Fatalf("from %v to %v in one interval", before, c.Rate())
		}
	}
}

// One lucky interval does not make all others look bad.
func TestOneLowValueIsNoNewBase(t *testing.T) {
	c := Controller{}
	o := Observation{Checks: true, Felt: time.Millisecond, Idle: true}
	c.Observe(o)
	o.Idle = false
	lucky := o
	lucky.Felt /= 10
	c.Observe(lucky)
	before := c.Rate()
	c.Observe(o)
	if c.Rate() < before {
		t.Errorf("gave way: from %v to %v", before, c.Rate())
	}
}

// watched is a pacer by hand whose sources say that nothing else happens, in the middle between two
// probes.
func watched() (*Pacer, *int64) {
	p, now := hand(math.Inf(1))
	p.from.Work, p.from.L0 = func() uint64 { return 0 }, func() int { return 0 }
	p.from.Wall = func() time.Time { return time.Unix(0, int64(probeEvery/2)) }
	return p, now
}

// What is felt is the answers' time and the lateness of wakes together; without single checks, of
// which the time says something, it is the lateness alone.
func TestFeltIsAnswersAndWakes(t *testing.T) {
	p, now := watched()
	late := func() {
		for range samplesFew {
			p.wakes.add(*now, 2*time.Millisecond)
		}
	}
	late()
	p.AnsweredMany()
	p.observe()
	if s := p.State(); s.Felt != 2*time.Millisecond || s.FeltBase != s.Felt {
		t.Errorf("beside batches: %+v", s)
	}
	for range samplesFew {
		p.Answered(time.Millisecond)
	}
	p.observe()
	if s := p.State(); s.Felt != 3*time.Millisecond || s.Commit != 0 {
		t.Errorf("beside checks: %+v", s)
	}
	*now += int64(samplesAge) + 1
	p.observe()
	if s := p.State(); s.Felt != 0 {
		t.Errorf("a second after them: %+v", s)
	}
}

// Ingest obeys the node whose checks bear least, and each node tells what its own bear.
func TestIngestObeysPeers(t *testing.T) {
	p, _ := watched()
	p.from.Peers = func() float64 { return 3 * RateMin }
	p.observe()
	if got := p.State().Rate; got != 3*RateMin {
		t.Errorf("without checks here: %v", got)
	}
	if got := p.Pace(); got != 0 {
		t.Errorf("it tells a pace of %v without checks of its own", got)
	}
	p.control.paced, p.control.rate = true, 4*RateMin
	p.from.Peers = func() float64 { return math.Inf(1) }
	p.observe()
	if got := p.State().Rate; got != p.Pace() || got < 4*RateMin {
		t.Errorf("a rate of %v, told %v", got, p.Pace())
	}
}

// Searches alone do not hold ingest up while they are answered in time, and slow it down when they are not.
func TestSearchesThatSuffer(t *testing.T) {
	p, now := watched()
	work := uint64(0)
	p.from.Work = func() uint64 { work++; return work }
	search := func(took time.Duration) float64 {
		for range samplesWanted {
			p.Searched(took)
		}
		p.done = 1 << 20
		p.observe()
		*now += int64(Interval)
		return p.State().Rate
	}
	if got := search(time.Millisecond); !math.IsInf(got, 1) {
		t.Errorf("searches of the first moment: %v", got)
	}
	if got := search(searchWell); !math.IsInf(got, 1) {
		t.Errorf("searches that take four times as long, and are quick: %v", got)
	}
	slow := search(10 * searchWell)
	if slow != giveWay*10<<20 {
		t.Errorf("slow searches: %v", slow)
	}
	for range 50 {
		slow = search(10 * searchWell)
	}
	if slow != RateMin {
		t.Errorf("searches that stay slow: %v", slow)
	}
	*now += 2 * int64(samplesAge)
	for range 50 {
		p.observe()
	}
	if got := p.State().Rate; !math.IsInf(got, 1) {
		t.Errorf("after them: %v", got)
	}
}

// Few samples are no percentile.
func TestFewSamplesSayNothing(t *testing.T) {
	p, now := hand(1)
	for range samplesFew - 1 {
		p.Checked(time.Second)
	}
	if got := p.commits.percentile(*now, samplesWanted); got != 0 {
		t.Errorf("%v of %d samples", got, samplesFew-1)
	}
}

// The probe sleeps until there are checks, and ends with its context both ways.
func TestTheProbeRunsBesideChecks(t *testing.T) {
	p, _ := watched()
	ctx, cancel := context.WithCancel(t.Context())
	var probe sync.WaitGroup
	probe.Go(func() { p.probeWakes(ctx) })
	p.mu.Lock()
	if len(p.wakes.all) != 0 {
		t.Error("it measured without checks")
	}
	p.mu.Unlock()
	p.Answered(time.Millisecond)
	for seen := 0; seen < 3; { // time stands still, so the check stays new
		p.mu.Lock()
		seen = len(p.wakes.all)
		p.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("the probe did not begin")
		}
		sleep(wakeEvery)
	}
	cancel()
	probe.Wait()
	for _, w := range p.wakes.all {
		if w.took <= 0 {
			t.Errorf("late by %v", w.took)
		}
	}
	idle, _ := watched()
	ctx, cancel = context.WithCancel(t.Context())
	probe.Go(func() { idle.probeWakes(ctx) })
	cancel()
	probe.Wait()
}

// Compactions rest while they keep up, and not once they are behind.
func TestCompactionsRestWhileTheyKeepUp(t *testing.T) {
	p, now := hand(RateMin)
	rest := p.CompactionTurns()
	*now += int64(turn)
	p.seen.L0 = l0Calm + 1
	rest()
	if p.nextTurn != 0 {
		t.Error("rested behind")
	}
	p.seen.L0 = l0Calm
	rest()
	if p.nextTurn == 0 {
		t.Error("did not rest")
	}
}
