package raftfsm

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// hostMetrics are the figures of one host. Those that Raft and Pebble keep are read when
// they are asked for.
type hostMetrics struct {
	host     *Host
	registry prometheus.Registerer

	proposals   *prometheus.CounterVec
	overloads   *prometheus.CounterVec
	entries     *prometheus.CounterVec
	entryBytes  *prometheus.CounterVec
	commitTime  *prometheus.HistogramVec
	logEntries  *prometheus.CounterVec
	logTime     *prometheus.HistogramVec
	copyCount   *prometheus.CounterVec
	copyBytes   *prometheus.CounterVec
	copyFiles   *prometheus.CounterVec
	copyResumed *prometheus.CounterVec
	backups     *prometheus.CounterVec
	backupBytes *prometheus.CounterVec
	backupTime  *prometheus.HistogramVec
	watchdogs   *prometheus.CounterVec
	collectable []prometheus.Collector
}

var (
	descLeader  = groupDesc("mc_raft_is_leader", "1 where this node leads the group and is ready to serve.")
	descTerm    = groupDesc("mc_raft_term", "Current Raft term.")
	descCommit  = groupDesc("mc_raft_commit_index", "Highest index known to be committed.")
	descApplied = groupDesc("mc_raft_applied_index", "Highest index applied to the state.")
	descLast    = groupDesc("mc_raft_last_log_index", "Highest index in the log.")
	descFirst   = groupDesc("mc_raft_first_log_index", "Lowest index in the log; a follower that is further behind gets the state.")
	descLogFile = groupDesc("mc_raft_log_file_bytes", "What the log's file takes on the disk.")
	descLogKept = groupDesc("mc_raft_log_bytes", "Bytes of the entries in the log, as far as this process has counted them.")
	descVoters  = groupDesc("mc_raft_voters", "Voting replicas of the group, as this node's replica knows them.")
	descLearner = groupDesc("mc_raft_learners", "Replicas of the group that follow and do not vote.")
	descQueue   = groupDesc("mc_raft_queued_proposals", "Proposals waiting for a place in an entry.")
	descQBytes  = groupDesc("mc_raft_queued_bytes", "Bytes of those proposals.")
	descDisk    = prometheus.NewDesc("mc_state_disk_bytes", "Bytes of the state on disk.", nil, nil)
	descL0      = prometheus.NewDesc("mc_state_l0_sublevels", "Sublevels of the state's top level; writes suffer as it grows.", nil, nil)
	descOffset  = prometheus.NewDesc("mc_clock_offset_seconds", "How far the peer's wall clock is ahead of this node's.", []string{"peer"}, nil)
	descAge     = prometheus.NewDesc("mc_peer_news_age_seconds", "Age of the last answer of the peer to this node's question how it is.", []string{"peer"}, nil)
	descClock   = prometheus.NewDesc("mc_clock_wrong", "1 while this node's wall clock differs from those of a majority, so that it does not want to lead.", nil, nil)
	descFree    = prometheus.NewDesc("mc_disk_free_bytes", "Free bytes of the file system of the data folder.", nil, nil)
	descLow     = prometheus.NewDesc("mc_disk_low_bytes", "Below so many free bytes, what fills the disk is refused; below a quarter of it, the node stops.", nil, nil)
	descState   = prometheus.NewDesc("mc_disk_state", "1 for the state that the disk is in: good, slow or low.", []string{"state"}, nil)
	descGarbage = prometheus.NewDesc("mc_state_garbage_bytes", "Bytes of deleted ranges that were on the disk when the state was at rest last; they are compacted away then.", nil, nil)
	descDebt    = prometheus.NewDesc("mc_state_compaction_debt_bytes", "Bytes that wait for compaction.", nil, nil)
)

func groupDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"group"}, nil)
}

func newHostMetrics(h *Host, r prometheus.Registerer) (*hostMetrics, error) {
	label := []string{"group"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, label)
	}
	m := &hostMetrics{
		host: h, registry: r,
		proposals:  counter("mc_raft_proposals_total", "Commands committed by this node as leader."),
		overloads:  counter("mc_raft_proposals_refused_total", "Proposals refused because the group's queue was full."),
		entries:    counter("mc_raft_entries_total", "Log entries committed by this node as leader."),
		entryBytes: counter("mc_raft_entry_bytes_total", "Bytes of those entries."),
		commitTime: histogram("mc_raft_commit_seconds", "From handing an entry to Raft until it is applied here."),
		logEntries: counter("mc_raft_log_written_total", "Entries written to the log, as leader or follower."),
		logTime:    histogram("mc_raft_log_write_seconds", "One durable write to the log."),
		copyCount: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_raft_copies_total", Help: "Attempts to transfer a group's state, by direction (in, out) and outcome (installed, failed).",
		}, []string{"group", "direction", "outcome"}),
		copyBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_raft_copy_bytes_total", Help: "Bytes of transferred state.",
		}, []string{"group", "direction"}),
		copyFiles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_raft_copy_files_total", Help: "Files, or whole streams, of transferred state.",
		}, []string{"group", "direction"}),
		backups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_backup_readings_total", Help: "Readings of a group for backups by this node, by what became of them (started, finished, failed).",
		}, []string{"group", "outcome"}),
		backupBytes: counter("mc_backup_bytes_total", "Bytes of rows read for backups."),
		backupTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mc_backup_seconds", Help: "Time of a finished reading of a group for a backup, its client's included.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 11),
		}, label),
		copyResumed: counter("mc_raft_copies_resumed_total", "Transfers that this node took up where they had been interrupted."),
		watchdogs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_watchdog_total", Help: "What the watchdogs found, by reason; group is empty for what concerns the whole node.",
		}, []string{"group", "reason"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m, m.proposals, m.overloads, m.entries, m.entryBytes, m.commitTime, m.logEntries, m.logTime, m.watchdogs, m.copyCount, m.copyBytes, m.copyFiles, m.copyResumed, m.backups, m.backupBytes, m.backupTime} {
		if err := r.Register(c); err != nil {
			return m, fmt.Errorf("raftfsm: register metrics: %w", err)
		}
		m.collectable = append(m.collectable, c)
	}
	return m, nil
}

