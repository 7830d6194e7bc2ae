package elastic

import (
	"context"
	"time"
)

const (
	// wakeEvery is how long the probe sleeps. Longer sees fewer of the queues in an interval; shorter
	// costs more: 200 wakes a second are about 1 % of a core.
	wakeEvery = 5 * time.Millisecond
	// wakesWanted are some more than there are in an interval.
	wakesWanted = 24
)

// probeWakes measures how late a thread wakes, and a goroutine runs on it, until ctx ends: it waits in
// the queues of the system and of Go's scheduler, as every request does before anybody can time it.
// While there are no checks it sleeps.
func (p *Pacer) probeWakes(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		checks := p.hasChecks(p.from.Steady())
		p.mu.Unlock()
		if !checks {
			select {
			case <-p.begun:
			case <-ctx.Done():
				return
			}
		}
		due := time.Now().Add(wakeEvery)
		sleep(wakeEvery)
		late := max(time.Since(due), 1) // 0 would say that nothing was seen
		now := p.from.Steady()
		p.mu.Lock()
		p.wakes.add(now, late)
		p.mu.Unlock()
	}
}
