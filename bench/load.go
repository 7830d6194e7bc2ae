package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// measured is what a load came to.
type measured struct {
	samples []time.Duration // of the operations that succeeded, sorted
	errors  int
	elapsed time.Duration
	cpu     time.Duration // of the servers meanwhile; 0 when not looked at
	client  time.Duration // processor time of this process meanwhile; 0 when not looked at
}

func (m measured) throughput() float64 { return float64(len(m.samples)) / m.elapsed.Seconds() }

// percentile is the smallest sample that the share q of all samples does not exceed; samples
// are sorted.
func percentile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	rank := int(q*float64(len(samples)) + 0.999999)
	return samples[min(max(rank, 1), len(samples))-1]
}

// operation is one call of a load; n counts the worker's calls.
type operation func(ctx context.Context, worker, n int) error

// collector gathers what workers saw.
type collector struct {
	mu    sync.Mutex
	m     measured
	first error
}

func (c *collector) add(samples []time.Duration, errs int, first error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.samples = append(c.m.samples, samples...)
	c.m.errors += errs
	if c.first == nil {
		c.first = first
	}
}

// result sorts the samples. A load in which more than one call in a hundred failed measured
// something else than it says.
func (c *collector) result(elapsed time.Duration) (measured, error) {
	slices.Sort(c.m.samples)
	c.m.elapsed = elapsed
	if len(c.m.samples) == 0 || c.m.errors*100 > len(c.m.samples) {
		return c.m, fmt.Errorf("%d calls succeeded and %d failed, the first with: %w", len(c.m.samples), c.m.errors, c.first)
	}
	return c.m, nil
}

// bounded gives each call a time of its own: the end of a load's window cuts none off.
func bounded(ctx context.Context, worker, n int, op operation) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return op(ctx, worker, n)
}

// closedLoop lets each worker call again as soon as it has an answer, for the window d or
// until it has done most calls (0 for no bound).
func closedLoop(ctx context.Context, workers, most int, d time.Duration, op operation) (measured, error) {
	var c collector
	var all sync.WaitGroup
	began := time.Now()
	for w := range workers {
		all.Go(func() {
			var samples []time.Duration
			var first error
			errs := 0
			for n := 0; time.Since(began) < d && ctx.Err() == nil && (most == 0 || n < most); n++ {
				t := time.Now()
				if err := bounded(ctx, w, n, op); err == nil {
					samples = append(samples, time.Since(t))
				} else if errs++; first == nil {
					first = err
				}
			}
			c.add(samples, errs, first)
		})
	}
	all.Wait()
	return c.result(time.Since(began))
}

// outstandingMax bounds the calls of an open loop that are under way; one more is an error.
const outstandingMax = 4096

// openLoop calls at a fixed rate whatever the answers do, and counts each latency from the
// moment at which the call was due: a server that stalls is charged for the queue it made.
func openLoop(ctx context.Context, perSecond float64, d time.Duration, op operation) (measured, error) {
	var c collector
	var all sync.WaitGroup
	slots := make(chan struct{}, outstandingMax)
	began := time.Now()
	calls := int(perSecond * d.Seconds())
	for n := 0; n < calls && ctx.Err() == nil; n++ {
		due := began.Add(time.Duration(float64(n) / perSecond * float64(time.Second)))
		time.Sleep(time.Until(due))
		select {
		case slots <- struct{}{}:
		default:
			c.add(nil, 1, errors.New("too many calls outstanding"))
			continue
		}
		all.Go(func() {
			defer func() { <-slots }()
			if err := bounded(ctx, n, n, op); err != nil {
				c.add(nil, 1, err)
				return
			}
			c.add([]time.Duration{time.Since(due)}, 0, nil)
		})
	}
	all.Wait()
	return c.result(time.Since(began))
}
