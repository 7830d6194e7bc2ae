package raftfsm

import (
	"hash/fnv"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// Every setting of Raft, its transport, bolt and Pebble is here, because their defaults are
// made for other places: Raft's for wide networks, Pebble's for tests.

const (
	// heartbeatTimeout is how long a follower waits for its leader before it asks for votes.
	// With electionTimeout it decides the time without service after a leader dies: about
	// 1.5 s at most. Smaller: a busy machine that runs nothing of ours for a while, or an fsync
	// of half a second, deposes a healthy leader. Larger: longer without service.
	heartbeatTimeout = 650 * time.Millisecond
	// electionTimeout is how long a candidate waits for votes before it tries again. Not
	// smaller: three fsyncs of a vote have to fit in.
	electionTimeout = 650 * time.Millisecond
	// leaderHeartbeatTimeout is the heartbeat timeout that a node has while it leads: the library
	// sends a heartbeat every tenth to fifth of it, and every message wakes two idle processes.
	// With the followers' shorter timeout, two or three heartbeats in a row must be lost before
	// one of them asks for votes. Smaller costs idle CPU; larger leaves less room for a pause.
	leaderHeartbeatTimeout = 1300 * time.Millisecond
	// leaderLeaseTimeout is how long a leader without a majority keeps its role. It must not
	// exceed heartbeatTimeout. It is no read lease: reads confirm their term.
	leaderLeaseTimeout = 650 * time.Millisecond
	// preferenceStep is added to a node's timeouts for each place it stands behind in a
	// group's order of preference, so that first elections spread leaders over the nodes.
	preferenceStep = 100 * time.Millisecond
	// firstPreferenceStep comes on top of it before a new group's first election, in which there is nobody to
	// miss yet: more than what timeouts are drawn from, so that the preferred leader is the only one to
	// ask unless it is not there. Smaller: leaders of a new region stand as chance will have it. Larger:
	// a region that begins while a node is not there has to wait for longer.
	firstPreferenceStep = time.Second
	// commitTimeout is how often an idle leader tells followers its commit index. Smaller
	// costs idle CPU in every group; larger makes bounded reads on followers older. Reads
	// that must be fresh go to the leader and do not wait for it.
	commitTimeout = 400 * time.Millisecond
	// maxAppendEntries bounds entries in one append. Entries are already batches of up to
	// EntryBytesMax, so more would make appends of many megabytes.
	maxAppendEntries = 16
	// transportPool is how many idle connections per peer and group are kept.
	transportPool = 2
	// transportTimeout bounds one Raft RPC; for a snapshot it scales with the size.
	transportTimeout = 3 * time.Second

	// logCacheEntries is how many recent entries are kept in memory for followers: with entries
	// of half a megabyte at most, some hundred is plenty, and a follower further behind reads
	// the file.
	logCacheEntries = 128

	// truncateStep is how many entries one transaction of bolt removes. It removes key by key, and
	// appends wait meanwhile; smaller steps mean more fsyncs.
	truncateStep = 1024

	// installTimeoutScale is how many bytes of a snapshot give its RPC another transportTimeout.
	// Smaller overflows for streams to builds of level 1.
	installTimeoutScale = 64
	// installFileBytes is how long the RPC after a transfer is made for each file: six seconds for
	// 8 MiB. The follower answers when it has taken the files over and loaded its machine, which takes
	// some tenths of a second a file at full speed, and ten times that while several groups of a node
	// give way to other work. An RPC that is given up means that the whole state is sent again; a
	// follower that is gone is noticed by its connection.
	installFileBytes = 128
	// loadRestsFor is how long the load of each file may give way to other work: half of what the RPC
	// gives it. After that it goes on at full speed, so that it ends before the RPC is given up.
	loadRestsFor = installFileBytes / installTimeoutScale * transportTimeout / 2
	// copySendBytes is about how large one file of a transfer becomes, and so how much is sent
	// again after an interruption. It is held in memory on both sides; smaller ones mean more
	// fsyncs and more files for Pebble to merge.
	copySendBytes = 8 << 20
	// copyFileMax bounds what a receiver takes as one file, which may exceed copySendBytes by a row.
	copyFileMax = 256 << 20
	// applyBehind is how many entries behind what is known to be committed a follower rests in
	// between: more than a follower that keeps up ever is, and less than anybody waits for.
	applyBehind = 2 * maxAppendEntries
	// copySyncBytes is after how many bytes the sync of a received file begins: the logs on the same
	// disk would wait for 8 MiB at once.
	copySyncBytes = 512 << 10
	// copyTurnRows is how many rows are written to a file between two chances to rest: some hundred
	// microseconds.
	copyTurnRows = 256
	// copyPieceBytes is how much is sent at once between two looks at the rate.
	copyPieceBytes = 256 << 10
	// copyBytesPerSecond is how much a node sends of copies, all together: half of a gigabit
	// network, so that appends and heartbeats keep room. Slower means longer with two replicas.
	copyBytesPerSecond = 64 << 20
	// copiesOutMax is how many copies a node sends at a time. One would wait behind a slow
	// follower; more only share the rate, and each pins old rows on the disk.
	copiesOutMax = 2
	// copyFileTries is how often a file that arrived damaged is sent again before the connection
	// is given up.
	copyFileTries = 2
	// copyPieceTimeout ends a transfer whose other side takes nothing, copyFileTimeout one whose
	// disk does not get a file stored, and copyBeginTimeout one that does not get the files
	// checked which it has: some hundred gigabytes would take longer, and are sent again.
	copyPieceTimeout = 10 * time.Second
	copyFileTimeout  = 30 * time.Second
	copyBeginTimeout = 5 * time.Minute
	// newsWait is how long to wait for a peer to say what it understands: some pulses.
	newsWait = 5 * time.Second
	// copySessionIdle is how long a leader keeps the view of an interrupted transfer: a node is
	// back from a restart within a minute. Longer pins old rows on the disk and holds the log.
	copySessionIdle = 5 * time.Minute
	// copyViewMax is when an interrupted transfer begins anew with the present state, however
	// often it was taken up: a hundred gigabytes take half an hour.
	copyViewMax = time.Hour
	// stagingIdle is how long a follower keeps the files of an interrupted transfer: a little
	// longer than the leader will come back to them.
	stagingIdle = copySessionIdle + time.Minute

	// backupChunkBytes is how much of a group one answer to a backup carries, and one entry of a
	// restore; a chunk of one row may be larger. Smaller means more round trips, larger delays the
	// entries behind.
	backupChunkBytes = 256 << 10
	// backupSessionsMax bounds the readings for backups at a node, and backupSessionIdle is how long
	// one is kept that nobody goes on with: each pins old rows on the disk.
	backupSessionsMax = 4
	backupSessionIdle = time.Minute

	// pebbleCacheBytes holds uncompressed blocks. The off-heap cache is filled as data is
	// read, so an empty node stays small.
	pebbleCacheBytes = 256 << 20
	// pebbleMemTableBytes is one memtable. 64 MiB would flush less often but makes an empty
	// node larger than it need be.
	pebbleMemTableBytes = 32 << 20
)

// preference is a node's place in a group's order, 0 being the preferred leader. It only
// biases elections.
func preference(group GroupID, self string, members []Member) int {
	score := func(id string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(id))
		return h.Sum64()
	}
	place := 0
	for _, m := range members {
		if m.ID != self && score(m.ID) < score(self) {
			place++
		}
	}
	// Rotate by group, so that consecutive groups prefer different nodes.
	n := max(1, len(members))
	return (place + int(group)) % n
}

