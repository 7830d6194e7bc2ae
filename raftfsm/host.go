package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/internal/disk"
)

// Member is one node of the cluster.
type Member struct {
	// ID is the node's name and the incarnation of its data folder, with a dot between. It is
	// never used again after the data is gone.
	ID string
	// Name is what the node's certificate says.
	Name string
	// Address is host:port of its cluster port.
	Address string
	// Leaving is set once it gives its replicas away to be removed: it is handed no leadership.
	Leaving bool
}

// Options configure a Host. All fields but Registry are needed.
type Options struct {
	// Dir holds everything the host stores.
	Dir string
	// Self is this node's id among Members.
	Self    string
	Members []Member
	Mux     *Mux
	Clock   clock.Clock
	Log     *slog.Logger
	// Fatal ends the process: the disk or the state can no longer be trusted. It is called
	// with a stable reason code and may be called more than once.
	Fatal func(reason string, err error)
	// Registry receives the metrics; nil keeps them private.
	Registry prometheus.Registerer
	// Started says that these groups have run on this data before, for data that has no list of
	// its replicas yet. A group without any state is then refused: its log, and the votes in
	// it, were lost.
	Started bool
	// Placements say where the groups' replicas belong, as far as this node knows; Place may
	// change it later. Nil means that every member has a replica of every group, under its own
	// id, and that this does not change until Place is called.
	Placements map[GroupID]Placement
	// Join says that the region runs already: nothing begins here. The replicas that are placed
	// here wait until the groups' leaders have added them.
	Join bool
	// Retention is how much log is kept; the zero value means DefaultRetention.
	Retention Retention
	// ClockOffsetMax is how far this node's wall clock may be from those of the others before
	// it refuses to lead; zero means half a second.
	ClockOffsetMax time.Duration
	// Level is the protocol level that every member is known to speak from earlier; what the
	// members say now can only raise it. Zero means LevelFirst.
	Level int
	// DiskLow is how many bytes must be free before this node takes what fills its disk; zero
	// means what DiskLimitsOf says.
	DiskLow uint64
	// DiskSpace tells how much room the disk has; nil asks the file system of Dir.
	DiskSpace func() (disk.Space, error)
	// Stop asks for the node to be stopped in order, with a stable reason code. It may be called
	// more than once, and returns at once. Nil means Fatal.
	Stop func(reason string, err error)

	// Turns begins a long piece of background work, such as sending a copy of a state; the function
	// it returns is called every few milliseconds of work and may rest. Nil means that none rests.
	Turns func() (rest func())
	// CompactionTurns is the same for a file that a compaction writes.
	CompactionTurns func() (rest func())
	// Pace is what this node holds work to that can wait, in bytes a second, for its peers to know;
	// zero while it does not. Nil means never.
	Pace func() float64
	// Told takes what another member tells this node about a group, see Tell. The teller waits until
	// it returns, or ctx ends. Nil ignores it.
	Told func(ctx context.Context, group GroupID, message []byte)

	// CacheBytes are for blocks of the state, MemTableBytes for one of its memtables, of which there are four
	// at most; zero means 256 MiB and 32 MiB. Both are outside of Go's heap.
	CacheBytes    int64
	MemTableBytes uint64

	// FS holds the state, the snapshots and everything else but the logs; nil means the file
	// system of the machine.
	FS vfs.FS
	// OpenLog opens or creates the log of a group in its folder; nil means a bolt file.
	OpenLog func(dir string, group GroupID) (LogFile, error)

	seams seams
}

// seams are where tests reach between the host and the libraries; empty everywhere else.
type seams struct {
	raft      func(*raft.Config)
	transport func(raft.Transport) raft.Transport
	stream    func(raft.StreamLayer) raft.StreamLayer
	log       func(GroupID, raftStore) raftStore
	bounds    *bounds
	// copyFile is how large the files of a copy become; staged is called when one has arrived.
	copyFile uint64
	// wholeCopies takes every peer for a build of level 1 when it comes to copies.
	wholeCopies bool
	staged      func(ctx context.Context, group GroupID, n int)
}

