package index

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// The log disposes of documents. Those of the active head go in one entry. For a segment, begin says by
// which rules; every replica then computes what goes, and writes what is left into a file, in the background; finish has
// that replace the segment, and stores the records, in one entry. So a document is found on all replicas, or
// on none, at the same index.
const (
	retentionMark   = 1 // write down what has arrived by now
	retentionBegin  = 2
	retentionCancel = 3
	retentionFinish = 4
	retentionHead   = 5
)

// tablePending is what the state wants disposed of.
const tablePending = 'r' // -> pendingDisposal

// pendingDisposal is a segment of which something is to go.
type pendingDisposal struct {
	first  uint64
	policy boundPolicy
}

func (p *pendingDisposal) encode() []byte {
	return p.policy.append(binary.AppendUvarint([]byte{1}, p.first))
}

// id tells it from others, of the same segment too.
func (p *pendingDisposal) id() uint64 { return xxhash.Sum64(p.encode()) }

func decodePending(b []byte) (*pendingDisposal, error) {
	r := wire.NewReader(b)
	version := r.Byte(1)
	p := &pendingDisposal{first: r.Uvarint(1 << 62), policy: readBoundPolicy(r)}
	if err := r.Done(); err != nil || version != 1 {
		return nil, errors.New("index: the row of a disposal is damaged, or newer than this build")
	}
	return p, nil
}

// loadPending reads it, with its bounds; nil when there is none.
func loadPending(store *raftfsm.Store) (*pendingDisposal, error) {
	v, err := store.Get([]byte{tablePending})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := decodePending(v)
	if err == nil {
		_, err = p.policy.number(store)
	}
	return p, err
}

// proof is what the leader adds to a disposal: it has signed the records that every replica makes itself, so
// that these need not travel. sum tells a replica that its own are others before anything is written: such a
// replica stops. So a command also says what its leader has seen, and one that comes late, when another has been
// before it, is refused by all.
type proof struct {
	by         recordedBy
	sum        [32]byte
	signatures [][]byte
}

func (p *proof) append(b []byte) []byte {
	b = wire.AppendString(wire.AppendString(b, p.by.region), p.by.shard)
	b = binary.AppendUvarint(b, uint64(p.by.at))
	b = append(append(b, p.by.key...), p.sum[:]...)
	b = binary.AppendUvarint(b, uint64(len(p.signatures)))
	for _, s := range p.signatures {
		b = append(b, s...)
	}
	return b
}

func readProof(r *wire.Reader) proof {
	p := proof{by: recordedBy{region: r.String(MaxTextBytes), shard: r.String(MaxTextBytes), at: int64(r.Uvarint(uint64(maxTime)))}}
	p.by.key = slices.Clone(r.Fixed(ed25519.PublicKeySize))
	p.sum = [32]byte(r.Fixed(32))
	for n := r.Count(disposedTenantsMax); n > 0 && !r.Failed(); n-- {
		p.signatures = append(p.signatures, r.Fixed(ed25519.SignatureSize))
	}
	return p
}

func retentionHeader(op byte) []byte { return []byte{commandVersion, commandRetention, op} }

func encodeBegin(p *pendingDisposal) []byte {
	return p.policy.append(binary.AppendUvarint(retentionHeader(retentionBegin), p.first))
}

func encodeCancel(first uint64) []byte {
	return binary.AppendUvarint(retentionHeader(retentionCancel), first)
}

// encodeFinish has the last part of the move of what is left; nil when nothing is.
func encodeFinish(pending *pendingDisposal, p *proof, move []byte) []byte {
	b := p.append(binary.BigEndian.AppendUint64(retentionHeader(retentionFinish), pending.id()))
	return wire.AppendString(b, string(move))
}

// encodeHead names the head as the leader has seen it.
func encodeHead(seen *disposal, policy *boundPolicy, p *proof) []byte {
	b := binary.AppendUvarint(binary.AppendUvarint(retentionHeader(retentionHead), seen.first), uint64(seen.gaps))
	return p.append(policy.append(b))
}

// disposes tells whether a command is executed behind the others of its entry: what these
// find must not depend on it, since it takes effect when the entry is committed.
func disposes(command []byte) bool {
	return len(command) >= 3 && command[0] == commandVersion && command[1] == commandRetention
}

