package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// proposalQueueMax is how many proposals of one group may wait for a place in an entry.
	proposalQueueMax = 8192
	// proposalQueueBytesMax bounds what they hold: some thirty entries, which a healthy group
	// commits in a second. More would only be memory: those at the end run into their deadlines.
	proposalQueueBytesMax = 16 << 20
	// entriesInFlightMax is how many entries of a group are being replicated at the same
	// time. While they are, further proposals gather and share the next entry. With one, the
	// leader's disk would idle while the followers write; more than two only makes entries
	// smaller and costs more fsyncs.
	entriesInFlightMax = 2
	// enqueueTimeout is how long an entry may wait for Raft's loop.
	enqueueTimeout = 2 * time.Second
	// retryPause is how long a caller waits before it looks for a leader again.
	retryPause = 20 * time.Millisecond
	// callTimeout bounds proposals and queries that come without a deadline.
	callTimeout = 10 * time.Second
)

// proposal is one command on its way into an entry.
type proposal struct {
	ctx  context.Context
	cmd  Command
	done chan proposed
}

type proposed struct {
	res Result
	err error
}

// propose commits a command on this node, which must lead.
func (g *group) propose(ctx context.Context, cmd Command) (Result, error) {
	if len(cmd.Data) > CommandBytesMax {
		return Result{}, g.fail("propose", OutcomeDefinite, ErrTooLarge)
	}
	if _, err := g.leading(); err != nil {
		return Result{}, g.fail("propose", OutcomeDefinite, err)
	}
	if g.guard.full.Load() {
		return Result{}, g.fail("propose", OutcomeDefinite, ErrDiskFull)
	}
	p := &proposal{ctx: ctx, cmd: cmd, done: make(chan proposed, 1)}
	if !g.enqueue(p) {
		return Result{}, g.fail("propose", OutcomeDefinite, ErrOverloaded)
	}
	select {
	case r := <-p.done:
		return r.res, r.err
	case <-ctx.Done():
		return Result{}, g.fail("propose", OutcomeUnknown, ctx.Err())
	case <-g.ctx.Done():
		return Result{}, g.fail("propose", OutcomeUnknown, ErrShutdown)
	}
}

// enqueue takes a proposal unless the queue holds as many, or as many bytes, as it may.
func (g *group) enqueue(p *proposal) bool {
	size := int64(len(p.cmd.Data))
	if g.queueBytes.Add(size) <= proposalQueueBytesMax {
		select {
		case g.queue <- p:
			return true
		default:
		}
	}
	g.queueBytes.Add(-size)
	g.host.metrics.refused(g.name)
	return false
}

// dequeued counts a proposal that has left the queue.
func (g *group) dequeued(p *proposal) { g.queueBytes.Add(-int64(len(p.cmd.Data))) }

// runProposer gathers proposals into entries until the host closes.
func (g *group) runProposer() {
	defer g.wg.Done()
	for {
		var first *proposal
		select {
		case first = <-g.queue:
			g.dequeued(first)
		case <-g.ctx.Done():
			return
		}
		select {
		case g.inFlight <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		g.submit(g.gather(first))
	}
}

// gather takes what waits in the queue, up to the size of an entry.
func (g *group) gather(first *proposal) []*proposal {
	batch := []*proposal{first}
	size := len(first.cmd.Data)
	for len(batch) < EntryCommandsMax && size <= EntryBytesMax-CommandBytesMax {
		select {
		case p := <-g.queue:
			g.dequeued(p)
			if p.ctx.Err() != nil {
				continue // the caller has gone, and it never entered the log
			}
			batch = append(batch, p)
			size += len(p.cmd.Data)
		default:
			return batch
		}
	}
	return batch
}

// submit stamps an entry and hands it to Raft; the answers follow when it is applied.
func (g *group) submit(batch []*proposal) {
	ready, err := g.leading()
	if err != nil {
		<-g.inFlight
		g.answer(batch, nil, g.fail("propose", OutcomeDefinite, err))
		return
	}
	cmds := make([]Command, len(batch))
	for i, p := range batch {
		cmds[i] = p.cmd
	}
	data := EncodeEntry(ready.term, g.keep.now(), g.host.clock.Now().UnixNano(), cmds)
	start := time.Now()
	future := g.raft.ApplyLog(raft.Log{Data: data}, enqueueTimeout)
	// Not waited for at a shutdown: the library may then leave futures without an answer. The
	// callers watch the host's context themselves.
	go func() {
		err := future.Error()
		g.notePropose(err)
		<-g.inFlight
		if err != nil {
			g.answer(batch, nil, g.fail("propose", outcomeOfRaft(err), sentinelOfRaft(err)))
			return
		}
		applied, ok := future.Response().([]Applied)
		if !ok || len(applied) != len(batch) {
			// The entry was in the state before this term began; it cannot be one of ours.
			g.answer(batch, nil, g.fail("propose", OutcomeUnknown, ErrLost))
			return
		}
		g.host.metrics.committed(g.name, len(batch), len(data), time.Since(start))
		g.answer(batch, applied, nil)
	}()
}

func (g *group) answer(batch []*proposal, applied []Applied, err error) {
	for i, p := range batch {
		r := proposed{err: err}
		if err == nil {
			r.res = applied[i].Result
			if applied[i].Err != nil {
				r.err = g.fail("propose", OutcomeDefinite, applied[i].Err)
			}
		}
		p.done <- r
	}
}

// outcomeOfRaft sorts the library's errors by what they say about the write.
func outcomeOfRaft(err error) Outcome {
	switch {
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return OutcomeDefinite
	}
	// ErrLeadershipLost, ErrRaftShutdown and errors of the log store say nothing.
	return OutcomeUnknown
}

func sentinelOfRaft(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNoLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrOverloaded
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrLost
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrShutdown
	}
	return err
}

