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
	// ID is the Raft server id: the node's name and the incarnation of its data folder. It is
	// never used again after the data is gone.
	ID string
	// Name is what the node's certificate says.
	Name string
	// Address is host:port of its cluster port.
	Address string
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
	// Started says that these groups have run on this data before. A group without any state
	// is then refused: its log, and the votes in it, were lost.
	Started bool
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
	staged   func(ctx context.Context, group GroupID, n int)
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
	links     map[string]*link // by server id, all members but this node
	addresses map[raft.ServerAddress]string
	confirmer *confirmer
	retention Retention
	started   bool
	groups    map[GroupID]*group
	order     []*group
	pulses    pulses
	// draining is set once this node hands its leaderships over to stop.
	draining       atomic.Bool
	clockOffsetMax time.Duration
	levelFloor     int
	stop           func(reason string, err error)
	disk           diskWatch
	writes         *writeWatch
	bounds         bounds
	notices        notices
	copies         copies
	seams          seams

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open starts the groups. A group without any state begins with Members as its voters, so
// every node must be given the same list then. Close the host when done, also after its
// context has ended.
func Open(o Options, groups []Group) (*Host, error) {
	if len(groups) > GroupsMax {
		return nil, fmt.Errorf("raftfsm: %d groups, at most %d", len(groups), GroupsMax)
	}
	h := &Host{
		dir: o.Dir, mux: o.Mux, clock: o.Clock, log: o.Log, fatal: o.Fatal, started: o.Started,
		clockOffsetMax: o.ClockOffsetMax, levelFloor: max(LevelFirst, o.Level),
		links: map[string]*link{}, addresses: map[raft.ServerAddress]string{}, groups: map[GroupID]*group{},
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
		h.addresses[raft.ServerAddress(m.Address)] = m.Name
		if m.ID == o.Self {
			h.self = m
		} else {
			h.links[m.ID] = &link{mux: o.Mux, peer: m}
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
	h.confirmer = &confirmer{host: h}
	h.pebble = pebbleOptions(h.fs, pebbleLog{o.Log}, o.Fatal)
	h.pebble.AddEventListener(pebble.EventListener{DiskSlow: h.writes.diskSlow})
	path := filepath.Join(o.Dir, "state")
	db, err := pebble.Open(path, h.pebble)
	if err != nil {
		h.cancel()
		return nil, fmt.Errorf("raftfsm: open state in %s: %w", path, err)
	}
	h.db = db
	if h.metrics, err = newHostMetrics(h, o.Registry); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for _, g := range groups {
		if err := h.start(g, o.Members); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	// Only now: peers that connect early are told to come again.
	h.mux.Handle(classRaft, h.acceptRaft)
	h.mux.Handle(classCopy, h.acceptCopy)
	h.mux.Handle(classLink, func(_ GroupID, _ string, c net.Conn) bool {
		h.wg.Add(1)
		go h.serveLink(c)
		return true
	})
	h.wg.Add(1)
	go h.runPulse()
	h.wg.Add(3)
	go h.watchWrites()
	go h.watchDisk()
	go h.runSteward()
	return h, nil
}

// acceptRaft hands a connection to its group.
func (h *Host) acceptRaft(id GroupID, _ string, c net.Conn) bool {
	g := h.groups[id]
	return g != nil && g.stream.offer(c)
}

// start opens one group's log, snapshots and state, and its Raft.
func (h *Host) start(conf Group, members []Member) error {
	dir := filepath.Join(h.dir, "raft", conf.Name)
	if err := makeDir(h.fs, dir); err != nil {
		return fmt.Errorf("raftfsm: group %s: %w", conf.Name, err)
	}
	g := &group{
		id: conf.ID, name: conf.Name, host: h, log: h.log.With("group", conf.Name), machine: conf.Machine,
		replica: NewReplica(h.db, conf.ID, conf.Machine), keep: &timekeeper{clock: h.clock}, onLeader: conf.OnLeader, bulk: conf.Bulk,
		queue: make(chan *proposal, proposalQueueMax), inFlight: make(chan struct{}, entriesInFlightMax),
	}
	if err := g.replica.Open(); err != nil {
		return fmt.Errorf("raftfsm: group %s: %w", conf.Name, err)
	}
	file, err := h.openLog(dir, conf.ID)
	if err != nil {
		return errors.Join(err, conf.Machine.Close())
	}
	g.logs = newLogStore(file, filepath.Join(dir, logName), h.retention, g.keep, h.fatal, func(n int, took time.Duration) {
		h.metrics.logWritten(g.name, n, took)
	})
	// The log's own name has to last as long as the votes in it.
	err = syncDir(h.fs, dir)
	if err == nil {
		err = g.open(dir, members)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("raftfsm: group %s: %w", conf.Name, err), g.logs.close(), conf.Machine.Close())
	}
	h.groups[conf.ID] = g
	h.order = append(h.order, g)
	return nil
}

func (g *group) open(dir string, members []Member) error {
	h := g.host
	pos := g.replica.Position()
	snaps, err := openSnapshotStore(h.fs, h.db, g.id, filepath.Join(dir, "snapshots"), pos, func() sstFormat {
		return sstFormat{options: h.pebble.MakeWriterOptions(0, h.db.TableFormat())}
	})
	if err != nil {
		return err
	}
	g.snaps = snaps
	snaps.views.ctx, snaps.views.hold, snaps.views.firstIndex = h.ctx, g.logs.hold, g.logs.FirstIndex
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
	g.stream = newStreamLayer(h.mux, g.id, h.nameOf)
	hlog := raftLog(h.ctx, g.log)
	g.trans = raft.NewNetworkTransportWithConfig(transportConfig(h.seams.streamOf(g.stream), h, hlog))
	notify := make(chan bool, 16)
	conf := raftConfig(h.self.ID, preference(g.id, h.self.ID, members), h.retention, hlog, notify)
	h.seams.configure(conf)
	g.timeout = conf.HeartbeatTimeout
	if err := g.bootstrap(conf, cache, members); err != nil {
		return errors.Join(err, g.trans.Close())
	}
	trans := copyTransport{h.seams.transportOf(g.trans).(fullTransport), g}
	r, err := raft.NewRaft(conf, fsm{g}, cache, store, countedSnapshots{g.snaps, &g.guard.copies}, trans)
	if err != nil {
		return errors.Join(err, g.trans.Close())
	}
	g.raft = r
	h.wg.Add(3)
	go g.watchLeadership(notify)
	go g.runProposer()
	go g.snapshotWhenFull()
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

func (g *group) bootstrap(conf *raft.Config, logs raft.LogStore, members []Member) error {
	has, err := raft.HasExistingState(logs, g.logs, g.snaps)
	if err != nil || has {
		return err
	}
	if h := g.host; h.started {
		return fmt.Errorf("the log is missing or empty, but this node has taken part before: the disk has lost synced data; %s", wipeHint)
	}
	var c raft.Configuration
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address)})
	}
	return raft.BootstrapCluster(conf, logs, g.logs, g.snaps, g.trans, c)
}

