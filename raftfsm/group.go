package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Group says what a host needs to run one Raft group.
type Group struct {
	ID GroupID
	// Name is for people: logs, metrics, errors.
	Name    string
	Machine Machine
	// OnLeader, if set, runs while this node leads the group and is ready to serve; its
	// context ends with the leadership. At most one call runs at a time.
	OnLeader func(ctx context.Context)
	// Bulk says that what is proposed in the group fills the disk: it is refused with
	// ErrDiskFull while disks are low. Groups whose state stays small go on until the node stops.
	Bulk bool
}

// group is one running Raft group.
type group struct {
	id       GroupID
	name     string
	host     *Host
	log      *slog.Logger
	machine  Machine
	replica  *Replica
	raft     *raft.Raft
	logs     *logStore
	keep     *timekeeper
	snaps    *snapshotStore
	cache    *raft.LogCache // the log as Raft sees it
	stream   *streamLayer
	trans    *raft.NetworkTransport
	queue    chan *proposal
	inFlight chan struct{}
	onLeader func(ctx context.Context)
	// timeout is the heartbeat timeout of this node as a follower.
	timeout time.Duration
	bulk    bool
	guard   groupGuard

	// replacing is held for writing while a snapshot replaces the state, because that also
	// removes rows from under open readers of Pebble.
	replacing sync.RWMutex

	mu    sync.Mutex
	ready readiness
}

// readiness is set while this node leads, has committed an entry in its term and has applied
// everything before it.
type readiness struct {
	term uint64 // 0: not ready
	// index is the last entry before the term's first command; entries up to it are applied.
	index uint64
}

// leading returns the readiness if it still holds.
func (g *group) leading() (readiness, error) {
	g.mu.Lock()
	r := g.ready
	g.mu.Unlock()
	if r.term == 0 || g.raft.State() != raft.Leader || g.raft.CurrentTerm() != r.term {
		return readiness{}, ErrNoLeader
	}
	return r, nil
}

// watchLeadership turns Raft's notifications into readiness. Raft blocks on the channel, so
// everything slow happens elsewhere.
func (g *group) watchLeadership(notify <-chan bool) {
	defer g.host.wg.Done()
	notify = latest(g.host.ctx.Done(), notify)
	end := func() {}
	for {
		select {
		case leader := <-notify:
			g.dropCopies()
			end()
			end = func() {}
			g.adaptHeartbeats(leader)
			if leader {
				ctx, cancel := context.WithCancel(g.host.ctx)
				done := make(chan struct{})
				go func() {
					defer close(done)
					g.lead(ctx)
				}()
				end = func() { cancel(); <-done }
			}
		case <-g.host.ctx.Done():
			end()
			return
		}
	}
}

// dropCopies ends the transfers of the state that this node began while it led.
func (g *group) dropCopies() {
	if err := g.snaps.views.drop(); err != nil {
		g.log.Warn("a transfer of the state did not end well", "err", err)
	}
}

// adaptHeartbeats gives this node the timeouts of its role.
func (g *group) adaptHeartbeats(leader bool) {
	c := g.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = g.timeout, g.timeout
	if leader {
		c.HeartbeatTimeout, c.ElectionTimeout = leaderHeartbeatTimeout, leaderHeartbeatTimeout
	}
	if err := g.raft.ReloadConfig(c); err != nil {
		g.log.Error("heartbeats not adapted", "err", err)
	}
}

// lead makes the group ready to serve and runs its leader job until ctx ends.
func (g *group) lead(ctx context.Context) {
	for ctx.Err() == nil {
		g.decline(ctx)
		term := g.raft.CurrentTerm()
		err := await(ctx, g.raft.Barrier(barrierTimeout))
		g.notePropose(err)
		if err != nil {
			if g.raft.State() != raft.Leader {
				return
			}
			g.pause(ctx, retryPause)
			continue
		}
		if g.raft.CurrentTerm() != term {
			continue
		}
		g.keep.lead(g.replica.AppliedTime())
		g.mu.Lock()
		if ctx.Err() == nil {
			// Nothing is proposed before readiness, so what Raft has applied ends with the barrier.
			g.ready = readiness{term: term, index: g.raft.AppliedIndex()}
		}
		g.mu.Unlock()
		g.log.Info("leading", "term", term, "index", g.raft.AppliedIndex())
		if g.onLeader != nil {
			g.onLeader(ctx)
		}
		<-ctx.Done()
	}
	g.mu.Lock()
	g.ready = readiness{}
	g.mu.Unlock()
}