// retention executes a command of retention. now is the entry's retention time.
func (a *applier) retention(command []byte, now int64) ([]byte, error) {
	op, r := command[2], wire.NewReader(command[3:])
	if op > retentionHead {
		return nil, fmt.Errorf("%w: operation %d of retention", errCommandVersion, op)
	}
	if a.layout < layoutRetention {
		return resultRefused, nil
	}
	ok, err := false, error(nil)
	switch op {
	case retentionMark:
		ok = r.Done() == nil
	case retentionBegin:
		p := &pendingDisposal{first: r.Uvarint(1 << 62), policy: readBoundPolicy(r)}
		if r.Done() == nil {
			ok, err = a.beginDisposal(p, now)
		}
	case retentionCancel:
		first := r.Uvarint(1 << 62)
		if p := a.m.pending; r.Done() == nil && p != nil && p.first == first && !a.disposed {
			ok, err = true, a.tx.Delete([]byte{tablePending})
			a.disposed = true
			a.tx.OnCommit(func() { a.m.finishDisposal(nil) })
		}
	case retentionFinish:
		id, p, move := binary.BigEndian.Uint64(r.Fixed(8)), readProof(r), r.Bytes(64)
		if r.Done() == nil {
			ok, err = a.finishDisposal(id, &p, move)
		}
	case retentionHead:
		base, gaps := r.Uvarint(1<<62), r.Uvarint(segment.DocumentsMax)
		policy, p := readBoundPolicy(r), readProof(r)
		if h := a.m.active; r.Done() == nil && policy.allowed(now) && h.base == base && uint64(h.gaps()) == gaps {
			ok, err = a.disposeOfHead(&policy, &p)
		}
	}
	if err != nil || ok {
		return resultDone, err
	}
	return resultRefused, nil
}

// beginDisposal decides by the state alone. Merges wait until it is finished: they are of the same segments.
func (a *applier) beginDisposal(p *pendingDisposal, now int64) (bool, error) {
	a.m.mu.RLock()
	busy := a.m.pending != nil || a.m.mergeRun() != nil || a.m.storedAt(p.first) == nil
	a.m.mu.RUnlock()
	if busy || a.moved || a.disposed || !p.policy.allowed(now) {
		return false, nil
	}
	most, err := p.policy.number(a.tx)
	if err != nil || most <= p.first {
		return false, err
	}
	a.disposed = true
	a.tx.OnCommit(func() { a.m.beginDisposal(p) })
	return true, a.tx.Set([]byte{tablePending}, p.encode())
}

func (m *Machine) beginDisposal(p *pendingDisposal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = p
	m.changed.Broadcast()
}

// errOtherSum means that this replica is damaged, since most others agree with the leader.
var errOtherSum = errors.New("index: other documents have expired here than at the leader and most replicas")

// proven stores the records of a disposal if they are what the leader has signed.
func (a *applier) proven(d *disposal, version uint64, p *proof) (bool, error) {
	payloads, err := d.payloads(p.by, version)
	if err != nil {
		return false, err
	}
	if sumOf(payloads) != p.sum || len(payloads) != len(p.signatures) {
		return false, fmt.Errorf("%w: documents %d to %d", errOtherSum, d.first, d.end)
	}
	for i := range payloads {
		if !disposition.Fits(p.by.key, payloads[i], p.signatures[i]) {
			return false, nil
		}
	}
	a.tx.OnCommit(func() { a.m.gone.Add(d.documents.GetCardinality()) })
	return true, a.storeRecords(d.records(p.by, version, payloads, p.signatures))
}

// recordsBytes is from how many bytes on a batch of records takes no more of them. Replicas must agree on it.
const recordsBytes = 16 << 10

func (a *applier) storeRecords(records []Document) error {
	for len(records) > 0 {
		first, stored := a.next, len(a.stored)
		for size := 0; len(records) > 0 && size < recordsBytes; records = records[1:] {
			enc := AppendDocument(nil, &records[0])
			size += len(enc)
			if err := a.store(enc, &records[0]); err != nil {
				return err
			}
		}
		if err := a.storeBatch(nil, false, a.rows[stored:], first); err != nil {
			return err
		}
	}
	return nil
}

