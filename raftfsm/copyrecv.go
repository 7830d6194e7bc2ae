package raftfsm

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// copyID names one copy: all files of it are of the same moment.
type copyID [16]byte

func newCopyID() (id copyID) {
	rand.Read(id[:])
	return id
}

// MarshalText and UnmarshalText make an id hex digits in JSON.
func (id copyID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *copyID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return errors.New("raftfsm: malformed copy id")
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// copyFile is one SST of a copy.
type copyFile struct {
	Bytes uint64 `json:"bytes"`
	Sum   uint32 `json:"crc"`
}

// staging keeps the files of a copy that is on its way to this replica, until Raft has it
// installed. It survives a restart. It is safe for use by several goroutines.
type staging struct {
	fs  vfs.FS
	dir string
	// staged is called when a file is on disk, before the sender learns of it.
	staged func(ctx context.Context, n int)

	mu        sync.Mutex
	m         *stagedFiles // nil: nothing is there
	conn      net.Conn     // whose files are taken
	expire    *time.Timer
	installed uint64 // index of the last copy that became the state
	closed    bool
}

// stagedFiles is what the file "manifest" in the staging folder holds, as JSON.
type stagedFiles struct {
	Version int        `json:"version"`
	Copy    copyID     `json:"copy"`
	Index   uint64     `json:"index"`
	Files   []copyFile `json:"files"`
}

const (
	stagingVersion = 1
	stagingName    = "staging"
	manifestName   = "manifest"
)

// openStaging finds what an earlier process left. What the state at index applied contains
// already is dropped.
func openStaging(fs vfs.FS, dir string, applied uint64) (*staging, error) {
	s := &staging{fs: fs, dir: dir, staged: func(context.Context, int) {}}
	b, err := readFile(fs, s.path(manifestName))
	var m stagedFiles
	switch {
	case errors.Is(err, os.ErrNotExist):
		return s, s.dropLocked()
	case err != nil:
		return nil, fmt.Errorf("raftfsm: staged copy: %w", err)
	case json.Unmarshal(b, &m) != nil || m.Version != stagingVersion || m.Index <= applied:
		return s, s.dropLocked()
	}
	s.m = &m
	s.expireLocked()
	return s, nil
}

func (s *staging) path(name string) string { return s.fs.PathJoin(s.dir, name) }

func (s *staging) file(n int) string { return s.path(fmt.Sprintf("%05d.sst", n)) }

// errInstalled answers a transfer of what is the state already: loading it has taken longer than
// the sender waited.
var errInstalled = errors.New("the copy is installed")

// begin makes conn the one whose files are taken, and says how many the copy has already. They
// are read and checked, for the disk may have changed them since. Another copy is dropped.
func (s *staging) begin(conn net.Conn, b copyBegin) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrShutdown
	}
	if b.AsksInstalled && b.Index <= s.installed {
		return 0, errInstalled
	}
	if s.conn != nil && s.conn != conn {
		s.conn.Close()
	}
	s.conn = conn
	if s.expire != nil {
		s.expire.Stop()
	}
	if s.m == nil || s.m.Copy != b.Copy || s.m.Index != b.Index {
		if err := s.dropLocked(); err != nil {
			return 0, err
		}
		if err := makeDir(s.fs, s.dir); err != nil {
			return 0, err
		}
		return 0, s.write(&stagedFiles{Version: stagingVersion, Copy: b.Copy, Index: b.Index})
	}
	for n, f := range s.m.Files {
		if err := checkFile(s.fs, s.file(n), f); err != nil {
			short := *s.m
			short.Files = short.Files[:n:n]
			return n, s.write(&short)
		}
	}
	return len(s.m.Files), nil
}

func checkFile(fs vfs.FS, path string, want copyFile) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := (copyFile{Bytes: uint64(n), Sum: sum.Sum32()}); got != want {
		return errors.New("raftfsm: checksum mismatch")
	}
	return nil
}

// write makes m what is there; its files are durable already.
func (s *staging) write(m *stagedFiles) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("raftfsm: staged copy: %w", err)
	}
	if err := writeFile(s.fs, s.path(manifestName), b); err != nil {
		return err
	}
	s.m = m
	return nil
}

// add stores file n and says how many there are. A damaged one is not taken.
func (s *staging) add(ctx context.Context, conn net.Conn, n int, f copyFile, b []byte) (int, error) {
	// Before anything is written: a file may change what it was given to write.
	good := crc32.Checksum(b, castagnoli) == f.Sum
	have, err := s.store(conn, n, f, b, good)
	if err == nil && good {
		s.staged(ctx, n)
	}
	return have, err
}