// bounds are how long the watchdogs wait.
type bounds struct {
	write       writeBounds
	replication time.Duration
}

// Host runs the Raft groups of one node on one Pebble and one port. It knows nothing about
// what the groups hold.
type Host struct {
	fs        vfs.FS
	openLog   func(dir string, group GroupID) (LogFile, error)
	self      Member
	dir       string
	db        *pebble.DB
	pebble    *pebble.Options
	mux       *Mux
	clock     clock.Clock
	log       *slog.Logger
	fatal     func(reason string, err error)
	metrics   *hostMetrics
	confirmer *confirmer
	retention Retention
	replicas  *replicaList
	seats     map[GroupID]*seat
	order     []*seat
	pulses    pulses
	// rosterMu is held while the members change.
	rosterMu sync.Mutex
	roster   atomic.Pointer[roster]
	// removed is set once a peer has said that it does not know this node.
	removed atomic.Bool
	// refused wakes who looks into that.
	refused chan struct{}
	// place wakes the reconciler.
	place chan struct{}
	moves moves
	// draining is set once this node hands its leaderships over to stop.
	draining       atomic.Bool
	clockOffsetMax time.Duration
	// levelFloor is the lowest protocol level that the region can have.
	levelFloor atomic.Int32
	stop       func(reason string, err error)
	disk       diskWatch
	writes     *writeWatch
	bounds     bounds
	notices    notices
	copies     copies
	turns      func() (rest func())
	pace       func() float64
	told       func(ctx context.Context, group GroupID, message []byte)
	backups    backupSessions
	reclaim    *reclaimer
	seams      seams

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open starts the replicas that this node has, and, unless it joins, begins the groups without
// any state: with Members as voters, or as Placements say, so every node must be given the same
// then. Close the host when done, also after its context has ended.
func Open(o Options, groups []Group) (*Host, error) {
	if len(groups) > GroupsMax {
		return nil, fmt.Errorf("raftfsm: %d groups, at most %d", len(groups), GroupsMax)
	}
	h := &Host{
		dir: o.Dir, mux: o.Mux, clock: o.Clock, log: o.Log, fatal: o.Fatal, retention: o.Retention,
		clockOffsetMax: o.ClockOffsetMax, seats: map[GroupID]*seat{}, place: make(chan struct{}, 1), refused: make(chan struct{}, 1),
	}
	h.levelFloor.Store(int32(max(LevelFirst, o.Level)))
	if h.told = o.Told; h.told == nil {
		h.told = func(context.Context, GroupID, []byte) {}
	}
	if h.turns, h.pace = o.Turns, o.Pace; h.turns == nil {
		h.turns = func() func() { return func() {} }
	}
	if h.pace == nil {
		h.pace = func() float64 { return 0 }
	}
	h.fs, h.openLog = o.FS, o.OpenLog
	if h.fs == nil {
		h.fs = vfs.Default
	}
	if h.openLog == nil {
		h.openLog = openBolt
	}
	h.guard(o)
	h.copies = copies{slots: make(chan struct{}, copiesOutMax), fileBytes: copySendBytes}
	if o.seams.copyFile != 0 {
		h.copies.fileBytes = o.seams.copyFile
	}
	for _, m := range o.Members {
		if m.ID == o.Self {
			h.self = m
		}
	}
	h.retention = o.Retention.withDefaults()
	if h.clockOffsetMax == 0 {
		h.clockOffsetMax = defaultClockOffsetMax
	}
	if h.self.ID == "" {
		return nil, fmt.Errorf("raftfsm: %q is not among the members", o.Self)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.SetMembers(o.Members)
	h.confirmer = &confirmer{host: h}
	stateFS := h.fs
	if o.CompactionTurns != nil {
		stateFS = compactFS{h.fs, o.CompactionTurns}
	}
	h.pebble = pebbleOptions(stateFS, pebbleLog{o.Log}, o.Fatal)
	if o.CacheBytes != 0 {
		h.pebble.CacheSize = o.CacheBytes
	}
	if o.MemTableBytes != 0 {
		h.pebble.MemTableSize = o.MemTableBytes
	}
	h.pebble.AddEventListener(pebble.EventListener{DiskSlow: h.writes.diskSlow})
	path := filepath.Join(o.Dir, "state")
	db, err := pebble.Open(path, h.pebble)
	if err != nil {
		h.cancel()
		return nil, fmt.Errorf("raftfsm: open state in %s: %w", path, err)
	}
	h.db, h.reclaim = db, &reclaimer{db: db}
	if h.metrics, err = newHostMetrics(h, o.Registry); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for _, g := range groups {
		s := h.newSeat(g)
		h.seats[g.ID] = s
		h.order = append(h.order, s)
		h.metrics.startAtZero(g)
	}
	h.setPlacements(o.Placements)
	if err := h.openReplicas(o); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	// Only now: peers that connect early are told to come again.
	h.mux.serve(h.hosts, func() bool { return h.level() < LevelMembers })
	h.mux.Handle(classRaft, h.acceptRaft)
	h.mux.Handle(classCopy, h.acceptCopy)
	h.mux.Handle(classLink, func(_ GroupID, _ string, c net.Conn) bool {
		h.wg.Add(1)
		go h.serveLink(c)
		return true
	})
	h.wg.Add(6)
	go h.runReclaimer()
	go h.runPulse()
	go h.watchWrites()
	go h.watchDisk()
	go h.runSteward()
	go h.runReconciler()
	return h, nil
}

// openReplicas finishes what was being erased, and opens what is listed. Data without a list is
// new, or of a build that had every group everywhere.
func (h *Host) openReplicas(o Options) (err error) {
	if h.replicas, err = openReplicaList(h.fs, h.dir); err != nil {
		return err
	}
	for _, name := range h.replicas.erasing() {
		for _, s := range h.order {
			if s.conf.Name == name {
				if err := s.finishErase(); err != nil {
					return err
				}
			}
		}
	}
	unlisted := map[string]listedReplica{}
	for _, s := range h.order {
		l, listed := h.replicas.get(s.conf.Name)
		open := opening{waits: l.Waits}
		if !listed {
			l.ID = h.self.ID
			if h.replicas.found && o.Placements != nil || o.Join || !o.Started && !s.placedAs(h.self.ID) {
				continue // the reconciler opens what is placed here
			}
			if !o.Started {
				open.begin = s.firstConfiguration(o.Members)
			}
			unlisted[s.conf.Name] = l
		}
		s.admin.Lock()
		err := s.open(l.ID, open)
		s.admin.Unlock()
		if err != nil {
			return err
		}
	}
	if len(unlisted) == 0 {
		return nil
	}
	return h.replicas.put(unlisted)
}

// firstConfiguration is what a group begins with.
func (s *seat) firstConfiguration(members []Member) []raft.Server {
	var out []raft.Server
	add := func(suffrage raft.ServerSuffrage, id string) {
		out = append(out, raft.Server{Suffrage: suffrage, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if p, ok := s.placed(); ok {
		for _, id := range p.Voters {
			add(raft.Voter, id)
		}
		for _, id := range p.Learners {
			add(raft.Nonvoter, id)
		}
		return out
	}
	for _, m := range members {
		add(raft.Voter, m.ID)
	}
	return out
}

// acceptRaft hands a connection to its group.
func (h *Host) acceptRaft(id GroupID, _ string, c net.Conn) bool {
	s := h.seats[id]
	if s == nil {
		return false
	}
	g := s.current.Load()
	return g != nil && g.stream.offer(c)
}

// open opens a replica's snapshots and its Raft on a log and a state that are open.
func (g *group) open(dir string, o opening) error {
	h := g.host
	pos := g.replica.Position()
	snaps, err := openSnapshotStore(h.fs, h.db, g.id, filepath.Join(dir, "snapshots"), pos, func() sstFormat {
		return sstFormat{options: h.pebble.MakeWriterOptions(0, h.db.TableFormat())}
	})
	if err != nil {
		return err
	}
	g.snaps = snaps
	snaps.views.ctx, snaps.views.hold, snaps.views.firstIndex = g.ctx, g.logs.hold, g.logs.FirstIndex
	if staged := h.seams.staged; staged != nil {
		snaps.staging.staged = func(ctx context.Context, n int) { staged(ctx, g.id, n) }
	}
	g.logs.applied, g.logs.covered = g.replica.AppliedIndex, snaps.markerIndex
	if err := g.checkLog(pos); err != nil {
		return err
	}
	n, err := g.logs.lastNote()
	if err != nil {
		return err
	}
	g.keep.reset(n)
	store := h.watched(g)
	cache, err := raft.NewLogCache(logCacheEntries, store)
	if err != nil {
		return err
	}
	g.cache = cache
	g.stream = newStreamLayer(h.mux, g.id, h.locate)
	hlog := raftLog(g.ctx, g.log, h.quiet)
	g.trans = raft.NewNetworkTransportWithConfig(transportConfig(h.seams.streamOf(g.stream), h, hlog))
	g.trans.TimeoutScale = installTimeoutScale
	notify := make(chan bool, 16)
	conf := raftConfig(g.self, g.seat.preference(), h.retention, hlog, notify)
	h.seams.configure(conf)
	g.timeout.Store(int64(conf.HeartbeatTimeout))
	if g.commitTimeout != 0 {
		conf.CommitTimeout = g.commitTimeout
	}
	if err := g.bootstrap(conf, cache, o); err != nil {
		return errors.Join(err, g.trans.Close())
	}
	trans := copyTransport{h.seams.transportOf(g.trans).(fullTransport), g}
	r, err := raft.NewRaft(conf, fsm{g}, cache, store, countedSnapshots{g.snaps, &g.guard.copies}, trans)
	if err != nil {
		return errors.Join(err, g.trans.Close())
	}
	g.raft = r
	g.wg.Add(3)
	go g.watchLeadership(notify)
	go g.runProposer()
	go g.tidyLog()
	return nil
}

// wipeHint is the way out for a node that must not vote any more.
const wipeHint = "do not start this node on this data again; its data folder can only be emptied, to join as a new node"

// checkLog refuses to run on a log that has lost entries which the state contains: another
// leader could have been elected without them.
func (g *group) checkLog(pos Position) error {
	last, err := g.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("last log index: %w", err)
	}
	if pos.Index > last && pos.Index > g.snaps.markerIndex() {
		return fmt.Errorf("the log ends at index %d, before the state at %d: the disk has lost synced data; %s", last, pos.Index, wipeHint)
	}
	return nil
}

func (g *group) bootstrap(conf *raft.Config, logs raft.LogStore, o opening) error {
	has, err := raft.HasExistingState(logs, g.logs, g.snaps)
	switch {
	case err != nil || has:
		return err
	case o.begin != nil:
		first := time.Duration(g.seat.preference()) * firstPreferenceStep
		conf.HeartbeatTimeout, conf.ElectionTimeout = conf.HeartbeatTimeout+first, conf.ElectionTimeout+first
		g.patience.Store(int64(first))
		return raft.BootstrapCluster(conf, logs, g.logs, g.snaps, g.trans, raft.Configuration{Servers: o.begin})
	case o.waits:
		return nil
	}
	return fmt.Errorf("the log is missing or empty, but this node has taken part before: the disk has lost synced data; %s", wipeHint)
}

// Close stops the groups and then the state. It does not close the Mux.
func (h *Host) Close() error {
	h.cancel()
	for _, l := range h.peerLinks() {
		l.close()
	}
	var errs []error
	for _, s := range h.order {
		errs = append(errs, s.close())
	}
	h.mux.dropAll()
	h.wg.Wait()
	h.metrics.unregister()
	if h.db != nil {
		if err := h.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("raftfsm: close state: %w", err))
		}
	}
	return errors.Join(errs...)
}
