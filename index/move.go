package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/cespare/xxhash/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// A sealed segment is moved into the replicated state by the log. Every replica builds the segment
// into a file of its own, in the background. The leader, when its own is there, proposes the move; a
// replica that applies it writes its own bytes as rows and deletes the documents' rows, in one batch
// with the applied index. A crash before the batch is durable leaves the documents' rows and the entry,
// so it happens again.

// movePartBytes is about how much of a segment one command writes: the segment of a head with documents
// of usual size is one part. More at once would hold up the entries behind, and be large in memory.
const movePartBytes = 8 << 20

// moveCommand moves a part of a segment into the state; the last one removes the documents' rows.
type moveCommand struct {
	first  uint64 // document
	docs   uint32 // numbers, gaps included
	format byte   // version of the segment's format
	digest uint64 // of the leader's segment
	part   uint32
	parts  uint32
	// generation is not 0 when it replaces a segment by what is left of it.
	generation byte
}

func (c moveCommand) row(size, digest uint64) segmentRow {
	return segmentRow{docs: c.docs, size: size, digest: digest, generation: c.generation}
}

func (c moveCommand) encode() []byte {
	b := binary.AppendUvarint([]byte{commandVersion, commandMove}, c.first)
	b = append(binary.AppendUvarint(b, uint64(c.docs)), c.format)
	b = binary.BigEndian.AppendUint64(b, c.digest)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.part)), uint64(c.parts))
	if c.generation > 0 {
		b = append(b, c.generation)
	}
	return b
}

// decodeMove reads a command behind its header; the error is errCommand.
func decodeMove(b []byte) (moveCommand, error) {
	r := wire.NewReader(b)
	c := moveCommand{first: r.Uvarint(1 << 62), docs: uint32(r.Uvarint(segment.DocumentsMax)), format: r.Byte(255)}
	c.digest = binary.BigEndian.Uint64(r.Fixed(8))
	c.part, c.parts = uint32(r.Uvarint(1<<31)), uint32(r.Uvarint(1<<31))
	if r.More() {
		if c.generation = r.Byte(generationMax); c.generation == 0 {
			r.Fail()
		}
	}
	if err := r.Done(); err != nil || c.docs == 0 || c.part >= c.parts {
		return c, errCommand
	}
	return c, nil
}

// encodeLayout is the command that changes the layout of the state.
func encodeLayout(to byte) []byte { return []byte{commandVersion, commandLayout, to} }

// resultDone answers a command of the leader that had its effect, resultRefused one that does not fit.
var resultDone = []byte{resultVersion}

// layout executes a command to change the layout.
func (a *applier) setLayout(b []byte) ([]byte, error) {
	if len(b) != 1 {
		return resultRefused, nil
	}
	if b[0] > layoutNewest {
		return nil, fmt.Errorf("%w: layout %d", errCommandVersion, b[0])
	}
	if b[0] <= a.layout {
		return resultDone, nil
	}
	return resultDone, a.changeLayout(b[0])
}

func (a *applier) changeLayout(to byte) error {
	if err := setLayout(a.tx, a.layout, to); err != nil {
		return err
	}
	a.layout = to
	a.tx.OnCommit(func() { a.m.layoutChanged(to) })
	return nil
}

// layoutChanged begins to keep the segments of single heads only, as they are moved.
func (m *Machine) layoutChanged(to byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.layout = to
	m.changed.Broadcast()
}

// move executes a command to move a segment. Whether it has an effect depends on the state alone, and
// the bytes on the documents alone, as long as all replicas' builds compress alike.
func (a *applier) move(b []byte) ([]byte, error) {
	c, err := decodeMove(b)
	if err != nil {
		return resultRefused, nil
	}
	if c.format > segment.Version {
		return nil, fmt.Errorf("%w: a segment of format %d", errCommandVersion, c.format)
	}
	if c.generation > 0 {
		// The last part comes with the records.
		if ok, err := a.rewrites(c); err != nil || !ok || a.moved || a.disposed || c.part+1 == c.parts {
			return resultRefused, err
		}
		return resultDone, a.moveRewritten(c)
	}
	sealing := c.first == a.m.moved && int(c.docs) == a.m.headDocuments && c.first+uint64(c.docs) <= a.before
	if a.layout < layoutSegments || a.moved || sealing && c.format != formatOf(a.layout) || !sealing && !a.m.merges(c) {
		return resultRefused, nil
	}
	if ok, err := a.continues(c); err != nil || !ok {
		return resultRefused, err
	}
	for {
		s, err := a.m.awaitFile(c)
		if err != nil {
			return nil, err
		}
		err = a.movePart(s, c)
		if s.note(err) == nil {
			return resultDone, s.release()
		}
		if err = errors.Join(err, s.release()); !errors.Is(err, segment.ErrCorrupt) {
			return nil, err
		}
		// It is built again, and then awaited.
		if err := a.m.dropMerged(s); err != nil {
			return nil, err
		}
	}
}

// continues tells whether a part follows the one before.
func (a *applier) continues(c moveCommand) (bool, error) {
	if c.part == 0 {
		return true, nil
	}
	v, err := a.tx.Get([]byte{tableSealing})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return false, nil
	}
	return string(v) == string(c.encode()), err
}

