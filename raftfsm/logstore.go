package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/maestro-conductor/maestro/internal/disk"
)

// logStore is a group's Raft log and stable store in one file. It keeps this replica's
// note beside every entry, measures writes, and treats a failed write as the end: after a
// failed fsync nobody knows what the disk holds, and an abandoned write may still complete.
type logStore struct {
	file  LogFile
	path  string // of the bolt file, if it is one
	keep  *timekeeper
	sizes *logSizes
	fatal func(reason string, err error)
	wrote func(entries int, took time.Duration)
	// applied and covered are the indexes up to which the state has the entries, and up to
	// which a snapshot stands for them; set once the group is open.
	applied, covered func() uint64
}

func newLogStore(file LogFile, path string, retain Retention, keep *timekeeper, fatal func(string, error), wrote func(int, time.Duration)) *logStore {
	none := func() uint64 { return 0 }
	return &logStore{file: file, path: path, keep: keep, sizes: newLogSizes(retain, keep.clock.Steady), fatal: fatal, wrote: wrote, applied: none, covered: none}
}

// StoreLogs appends entries durably.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	steady := s.keep.clock.Steady()
	own := note{boot: s.keep.clock.Boot(), steady: steady}.encode()
	noted := make([]*raft.Log, len(logs))
	lastStamp, lastIndex := int64(0), uint64(0)
	for i, l := range logs {
		c := *l
		c.Extensions = nil
		if stamp, ok := stampOf(l); ok {
			c.Extensions = own
			lastStamp, lastIndex = stamp, l.Index
		}
		noted[i] = &c
	}
	start := time.Now()
	if err := s.file.StoreLogs(noted); err != nil {
		s.fatal("log_write_failed", err)
		return err
	}
	s.wrote(len(logs), time.Since(start))
	for _, l := range noted {
		s.sizes.appended(l.Index, sizeOf(l))
	}
	if lastIndex != 0 {
		s.keep.appended(lastIndex, lastStamp, steady)
	}
	return nil
}

// StoreLog appends one entry durably.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// GetLog reads an entry without this replica's note.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	err := s.file.GetLog(index, l)
	l.Extensions = nil
	return err
}

// FirstIndex and LastIndex bound the log.
func (s *logStore) FirstIndex() (uint64, error) { return s.file.FirstIndex() }
func (s *logStore) LastIndex() (uint64, error)  { return s.file.LastIndex() }

// bounds are the first and the last index of the log, 0 when it is empty.
func (s *logStore) bounds() (first, last uint64, err error) {
	if first, err = s.file.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("raftfsm: first log index: %w", err)
	}
	if last, err = s.file.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("raftfsm: last log index: %w", err)
	}
	return first, last, nil
}

// hold keeps the entries after index, within bounds, until release is called.
func (s *logStore) hold(index uint64) (release func()) { return s.sizes.hold(index) }

// DeleteRange removes a conflicting suffix, or a prefix of the log after a snapshot. Of a
// prefix it leaves what Retention says: Raft asks for all that the snapshot covers, and copes
// with any log that reaches further back.
func (s *logStore) DeleteRange(lo, hi uint64) error {
	first, end, err := s.bounds()
	if err != nil {
		return err
	}
	// Compaction begins at the first entry and ends within a snapshot; the rest are conflicts.
	if conflict := hi >= end && (lo > first || hi > s.covered()); conflict && lo <= s.applied() {
		err := fmt.Errorf("entries from index %d conflict with the leader's, but the state has applied up to %d: a majority has lost synced data", lo, s.applied())
		s.fatal("applied_entry_replaced", err)
		return err
	}
	if lo <= first && hi <= s.covered() && hi < end {
		return s.compact(end, hi)
	}
	// In one transaction: a crash between two would leave a hole.
	if err := s.file.DeleteRange(lo, hi); err != nil {
		s.fatal("log_truncate_failed", err)
		return err
	}
	s.sizes.removed(lo, hi)
	if hi < end {
		return nil
	}
	// A suffix is gone, and with it perhaps the noted entry: entries of a deposed leader must
	// not anchor time.
	n, err := s.lastNote()
	if err != nil {
		s.fatal("log_read_failed", err)
		return err
	}
	s.keep.reset(n)
	return nil
}