func (s *staging) store(conn net.Conn, n int, f copyFile, b []byte, good bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.conn != conn || s.m == nil {
		return 0, errors.New("another transfer has begun")
	}
	if n != len(s.m.Files) {
		return 0, fmt.Errorf("file %d instead of %d", n, len(s.m.Files))
	}
	if !good {
		return n, nil
	}
	if err := writeFile(s.fs, s.file(n), b); err != nil {
		return 0, err
	}
	next := *s.m
	next.Files = append(next.Files[:n:n], f)
	return n + 1, s.write(&next)
}

// end notes that conn is gone. What it brought stays for as long as its sender may come again.
func (s *staging) end(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == conn {
		s.conn = nil
		s.expireLocked()
	}
}

// expireLocked drops the files after a while without a sender.
func (s *staging) expireLocked() {
	if s.closed {
		return
	}
	s.expire = time.AfterFunc(stagingIdle, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conn == nil && !s.closed {
			_ = s.dropLocked() // what cannot be removed now is at the next copy or start
		}
	})
}

func (s *staging) dropLocked() error {
	s.m = nil
	if _, err := s.fs.Stat(s.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// The manifest first: without it the files count for nothing.
	if err := removeFile(s.fs, s.path(manifestName)); err != nil {
		return fmt.Errorf("raftfsm: drop staged copy: %w", err)
	}
	if err := s.fs.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("raftfsm: drop staged copy: %w", err)
	}
	return nil
}

// install calls ingest with the files of the copy that h names, which nothing changes
// meanwhile, and drops them once it has succeeded.
func (s *staging) install(h copyHeader, ingest func(paths []string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.m == nil || s.m.Copy != h.Copy || s.m.Index != h.Index || len(s.m.Files) != len(h.Staged) {
		return errors.New("the files of the copy are not here")
	}
	paths := make([]string, len(h.Staged))
	for n, f := range h.Staged {
		if s.m.Files[n] != f {
			return fmt.Errorf("file %d of the copy is another one", n)
		}
		paths[n] = s.file(n)
	}
	if err := ingest(paths); err != nil {
		return err
	}
	s.installed = h.Index
	return s.dropLocked()
}

// close stops taking files; what is there stays. Nothing in the folder changes after it.
func (s *staging) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.expire != nil {
		s.expire.Stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
}

// acceptCopy takes a transfer of a group's state.
func (h *Host) acceptCopy(id GroupID, peer string, c net.Conn) bool {
	s := h.seats[id]
	if s == nil {
		return false
	}
	g := s.current.Load()
	if g == nil {
		return false
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		defer c.Close()
		if err := g.receive(c); err != nil && g.ctx.Err() == nil {
			g.log.Info("a transfer of the state has ended early", "from", peer, "err", err)
		}
	}()
	return true
}

// receive takes files until the sender has no more. It returns nil at an orderly end.
func (g *group) receive(c net.Conn) error {
	r := bufio.NewReaderSize(&rollingConn{Conn: c}, 64<<10)
	b, err := readFrame(r)
	if err != nil {
		return err
	}
	var begin copyBegin
	if err := json.Unmarshal(b, &begin); err != nil || begin.Version != copyTransferVersion {
		return errors.Join(errors.New("not a transfer, or of another version"), err)
	}
	st := g.snaps.staging
	have := 0
	// A deposed leader must not push the files of the present one aside.
	if term := g.raft.CurrentTerm(); begin.Term < term {
		err = fmt.Errorf("the transfer is of term %d, the group is in term %d", begin.Term, term)
	} else if begin.Replica != g.self {
		err = fmt.Errorf("the transfer is for replica %s, this is %s", begin.Replica, g.self)
	} else {
		defer st.end(c)
		have, err = st.begin(c, begin)
	}
	var buf []byte // of one file after the other
	for {
		if err := answerCopy(c, have, err); err != nil {
			return err
		}
		var head [16]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		f := copyFile{Bytes: binary.BigEndian.Uint64(head[4:]), Sum: binary.BigEndian.Uint32(head[12:])}
		if f.Bytes > copyFileMax {
			return fmt.Errorf("implausible length %d", f.Bytes)
		}
		buf = slices.Grow(buf[:0], int(f.Bytes))
		b := buf[:f.Bytes]
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		have, err = st.add(g.ctx, c, int(binary.BigEndian.Uint32(head[:])), f, b)
		if err == nil {
			g.host.metrics.copied(g.name, copyIn, len(b))
		}
	}
}

// answerCopy tells the sender what there is, or what went wrong, which ends the transfer.
func answerCopy(c net.Conn, have int, failed error) error {
	a := copyAnswer{Have: have, Installed: errors.Is(failed, errInstalled)}
	if failed != nil {
		a.Error = failed.Error()
	}
	j, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(copyPieceTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(j))), j...)); err != nil {
		return errors.Join(failed, err)
	}
	return failed
}
