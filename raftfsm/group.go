package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
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
	// Observe, if set, is told of every command that was proposed through this node, or to it as
	// the leader, and committed, and how long that took. It must be quick.
	Observe func(took time.Duration)
	// CommitTimeout is how soon an idle leader tells followers what was committed, within a
	// factor of two; zero means the host's own, which saves idle CPU.
	CommitTimeout time.Duration
	// Bulk says that what is proposed in the group fills the disk: it is refused with
	// ErrDiskFull while disks are low. Groups whose state stays small go on until the node stops.
	Bulk bool
}

// group is one open replica of a Raft group, from its opening to its close.
type group struct {
	id   GroupID
	name string
	// self is the replica's id.
	self     string
	seat     *seat
	host     *Host
	log      *slog.Logger
	machine  Machine
	replica  *Replica
	rest     func() // of the applying goroutine, far behind
	raft     *raft.Raft
	logs     *logStore
	keep     *timekeeper
	snaps    *snapshotStore
	cache    *raft.LogCache // the log as Raft sees it
	stream   *streamLayer
	trans    *raft.NetworkTransport
	queue    chan *proposal
	inFlight chan struct{}
	// queueBytes are the commands in queue.
	queueBytes atomic.Int64
	onLeader   func(ctx context.Context)
	// commitTimeout is Group.CommitTimeout.
	commitTimeout time.Duration
	// timeout is the heartbeat timeout of this node as a follower, in nanoseconds.
	timeout atomic.Int64
	// patience comes on top of it until the group has had a leader for the first time.
	patience atomic.Int64
	bulk     bool
	guard    *groupGuard
	// replacing is the seat's.
	replacing *sync.RWMutex

	// ctx ends when the replica is closed; wg are the goroutines that end with it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// applying is true while entries are; interrupted that no more are, until the replica is opened again.
	applying    atomic.Bool
	interrupted atomic.Bool
	// loading is until when the load of a received state may rest, on the steady clock; 0 while none
	// is under way.
	loading atomic.Int64

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
	defer g.wg.Done()
	notify = latest(g.ctx.Done(), notify)
	end := func() {}
	for {
		select {
		case leader := <-notify:
			g.dropCopies()
			end()
			end = func() {}
			g.adaptHeartbeats()
			if leader {
				ctx, cancel := context.WithCancel(g.ctx)
				done := make(chan struct{})
				go func() {
					defer close(done)
					g.lead(ctx)
				}()
				end = func() { cancel(); <-done }
			}
		case <-g.ctx.Done():
			end()
			return
		}
	}
}

// dropCopies ends the transfers of the state that this node began while it led.
func (g *group) dropCopies() {
	if err := errors.Join(g.snaps.views.drop(), g.host.backups.drop(g)); err != nil {
		g.log.Warn("a transfer of the state did not end well", "err", err)
	}
}

// adaptHeartbeats gives this node the timeouts of its role.
func (g *group) adaptHeartbeats() {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.raft.ReloadableConfig()
	own := time.Duration(g.timeout.Load() + g.patience.Load())
	c.HeartbeatTimeout, c.ElectionTimeout = own, own
	if g.raft.State() == raft.Leader {
		c.HeartbeatTimeout, c.ElectionTimeout = leaderHeartbeatTimeout, leaderHeartbeatTimeout
	}
	if err := g.raft.ReloadConfig(c); err != nil {
		g.log.Error("heartbeats not adapted", "err", err)
	}
}

// noteFirstLeader ends the patience that a group begins with, once a leader has written something
// behind the membership with which every log begins.
func (g *group) noteFirstLeader() {
	if g.patience.Load() != 0 && g.raft.LastIndex() > 1 {
		g.patience.Store(0)
		g.adaptHeartbeats()
	}
}

// lead makes the group ready to serve and runs its leader job until ctx ends.
func (g *group) lead(ctx context.Context) {
	for ctx.Err() == nil {
		g.decline(ctx)
		term := g.raft.CurrentTerm()
		index, err := g.barrier(ctx, barrierTimeout)
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
			g.ready = readiness{term: term, index: index}
		}
		g.mu.Unlock()
		g.log.Info("leading", "term", term, "index", index)
		if g.onLeader != nil {
			g.onLeader(ctx)
		}
		<-ctx.Done()
	}
	g.mu.Lock()
	g.ready = readiness{}
	g.mu.Unlock()
}