// ServerAddr gives Raft the address of a member; addresses may change, ids do not.
func (h *Host) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if string(id) == h.self.ID {
		return raft.ServerAddress(h.self.Address), nil
	}
	if l := h.links[string(id)]; l != nil {
		return raft.ServerAddress(l.peer.Address), nil
	}
	return "", fmt.Errorf("raftfsm: server %q is not a member", id)
}

func (h *Host) nameOf(a raft.ServerAddress) (string, error) {
	if name, ok := h.addresses[a]; ok {
		return name, nil
	}
	return "", fmt.Errorf("raftfsm: no member at %q", a)
}

func (h *Host) group(id GroupID) (*group, error) {
	g := h.groups[id]
	if g == nil {
		return nil, &Error{Op: "find", Group: fmt.Sprint(id), Err: ErrUnknownGroup}
	}
	return g, nil
}

// GroupStatus describes a group as this node sees it.
type GroupStatus struct {
	Name string
	// Leader is the member that leads; zero when none is known.
	Leader       string
	Term         uint64
	CommitIndex  uint64
	AppliedIndex uint64
	Voters       []string
}

// Status describes every group, in the order they were given to Open.
func (h *Host) Status() []GroupStatus {
	out := make([]GroupStatus, 0, len(h.order))
	for _, g := range h.order {
		_, leader := g.raft.LeaderWithID()
		s := GroupStatus{
			Name: g.name, Leader: string(leader), Term: g.raft.CurrentTerm(),
			// After a start, Raft learns the commit index only from the leader.
			CommitIndex: max(g.raft.CommitIndex(), g.replica.AppliedIndex()), AppliedIndex: g.replica.AppliedIndex(),
		}
		if f := g.raft.GetConfiguration(); f.Error() == nil {
			for _, srv := range f.Configuration().Servers {
				s.Voters = append(s.Voters, string(srv.ID))
			}
		}
		out = append(out, s)
	}
	return out
}

// Ready returns nil when every group has a leader that this node knows of, so that any
// request can be served or forwarded.
func (h *Host) Ready() error {
	for _, g := range h.order {
		if _, leader := g.raft.LeaderWithID(); leader == "" {
			return &Error{Op: "ready", Group: g.name, Err: ErrNoLeader}
		}
		if g.raft.State() == raft.Leader {
			if _, err := g.leading(); err != nil {
				return &Error{Op: "ready", Group: g.name, Err: err}
			}
		}
	}
	return nil
}

// StateHash is the hash of a group's replicated state on this node, for comparing replicas
// while nothing is written.
func (h *Host) StateHash(id GroupID) ([32]byte, error) {
	g, err := h.group(id)
	if err != nil {
		return [32]byte{}, err
	}
	return g.replica.StateHash()
}

// HandOver gives this node's leaderships to others, so that a planned stop costs no election.
func (h *Host) HandOver() {
	h.draining.Store(true)
	var wg sync.WaitGroup
	for _, g := range h.order {
		wg.Add(1)
		go func() {
			defer wg.Done()
			g.handOver()
		}()
	}
	wg.Wait()
}

// Close stops the groups and then the state. It does not close the Mux.
func (h *Host) Close() error {
	h.cancel()
	for _, l := range h.links {
		l.close()
	}
	var errs []error
	for _, g := range h.order {
		errs = append(errs, g.close())
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
