package raftfsm

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/hashicorp/raft"
)

// Sending a copy: the files go to the follower over a connection of their own, one at a time
// and each acknowledged, before Raft's RPC names them. docs/FORMAT.md has the messages.

// copyBegin opens a transfer.
type copyBegin struct {
	Version int `json:"version"`
	// Copy is the id; Term the sender's.
	Copy  copyID `json:"copy"`
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
	// Replica is the Raft server id of the receiver.
	Replica string `json:"replica"`
	// AsksInstalled is set by senders that understand copyAnswer.Installed.
	AsksInstalled bool `json:"asks_installed,omitempty"`
}

// copyAnswer is what the receiver says to the opening and to every file.
type copyAnswer struct {
	// Have is how many files it has, without a gap from the first on.
	Have  int    `json:"have"`
	Error string `json:"error,omitempty"`
	// Installed says that the copy, or a later one, is the receiver's state already.
	Installed bool `json:"installed,omitempty"`
}

const copyTransferVersion = 1

// copySend is how far the transfer of one view to one follower has come. What a file holds is
// decided once, so that it can be made again.
type copySend struct {
	mu sync.Mutex
	// starts are the first keys of the files; the last is that of the next one.
	starts [][]byte
	files  []copyFile
	whole  bool // files are all there are
}

// send brings the files to the follower that it lacks and returns all of them.
func (g *group) send(ctx context.Context, v *copyView, s *copySend, to Member, replica raft.ServerID, term uint64) ([]copyFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := g.host
	select {
	case h.copies.slots <- struct{}{}:
		defer func() { <-h.copies.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dctx, cancel := context.WithTimeout(ctx, linkDialTimeout)
	defer cancel()
	conn, _, err := h.mux.dial(dctx, to, classCopy, g.id, to.ID)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	turn := h.turns()
	rest := func() {
		if g.spare() { // or the receiver is missed
			turn()
		}
	}
	w := &copyConn{Conn: conn, r: bufio.NewReader(conn), pace: &h.copies.pace, rest: rest, ctx: ctx}
	have, err := w.begin(copyBegin{Version: copyTransferVersion, Copy: v.id, Term: term, Index: v.pos.Index, Replica: string(replica), AsksInstalled: true})
	if err != nil {
		return nil, err
	}
	if have > len(s.files) {
		return nil, fmt.Errorf("node %s has %d files of the copy, %d were sent", to.Name, have, len(s.files))
	}
	if have > 0 {
		h.metrics.copyResumed.WithLabelValues(g.name).Inc()
		g.log.Info("a transfer of the state goes on", "to", to.Name, "files", have)
	}
	it, err := v.it.Clone(pebble.CloneOptions{})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	buf := &memoryWritable{b: make([]byte, 0, h.copies.fileBytes+h.copies.fileBytes/8)}
	for tries := 0; !s.whole || have < len(s.files); {
		b, err := s.build(it, have, h.copies.fileBytes, g.snaps.sst().options, buf, rest)
		if err != nil {
			return nil, err
		}
		got, err := w.file(have, s.files[have], b)
		if err != nil {
			return nil, err
		}
		h.metrics.copied(g.name, copyOut, len(b))
		switch {
		case got == have+1:
			have, tries = got, 0
			g.snaps.views.moved(v)
		case got != have:
			return nil, fmt.Errorf("node %s has %d files of the copy after number %d", to.Name, got, have)
		case tries == copyFileTries:
			return nil, fmt.Errorf("node %s got file %d damaged %d times", to.Name, have, tries+1)
		default:
			tries++
		}
	}
	return append([]copyFile(nil), s.files...), nil
}

// build makes file n, whose place is known, and notes where the next begins. The result lies in
// buf, until the next call; rest is called every so many rows.
func (s *copySend) build(it *pebble.Iterator, n int, size uint64, options sstable.WriterOptions, buf *memoryWritable, rest func()) ([]byte, error) {
	again := n < len(s.files)
	buf.b = buf.b[:0]
	w := sstable.NewWriter(buf, options)
	ok := false
	if n == 0 {
		ok = it.First()
	} else {
		ok = it.SeekGE(s.starts[n])
	}
	if n == 0 && len(s.starts) == 0 && ok {
		s.starts = append(s.starts, append([]byte(nil), it.Key()...))
	}
	for rows := 1; ok; rows, ok = rows+1, it.Next() {
		if rows%copyTurnRows == 0 {
			rest()
		}
		if again && n+1 < len(s.starts) && string(it.Key()) >= string(s.starts[n+1]) {
			break
		}
		if !again && w.Raw().EstimatedSize() >= size {
			break
		}
		v, err := it.ValueAndErr()
		if err == nil {
			err = w.Set(it.Key(), v)
		}
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	err := it.Error()
	if ok && !again {
		s.starts = append(s.starts, append([]byte(nil), it.Key()...))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	f := copyFile{Bytes: uint64(len(buf.b)), Sum: crc32.Checksum(buf.b, castagnoli)}
	switch {
	case !again:
		s.files = append(s.files, f)
		s.whole = !ok
	case s.files[n] != f:
		return nil, fmt.Errorf("file %d of the copy came out differently the second time", n)
	}
	return buf.b, nil
}

// memoryWritable is a file in memory, as Pebble writes one.
type memoryWritable struct{ b []byte }

func (m *memoryWritable) Write(p []byte) error { m.b = append(m.b, p...); return nil }
func (m *memoryWritable) Finish() error        { return nil }
func (m *memoryWritable) Abort()               {}

// copyConn is the sender's side of a transfer.
type copyConn struct {
	net.Conn
	r    *bufio.Reader
	pace *pacer
	rest func()
	ctx  context.Context
}

func (c *copyConn) begin(b copyBegin) (have int, err error) {
	j, err := json.Marshal(b)
	if err != nil {
		return 0, err
	}
	if err := c.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(j))), j...)); err != nil {
		return 0, err
	}
	return c.answer(copyBeginTimeout)
}

