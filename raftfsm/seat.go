package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// seat is the place of one group on this node, for the life of the host. It may be taken by a
// replica or not; replicas are opened, closed, restarted and erased while the host runs. The
// machine lives as long as the seat: it is loaded for every replica that takes it.
//
// Who owns what: the holder of admin alone opens and closes; everybody else loads current
// and works on what it points to, which answers ErrNoLeader or ErrShutdown once it is closed.
type seat struct {
	conf    Group
	host    *Host
	log     *slog.Logger
	replica *Replica
	guard   groupGuard

	// replacing is held for writing while the group's rows are loaded, replaced by a snapshot or
	// erased, because the latter two also remove rows from under open readers of Pebble.
	replacing sync.RWMutex
	loaded    bool // the machine may be asked

	admin   sync.Mutex
	used    bool // the machine was loaded at some time; the holder of admin asks
	current atomic.Pointer[group]

	mu        sync.Mutex
	placement *Placement // nil: the group is where it is
	leader    string     // the member that last answered for the group, for one that is not hosted
	watched   map[string]*catchUp
	preferred time.Time // since when the preferred leader has been fit to lead; zero: it is not

	busy atomic.Bool // a step of the reconciler is under way
}

// opening says what a replica may find when it is opened.
type opening struct {
	// begin is the first configuration of a group that has no state yet; nil for none.
	begin []raft.Server
	// waits allows a log without entries and without begin: the replica waits to be added.
	waits bool
}

func (h *Host) newSeat(conf Group) *seat {
	s := &seat{conf: conf, host: h, log: h.log.With("group", conf.Name)}
	s.replica = NewReplica(h.db, NewFolder(h.fs, filepath.Join(s.dir(), folderName)), conf.ID, conf.Machine)
	s.replica.store.deleted = h.reclaim.add
	return s
}

func (s *seat) dir() string { return filepath.Join(s.host.dir, "raft", s.conf.Name) }

// open starts the replica called id. The caller holds admin, and the seat is free.
func (s *seat) open(id string, o opening) (err error) {
	h := s.host
	defer func() {
		if err != nil {
			err = fmt.Errorf("raftfsm: group %s: %w", s.conf.Name, err)
		}
	}()
	if h.ctx.Err() != nil {
		return ErrShutdown
	}
	if err := makeDir(h.fs, s.dir()); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	g := &group{
		id: s.conf.ID, name: s.conf.Name, self: id, seat: s, host: h, log: s.log, machine: s.conf.Machine,
		replica: s.replica, rest: h.turns(), keep: &timekeeper{clock: h.clock}, onLeader: s.conf.OnLeader, bulk: s.conf.Bulk,
		commitTimeout: s.conf.CommitTimeout,
		guard:         &s.guard, replacing: &s.replacing,
		queue: make(chan *proposal, proposalQueueMax), inFlight: make(chan struct{}, entriesInFlightMax),
	}
	g.ctx, g.cancel = context.WithCancel(h.ctx)
	file, err := h.openLog(s.dir(), g.id)
	if err != nil {
		g.cancel()
		s.unload()
		return err
	}
	g.logs = newLogStore(file, filepath.Join(s.dir(), logName), h.retention, g.keep, h.fatal, func(n int, took time.Duration) {
		h.metrics.logWritten(g.name, n, took)
	})
	// The log's own name has to last as long as the votes in it.
	err = syncDir(h.fs, s.dir())
	if err == nil {
		err = g.open(s.dir(), o)
	}
	if err != nil {
		g.cancel()
		s.unload()
		return errors.Join(err, g.logs.close())
	}
	s.current.Store(g)
	return nil
}

// load reads the group's rows into the machine.
func (s *seat) load() error {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	if err := s.replica.Open(); err != nil {
		return err
	}
	s.loaded, s.used = true, true
	return nil
}

