package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Pebble compacts when levels have grown too large for each other, and so leaves what a range deletion covers until
// more is written: a state that rests would keep the rows of every document that was moved, and of every
// segment that was merged. The host remembers what was deleted, and compacts that.

const (
	// reclaimEvery is how often the state is looked at.
	reclaimEvery = 5 * time.Second
	// reclaimCalm is how much may be written between two looks while the state counts as at rest.
	reclaimCalm = 2 << 20
	// reclaimLog is how much a memtable's log may keep at rest. A flush of less makes many small tables.
	reclaimLog = 4 << 20
	// reclaimFrom is how much a deleted range must have on the disk: a compaction writes the tables at its ends again.
	reclaimFrom = 1 << 20
	// deletedMax bounds how many ranges are remembered; beyond it those next to each other count as one.
	deletedMax = 256
)

// reclaimer gives back what a state at rest does not need.
type reclaimer struct {
	db      *pebble.DB
	written uint64
	garbage atomic.Uint64 // in deleted, when it was looked at last

	mu      sync.Mutex
	deleted []pebble.KeyRange // in the order of keys, apart from each other
}

// add notes that everything in [lower, upper) was deleted.
func (r *reclaimer) add(lower, upper []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, _ := slices.BinarySearchFunc(r.deleted, lower, func(k pebble.KeyRange, lower []byte) int { return bytes.Compare(k.End, lower) })
	fresh := pebble.KeyRange{Start: bytes.Clone(lower), End: bytes.Clone(upper)}
	end := at
	for ; end < len(r.deleted) && bytes.Compare(r.deleted[end].Start, upper) <= 0; end++ {
		if bytes.Compare(r.deleted[end].Start, fresh.Start) < 0 {
			fresh.Start = r.deleted[end].Start
		}
		if bytes.Compare(r.deleted[end].End, fresh.End) > 0 {
			fresh.End = r.deleted[end].End
		}
	}
	r.deleted = slices.Replace(r.deleted, at, end, fresh)
	if len(r.deleted) > deletedMax {
		// What lies between two of them is not deleted, and is only written once more.
		n := 0
		for i := 0; i < len(r.deleted); i += 2 {
			r.deleted[n] = pebble.KeyRange{Start: r.deleted[i].Start, End: r.deleted[min(i+1, len(r.deleted)-1)].End}
			n++
		}
		r.deleted = r.deleted[:n]
	}
}

// ranges are those with enough on the disk; others are forgotten.
func (r *reclaimer) ranges() (out []pebble.KeyRange, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := uint64(0)
	for _, k := range r.deleted {
		n, err := r.db.EstimateDiskUsage(k.Start, k.End)
		if err != nil {
			return nil, err
		}
		if n >= reclaimFrom {
			out = append(out, k)
			total += n
		}
	}
	r.deleted = slices.Clone(out)
	r.garbage.Store(total)
	return out, nil
}

// forget says that a range was compacted.
func (r *reclaimer) forget(k pebble.KeyRange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted = slices.DeleteFunc(r.deleted, func(o pebble.KeyRange) bool { return bytes.Equal(o.Start, k.Start) && bytes.Equal(o.End, k.End) })
}

// runReclaimer looks after the state until the host ends.
func (h *Host) runReclaimer() {
	defer h.wg.Done()
	tick := time.NewTicker(reclaimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := h.reclaim.step(h.ctx); err != nil && h.ctx.Err() == nil {
				h.log.Warn("the state keeps more than it need", "err", err)
			}
		case <-h.ctx.Done():
			return
		}
	}
}

// calm tells whether little was written since the last call, and nothing is compacted.
func (r *reclaimer) calm(m *pebble.Metrics) bool {
	written := m.WAL.BytesIn - r.written
	r.written = m.WAL.BytesIn
	return written <= reclaimCalm && m.Compact.NumInProgress == 0 && m.Flush.NumInProgress == 0
}

// step is done by one goroutine. It does nothing while the state is written to or compacted anyway.
func (r *reclaimer) step(ctx context.Context) error {
	m := r.db.Metrics()
	if !r.calm(m) {
		return nil
	}
	if m.WAL.Size > reclaimLog {
		if err := r.db.Flush(); err != nil {
			return err
		}
	}
	all, err := r.ranges()
	for _, k := range all {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		// One at a time, so that other compactions get their turn.
		if err = r.db.Compact(ctx, k.Start, k.End, false); err != nil {
			return err
		}
		r.forget(k)
	}
	if len(all) > 0 {
		_, err = r.ranges() // for the metric
	}
	return err
}
