package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/api"
)

const (
	// metaStaleAfter is how old the last confirmation of meta may be. A longer one admits
	// revoked tokens for longer; a shorter one refuses requests because of a slow disk.
	metaStaleAfter = time.Second
	// metaConfirmEvery is the time from the beginning of one confirmation to the next: two may
	// be late or lost before the last is too old. Each costs two small messages to the leader,
	// and the leader as many to a majority.
	metaConfirmEvery = 250 * time.Millisecond
	// metaConfirmTimeout bounds one: a leader that died must not be waited for when another one
	// may have taken over.
	metaConfirmTimeout = 700 * time.Millisecond
	// metaConfirmPause keeps a node that is cut off from asking without end.
	metaConfirmPause = 50 * time.Millisecond
)

// freshness knows when this node's replica of meta was last known to hold every revocation.
// What counts is when the confirmation began, by the steady clock: what is committed later may
// be missing from it.
type freshness struct {
	steady  func() int64
	confirm func(ctx context.Context) error
	log     *slog.Logger

	mu sync.Mutex
	// since is when the youngest successful confirmation began; valid when known.
	since   int64
	known   bool
	changed chan struct{} // closed at the next success

	ended chan struct{} // closed when nothing is confirmed any more
}

func newFreshness(steady func() int64, confirm func(context.Context) error, log *slog.Logger, r prometheus.Registerer) *freshness {
	f := &freshness{steady: steady, confirm: confirm, log: log, changed: make(chan struct{}), ended: make(chan struct{})}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mc_meta_age_seconds",
		Help: "Age of this node's last confirmation from the group meta; above 1 it refuses all but checks from leases as meta_stale. -1 before the first.",
	}, func() float64 {
		if age, ok := f.age(); ok {
			return age.Seconds()
		}
		return -1
	}))
	return f
}

// age is how long ago the last confirmation began; false before the first.
func (f *freshness) age() (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(f.steady() - f.since), f.known
}

// Fresh tells whether every revocation up to metaStaleAfter ago is known here.
func (f *freshness) Fresh() bool {
	age, ok := f.age()
	return ok && age <= metaStaleAfter
}

// AwaitFresh waits until Fresh; api.ErrMetaStale when ctx or run ends first.
func (f *freshness) AwaitFresh(ctx context.Context) error {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if f.Fresh() {
			return nil
		}
		select {
		case <-changed:
		case <-f.ended:
			return api.ErrMetaStale
		case <-ctx.Done():
			return api.ErrMetaStale
		}
	}
}

// run confirms until ctx ends.
func (f *freshness) run(ctx context.Context) {
	defer close(f.ended)
	stale := false // as it was logged
	for ctx.Err() == nil {
		began := f.steady()
		err := f.once(ctx, began)
		switch fresh := f.Fresh(); {
		case fresh && stale:
			f.log.Info("meta is confirmed again: requests are served")
			stale = false
		case !fresh && !stale && ctx.Err() == nil && err != nil:
			f.log.Warn("meta is not confirmed: all but checks from leases is refused as meta_stale until it is", "err", err)
			stale = true
		}
		pause(ctx, max(metaConfirmPause, metaConfirmEvery-time.Duration(f.steady()-began)))
	}
}

// once does one confirmation that began at the given time.
func (f *freshness) once(ctx context.Context, began int64) error {
	ctx, cancel := context.WithTimeout(ctx, metaConfirmTimeout)
	defer cancel()
	if err := f.confirm(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since, f.known = began, true
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}