// movePart writes the rows of a part.
func (a *applier) movePart(s *sealed, c moveCommand) error {
	row := c.row(uint64(s.file.Size()), s.Digest())
	pieces := uint64(row.pieces())
	from, to := uint32(pieces*uint64(c.part)/uint64(c.parts)), uint32(pieces*uint64(c.part+1)/uint64(c.parts))
	last := c.part+1 == c.parts
	if c.part == 0 {
		if err := a.forgetParts(); err != nil {
			return err
		}
	}
	buf := make([]byte, pieceBytes)
	sum := segmentSum{size: row.size, hash: xxhash.New()}
	n := from
	if last {
		n = 0 // earlier parts too: this process may not have written them
	}
	for ; n < to; n++ {
		b := buf[:min(pieceBytes, row.size-uint64(n)*pieceBytes)]
		if _, err := s.file.ReadAt(b, int64(n)*pieceBytes); err != nil {
			return fmt.Errorf("index: move documents from %d on: %w", c.first, err)
		}
		sum.write(b)
		key := pieceKey(c.first, row.tag(), n)
		if n < from {
			// Equal, unless the node was restarted with a build that compresses otherwise.
			if v, err := a.tx.Get(key); err == nil && string(v) == string(b) {
				continue
			} else if err != nil && !errors.Is(err, raftfsm.ErrNotFound) {
				return err
			}
		}
		if err := a.tx.Set(key, b); err != nil {
			return err
		}
	}
	if !last {
		next := c
		next.part++
		return a.tx.Set([]byte{tableSealing}, next.encode())
	}
	if sum.hash.Sum64() != row.digest {
		return fmt.Errorf("%w: the file is not what was written", segment.ErrCorrupt)
	}
	if row.digest != c.digest {
		a.m.differing.Add(1)
	}
	a.moved = true
	return a.finishMove(s, row, c.first)
}

// forgetParts removes what an earlier leader began to move.
func (a *applier) forgetParts() error {
	v, err := a.tx.Get([]byte{tableSealing})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := decodeMove(v[min(2, len(v)):])
	if err != nil {
		return fmt.Errorf("index: the row of an unfinished move: %w", err)
	}
	tag := old.row(0, 0).tag()
	return a.tx.DeleteRange(pieceKey(old.first, tag, 0), pieceKey(old.first, tag+1, 0))
}

// segmentSum is the digest of a segment, which leaves out the footer.
type segmentSum struct {
	size uint64
	at   uint64
	hash hash.Hash64
}

func (s *segmentSum) write(b []byte) {
	end := min(s.at+uint64(len(b)), s.size-segment.FooterBytes)
	if end > s.at {
		s.hash.Write(b[:end-s.at])
	}
	s.at += uint64(len(b))
}

// finishMove makes the segment a part of the state.
func (a *applier) finishMove(s *sealed, row segmentRow, first uint64) error {
	end := first + uint64(row.docs)
	if row.generation > 0 {
		before, err := a.segmentRow(first)
		if err == nil {
			err = a.abandon(before, a.now)
		}
		if err != nil {
			return err
		}
	}
	if err := a.tx.Set(segmentKey(first), row.encode()); err != nil {
		return err
	}
	if err := a.tx.Delete([]byte{tableSealing}); err != nil {
		return err
	}
	s.hold()
	if row.generation > 0 {
		return a.forgetRewritten(s, row, first)
	}
	if first < a.m.moved {
		a.m.replaceRun()
		a.tx.OnCommit(func() { a.m.finishMerge(s, row, first) })
		return a.forgetMerged(row, first, end)
	}
	if err := a.tx.DeleteRange(documentKey(first), documentKey(end)); err != nil {
		return err
	}
	if err := a.tx.DeleteRange(batchKey(first), batchKey(end)); err != nil {
		return err
	}
	a.tx.OnCommit(func() { a.m.finishMove(s, row, first) })
	return nil
}

// finishMove reads the segment from its rows from now on. The file is needed no more: if the rows are
// lost with the power, so is the entry's mark, and the documents' rows are there again. What cannot
// be closed or removed is removed by the next Load.
func (m *Machine) finishMove(s *sealed, row segmentRow, first uint64) {
	_ = s.file.move(rowReaderAt{row: row, first: first, read: m.store.Read})
	_ = m.folder().Remove(s.name)
	m.mu.Lock()
	s.stored = true
	m.moved = first + uint64(row.docs)
	if m.damaged == s {
		m.damaged = nil
	}
	m.changed.Broadcast()
	m.mu.Unlock()
	_ = s.release()
}

// awaitFile waits until this node has built the segment that is to be moved, which is held. The sealer does not
// rest meanwhile.
func (m *Machine) awaitFile(c moveCommand) (*sealed, error) {
	wanted := func(s *sealed) bool {
		return s.Base() == c.first && s.width == uint64(c.docs) && s.Version() == c.format && !s.stored && m.damaged != s
	}
	m.hurry.Add(1)
	defer m.hurry.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if m.failed != nil {
			return nil, m.failed
		}
		if m.interrupted {
			return nil, raftfsm.ErrInterrupted
		}
		if s := m.merged; s != nil && wanted(s) {
			s.hold()
			return s, nil
		}
		for _, s := range m.segments {
			if wanted(s.sealed) {
				s.hold()
				return s.sealed, nil
			}
		}
		m.changed.Wait()
	}
}