// followerTimeout is the patience of a node that stands so many places behind the preferred leader.
func followerTimeout(behind int) time.Duration {
	return heartbeatTimeout + time.Duration(behind)*preferenceStep
}

func raftConfig(id string, behind int, keep Retention, logger hclog.Logger, notify chan<- bool) *raft.Config {
	extra := time.Duration(behind) * preferenceStep
	return &raft.Config{
		ProtocolVersion:    raft.ProtocolVersionMax,
		LocalID:            raft.ServerID(id),
		HeartbeatTimeout:   followerTimeout(behind),
		ElectionTimeout:    electionTimeout + extra,
		LeaderLeaseTimeout: leaderLeaseTimeout,
		CommitTimeout:      commitTimeout,
		MaxAppendEntries:   maxAppendEntries,
		// Entries are batches already. In a buffer, an entry could outlive the leadership in
		// which it was stamped.
		BatchApplyCh: false,
		// A node that was removed must not campaign.
		ShutdownOnRemove: true,
		// The log store decides itself what stays behind a snapshot: by bytes too.
		TrailingLogs:      1,
		SnapshotInterval:  keep.SnapshotInterval,
		SnapshotThreshold: keep.SnapshotEntries,
		NotifyCh:          notify,
		Logger:            logger,
		// The state is in Pebble already; a snapshot is restored only when received.
		NoSnapshotRestoreOnStart: true,
		// Pre-vote keeps a returning node from deposing a healthy leader.
		PreVoteDisabled:   false,
		NoLegacyTelemetry: true,
		// Replays before the state machine runs and can block the start for ever.
		RestoreCommittedLogs: false,
	}
}

