package index

import (
	"errors"
	"slices"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// taken finds the content of the document that has the id of d, among those of earlier entries. That
// costs a read of the document, which only those pay for that are sent again. What is damaged is awaited until it is
// whole again.
func (m *Machine) taken(d *Document) (content idHash, found bool, err error) {
	for {
		ids, release := m.knownIDs()
		content, found, err = ids.content(d)
		release()
		if errors.Is(err, errReplaced) {
			continue // it was mended meanwhile
		}
		if !errors.Is(err, segment.ErrCorrupt) {
			return content, found, err
		}
		if waitErr := m.awaitRepair(); waitErr != nil {
			return content, found, errors.Join(waitErr, err)
		}
	}
}

// errNoDamage says that there is nothing to wait for.
var errNoDamage = errors.New("index: nothing is known to be damaged")

// awaitRepair waits until what is damaged is whole again.
func (m *Machine) awaitRepair() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	open := func() bool {
		return m.damaged != nil || slices.ContainsFunc(m.unsound, func(u *unsound) bool { return u.whole == nil })
	}
	if !open() && len(m.unsound) == 0 {
		return errNoDamage
	}
	for open() && m.failed == nil && !m.interrupted {
		m.changed.Wait()
	}
	if m.interrupted {
		return raftfsm.ErrInterrupted
	}
	return m.failed
}

// content is the content of the document with the id of d.
func (k knownIDs) content(d *Document) (content idHash, found bool, err error) {
	term := groupID + d.ID
	for _, h := range slices.Backward(k.heads) {
		if row := h.document(d); row != nil {
			return contentOfRow(row)
		}
	}
	hash := segment.TermHash(term)
	for _, s := range slices.Backward(k.segments) {
		if !s.MayContain(hash) {
			continue
		}
		p, err := s.Lookup(term)
		if err == nil && p.Len() == 0 {
			continue
		}
		if err == nil && s.cold.Load() {
			// Its documents are not at hand. Whether one has the id is, and then nothing new is stored.
			if found, err = s.hasOf(p, d.Tenant); err != nil {
				return content, false, s.note(err)
			}
			if found {
				return contentOf(d), true, nil
			}
			continue
		}
		var row []byte
		if err == nil {
			row, err = s.document(p, d.Tenant)
		}
		if err != nil {
			return content, false, s.note(err)
		}
		if row != nil {
			return contentOfRow(row)
		}
	}
	return content, false, nil
}

func contentOfRow(row []byte) (content idHash, found bool, err error) {
	d, err := DecodeDocument(row)
	if err != nil {
		return content, false, err
	}
	return contentOf(&d), true, nil
}

// document is the row of the document with the id and tenant of d; nil when there is none. Only the
// goroutine that adds to the head may call it.
func (h *head) document(d *Document) []byte {
	g := h.byCode[groupID[0]]
	if g == nil {
		return nil
	}
	n, ok := g.find(appendValue(nil, d.ID))
	if !ok {
		return nil
	}
	bm, err := headPosting{h, h.postings[n]}.Bitmap()
	if err != nil {
		return nil // a head's are never an error
	}
	for it := bm.Iterator(); it.HasNext(); {
		if local := it.Next(); h.docs[local].Tenant == d.Tenant {
			return h.rows.row(local)
		}
	}
	return nil
}

// document is the row of the tenant's document among those of an id; nil when there is none.
func (s *sealed) document(ids segment.Posting, tenant string) ([]byte, error) {
	bm, err := ids.Bitmap()
	if err != nil {
		return nil, err
	}
	r := rowReader{Reader: s.NewReader()}
	for it := bm.Iterator(); it.HasNext(); {
		local := it.Next()
		_, owner, err := identifyIn(r.Reader, local)
		if err != nil {
			return nil, err
		}
		if owner == tenant {
			return r.read(local)
		}
	}
	return nil, nil
}