// compact removes the entries up to hi that need not stay, from the oldest on and in steps; a
// crash between two leaves a shorter log.
func (s *logStore) compact(end, hi uint64) error {
	if err := s.measure(); err != nil {
		return err
	}
	hi = min(hi, s.sizes.keepFrom(end)-1)
	for {
		first, err := s.file.FirstIndex()
		if err != nil {
			return fmt.Errorf("raftfsm: first log index: %w", err)
		}
		if first == 0 || first > hi {
			return nil
		}
		to := min(hi, first+truncateStep-1)
		if err := s.file.DeleteRange(first, to); err != nil {
			s.fatal("log_truncate_failed", err)
			return err
		}
		s.sizes.removed(first, to)
	}
}

// measure learns the sizes of entries that an earlier process wrote, as far back as can matter.
func (s *logStore) measure() error {
	first, last, err := s.bounds()
	if err != nil {
		return err
	}
	for {
		index, more := s.sizes.unknown(last)
		if !more || index < first || index == 0 {
			return nil
		}
		var l raft.Log
		if err := s.file.GetLog(index, &l); errors.Is(err, raft.ErrLogNotFound) {
			return nil
		} else if err != nil {
			return fmt.Errorf("raftfsm: read log entry %d: %w", index, err)
		}
		s.sizes.older(index, sizeOf(&l))
	}
}

func sizeOf(l *raft.Log) int64 { return int64(len(l.Data)) + entryOverhead }

// lastNote finds the youngest stamped entry of the log; index is 0 when there is none.
func (s *logStore) lastNote() (note, error) {
	first, last, err := s.bounds()
	if err != nil {
		return note{}, err
	}
	for i := last; i >= first && i > 0; i-- {
		var l raft.Log
		if err := s.file.GetLog(i, &l); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) {
				break
			}
			return note{}, fmt.Errorf("raftfsm: read log entry %d: %w", i, err)
		}
		stamp, ok := stampOf(&l)
		if !ok {
			continue
		}
		n := note{index: i, stamp: stamp}
		if len(l.Extensions) == noteLen {
			n.boot = binary.BigEndian.Uint64(l.Extensions)
			n.steady = int64(binary.BigEndian.Uint64(l.Extensions[8:]))
		}
		return n, nil
	}
	return note{}, nil
}

// Set, Get, SetUint64 and GetUint64 keep Raft's term and vote.
func (s *logStore) Set(key, val []byte) error {
	err := s.file.Set(key, val)
	if err != nil {
		s.fatal("vote_write_failed", err)
	}
	return err
}

func (s *logStore) Get(key []byte) ([]byte, error) { return s.file.Get(key) }

func (s *logStore) SetUint64(key []byte, val uint64) error {
	err := s.file.SetUint64(key, val)
	if err != nil {
		s.fatal("vote_write_failed", err)
	}
	return err
}

func (s *logStore) GetUint64(key []byte) (uint64, error) { return s.file.GetUint64(key) }

func (s *logStore) close() error { return s.file.Close() }

// fileBytes is how much of the disk the file takes; 0 when there is none.
func (s *logStore) fileBytes() int64 {
	n, err := disk.FileBytes(s.path)
	if err != nil {
		return 0
	}
	return n
}

// shrinkFrom is how much a log's file may take beside its entries before it is written anew: as much as half
// of them, or this if that is more.
const shrinkFrom = 4 << 20

// shrink writes the file anew if much of it is room that removed entries have left.
func (s *logStore) shrink(rest func() error) error {
	f, ok := s.file.(shrinker)
	kept := s.sizes.bytes()
	if !ok || s.fileBytes()-kept <= max(shrinkFrom, kept/2) {
		return nil
	}
	done, err := f.shrink(rest)
	if done && err != nil {
		s.fatal("log_write_failed", err)
	}
	return err
}

func stampOf(l *raft.Log) (int64, bool) {
	if l.Type != raft.LogCommand {
		return 0, false
	}
	return entryStamp(l.Data, l.Term)
}