// await waits for one of Raft's futures, or for ctx: at a shutdown the library may leave a
// future without an answer for good.
func await(ctx context.Context, f raft.Future) error {
	answered := make(chan error, 1)
	go func() { answered <- f.Error() }()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// voters are the server ids that vote in the latest configuration.
func (g *group) voters() map[string]bool {
	v := map[string]bool{}
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return v
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			v[string(s.ID)] = true
		}
	}
	return v
}

// queryLeader answers a linearizable read on this node, which must lead.
func (g *group) queryLeader(ctx context.Context, query []byte) (Answer, error) {
	ready, err := g.leading()
	if err != nil {
		return Answer{}, g.fail("query", OutcomeDefinite, err)
	}
	index := g.raft.CommitIndex()
	if err := g.host.confirmer.confirm(ctx, g, ready.term); err != nil {
		return Answer{}, g.fail("query", OutcomeDefinite, err)
	}
	if index > ready.index {
		if err := g.replica.WaitApplied(ctx, index); err != nil {
			return Answer{}, g.fail("query", OutcomeDefinite, err)
		}
	}
	return g.queryLocal(ctx, query)
}

// queryLocal answers from this replica, however far it has come.
func (g *group) queryLocal(ctx context.Context, query []byte) (Answer, error) {
	g.replacing.RLock()
	defer g.replacing.RUnlock()
	applied := g.replica.AppliedIndex()
	data, err := g.ask(ctx, query)
	if err != nil {
		return Answer{}, g.fail("query", OutcomeDefinite, err)
	}
	return Answer{Data: data, Applied: applied}, nil
}

// ask turns a panic of a query into an error: one read must not take the replicas of this
// node with it. A panic while applying does, for the state is then in doubt.
func (g *group) ask(ctx context.Context, query []byte) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic in a query", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in a query: %v", p)
		}
	}()
	return g.machine.Query(ctx, query)
}

func (g *group) fail(op string, o Outcome, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Group: g.name, Outcome: o, Err: err}
}

// close ends Raft and the machine. The order matters: nothing applies after Raft is down.
func (g *group) close() error {
	var errs []error
	if err := g.raft.Shutdown().Error(); err != nil {
		errs = append(errs, fmt.Errorf("raft: %w", err))
	}
	if err := g.snaps.close(); err != nil {
		errs = append(errs, fmt.Errorf("copies: %w", err))
	}
	if err := g.trans.Close(); err != nil {
		errs = append(errs, fmt.Errorf("transport: %w", err))
	}
	if err := g.machine.Close(); err != nil {
		errs = append(errs, fmt.Errorf("machine: %w", err))
	}
	if err := g.logs.close(); err != nil {
		errs = append(errs, fmt.Errorf("log: %w", err))
	}
	if len(errs) > 0 {
		return fmt.Errorf("raftfsm: close group %s: %w", g.name, errors.Join(errs...))
	}
	return nil
}

// snapshotWhenFull takes a snapshot whenever enough bytes were written; Raft itself counts
// entries only, which may have half a megabyte each.
func (g *group) snapshotWhenFull() {
	defer g.host.wg.Done()
	for {
		select {
		case <-g.logs.sizes.full:
			if err := await(g.host.ctx, g.raft.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && g.host.ctx.Err() == nil {
				g.log.Warn("no snapshot taken", "err", err)
			}
		case <-g.host.ctx.Done():
			return
		}
	}
}

// handOver gives leadership to another node before a shutdown. It is never used otherwise: a
// transfer that is interrupted by a step-down leaves the library refusing writes for good.
func (g *group) handOver() {
	if g.raft.State() != raft.Leader {
		return
	}
	g.mu.Lock()
	g.ready = readiness{}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.host.ctx, handOverTimeout)
	defer cancel()
	if err := await(ctx, g.raft.LeadershipTransfer()); err != nil {
		g.log.Info("leadership not handed over", "err", err)
	}
}

const (
	barrierTimeout = 10 * time.Second
	confirmTimeout = time.Second
	// handOverTimeout bounds how long a planned stop waits for a new leader.
	handOverTimeout = 3 * time.Second
	// GroupsMax bounds the groups of a node: the idle cost of Raft grows with each.
	GroupsMax = 64
)