// Propose commits a command in a group, wherever its leader is, and returns its result once
// the leader has applied it. It waits for a leader until the deadline of ctx. An error whose
// outcome is unknown is retried only when the command has a request id.
func (h *Host) Propose(ctx context.Context, id GroupID, cmd Command) (Result, error) {
	s, err := h.seat(id)
	if err != nil {
		return Result{}, err
	}
	if len(cmd.Data) > CommandBytesMax {
		return Result{}, s.fail("propose", OutcomeDefinite, ErrTooLarge)
	}
	retryUnknown := cmd.RequestID != RequestID{}
	var res Result
	start := time.Now()
	err = h.atLeader(ctx, s, "propose", retryUnknown, func(ctx context.Context, g *group) error {
		r, err := g.propose(ctx, cmd)
		res = r
		return err
	}, func(ctx context.Context, l *link) error {
		payload := append(append(make([]byte, 0, len(cmd.RequestID)+len(cmd.Data)), cmd.RequestID[:]...), cmd.Data...)
		r, err := s.ask(ctx, l, "propose", kindPropose, payload)
		if err != nil {
			return err
		}
		res = Result{Data: r.payload, Index: r.index, Repeated: r.status == statusRepeated}
		return nil
	})
	s.committed(start, err)
	return res, err
}

// committed tells who wants to know how long a proposal took.
func (s *seat) committed(start time.Time, err error) {
	if f := s.conf.Observe; f != nil && err == nil {
		f(time.Since(start))
	}
}

// Query reads from a group: the leader with Linearizable; with Bounded this node's replica, or
// another one if this node has none.
func (h *Host) Query(ctx context.Context, id GroupID, query []byte, c Consistency) (Answer, error) {
	s, err := h.seat(id)
	if err != nil {
		return Answer{}, err
	}
	if c == Bounded {
		return h.queryBounded(ctx, s, query)
	}
	var ans Answer
	err = h.atLeader(ctx, s, "query", true, func(ctx context.Context, g *group) error {
		a, err := g.queryLeader(ctx, query)
		ans = a
		return err
	}, func(ctx context.Context, l *link) error {
		r, err := s.ask(ctx, l, "query", kindQuery, query)
		ans = Answer{Data: r.payload, Applied: r.index}
		return err
	})
	return ans, err
}

// queryBounded asks this node's replica, or each of those elsewhere until one answers.
func (h *Host) queryBounded(ctx context.Context, s *seat, query []byte) (Answer, error) {
	ans, err := s.queryLocal(ctx, query, nil)
	if err == nil || s.current.Load() != nil {
		return ans, err
	}
	for _, l := range s.candidates() {
		var r response
		if r, err = s.ask(ctx, l, "query", kindBounded, query); err == nil {
			return Answer{Data: r.payload, Applied: r.index}, nil
		}
	}
	return Answer{}, err
}

// OtherReplicas are the members that have voting replicas of a group beside this node, as far as it knows.
func (h *Host) OtherReplicas(id GroupID) (members []string) {
	for _, replica := range h.seats[id].knownVoters() {
		if member := MemberOf(replica); member != h.self.ID {
			members = append(members, member)
		}
	}
	return members
}

// QueryMember asks a member's replica of a group, however far that has come.
func (h *Host) QueryMember(ctx context.Context, id GroupID, member string, query []byte) (Answer, error) {
	s, err := h.seat(id)
	if err != nil {
		return Answer{}, err
	}
	l := h.peerLinks()[member]
	if l == nil {
		return Answer{}, s.fail("query", OutcomeDefinite, fmt.Errorf("no member %s: %w", member, ErrLost))
	}
	return s.askApplied(ctx, l, 0, query)
}

// atLeader runs an operation where the group's leader is, and again after a change of leader.
func (h *Host) atLeader(ctx context.Context, s *seat, op string, retryUnknown bool,
	here func(context.Context, *group) error, there func(context.Context, *link) error,
) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	unknown := false // an earlier try may have taken effect
	for try := 0; ; try++ {
		err := error(&Error{Op: op, Group: s.conf.Name, Err: ErrNoLeader})
		if g, l := s.route(try); g != nil {
			err = here(ctx, g)
		} else if l != nil {
			err = there(ctx, l)
			s.remember(l, err)
		}
		if err == nil {
			return nil
		}
		unknown = unknown || OutcomeOf(err) == OutcomeUnknown
		if !retryable(err, retryUnknown) {
			return withOutcome(err, unknown)
		}
		select {
		case <-ctx.Done():
			return withOutcome(err, unknown)
		case <-h.ctx.Done():
			return withOutcome(&Error{Op: op, Group: s.conf.Name, Err: ErrShutdown}, unknown)
		case <-time.After(retryPause):
		}
	}
}

// retryable tells whether another try can end differently.
func retryable(err error, retryUnknown bool) bool {
	if OutcomeOf(err) == OutcomeUnknown {
		return retryUnknown
	}
	return errors.Is(err, ErrNoLeader) || errors.Is(err, ErrShutdown)
}

// withOutcome makes an error unknown if an earlier try of the same write was.
func withOutcome(err error, unknown bool) error {
	var e *Error
	if unknown && errors.As(err, &e) && e.Outcome == OutcomeDefinite {
		c := *e
		c.Outcome = OutcomeUnknown
		return &c
	}
	return err
}
