package index

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
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
	before := m.docs // only Apply and Load write it, both on this goroutine
	ids, release := m.knownIDs()
	defer release()
	a := applier{tx: tx, m: m, layout: m.layout, wall: e.Wall, before: before, next: before, row: m.row, ids: ids, fresh: map[documentID]int{}}
	now := e.Time + m.clock.ahead
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
	m.row = a.row[:0]
	if a.next == before {
		return results, nil
	}
	if err := tx.Set([]byte{tableCount}, binary.BigEndian.AppendUint64(nil, a.next)); err != nil {
		return nil, err
	}
	tx.OnCommit(func() { m.publish(a.stored) })
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
	before   uint64 // documents before the entry
	next     uint64 // number of the next document
	stored   []Document
	ids      knownIDs
	// fresh maps the ids of this entry's documents to their place in stored.
	fresh map[documentID]int

	row, key, value []byte
}

// documentID is what is taken once.
type documentID struct{ tenant, id string }

func (a *applier) execute(command []byte) (result []byte, err error) {
	if len(command) >= 2 && command[0] == commandVersion {
		switch command[1] {
		case commandLayout:
			return a.setLayout(command[2:])
		case commandMove:
			return a.move(command[2:])
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
	outcomes := make([]outcome, len(docs))
	for i, enc := range docs {
		if outcomes[i], err = a.document(enc); err != nil {
			return nil, err
		}
	}
	return encodeResult(outcomes), nil
}

func (a *applier) document(enc []byte) (outcome, error) {
	d, err := DecodeDocument(enc)
	if err != nil || !indexable(&d) {
		return outcomeMalformed, nil
	}
	// One that another region stamped, or this one before, keeps that stamp.
	if d.TimeStamped && d.Time == 0 {
		d.Time = a.wall
		a.row = AppendDocument(a.row[:0], &d)
		enc = a.row
	}
	known, found, err := a.lookup(&d)
	switch {
	case err != nil:
		return 0, err
	case found && known == contentOf(&d):
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

// store writes a document that is new.
func (a *applier) store(enc []byte, d Document) error {
	a.fresh[documentID{d.Tenant, d.ID}] = len(a.stored)
	if a.layout < layoutSegments {
		id, content := hashID(d.Tenant, d.ID), contentOf(&d)
		a.key = append(append(a.key[:0], tableID), id[:]...)
		a.value = append(binary.BigEndian.AppendUint64(a.value[:0], a.next), content[:]...)
		if err := a.tx.Set(a.key, a.value); err != nil {
			return err
		}
	}
	if err := a.tx.Set(documentKey(a.next), enc); err != nil {
		return err
	}
	a.next++
	a.stored = append(a.stored, d)
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

// lookup finds the content stored under an id. Most ids are new, and reading the store to
// learn that is what costs most of an apply; so it asks the index first, which knows the ids
// of all documents of earlier entries.
func (a *applier) lookup(d *Document) (content idHash, found bool, err error) {
	if i, ok := a.fresh[documentID{d.Tenant, d.ID}]; ok {
		return contentOf(&a.stored[i]), true, nil
	}
	a.key = append(append(a.key[:0], groupID...), d.ID...)
	if !a.ids.mayContain(a.key) {
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

// mayContain takes the term of an id, of whatever tenant.
func (k knownIDs) mayContain(term []byte) bool {
	for _, h := range k.heads {
		if g := h.byCode[term[0]]; g != nil {
			if _, ok := g.find(term[1:]); ok {
				return true
			}
		}
	}
	hash := segment.TermHash(string(term))
	for _, s := range k.segments {
		if !s.MayContain(hash) {
			continue
		}
		// With many segments a filter is often wrong, and to look is cheaper than to read the store.
		if p, err := s.Lookup(string(term)); p.Len() > 0 || s.note(err) != nil {
			return true
		}
	}
	return false
}
