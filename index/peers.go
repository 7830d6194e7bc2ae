package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/wire"
)

// What replicas of a shard ask each other beside searches: for the bytes of a segment, which segments they have,
// and what they would dispose of. An older build refuses it as a query of another version.

// Peers are the other replicas of a shard.
type Peers interface {
	// Others names the members that have them.
	Others() []string
	// Ask has a member's replica answer a query, however far that has come.
	Ask(ctx context.Context, member string, query []byte) ([]byte, error)
}

// wirePeer is the version of these questions; those of searches have wireVersion.
const wirePeer = 2

const (
	peerBytes    = 1 // segment, offset, length -> bytes
	peerSegments = 2 // -> first document and row of each segment
	peerPending  = 3 // disposal of a segment, proof -> verdict
	peerHead     = 4 // disposal of the head, proof -> verdict
	peerObject   = 5 // cold row of a segment that is not cold yet -> 1 when this replica can read the object
)

// peerBytesMax is how much of a segment is asked for at once.
const peerBytesMax = 512 << 10

var errPeer = errors.New("index: malformed question of another replica")

// answerPeer answers another replica.
func (m *Machine) answerPeer(b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, errPeer
	}
	r := wire.NewReader(b[2:])
	switch b[1] {
	case peerBytes:
		first, row, err := readIdentity(r)
		at, n := r.Uvarint(1<<40), r.Uvarint(peerBytesMax)
		if err != nil || r.Done() != nil {
			return nil, errPeer
		}
		return m.bytesOf(first, row, int64(at), int(n))
	case peerSegments:
		if r.Done() != nil {
			return nil, errPeer
		}
		return m.directory()
	case peerPending, peerHead:
		return m.verdict(b[1], r)
	case peerObject:
		first, row, err := readIdentity(r)
		if err != nil || r.Done() != nil {
			return nil, errPeer
		}
		return []byte{1}, m.readsObject(first, row)
	}
	return nil, fmt.Errorf("%w: kind %d", errPeer, b[1])
}

// appendIdentity names a segment and its bytes.
func appendIdentity(b []byte, first uint64, row segmentRow) []byte {
	return wire.AppendString(binary.AppendUvarint(b, first), string(row.encode()))
}

func readIdentity(r *wire.Reader) (first uint64, row segmentRow, err error) {
	first = r.Uvarint(1 << 62)
	row, err = decodeSegmentRow(r.Bytes(segmentRowMax))
	return first, row, err
}

// bytesOf is a part of a segment of the state, unless this replica has another one there.
func (m *Machine) bytesOf(first uint64, row segmentRow, at int64, n int) ([]byte, error) {
	m.mu.RLock()
	s := m.storedAt(first)
	if s == nil || s.width != uint64(row.docs) || s.Digest() != row.digest || s.file.Size() != int64(row.size) {
		m.mu.RUnlock()
		return nil, fmt.Errorf("index: this replica has no such segment of the documents from %d on", first)
	}
	s.hold()
	m.mu.RUnlock()
	defer func() { _ = s.release() }() // what was read and cannot be closed changes nothing
	b := make([]byte, min(int64(n), max(0, s.file.Size()-at)))
	if _, err := s.file.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, s.note(err)
	}
	return b, nil
}

// directory is which segments the state has.
func (m *Machine) directory() (b []byte, err error) {
	err = eachRow(m.store, []byte{tableSegment}, []byte{tableSegment + 1}, func(key, value []byte) error {
		b = wire.AppendString(append(b, key[1:]...), string(value))
		return nil
	})
	return b, err
}

// segmentsOf asks a member which segments it has.
func segmentsOf(ctx context.Context, p Peers, member string) (map[uint64]segmentRow, error) {
	b, err := p.Ask(ctx, member, []byte{wirePeer, peerSegments})
	if err != nil {
		return nil, err
	}
	all := map[uint64]segmentRow{}
	for r := wire.NewReader(b); r.More(); {
		first := binary.BigEndian.Uint64(r.Fixed(8))
		row, err := decodeSegmentRow(r.Bytes(segmentRowMax))
		if err != nil || r.Failed() {
			return nil, errors.Join(errWire, err)
		}
		all[first] = row
	}
	return all, nil
}

// copySegment writes the bytes that a member has of a segment.
func copySegment(ctx context.Context, p Peers, member string, first uint64, row segmentRow, w io.Writer, rest func()) error {
	for at := uint64(0); at < row.size; {
		n := min(peerBytesMax, row.size-at)
		q := appendIdentity([]byte{wirePeer, peerBytes}, first, row)
		b, err := p.Ask(ctx, member, binary.AppendUvarint(binary.AppendUvarint(q, at), n))
		if err != nil {
			return err
		}
		if uint64(len(b)) != n {
			return fmt.Errorf("%w: it is shorter at %s", segment.ErrCorrupt, member)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		at += n
		rest()
	}
	return nil
}
