package raftfsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// snapshotStore keeps one group's snapshot marker, makes a transferable copy of the state
// when a follower is too far behind for the log, and receives such copies.
type snapshotStore struct {
	fs     vfs.FS
	db     *pebble.DB
	group  GroupID
	dir    string
	sst    func() (format sstFormat)
	serial sync.Mutex // one outgoing stream at a time
	// views are what is sent, staging what is received.
	views   copyViews
	staging *staging

	mu     sync.Mutex
	marker *markerFile
}

// markerFile is what the file "marker" holds, as JSON.
type markerFile struct {
	Version     int    `json:"version"`
	Index       uint64 `json:"index"`
	Term        uint64 `json:"term"`
	ConfigIndex uint64 `json:"configIndex"`
	Config      []byte `json:"config"`
}

const (
	markerVersion = 1
	markerName    = "marker"
	incomingName  = "incoming"
	localID       = "local"
	incomingID    = "incoming"
)

// openSnapshotStore opens dir and finishes what a crash interrupted. applied is the
// position that Pebble holds.
func openSnapshotStore(fs vfs.FS, db *pebble.DB, group GroupID, dir string, applied Position, sst func() sstFormat) (*snapshotStore, error) {
	s := &snapshotStore{fs: fs, db: db, group: group, dir: dir, sst: sst}
	if err := makeDir(fs, dir); err != nil {
		return nil, err
	}
	if err := s.finishReceived(applied); err != nil {
		return nil, err
	}
	st, err := openStaging(fs, s.path(stagingName), applied.Index)
	if err != nil {
		return nil, err
	}
	s.staging = st
	s.views.store = s
	b, err := readFile(fs, s.path(markerName))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("raftfsm: snapshot marker: %w", err)
	}
	var m markerFile
	if err := json.Unmarshal(b, &m); err != nil || m.Version != markerVersion {
		return nil, fmt.Errorf("raftfsm: snapshot marker %s is damaged or newer than this build: %v", s.path(markerName), err)
	}
	if applied.Index < m.Index {
		return nil, fmt.Errorf("raftfsm: group %d: the state is at index %d, before its own snapshot at %d: "+
			"the disk has lost synced data; %s", group, applied.Index, m.Index, wipeHint)
	}
	if err := validConfig(m.Config); err != nil {
		return nil, fmt.Errorf("raftfsm: snapshot marker %s is damaged: %w", s.path(markerName), err)
	}
	s.marker = &m
	return s, nil
}

// path is the file called name in the store's folder.
func (s *snapshotStore) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// validConfig tells whether Raft can decode a membership; the library panics if not.
func validConfig(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its configuration cannot be read: %v", p)
		}
	}()
	raft.DecodeConfiguration(b)
	return nil
}

// finishReceived decides about a snapshot that was received before a crash: either its
// ingestion, which is atomic, had happened and only the marker is missing, or the old state
// still stands and the leader will send another.
func (s *snapshotStore) finishReceived(applied Position) error {
	path := s.path(incomingName)
	f, err := s.fs.Open(path)
	if err == nil {
		h, herr := readCopyHeader(f)
		f.Close()
		if herr == nil && applied.Index >= h.Index {
			if err := s.writeMarker(applied); err != nil {
				return err
			}
		}
		if err := s.fs.Remove(path); err != nil {
			return fmt.Errorf("raftfsm: remove received snapshot: %w", err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("raftfsm: received snapshot: %w", err)
	}
	// Unfinished copies of either direction.
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("raftfsm: snapshot folder: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "tmp-") {
			continue
		}
		if err := s.fs.RemoveAll(s.path(name)); err != nil {
			return fmt.Errorf("raftfsm: remove unfinished snapshot: %w", err)
		}
	}
	return nil
}

// Create begins a local snapshot when Raft's FSM persists into it, or receives one.
func (s *snapshotStore) Create(_ raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &markerSink{store: s, pos: Position{Index: index, Term: term, ConfigIndex: confIndex, Config: raft.EncodeConfiguration(conf)}}, nil
}

// List returns the newest snapshot.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marker == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.marker.meta()}, nil
}

// Open makes the state transferable: a local snapshot is the state as it is now, or was when a
// transfer began that is not done, which may be later than its marker; a received one is read
// from its file.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id == incomingID {
		f, err := s.fs.Open(s.path(incomingName))
		if err != nil {
			return nil, nil, fmt.Errorf("raftfsm: received snapshot: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("raftfsm: received snapshot: %w", err), f.Close())
		}
		h, err := readCopyHeader(f)
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		meta := markerOf(h.position()).meta()
		meta.ID, meta.Size = id, info.Size()
		// Reading the header has moved the file's own place.
		return meta, newReadCloser(io.NewSectionReader(f, 0, info.Size()), f), nil
	}
	v, err := s.views.open()
	if err != nil {
		return nil, nil, err
	}
	return markerOf(v.pos).meta(), &openedView{views: &s.views, view: v}, nil
}

// close ends the transfers of either direction; those that were received stay for the next start.
func (s *snapshotStore) close() error {
	s.staging.close()
	return s.views.drop()
}

// markerIndex is how far a snapshot stands for the log.
func (s *snapshotStore) markerIndex() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marker == nil {
		return 0
	}
	return s.marker.Index
}

func (s *snapshotStore) writeMarker(pos Position) error {
	m := markerOf(pos)
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("raftfsm: snapshot marker: %w", err)
	}
	if err := writeFile(s.fs, s.path(markerName), b); err != nil {
		return err
	}
	s.mu.Lock()
	s.marker = m
	s.mu.Unlock()
	return nil
}

func markerOf(p Position) *markerFile {
	return &markerFile{Version: markerVersion, Index: p.Index, Term: p.Term, ConfigIndex: p.ConfigIndex, Config: p.Config}
}

func (m *markerFile) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: localID, Index: m.Index, Term: m.Term,
		Configuration: raft.DecodeConfiguration(m.Config), ConfigurationIndex: m.ConfigIndex,
	}
}

// markerSink becomes a marker when nothing is written to it, and a received snapshot when
// something is.
type markerSink struct {
	store *snapshotStore
	pos   Position
	file  vfs.File // nil until something is written
	temp  string   // where it is until it is whole
}

// ID names the snapshot for Open.
func (k *markerSink) ID() string {
	if k.file != nil {
		return incomingID
	}
	return localID
}

// Write receives a piece of a copy.
func (k *markerSink) Write(b []byte) (int, error) {
	if k.file == nil {
		k.temp = tempName(k.store.fs, k.store.dir, incomingName)
		f, err := k.store.fs.Create(k.temp, vfs.WriteCategoryUnspecified)
		if err != nil {
			return 0, fmt.Errorf("raftfsm: receive snapshot: %w", err)
		}
		k.file = f
	}
	return k.file.Write(b)
}

// Close makes the snapshot durable.
func (k *markerSink) Close() error {
	if k.file == nil {
		return k.store.writeMarker(k.pos)
	}
	if err := errors.Join(k.file.Sync(), k.file.Close()); err != nil {
		return fmt.Errorf("raftfsm: receive snapshot: %w", err)
	}
	if err := k.store.fs.Rename(k.temp, k.store.path(incomingName)); err != nil {
		return fmt.Errorf("raftfsm: receive snapshot: %w", err)
	}
	return syncDir(k.store.fs, k.store.dir)
}

// Cancel forgets the snapshot.
func (k *markerSink) Cancel() error {
	if k.file == nil {
		return nil
	}
	return errors.Join(k.file.Close(), k.store.fs.Remove(k.temp))
}