// finishDisposal replaces a segment by what is left of it.
func (a *applier) finishDisposal(id uint64, p *proof, move []byte) (bool, error) {
	pending := a.m.pending
	if pending == nil || pending.id() != id || a.moved || a.disposed {
		return false, nil
	}
	first := pending.first
	d, err := a.m.awaitDisposal()
	if err != nil {
		return false, err
	}
	if len(d.lines) == 0 || (d.file == nil) != (len(move) == 0) {
		return false, nil // the leader cancels what has no effect
	}
	var c moveCommand
	if len(move) > 0 {
		if c, err = decodeMove(move[min(2, len(move)):]); err != nil || c.first != first || c.part+1 != c.parts {
			return false, nil
		}
		if ok, err := a.rewrites(c); err != nil || !ok {
			return false, err
		}
	}
	ok, err := a.proven(d, pending.policy.version, p)
	if errors.Is(err, errOtherSum) {
		if again, waitErr := a.recheck(d); waitErr != nil {
			return false, waitErr
		} else if again {
			return a.finishDisposal(id, p, move)
		}
	}
	if err != nil || !ok {
		return false, err
	}
	a.disposed = true
	if err := a.tx.Delete([]byte{tablePending}); err != nil {
		return false, err
	}
	if d.file != nil {
		return true, a.moveRewritten(c)
	}
	a.moved = true
	return true, a.dropSegment(first)
}

// rewrites tells whether a command moves what is left of the segment that the state wants disposed of.
func (a *applier) rewrites(c moveCommand) (bool, error) {
	a.m.mu.RLock()
	p, old := a.m.pending, a.m.storedAt(c.first)
	a.m.mu.RUnlock()
	if p == nil || p.first != c.first || old == nil || c.format != old.Version() {
		return false, nil
	}
	row, err := a.segmentRow(c.first)
	if err != nil || c.docs != row.docs || c.generation != row.next() {
		return false, err
	}
	return a.continues(c)
}

func (a *applier) segmentRow(first uint64) (segmentRow, error) {
	v, err := a.tx.Get(segmentKey(first))
	if err != nil {
		return segmentRow{}, err
	}
	return decodeSegmentRow(v)
}

// moveRewritten writes a part of what is left of a segment.
func (a *applier) moveRewritten(c moveCommand) error {
	for {
		d, err := a.m.awaitDisposal()
		if err != nil {
			return err
		}
		s := d.file
		s.hold()
		err = a.movePart(s, c)
		if err = errors.Join(err, s.release()); !errors.Is(err, segment.ErrCorrupt) {
			return err
		}
		if err := a.m.dropRewritten(d); err != nil { // it is written again
			return err
		}
	}
}

// dropRewritten lets go of a file that is damaged.
func (m *Machine) dropRewritten(d *disposal) error {
	m.mu.Lock()
	m.disposal = nil
	m.changed.Broadcast()
	m.mu.Unlock()
	return m.discardRewritten(d)
}

// forgetRewritten removes the rows of what is replaced, and has who finds them missing begin anew.
func (a *applier) forgetRewritten(s *sealed, row segmentRow, first uint64) error {
	old, err := a.oldSegment(first)
	if err != nil {
		return err
	}
	if err := a.tx.DeleteRange(pieceKey(first, 0, 0), pieceKey(first, row.tag(), 0)); err != nil {
		return err
	}
	a.tx.OnCommit(func() {
		_ = s.file.move(rowReaderAt{row: row, first: first, read: a.m.store.Read}) // as in finishMove
		_ = a.m.folder().Remove(s.name)
		a.m.finishDisposal(func(at int) []segmentSource {
			s.stored = true
			return slices.Concat(a.m.segments[:at], []segmentSource{{s}}, a.m.segments[at+1:])
		})
		_ = errors.Join(old.release(), s.release())
	})
	return a.tx.DeleteRange(pieceKey(first, row.tag()+1, 0), pieceKey(first+1, 0, 0))
}

