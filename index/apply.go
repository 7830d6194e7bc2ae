package index

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// idHash is a SHA-256 in the table of ids, cut to 128 bits, which do not collide.
type idHash [16]byte

// Apply stores the documents of the entry's commands and indexes them once they are
// committed.
func (m *Machine) Apply(tx *raftfsm.Tx, e raftfsm.Entry) ([][]byte, error) {
	if err := m.waitForSealer(); err != nil {
		return nil, err
	}
	if err := m.awaitWhole(); err != nil {
		return nil, err
	}
	before := m.docs // only Apply and Load write it, both on this goroutine
	ids, release := m.knownIDs()
	defer release()
	a := applier{tx: tx, m: m, layout: m.layout, wall: e.Wall, before: before, next: before, ids: ids, buffers: &m.buffers}
	a.reset()
	if err := a.writeMended(); err != nil {
		return nil, err
	}
	now := e.Time + m.clock.ahead
	a.now = now
	if err := a.mark(now); err != nil {
		return nil, err
	}
	results := make([][]byte, len(e.Commands))
	for i, c := range e.Commands {
		var err error
		if disposes(c) {
			continue
		}
		if results[i], err = a.execute(c); err != nil {
			return nil, err
		}
	}
	for i, c := range e.Commands {
		var err error
		if !disposes(c) {
			continue
		}
		if results[i], err = a.retention(c, now); err != nil {
			return nil, err
		}
	}
	m.now.Store(now)
	if a.next == before {
		return results, nil
	}
	if err := tx.Set([]byte{tableCount}, binary.BigEndian.AppendUint64(nil, a.next)); err != nil {
		return nil, err
	}
	tx.OnCommit(func() { m.publish(a.stored, a.rows) })
	return results, nil
}

// applier writes the documents of one entry.
type applier struct {
	tx     *raftfsm.Tx
	m      *Machine
	layout byte
	moved  bool // the entry has moved a segment
	// disposed says that the entry has begun or ended to dispose of something.
	disposed bool
	wall     int64
	// now is the entry's retention time.
	now    int64
	before uint64 // documents before the entry
	next   uint64 // number of the next document
	ids    knownIDs
	*buffers
}

// buffers are what one entry after the other is applied in.
type buffers struct {
	// stored are the entry's new documents, and rows what is stored of them, most of it in the entry.
	stored []Document
	rows   [][]byte
	// fresh maps hashes of the ids of this entry's documents to their place in stored. One whose place another
	// has is at the next number.
	fresh map[uint64]int
	// docs are the documents of a command; taken tells which of their ids some document may have.
	docs  []Document
	taken []bool

	arena      arena
	hashes     []uint64
	key, value []byte
}

func (b *buffers) reset() {
	clear(b.stored) // lets go of what they are made of
	clear(b.rows)
	clear(b.docs)
	b.stored, b.rows, b.docs = b.stored[:0], b.rows[:0], b.docs[:0]
	if b.fresh == nil {
		b.fresh = map[uint64]int{}
	}
	clear(b.fresh)
	b.arena.reset()
}

func (a *applier) execute(command []byte) (result []byte, err error) {
	if len(command) >= 2 && command[0] == commandVersion {
		switch command[1] {
		case commandLayout:
			return a.setLayout(command[2:])
		case commandMove:
			return a.move(command[2:])
		case commandCold:
			return a.cold(command[2:])
		}
	}
	return a.ingest(command)
}

func (a *applier) ingest(command []byte) (result []byte, err error) {
	docs, err := decodeCommand(command)
	if errors.Is(err, errCommand) {
		return resultRefused, nil // every replica refuses it alike
	}
	if err != nil {
		return nil, err // a newer build would execute it: going on would let replicas differ
	}
	a.decode(command, docs)
	a.mayBeTaken()
	outcomes := make([]outcome, len(docs))
	first, stored, whole := a.next, len(a.stored), true
	for i := range docs {
		if outcomes[i], err = a.document(i, docs[i]); err != nil {
			return nil, err
		}
		// A stamp makes it longer.
		whole = whole && outcomes[i] == outcomeIndexed && len(a.rows[len(a.rows)-1]) == len(docs[i])
	}
	if a.layout >= layoutBatches {
		if err := a.storeBatch(command, whole, a.rows[stored:], first); err != nil {
			return nil, err
		}
	}
	return encodeResult(outcomes), nil
}

// decode reads the documents of a command. One that cannot be read has no id.
func (a *applier) decode(command []byte, docs [][]byte) {
	a.docs = a.docs[:0]
	text := string(command) // the fields are parts of it
	a.arena.expect(len(text))
	at := len(commandHeader())
	for _, enc := range docs {
		_, width := binary.Uvarint(command[at:])
		at += width
		d, ok := a.arena.decode(text[at : at+len(enc)])
		if !ok || !indexable(&d) {
			d = Document{}
		}
		a.docs = append(a.docs, d)
		at += len(enc)
	}
}

// document decides about a document of the batch.
func (a *applier) document(i int, enc []byte) (outcome, error) {
	d := &a.docs[i]
	if d.ID == "" {
		return outcomeMalformed, nil
	}
	// One that another region stamped, or this one before, keeps that stamp.
	if d.TimeStamped && d.Time == 0 {
		d.Time = a.wall
		enc = AppendDocument(nil, d)
	}
	known, found, err := a.lookup(d, a.taken[i])
	switch {
	case err != nil:
		return 0, err
	case found && known == contentOf(d):
		return outcomeExisting, nil
	case found:
		return outcomeConflict, nil
	}
	return outcomeIndexed, a.store(enc, d)
}

