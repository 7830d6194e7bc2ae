package elastic

import (
	"slices"
	"time"
)

const (
	// samplesMax bounds the samples that are kept; beyond, the oldest go first.
	samplesMax = 1024
	// samplesWanted are enough for a percentile; with fewer in the last two intervals, older ones
	// count too, up to samplesAge.
	samplesWanted = 32
	// samplesFew are too few for one: it would be the noise of the slowest.
	samplesFew = 8
	samplesAge = time.Second
	// percentile of what must not grow. A higher one would be the noise of a few.
	percentile = 0.9
)

// samples are the latest of some durations, by age.
type samples struct {
	all []sample
	// sorted is memory that is used again.
	sorted []time.Duration
}

type sample struct {
	at   int64
	took time.Duration
}

func (s *samples) add(now int64, took time.Duration) {
	if len(s.all) == samplesMax {
		s.all = slices.Delete(s.all, 0, samplesMax/4)
	}
	s.all = append(s.all, sample{now, took})
}

// percentile is that of the last two intervals, of some more while they have fewer than wanted, and 0
// when few are left of the last second.
func (s *samples) percentile(now int64, wanted int) time.Duration {
	first, _ := slices.BinarySearchFunc(s.all, now-int64(samplesAge), func(s sample, at int64) int {
		if s.at < at {
			return -1
		}
		return 1
	})
	s.all = slices.Delete(s.all, 0, first)
	if len(s.all) < samplesFew {
		return 0
	}
	recent := len(s.all)
	for recent > 0 && s.all[recent-1].at > now-2*int64(Interval) {
		recent--
	}
	recent = max(0, min(recent, len(s.all)-wanted))
	s.sorted = s.sorted[:0]
	for _, x := range s.all[recent:] {
		s.sorted = append(s.sorted, x.took)
	}
	slices.Sort(s.sorted)
	return s.sorted[int(percentile*float64(len(s.sorted)-1))]
}