// file sends one file and waits until it is on the other's disk.
func (c *copyConn) file(n int, f copyFile, b []byte) (have int, err error) {
	head := binary.BigEndian.AppendUint32(nil, uint32(n))
	head = binary.BigEndian.AppendUint64(head, f.Bytes)
	head = binary.BigEndian.AppendUint32(head, f.Sum)
	if err := c.write(head); err != nil {
		return 0, err
	}
	for len(b) > 0 {
		piece := b[:min(len(b), copyPieceBytes)]
		c.rest()
		if err := c.pace.wait(c.ctx, len(piece)); err != nil {
			return 0, err
		}
		if err := c.write(piece); err != nil {
			return 0, err
		}
		b = b[len(piece):]
	}
	return c.answer(copyFileTimeout)
}

func (c *copyConn) write(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(copyPieceTimeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(b)
	return err
}

func (c *copyConn) answer(patience time.Duration) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	b, err := readFrame(c.r)
	if err != nil {
		return 0, err
	}
	var a copyAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, fmt.Errorf("malformed answer: %w", err)
	}
	if a.Installed {
		return 0, errInstalled
	}
	if a.Error != "" {
		return 0, errors.New(a.Error)
	}
	if a.Have < 0 {
		return 0, fmt.Errorf("malformed answer: %d files", a.Have)
	}
	return a.Have, nil
}

// copies is what all transfers of a node share.
type copies struct {
	slots     chan struct{} // of outgoing ones
	pace      pacer
	fileBytes uint64
}

// pacer spreads bytes over time. It is safe for use by several goroutines.
type pacer struct {
	mu   sync.Mutex
	next time.Time
}

// wait returns when n more bytes may be sent.
func (p *pacer) wait(ctx context.Context, n int) error {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	delay := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(n) * time.Second / copyBytesPerSecond)
	p.mu.Unlock()
	if delay <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fullTransport is what Raft uses of a network transport.
type fullTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// copyTransport sends the state out of band before the RPC that installs it: that RPC occupies
// the follower's main goroutine from its first byte to its last, and a follower whose sender
// hangs would not vote.
type copyTransport struct {
	fullTransport
	g *group
}

// InstallSnapshot brings the state to a follower and has it installed. The request is about the
// position of what was opened; its size is set here, once it is known what is sent.
func (t copyTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	opened := openedViewOf(data)
	if opened == nil {
		return t.fullTransport.InstallSnapshot(id, target, args, resp, data)
	}
	err := t.install(opened, id, target, args, resp)
	if err == nil && resp.Success {
		opened.arrived = true
	}
	t.g.host.metrics.copyEnded(t.g.name, copyOut, opened.arrived)
	return err
}

func (t copyTransport) install(opened *openedView, id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse) error {
	v, h := opened.view, t.g.host
	l := h.linkTo(string(id))
	if l == nil || !h.takesFiles(v.ctx, l.peer.ID) {
		size, err := opened.materialise()
		if err != nil {
			return err
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
		args.Size = size
		err = t.fullTransport.InstallSnapshot(id, target, args, resp, opened)
		if err == nil {
			h.metrics.copied(t.g.name, copyOut, int(size))
		}
		return err
	}
	files, err := t.g.send(v.ctx, v, opened.views.sendTo(v, id), l.peer, id, args.Term)
	if errors.Is(err, errInstalled) {
		resp.Term, resp.Success = args.Term, true
		return nil
	}
	if err != nil {
		return fmt.Errorf("raftfsm: send the state to %s: %w", id, err)
	}
	manifest := copyHeader{
		Version: copyVersionStaged, Index: v.pos.Index, Term: v.pos.Term, ConfigIndex: v.pos.ConfigIndex, Config: v.pos.Config,
		Files: uint32(len(files)), Copy: v.id, Staged: files,
	}.encode()
	// Only the size of the RPC gives it time, so zeros follow the manifest.
	manifest = append(manifest, make([]byte, max(0, len(files)*installFileBytes-len(manifest)))...)
	args.Size = int64(len(manifest))
	return t.installStaged(v.ctx, id, target, *args, resp, manifest)
}

// installStaged makes the RPC and waits for it, or for ctx: the follower loads its machine before
// it answers, and the end of a leadership cannot wait for that.
func (t copyTransport) installStaged(ctx context.Context, id raft.ServerID, target raft.ServerAddress, args raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, manifest []byte) error {
	type answer struct {
		resp raft.InstallSnapshotResponse
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		a.err = t.fullTransport.InstallSnapshot(id, target, &args, &a.resp, &sliceReader{manifest})
		answered <- a
	}()
	select {
	case a := <-answered:
		*resp = a.resp
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takesFiles tells whether a peer understands transfers by files, by what it said last, however long ago:
// a node that is back is often missed for some seconds more. One that has never said anything is
// asked within the next second; if it does not answer it gets what every build takes.
func (h *Host) takesFiles(ctx context.Context, id string) bool {
	if h.seams.wholeCopies {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, newsWait)
	defer cancel()
	tick := time.NewTicker(pulseInterval / 4)
	defer tick.Stop()
	for {
		if s, ok := h.pulses.last(id); ok {
			return s.Level >= levelCopyFiles
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// openedViewOf finds the view behind what Raft has opened.
func openedViewOf(data io.Reader) *openedView {
	if c, ok := data.(*countedCopy); ok {
		data = c.ReadCloser
	}
	o, _ := data.(*openedView)
	return o
}