// dropSegment removes a segment of which nothing is left; its numbers stay taken.
func (a *applier) dropSegment(first uint64) error {
	row, err := a.segmentRow(first)
	if err != nil {
		return err
	}
	old, err := a.oldSegment(first)
	if err != nil {
		return err
	}
	a.tx.OnCommit(func() {
		a.m.finishDisposal(func(at int) []segmentSource {
			return slices.Concat(a.m.segments[:at], a.m.segments[at+1:])
		})
		_ = old.release() // what was read and cannot be closed changes nothing
	})
	if err := a.abandon(row, a.now); err != nil {
		return err
	}
	row = segmentRow{docs: row.docs, generation: row.next()}
	if err := a.tx.Set(segmentKey(first), row.encode()); err != nil {
		return err
	}
	return a.tx.DeleteRange(pieceKey(first, 0, 0), pieceKey(first+1, 0, 0))
}

// oldSegment is what is replaced.
func (a *applier) oldSegment(first uint64) (*sealed, error) {
	a.m.mu.RLock()
	defer a.m.mu.RUnlock()
	old := a.m.storedAt(first)
	if old == nil {
		return nil, fmt.Errorf("index: there is no segment of documents from %d on", first)
	}
	old.replaced.Store(true)
	return old, nil
}

// finishDisposal ends the pending disposal; list, unless it is nil, makes the segments of those
// there are and the place of the one that is disposed of.
func (m *Machine) finishDisposal(list func(at int) []segmentSource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if list != nil {
		at := slices.IndexFunc(m.segments, func(s segmentSource) bool { return s.Base() == m.pending.first })
		m.forgetDoubts(m.pending.first, m.segments[at].Base()+m.segments[at].width)
		m.segments = list(at)
	} else if d := m.disposal; d != nil {
		_ = m.discardRewritten(d) // Load removes what is left over
	}
	m.pending, m.disposal, m.delayed = nil, nil, nil
	m.changed.Broadcast()
}

// disposeOfHead disposes of documents that are not sealed: their places stay in the rows, without content, until
// the segment of their head has the gaps. It has no effect while a head is being sealed.
func (a *applier) disposeOfHead(policy *boundPolicy, p *proof) (bool, error) {
	m := a.m
	if a.disposed || a.moved || a.next-m.moved >= uint64(m.headDocuments) {
		return false, nil
	}
	d, err := m.expiredInHead(policy, a.tx)
	if err != nil || len(d.lines) == 0 {
		return false, err
	}
	if ok, err := a.proven(d, policy.version, p); err != nil || !ok {
		return false, err
	}
	fresh, err := m.active.without(d)
	if err != nil {
		return false, err
	}
	var numbers []uint64
	for it := d.documents.Iterator(); it.HasNext(); {
		numbers = append(numbers, m.active.base+uint64(m.active.number(it.Next())))
	}
	if err := a.emptyRows(numbers); err != nil {
		return false, err
	}
	a.disposed = true
	a.tx.OnCommit(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.active = fresh
	})
	return true, nil
}

// expiredInHead is what a policy does not keep of the active head.
func (m *Machine) expiredInHead(policy *boundPolicy, s iterating) (*disposal, error) {
	if _, err := policy.number(s); err != nil {
		return nil, err
	}
	m.mu.RLock()
	h := m.active
	m.mu.RUnlock()
	h.mu.RLock()
	defer h.mu.RUnlock()
	d, err := policy.expired(disposableHead{headLeaves{h}}, func() error { return nil })
	if err != nil {
		return nil, err
	}
	d.first, d.end, d.gaps = h.base, h.base, h.gaps()
	if len(d.lines) > 0 {
		d.end += uint64(h.number(d.documents.Maximum())) + 1
	}
	return d, nil
}

// without is a head without documents that were disposed of.
func (h *head) without(d *disposal) (*head, error) {
	fresh := newHead(h.base)
	local := uint32(0)
	chunk, rows := make([]Document, 0, rebuildChunk), make([][]byte, 0, rebuildChunk)
	for n := range h.span {
		var doc Document
		var row []byte
		if int(local) < len(h.docs) && h.number(local) == n {
			if !d.documents.Contains(local) {
				var err error
				row = h.rows.row(local)
				if doc, err = DecodeDocument(row); err != nil {
					return nil, err
				}
			}
			local++
		}
		if chunk, rows = append(chunk, doc), append(rows, row); len(chunk) == rebuildChunk {
			fresh.add(chunk, rows)
			chunk, rows = chunk[:0], rows[:0]
		}
	}
	fresh.add(chunk, rows)
	return fresh, nil
}
