package limiter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// recallWait is how long a check waits for what other holders give back: a commit and two messages
	// between nodes, on a busy machine.
	recallWait = 10 * time.Millisecond
	// pendingWait is the same for tokens of global limits, which may be pending: until another group has decided too.
	pendingWait = 50 * time.Millisecond
	// recallsMax bounds how many counters are remembered as recalled lately.
	recallsMax = 4096
	// recallVersion is the layout of what holders tell each other.
	recallVersion = 1
)

var errRecall = errors.New("limiter: malformed recall")

// recallLog knows which counters were recalled a moment ago: who has not given back then cannot.
type recallLog struct {
	mu   sync.Mutex
	last map[recallKey]*recalling
}

type recallKey struct {
	limit           uint64
	tenant, subject string
}

// recalling is a recall of one counter. It is not recalled again before until; done is closed once
// those who answer have answered.
type recalling struct {
	until int64
	done  chan struct{}
}

// begin sorts out which counters to recall, and which recalls of others are still under way.
func (r *recallLog) begin(tenant string, all []Recall, now int64) (mine []Recall, own, others []*recalling) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || len(r.last) > recallsMax {
		r.last = map[recallKey]*recalling{}
	}
	for _, one := range all {
		key := recallKey{one.Limit, tenant, one.Subject}
		if last := r.last[key]; last != nil && now < last.until {
			others = append(others, last)
			continue
		}
		next := &recalling{until: now + int64(scarceMin), done: make(chan struct{})}
		key.tenant = strings.Clone(tenant) // a request's may be a part of a message
		r.last[key] = next
		mine, own = append(mine, one), append(own, next)
	}
	return mine, own, others
}

// recall asks all holders for what a denied request lacks, and waits a bounded time. It tells whether
// to ask the group again.
func (l *Leases) recall(ctx context.Context, group raftfsm.GroupID, tenant string, all []Recall) (again bool) {
	wait := recallWait
	if tenant == globalTenant {
		wait = l.pendingWait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	mine, own, others := l.recalls.begin(tenant, all, l.options.Clock.Steady())
	if len(mine) > 0 {
		again = true
		l.metrics.recalls.Inc()
		var both sync.WaitGroup
		both.Go(func() { l.giveBack(ctx, tenant, mine) })
		if l.elsewhere(mine) {
			for part := range slices.Chunk(mine, levelsMax) {
				both.Go(func() { l.options.Recaller.Tell(ctx, group, appendRecallMessage(nil, tenant, part)) })
			}
		}
		both.Wait()
		for _, r := range own {
			close(r.done)
		}
	}
	for _, r := range others {
		select {
		case <-r.done:
			continue
		default:
		}
		again = true
		select {
		case <-r.done:
		case <-ctx.Done():
		}
	}
	return again
}

// elsewhere tells whether somebody else holds something.
func (l *Leases) elsewhere(all []Recall) bool {
	for _, r := range all {
		for _, h := range r.Holders {
			if h != l.table.holder {
				return true
			}
		}
	}
	return false
}

// Recalled takes a message that another member's Leases sent through Recaller, and returns when what
// it asks for has been given back, or ctx ends.
func (l *Leases) Recalled(ctx context.Context, message []byte) error {
	tenant, all, err := decodeRecallMessage(message)
	if err != nil {
		return err
	}
	l.giveBack(ctx, tenant, all)
	return nil
}

// giveBack gives back what this node, and the holders outside that are connected to it, have of
// counters, and waits until their group knows.
func (l *Leases) giveBack(ctx context.Context, tenant string, all []Recall) {
	var outside sync.WaitGroup
	outside.Go(func() { l.outside.recall(ctx, tenant, all) })
	defer outside.Wait()
	for tries := 0; tries < 2; tries++ { // what is under way brings more
		batches, settled := l.table.recall(tenant, all, l.options.Clock.Steady())
		for _, b := range batches {
			if l.await(ctx, b) != nil {
				return
			}
		}
		switch {
		case settled != nil:
			select {
			case <-settled:
				tries = -1
			case <-ctx.Done():
				return
			}
		case len(batches) == 0:
			return
		}
	}
}

// appendRecallMessage asks holders to give back what they have of counters of a tenant.
func appendRecallMessage(b []byte, tenant string, all []Recall) []byte {
	return appendRecalls(wire.AppendString(append(b, recallVersion), tenant), all)
}

func decodeRecallMessage(b []byte) (tenant string, all []Recall, err error) {
	r := wire.NewReader(b)
	version := r.Byte(recallVersion)
	tenant, all = r.String(nameBytesMax), readRecalls(r)
	if r.Done() != nil || version != recallVersion {
		return "", nil, errRecall
	}
	return tenant, all, nil
}