// contentOf is the hash of what a document says.
func contentOf(d *Document) idHash {
	sum := ContentHash(d)
	return idHash(sum[:])
}

// store takes a document that is new, and writes its row unless those of the whole command are written.
func (a *applier) store(enc []byte, d *Document) error {
	_, slot := a.earlier(d)
	a.fresh[slot] = len(a.stored)
	if a.layout < layoutSegments {
		id, content := hashID(d.Tenant, d.ID), contentOf(d)
		a.key = append(append(a.key[:0], tableID), id[:]...)
		a.value = append(binary.BigEndian.AppendUint64(a.value[:0], a.next), content[:]...)
		if err := a.tx.Set(a.key, a.value); err != nil {
			return err
		}
	}
	if a.layout < layoutBatches {
		if err := a.tx.Set(documentKey(a.next), enc); err != nil {
			return err
		}
	}
	a.next++
	a.stored, a.rows = append(a.stored, *d), append(a.rows, enc)
	return nil
}

// indexable tells whether a document has what Normalize guarantees and the index relies on.
func indexable(d *Document) bool {
	if d.ID == "" || len(d.ID) > MaxIDBytes || d.Tenant == "" || len(d.Tenant) > MaxTenantBytes {
		return false
	}
	if d.Time < 0 || d.Time > maxTime {
		return false
	}
	for i := range d.Attributes {
		if strings.IndexByte(d.Attributes[i].Name, 0) >= 0 {
			return false
		}
	}
	return true
}

func hashID(tenant, id string) idHash {
	var buf [1 + MaxTenantBytes + MaxIDBytes]byte
	sum := sha256.Sum256(append(append(append(buf[:0], tenant...), 0), id...))
	return idHash(sum[:])
}

// lookup finds the content stored under an id; mayBe is false when no document of an earlier entry has it.
func (a *applier) lookup(d *Document, mayBe bool) (content idHash, found bool, err error) {
	if known, _ := a.earlier(d); known != nil {
		return contentOf(known), true, nil
	}
	if !mayBe {
		return content, false, nil
	}
	if a.layout >= layoutSegments {
		return a.m.taken(d)
	}
	id := hashID(d.Tenant, d.ID)
	a.key = append(append(a.key[:0], tableID), id[:]...)
	row, err := a.tx.Get(a.key)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return content, false, nil
	}
	if err == nil && len(row) != 8+len(content) {
		err = fmt.Errorf("index: the row of id %q is damaged", d.ID)
	}
	if err != nil {
		return content, false, err
	}
	return idHash(row[8:]), true, nil
}

// earlier is the document of this entry that has the id of d, or where it would be in fresh.
func (a *applier) earlier(d *Document) (known *Document, slot uint64) {
	for slot = maphash.String(headSeed, d.ID); ; slot++ {
		i, ok := a.fresh[slot]
		if !ok {
			return nil, slot
		}
		if known = &a.stored[i]; known.ID == d.ID && known.Tenant == d.Tenant {
			return known, slot
		}
	}
}

// knownIDs tells which ids no document has.
type knownIDs struct {
	heads    []*head
	segments []segmentSource
}

// knownIDs may be used until release, or until documents are published again.
func (m *Machine) knownIDs() (ids knownIDs, release func()) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.segments {
		s.hold()
	}
	ids = knownIDs{heads: append(slices.Clone(m.frozen), m.active), segments: m.segments}
	// A file that was read and cannot be closed changes no result.
	return ids, func() { _ = releaseAll(ids.segments) }
}

// mayBeTaken asks the index, which knows the ids of all documents of earlier entries, about those of the
// batch. Most ids are new, and reading a document to learn that is what would cost most of an apply. It asks
// for all ids at once, head by head and segment by segment: then the processor waits for the memory of several
// at the same time.
func (a *applier) mayBeTaken() {
	n := len(a.docs)
	a.taken, a.hashes = slices.Grow(a.taken[:0], n)[:n], slices.Grow(a.hashes[:0], n)[:n]
	clear(a.taken)
	for i := range a.docs {
		a.hashes[i] = maphash.String(headSeed, a.docs[i].ID)
	}
	for _, h := range a.ids.heads {
		g := h.byCode[groupID[0]]
		if g == nil {
			continue
		}
		for i := range a.docs {
			if g.mayHave(a.hashes[i]) {
				n, _ := g.probe([]byte(a.docs[i].ID), a.hashes[i])
				a.taken[i] = a.taken[i] || n > 0
			}
		}
	}
	for i := range a.docs {
		a.key = append(append(a.key[:0], groupID...), a.docs[i].ID...)
		a.hashes[i] = segment.TermHash(string(a.key))
	}
	for _, s := range a.ids.segments {
		for i := range a.docs {
			if s.MayContain(a.hashes[i]) && !a.taken[i] {
				// With many segments a filter is often wrong, and to look is cheaper than to read a document.
				p, err := s.Lookup(groupID + a.docs[i].ID)
				a.taken[i] = p.Len() > 0 || s.note(err) != nil
			}
		}
	}
}
