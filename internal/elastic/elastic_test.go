package elastic

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

// machine is a simulated load: checks take alone without ingest, and longer in proportion to
// what is ingested.
type machine struct {
	alone    time.Duration
	capacity float64 // bytes a second of ingest that double the checks' latency
	wanted   float64 // bytes a second that ingest would do unpaced
}

// run lets a controller see n intervals and returns the rate in each.
func (m machine) run(c *Controller, n int) []float64 {
	var rates []float64
	for range n {
		done := min(c.Rate(), m.wanted)
		rates = append(rates, done)
		o := Observation{Done: int(done * Interval.Seconds()), Idle: done == 0}
		if m.alone > 0 {
			o.Checks, o.Felt = true, time.Duration(float64(m.alone)*(1+done/m.capacity))
		}
		c.Observe(o)
	}
	return rates
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// Without checks ingest goes as fast as it can, from the first moment.
func TestNothingIsPacedWithoutChecks(t *testing.T) {
	var c Controller
	if got := mean(machine{wanted: 8e6}.run(&c, 50)); got != 8e6 {
		t.Errorf("ingest did %v bytes a second of 8e6", got)
	}
}

// Beside checks that suffer, ingest finds the rate at which they bear it, wherever that is on
// this machine, and checks that do not suffer cost it nothing.
func TestPaceFindsWhatChecksBear(t *testing.T) {
	for _, capacity := range []float64{2e6, 8e6, 30e6} {
		m := machine{alone: 5 * time.Millisecond, capacity: capacity, wanted: 100e6}
		c := Controller{}
		c.Observe(Observation{Checks: true, Felt: m.alone, Idle: true})
		m.run(&c, 6000)
		rates := m.run(&c, 2000)
		allowed := (suffering - 1) * capacity
		for _, r := range rates {
			if r > 1.1*allowed+2*rateStep || r < RateMin {
				t.Fatalf("capacity %v: a rate of %v, where checks bear %v", capacity, r, allowed)
			}
		}
		if got := mean(rates); got < 0.6*allowed {
			t.Errorf("capacity %v: ingest did %v of the %v that checks bear", capacity, got, allowed)
		}
	}
	c := Controller{}
	strong := machine{alone: time.Millisecond, capacity: 1e9, wanted: 8e6}
	if got := mean(strong.run(&c, 100)); got != 8e6 {
		t.Errorf("on a machine with room ingest did %v of 8e6", got)
	}
}

// Checks that begin while ingest is at full speed make it give way within a second, and when
// they end it is at full speed again in a few seconds.
func TestPaceFollowsTheChecks(t *testing.T) {
	c := Controller{}
	m := machine{alone: 5 * time.Millisecond, capacity: 1e6, wanted: 8e6}
	c.Observe(Observation{Checks: true, Felt: m.alone, Idle: true}) // known from before
	quiet := machine{wanted: m.wanted}
	quiet.run(&c, 50)
	if c.Rate() < m.wanted {
		t.Fatal("paced without checks")
	}
	m.run(&c, int(2*time.Second/Interval))
	if got := c.Rate(); got > 0.5e6 {
		t.Errorf("two seconds after the checks began the rate is %v", got)
	}
	quiet.run(&c, int(4*time.Second/Interval))
	if got := c.Rate(); !math.IsInf(got, 1) {
		t.Errorf("four seconds after the checks ended the rate is %v", got)
	}
}

// However much checks suffer, and from whatever, ingest keeps its least.
func TestIngestIsNeverStarved(t *testing.T) {
	c := Controller{}
	c.Observe(Observation{Checks: true, Felt: time.Millisecond, Idle: true})
	for range 1000 {
		c.Observe(Observation{Checks: true, Felt: time.Second, L0: 100})
	}
	if c.Rate() != RateMin {
		t.Errorf("the rate is %v, want %v", c.Rate(), RateMin)
	}
}

// A higher load of checks makes them slower by itself; probing tells that from suffering.
func TestProbesLearnANewBase(t *testing.T) {
	c := Controller{}
	c.Observe(Observation{Checks: true, Felt: time.Millisecond, Idle: true})
	busier := machine{alone: 4 * time.Millisecond, capacity: 10e6, wanted: 8e6}
	busier.run(&c, 200)
	if c.Rate() != RateMin {
		t.Fatalf("the rate is %v before a probe", c.Rate())
	}
	for range 20 {
		c.Observe(Observation{Checks: true, Felt: busier.alone, Probe: true})
	}
	busier.run(&c, 400)
	if c.Rate() < 2e6 {
		t.Errorf("after probes the rate is %v", c.Rate())
	}
}

// A top level that compaction cannot keep up with slows ingest down without any checks.
func TestStateBacklogSlowsIngest(t *testing.T) {
	c := Controller{}
	for range 100 {
		c.Observe(Observation{Done: 1e6, L0: l0Max + 1})
	}
	if c.Rate() != RateMin {
		t.Errorf("the rate is %v", c.Rate())
	}
}

// hand is a pacer whose time stands still.
func hand(rate float64) (*Pacer, *int64) {
	now := int64(time.Hour)
	p := NewPacer(Sources{Steady: func() int64 { return now }, Peers: func() float64 { return math.Inf(1) }})
	p.rate = rate
	return p, &now
}

// A batch is refused at once when those before it take too long, with the time they take; the
// first one never is.
func TestBatchesAreRefusedEarly(t *testing.T) {
	p, _ := hand(1000)
	if err := p.Enter(60_000); err != nil {
		t.Fatalf("the first: %v", err)
	}
	var busy *BusyError
	if err := p.Enter(1); !errors.As(err, &busy) || busy.RetryAfter() != time.Minute {
		t.Fatalf("behind a minute of work: %v", err)
	}
	p.Leave(59_000)
	if err := p.Enter(1); err != nil {
		t.Fatalf("behind a second of work: %v", err)
	}
	p.Leave(1)
	p.Leave(1000)
	if s := p.State(); s.Queued != 0 || s.Refused != 1 {
		t.Errorf("at the end: %+v", s)
	}
}

// Bytes go through at the rate, after a small burst.
func TestBytesGoThroughAtTheRate(t *testing.T) {
	p, now := hand(1000)
	passed := 0
	for range 10_000 { // ten seconds
		for {
			if _, ok := p.take(10); !ok {
				break
			}
			passed += 10
		}
		*now += int64(time.Millisecond)
	}
	if passed < 10_000 || passed > 10_100 {
		t.Errorf("%d bytes in ten seconds at 1000 a second", passed)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(ended, 1_000_000); err == nil {
		err = p.Wait(ended, 1)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a wait whose request has ended: %v", err)
		}
	}
}

// Background work rests while checks are given way to, here or at a peer: less when they bear a
// high pace, and not at all once the pacer has ended.
func TestBackgroundWorkRests(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		own, peers float64
		ended      bool
		want       time.Duration
	}{
		{own: inf, peers: inf},
		{own: RateMin, peers: inf, want: turnRest * turn},
		{own: inf, peers: RateMin, want: turnRest * turn},
		{own: 4 * turnsFade, peers: inf, want: turnRest * turn / 4},
		{own: RateMin, peers: RateMin, ended: true},
	} {
		p, _ := watched()
		p.from.Peers = func() float64 { return c.peers }
		if p.control.paced = !math.IsInf(c.own, 1); p.control.paced {
			p.control.rate = c.own / 1.5 // it grows by as much while there are no checks
		}
		p.observe()
		if c.ended {
			p.end()
		}
		if got := p.turned(turn); got != c.want {
			t.Errorf("%+v: a rest of %v", c, got)
		}
	}
}