// barrier commits an entry that changes nothing and returns its index once everything before it
// has been applied. It is no part of the state, so nobody may wait for the state to get there;
// and Raft's own applied index can still be lower when its future is answered.
func (g *group) barrier(ctx context.Context, timeout time.Duration) (uint64, error) {
	f := g.raft.Barrier(timeout)
	err := await(ctx, f)
	g.notePropose(err)
	if err != nil {
		return 0, err
	}
	i, ok := f.(raft.IndexFuture)
	if !ok {
		return 0, fmt.Errorf("raftfsm: a barrier of type %T has no index", f)
	}
	return i.Index(), nil
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

// voters are the replicas that vote in the latest membership.
func (g *group) voters() map[string]bool {
	v := map[string]bool{}
	for _, id := range g.configuration().voters {
		v[id] = true
	}
	return v
}

// queryLeader answers a linearizable read on this node, which must lead.
func (g *group) queryLeader(ctx context.Context, query []byte) (Answer, error) {
	if err := g.confirmApplied(ctx); err != nil {
		return Answer{}, g.fail("query", OutcomeDefinite, err)
	}
	return g.seat.queryLocal(ctx, query, g)
}

// confirmApplied returns once this node has confirmed that it leads, and has applied what was
// committed before the call.
func (g *group) confirmApplied(ctx context.Context) error {
	ready, err := g.leading()
	if err != nil {
		return err
	}
	index := g.raft.CommitIndex()
	if err := g.host.confirmer.confirm(ctx, g, ready.term); err != nil {
		return err
	}
	if index > ready.index {
		return g.replica.WaitApplied(ctx, index)
	}
	return nil
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

func (g *group) fail(op string, o Outcome, err error) error { return g.seat.fail(op, o, err) }

// close ends the replica's Raft. The order matters: nothing applies after Raft is down, and
// nobody reads the log after it is closed.
func (g *group) close() error {
	g.cancel()
	if m, ok := g.machine.(Interrupter); ok {
		m.Interrupt()
	}
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := await(ctx, g.raft.Shutdown()); err != nil {
		err = fmt.Errorf("group %s: Raft does not end: %w", g.name, err)
		g.host.fatal("raft_close_stuck", err)
		return err
	}
	if err := errors.Join(g.snaps.close(), g.host.backups.drop(g)); err != nil {
		errs = append(errs, fmt.Errorf("copies: %w", err))
	}
	if err := g.trans.Close(); err != nil {
		errs = append(errs, fmt.Errorf("transport: %w", err))
	}
	g.trans.CloseStreams()
	g.stream.drop()
	g.wg.Wait()
	if err := g.logs.close(); err != nil {
		errs = append(errs, fmt.Errorf("log: %w", err))
	}
	if len(errs) > 0 {
		return fmt.Errorf("raftfsm: close group %s: %w", g.name, errors.Join(errs...))
	}
	return nil
}

// handOver gives leadership to another node before a shutdown.
func (g *group) handOver() {
	if g.raft.State() != raft.Leader {
		return
	}
	g.mu.Lock()
	g.ready = readiness{}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.host.ctx, handOverTimeout)
	defer cancel()
	// The library would take the most advanced voter, also one that stops or leaves as well.
	err := errNoSuccessor
	if to := g.successor(); to != "" {
		err = g.transfer(ctx, to)
	}
	if err != nil && g.raft.State() == raft.Leader {
		err = await(ctx, g.raft.LeadershipTransfer())
	}
	if err != nil {
		g.log.Info("leadership not handed over", "err", err)
	}
}

// errNoSuccessor says that no voter is known to be fit to lead.
var errNoSuccessor = errors.New("no voter is known to be fit to lead")

const (
	barrierTimeout = 10 * time.Second
	confirmTimeout = time.Second
	// handOverTimeout bounds how long a planned stop waits for a new leader.
	handOverTimeout = 3 * time.Second
	// closeTimeout bounds the end of a group's Raft. Its goroutines wait for RPCs of
	// transportTimeout and for the disk; one that has not ended by then is stuck for good, and only
	// the end of the process frees the data that it holds.
	closeTimeout = 15 * time.Second
	// GroupsMax bounds the groups of a node: the idle cost of Raft grows with each.
	GroupsMax = 64
)