func transportConfig(stream raft.StreamLayer, addresses raft.ServerAddressProvider, logger hclog.Logger) *raft.NetworkTransportConfig {
	return &raft.NetworkTransportConfig{
		Stream: stream, MaxPool: transportPool, Timeout: transportTimeout, Logger: logger,
		// Pipelining deadlocks after a follower's write error, and gains nothing on a LAN.
		MaxRPCsInFlight: 1,
		// The old format of times is for peers older than any of ours.
		MsgpackUseNewTimeFormat: true,
		// Addresses may change, ids do not.
		ServerAddressProvider: addresses,
	}
}

func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		// Another process with the same file must be noticed at once.
		Timeout: time.Second,
		// Rebuilding the freelist at start is cheap for a truncated log, writing it with every
		// commit is not.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		// Growing the map stops the world of the file; it is address space, not memory.
		InitialMmapSize: 256 << 20,
	}
}

// deleteAtOnce removes obsolete files as Pebble does by itself, but keeps no logs of memtables. Pebble keeps five to
// write over them, as large as they became, since that makes a sync of them cheaper, and these are synced now and
// then only. For a cleaner that reads what it removes it keeps none.
type deleteAtOnce struct {
	pebble.DeleteCleaner
	readsFiles
}

// readsFiles is embedded for its unexported method; DeleteCleaner, which is less deep, has the others.
type readsFiles struct{ pebble.ArchiveCleaner }

func pebbleOptions(fs vfs.FS, logger pebble.Logger, fatal func(reason string, err error)) *pebble.Options {
	o := &pebble.Options{
		FS: fs,
		// Columnar blocks and excise need a recent format; upgrades are one way.
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   pebbleCacheBytes,
		MemTableSize:                pebbleMemTableBytes,
		MemTableStopWritesThreshold: 4,
		// Compact early: every sublevel at the top is one more place that a read looks into.
		L0CompactionThreshold: 2,
		// Never stop writes for it: the Raft log is bounded, and a replica that stops applying
		// is worse than one that reads slowly for a while.
		L0StopWritesThreshold: 1000,
		// As large as the files of the level below grow; smaller means more levels.
		LBaseMaxBytes: 64 << 20,
		// Descriptors, not memory; far more than the files of 100 GB.
		MaxOpenFiles:               4096,
		CompactionConcurrencyRange: func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
		FlushDelayDeleteRange:      10 * time.Second,
		// Spreads the sync of a large log over its writes, so that a snapshot's sync is short.
		WALBytesPerSync: 512 << 10,
		BytesPerSync:    512 << 10,
		Cleaner:         deleteAtOnce{},
		Logger:          logger,
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		// Large enough that a posting of a segment is not alone in a block, small enough that
		// reading one document does not decompress much.
		l.BlockSize = 32 << 10
		// One index block per file nearly always: a look-up then reads two blocks.
		l.IndexBlockSize = 256 << 10
		// The bottom level has no filter: most look-ups that reach it succeed, and it would
		// cost 1.25 bytes a key.
		if i < len(o.Levels)-1 {
			l.FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			if pebble.IsCorruptionError(err) {
				// A compaction has met damage. Nothing was written, and Pebble leaves those keys alone for a while; who
				// reads them is told.
				logger.Errorf("the state is damaged on the disk: %v", err)
				return
			}
			fatal("state_write_failed", err)
		},
		// Pebble by itself would end the process. Who reads gets an error: an Apply ends the process then, and what can be
		// mended is.
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			logger.Errorf("the disk does not give back what was stored: %s: %v", i.Path, i.Details)
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			logger.Errorf("slow disk: %s", i)
		},
	}
	// Tells of slow writes, which Pebble adds by itself only to a file system that it chose.
	o.WithFSDefaults()
	// What is not set above; writers of snapshot files need the same options.
	o.EnsureDefaults()
	return o
}