// All background work of a node together keeps to one measure, however much there is of it.
func TestBackgroundWorkSharesOneMeasure(t *testing.T) {
	p, now := hand(RateMin)
	const workers = 8
	worked := time.Duration(0)
	until := [workers]int64{}
	end := *now + int64(time.Minute)
	for *now < end {
		next := end
		for i := range until {
			if until[i] <= *now {
				worked += turn
				until[i] = *now + int64(turn) + int64(p.turned(turn))
			}
			next = min(next, until[i])
		}
		*now = next
	}
	if share := worked.Seconds() / 60; share > 1.1/turnRest || share < 0.5/turnRest {
		t.Errorf("%d workers worked %.2f of the time", workers, share)
	}
}

// A turn is not over before its time, and a rest is really taken.
func TestTurnsRest(t *testing.T) {
	p, now := hand(RateMin)
	rest := p.Turns()
	rest()
	if p.nextTurn != 0 {
		t.Error("work rested before its turn was over")
	}
	*now += int64(time.Second)
	began := time.Now()
	rest()
	if time.Since(began) < turnRest*turnMax || p.nextTurn-*now != int64(turnRest*turnMax) {
		t.Error("paced work did not rest")
	}
}

// The latency is that of the last moments, of some more when there are few, and nobody's when
// the last check is old.
func TestLatencyIsOfTheLastMoments(t *testing.T) {
	p, now := hand(math.Inf(1))
	for range 100 {
		p.Checked(time.Second)
	}
	*now += int64(3 * Interval)
	if got := p.commits.percentile(*now, samplesWanted); got != time.Second {
		t.Errorf("with old samples only: %v", got)
	}
	for range 100 {
		p.Checked(time.Millisecond)
	}
	if got := p.commits.percentile(*now, samplesWanted); got != time.Millisecond {
		t.Errorf("with recent ones: %v", got)
	}
	*now += int64(samplesAge) + 1
	if got := p.commits.percentile(*now, samplesWanted); got != 0 || len(p.commits.all) != 0 {
		t.Errorf("after a second without checks: %v of %d samples", got, len(p.commits.all))
	}
	for range 3 * samplesMax {
		p.Checked(time.Millisecond)
	}
	if len(p.commits.all) > samplesMax {
		t.Errorf("%d samples are kept", len(p.commits.all))
	}
}