// unload lets the machine rest: nobody asks it, and it works on no rows, until load.
func (s *seat) unload() {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	s.loaded = false
	if m, ok := s.conf.Machine.(Suspender); ok {
		m.Suspend()
	}
}

// vacate closes the replica, if there is one. The caller holds admin.
func (s *seat) vacate() error {
	g := s.current.Swap(nil)
	if g == nil {
		return nil
	}
	defer s.unload()
	return g.close()
}

// close ends the replica and the machine for good.
func (s *seat) close() error {
	s.admin.Lock()
	defer s.admin.Unlock()
	err := s.vacate()
	if !s.used {
		return err
	}
	s.used = false
	if merr := s.conf.Machine.Close(); merr != nil {
		err = errors.Join(err, fmt.Errorf("raftfsm: close group %s: machine: %w", s.conf.Name, merr))
	}
	return err
}

// restart closes and opens the Raft of g on the same data, which cures what the library can get
// stuck in. It does nothing if g is not the open replica any more.
func (s *seat) restart(g *group, reason string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if s.current.Load() != g || s.host.ctx.Err() != nil {
		return nil
	}
	s.log.Info("the group's Raft is closed and opened again", "reason", reason)
	if err := s.vacate(); err != nil {
		return err
	}
	return s.open(g.self, opening{waits: s.host.replicas.waits(s.conf.Name)})
}

// erase closes the replica called id and removes its log and rows. A crash at any point
// leaves what the next start finishes: the list of replicas says first that the replica is being
// erased, and last that it is gone. The id is remembered and never opened again.
func (s *seat) erase(id string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if g := s.current.Load(); g == nil || g.self != id || s.host.ctx.Err() != nil {
		return nil
	}
	if err := s.vacate(); err != nil {
		return err
	}
	if err := s.host.replicas.beginErase(s.conf.Name); err != nil {
		return err
	}
	return s.finishErase()
}

// finishErase removes what a replica has left. It may be repeated.
func (s *seat) finishErase() error {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	lower, upper := groupSpan(s.conf.ID)
	if err := s.host.db.DeleteRange(lower, upper, pebble.Sync); err != nil {
		return fmt.Errorf("raftfsm: erase group %s: rows: %w", s.conf.Name, err)
	}
	s.host.reclaim.add(lower, upper)
	if err := s.host.fs.RemoveAll(s.dir()); err != nil {
		return fmt.Errorf("raftfsm: erase group %s: %w", s.conf.Name, err)
	}
	if err := syncDir(s.host.fs, s.host.fs.PathDir(s.dir())); err != nil {
		return fmt.Errorf("raftfsm: erase group %s: %w", s.conf.Name, err)
	}
	return s.host.replicas.endErase(s.conf.Name)
}

// queryLocal answers from this node's replica, however far it has come. If of is not nil, it must
// still be that one: what it knew says nothing about a later one.
func (s *seat) queryLocal(ctx context.Context, query []byte, of *group) (Answer, error) {
	s.replacing.RLock()
	defer s.replacing.RUnlock()
	return s.queryLoaded(ctx, query, of)
}

// queryLoaded is queryLocal for who holds replacing.
func (s *seat) queryLoaded(ctx context.Context, query []byte, of *group) (Answer, error) {
	g := s.current.Load()
	if !s.loaded || g == nil || of != nil && of != g {
		return Answer{}, s.fail("query", OutcomeDefinite, ErrNoLeader)
	}
	if s.replica.closed(nil) {
		return Answer{}, s.fail("query", OutcomeDefinite, ErrRestoring)
	}
	applied := s.replica.AppliedIndex()
	data, err := g.ask(ctx, query)
	if err != nil {
		return Answer{}, s.fail("query", OutcomeDefinite, err)
	}
	return Answer{Data: data, Applied: applied}, nil
}

func (s *seat) fail(op string, o Outcome, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Group: s.conf.Name, Outcome: o, Err: err}
}