func (m *hostMetrics) unregister() {
	if m == nil {
		return
	}
	for _, c := range m.collectable {
		m.registry.Unregister(c)
	}
}

func (m *hostMetrics) committed(group string, commands, bytes int, took time.Duration) {
	m.proposals.WithLabelValues(group).Add(float64(commands))
	m.entries.WithLabelValues(group).Inc()
	m.entryBytes.WithLabelValues(group).Add(float64(bytes))
	m.commitTime.WithLabelValues(group).Observe(took.Seconds())
}

func (m *hostMetrics) refused(group string) { m.overloads.WithLabelValues(group).Inc() }

func (m *hostMetrics) logWritten(group string, entries int, took time.Duration) {
	m.logEntries.WithLabelValues(group).Add(float64(entries))
	m.logTime.WithLabelValues(group).Observe(took.Seconds())
}

// Directions of a transfer.
const (
	copyIn  = "in"
	copyOut = "out"
)

// copied counts a file of a transfer, or a stream.
func (m *hostMetrics) copied(group, direction string, bytes int) {
	m.copyBytes.WithLabelValues(group, direction).Add(float64(bytes))
	m.copyFiles.WithLabelValues(group, direction).Inc()
}

// copyEnded counts an attempt to transfer a state.
func (m *hostMetrics) copyEnded(group, direction string, installed bool) {
	outcome := "failed"
	if installed {
		outcome = "installed"
	}
	m.copyCount.WithLabelValues(group, direction, outcome).Inc()
}

// acted counts what a watchdog found.
func (m *hostMetrics) acted(group, reason string) {
	m.watchdogs.WithLabelValues(group, reason).Inc()
}

// Describe lists what Collect reads.
func (m *hostMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLeader, descTerm, descCommit, descApplied, descLast, descFirst, descLogFile, descLogKept, descQueue, descQBytes, descVoters, descLearner, descDisk, descL0, descDebt, descGarbage, descOffset, descAge, descClock, descFree, descLow, descState} {
		ch <- d
	}
}

// Collect reads the figures of Raft and Pebble as they are now.
func (m *hostMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, g := range m.host.open() {
		leads := 0.0
		if _, err := g.leading(); err == nil {
			leads = 1
		}
		gauge(descLeader, leads, g.name)
		gauge(descTerm, float64(g.raft.CurrentTerm()), g.name)
		gauge(descCommit, float64(g.raft.CommitIndex()), g.name)
		gauge(descApplied, float64(g.replica.AppliedIndex()), g.name)
		gauge(descLast, float64(g.raft.LastIndex()), g.name)
		if first, err := g.logs.FirstIndex(); err == nil {
			gauge(descFirst, float64(first), g.name)
		}
		gauge(descLogFile, float64(g.logs.fileBytes()), g.name)
		gauge(descLogKept, float64(g.logs.sizes.bytes()), g.name)
		gauge(descQueue, float64(len(g.queue)), g.name)
		gauge(descQBytes, float64(g.queueBytes.Load()), g.name)
		c := g.configuration()
		gauge(descVoters, float64(len(c.voters)), g.name)
		gauge(descLearner, float64(len(c.learners)), g.name)
	}
	for _, s := range m.host.Peers() {
		gauge(descOffset, s.ClockOffset.Seconds(), s.ID)
		gauge(descAge, s.Age.Seconds(), s.ID)
	}
	m.collectGuard(gauge)
	p := m.host.db.Metrics()
	gauge(descDisk, float64(p.DiskSpaceUsage()))
	gauge(descL0, float64(p.Levels[0].Sublevels))
	gauge(descDebt, float64(p.Compact.EstimatedDebt))
	gauge(descGarbage, float64(m.host.reclaim.garbage.Load()))
}

// collectGuard reads what the watchdogs know of this node.
func (m *hostMetrics) collectGuard(gauge func(*prometheus.Desc, float64, ...string)) {
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge(descClock, is(m.host.ClockError() != nil))
	space, limits := m.host.disk.lastSpace()
	gauge(descFree, float64(space.Free))
	gauge(descLow, float64(limits.Low))
	state := m.host.diskState()
	gauge(descState, is(state == DiskGood), "good")
	gauge(descState, is(state == DiskSlow), "slow")
	gauge(descState, is(state == DiskLow), "low")
}

var _ raft.ServerAddressProvider = (*Host)(nil)
