package elastic

import (
	"math"
	"time"
)

const (
	// Interval is the time between two observations. Smaller sees too few checks for a
	// percentile; larger lets ingest hurt checks for longer before it gives way.
	Interval = 100 * time.Millisecond

	// RateMin is what elastic work may always do, in bytes a second on one node: some five
	// hundred documents. Smaller lets batches reach their deadlines, for which a thousand documents take
	// two seconds; larger hurts checks where three nodes share two cores.
	RateMin = 64 << 10
	// rateBegin is the rate beside checks that were there before.
	rateBegin = 4 * RateMin
	// rateStep is added at each interval in which nobody suffers: from the least to twenty
	// times as much in some fifteen seconds. Larger overshoots before the checks show it.
	rateStep = 8 << 10
	// rateUnpaced is a rate that no node reaches; from there on nothing is paced.
	rateUnpaced = 64 << 20

	// suffering is how many times its value without elastic work the checks' latency may be. It
	// is below the factor 2 that is to be kept for the slowest in a hundred, because the slow
	// ones grow faster than the usual ones and because the controller is always a little late.
	suffering = 1.4
	// searchWell is how long searches may take whatever they take without elastic work: a fifth of what a
	// list may take at worst. Less would cost ingest what nobody notices.
	searchWell = 4 * time.Millisecond
	// giveWay is what remains of the rate at an interval in which checks suffer.
	giveWay = 0.6
	// baseWeight is the weight of a new observation of the latency without elastic work.
	baseWeight = 0.2
	// cutPause is how many intervals the pace stays after giving way, because samples count in two: a moment
	// in which checks suffered must not count twice.
	cutPause = 1
	// l0Max is how many sublevels the state's top level may have: each makes every read dearer,
	// and a compaction that never catches up ends in a disk that is full.
	l0Max = 16
	// l0Calm is up to how many compactions have time: reads and the compactions themselves do not yet
	// become much dearer.
	l0Calm = 6
)

// Observation is what a node saw in one interval.
type Observation struct {
	// Felt is what those who ask for checks feel of this node: a high percentile of the time from a
	// check's arrival to its answer, and of how late a goroutine wakes, which the requests have in
	// front of them and nobody else measures. 0 when it was not seen.
	Felt time.Duration
	// Commit is a high percentile of the checks that groups decided; 0 when too few were.
	Commit time.Duration
	// Search is a high percentile of the time to answer a search; 0 when too few were.
	Search time.Duration
	// Checks and Searches are true while there are any, so that there is somebody to give way to.
	Checks, Searches bool
	// Done is how many bytes of elastic work this node did in the interval.
	Done int
	// Idle is true when no node of the region has done elastic work lately: Felt and Commit are then
	// the checks' own.
	Idle bool
	// Probe is true while every node does the least, so that they are nearly the checks' own.
	Probe bool
	// L0 is how many sublevels the top level of the state has.
	L0 int
}

// Controller decides how fast elastic work may go: additive increase while checks do not
// suffer, multiplicative decrease while they do (Chiu and Jain 1989), where suffering is
// judged as LEDBAT (RFC 6817) does: against the latency without the elastic work. It is a
// pure function of what it has observed. The zero value is not paced.
type Controller struct {
	paced bool
	rate  float64
	// felt, commit and search are the signals' values without elastic work.
	felt, commit, search base
	pause                int // intervals in which the pace stays
}

// base is a signal's value without elastic work; 0 while unknown.
type base float64

// learn takes a value seen without elastic work.
func (b *base) learn(seen time.Duration) {
	switch {
	case seen == 0:
	case *b == 0:
		*b = base(seen)
	default:
		*b += baseWeight * (base(seen) - *b)
	}
}

// suffers judges a value seen beside elastic work, of which one up to well is never too much. One below
// the base shows that the base has fallen.
func (b *base) suffers(seen, well time.Duration) bool {
	if *b == 0 || base(seen) < *b {
		b.learn(seen)
	}
	return base(seen) > max(suffering**b, base(well))
}

// Rate is how many bytes a second may be done; +Inf when nothing is paced.
func (c *Controller) Rate() float64 {
	if !c.paced {
		return math.Inf(1)
	}
	return c.rate
}

// Observe takes the next interval's observation.
func (c *Controller) Observe(o Observation) {
	crowded := o.L0 > l0Max
	urgent := o.Checks || o.Searches
	switch {
	case !urgent && !crowded:
		// Nobody to give way to. Not at once: checks may only have paused.
		if c.paced {
			if c.rate *= 1.5; c.rate > rateUnpaced {
				c.paced = false
			}
		}
		return
	case !urgent:
	case o.Idle || o.Probe:
		c.felt.learn(o.Felt)
		c.commit.learn(o.Commit)
		c.search.learn(o.Search)
		if o.Idle && o.Checks {
			// Begin gently beside checks that are there already.
			c.paced, c.rate = true, rateBegin
		}
		return
	}
	// All are asked, so that all learn.
	felt, commit, search := c.felt.suffers(o.Felt, 0), c.commit.suffers(o.Commit, 0), c.search.suffers(o.Search, searchWell)
	switch {
	case c.pause > 0:
		c.pause--
	case crowded || felt || commit || search:
		c.pause = cutPause
		if !c.paced {
			c.paced, c.rate = true, float64(o.Done)*float64(time.Second/Interval)
		}
		c.rate = max(RateMin, giveWay*c.rate)
	case c.paced:
		if c.rate += rateStep; c.rate > rateUnpaced {
			c.paced = false
		}
	}
}
