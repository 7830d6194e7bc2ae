package index

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// KindDisposition is the kind of the records of what retention has disposed of. Nobody can ingest one.
const KindDisposition = "disposition"

// Attributes of such a record: its payload, the signature in base64, and the name of the key.
const (
	AttributeRecord    = "record"
	AttributeSignature = "signature"
	AttributeKey       = "key"
)

// disposedTenantsMax bounds the tenants of one step, since each gets a record; others have theirs in the next.
const disposedTenantsMax = 3000

// disposedLine is the expired documents of a tenant and kind.
type disposedLine struct {
	tenant string
	kind   string
	rule   *boundRule
	count  uint64
	newest int64
	oldest int64
	ids    string
}

// disposal is what goes of a head or a segment.
type disposal struct {
	first, end uint64 // numbers
	lines      []disposedLine
	documents  *roaring.Bitmap
	gaps       uint32 // of the head before
	// file is what is left of a segment; nil when nothing is.
	file *sealed
}

// disposable is a head or a segment to dispose of documents of.
type disposable interface {
	leaves
	// tenants are all there are, in order.
	tenants() ([]string, error)
	// arrived is those of bm with a number below bound.
	arrived(bound uint64, bm *roaring.Bitmap) (*roaring.Bitmap, error)
	// read visits documents, newest first.
	read(bm *roaring.Bitmap, visit func(time int64, id []byte) error) error
}

// parts finds what a policy, whose bounds are known, does not keep any longer, by kind.
func (p *boundPolicy) parts(d disposable) (map[string][]expiredPart, error) {
	parts := map[string][]expiredPart{}
	named := p.tenants()
	for _, kind := range RetentionKinds {
		all, err := bitmapOf(d, groupKind, kind)
		if err != nil {
			return nil, err
		}
		rest := all // of tenants that no rule names
		for _, tenant := range named {
			own, err := bitmapOf(d, groupTenant, tenant)
			if err != nil {
				return nil, err
			}
			if own.IsEmpty() {
				continue
			}
			if err := addPart(d, parts, kind, p.rule(tenant, kind), roaring.And(all, own)); err != nil {
				return nil, err
			}
			rest = roaring.AndNot(rest, own)
		}
		if err := addPart(d, parts, kind, p.rule("", kind), rest); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// anyExpired tells whether there is anything.
func (p *boundPolicy) anyExpired(d disposable) (bool, error) {
	parts, err := p.parts(d)
	return len(parts) > 0, err
}

// expired sums up what goes.
func (p *boundPolicy) expired(d disposable, step func() error) (*disposal, error) {
	parts, err := p.parts(d)
	if err != nil {
		return nil, err
	}
	out := &disposal{documents: roaring.New()}
	if len(parts) == 0 {
		return out, nil
	}
	tenants, err := d.tenants()
	if err != nil {
		return nil, err
	}
	found := 0
	for _, tenant := range tenants {
		own, err := bitmapOf(d, groupTenant, tenant)
		if err != nil {
			return nil, err
		}
		before := len(out.lines)
		for _, kind := range RetentionKinds {
			for _, part := range parts[kind] {
				if err := out.add(d, tenant, kind, part.rule, roaring.And(part.documents, own), step); err != nil {
					return nil, err
				}
			}
		}
		if len(out.lines) == before {
			continue
		}
		if found++; found == disposedTenantsMax {
			break
		}
	}
	return out, nil
}

// expiredPart is expired documents of one rule.
type expiredPart struct {
	rule      *boundRule
	documents *roaring.Bitmap
}

func addPart(d disposable, parts map[string][]expiredPart, kind string, rule *boundRule, bm *roaring.Bitmap) error {
	if rule == nil || rule.bound == 0 || bm.IsEmpty() {
		return nil
	}
	bm, err := d.arrived(rule.bound, bm)
	if err == nil && !bm.IsEmpty() {
		parts[kind] = append(parts[kind], expiredPart{rule, bm})
	}
	return err
}

// add notes the documents of a tenant and kind.
func (o *disposal) add(d disposable, tenant, kind string, rule *boundRule, bm *roaring.Bitmap, step func() error) error {
	if bm.IsEmpty() {
		return nil
	}
	line := disposedLine{tenant: tenant, kind: kind, rule: rule, count: bm.GetCardinality(), oldest: maxTime}
	ids := disposition.NewIDs()
	err := d.read(bm, func(t int64, id []byte) error {
		line.newest, line.oldest = max(line.newest, t), min(line.oldest, t)
		ids.Add(id)
		return step()
	})
	line.ids = ids.String()
	o.lines = append(o.lines, line)
	o.documents.Or(bm)
	return err
}

func bitmapOf(l leaves, group, value string) (*roaring.Bitmap, error) {
	p, err := l.lookup(newTerm(group, string(appendValue(nil, value))))
	if err != nil {
		return nil, err
	}
	return p.Bitmap()
}

// recordedBy is who disposes of something, when, and with which key.
type recordedBy struct {
	region, shard string
	at            int64 // wall time
	key           ed25519.PublicKey
}

// payloads are the records that are to be signed, one for each tenant.
func (o *disposal) payloads(by recordedBy, version uint64) (all [][]byte, err error) {
	for lines := o.lines; len(lines) > 0; {
		n := 1
		for n < len(lines) && lines[n].tenant == lines[0].tenant {
			n++
		}
		r := disposition.Record{
			Type: disposition.Type, Region: by.region, Shard: by.shard, First: o.first, End: o.end, Tenant: lines[0].tenant,
			PolicyVersion: version, DisposedAt: disposition.Time(by.at),
		}
		for _, l := range lines[:n] {
			r.Lines = append(r.Lines, disposition.Line{
				Kind: l.kind, Rule: l.rule.Name(), Age: l.rule.Age.String(), ArrivedBefore: disposition.Time(l.rule.wall), Count: l.count,
				Oldest: disposition.Time(l.oldest), Newest: disposition.Time(l.newest), IDs: l.ids,
			})
		}
		payload, err := r.Encode()
		if err != nil {
			return nil, err
		}
		all, lines = append(all, payload), lines[n:]
	}
	return all, nil
}

// sumOf identifies payloads.
func sumOf(payloads [][]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range payloads {
		_, _ = fmt.Fprintf(h, "%d ", len(p)) // a hash never fails
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// records are the documents of signed payloads.
func (o *disposal) records(by recordedBy, version uint64, payloads, signatures [][]byte) []Document {
	var out []Document
	lines := o.lines
	for i, payload := range payloads {
		d := Document{Kind: KindDisposition, Tenant: lines[0].tenant, Region: by.region, Time: by.at, Decision: "disposed"}
		var counts []string
		for len(lines) > 0 && lines[0].tenant == d.Tenant {
			l := lines[0]
			counts = append(counts, strconv.FormatUint(l.count, 10)+" "+l.kind+" by "+l.rule.Name())
			d.Digests = append(d.Digests, Digest{Algorithm: "sha256", Value: strings.TrimPrefix(l.ids, "sha256:"), Direction: DirectionSubject, Name: l.kind})
			lines = lines[1:]
		}
		d.Reason = "retention, policy version " + strconv.FormatUint(version, 10) + ": " + strings.Join(counts, ", ")
		d.Attributes = []Attribute{
			{AttributeKey, disposition.KeyID(by.key)},
			{AttributeRecord, string(payload)},
			{AttributeSignature, base64.StdEncoding.EncodeToString(signatures[i])},
		}
		sum := sha256.Sum256(payload)
		d.ID = "disposition-" + hex.EncodeToString(sum[:16])
		out = append(out, d)
	}
	return out
}

// disposableHead is the active head; the caller holds its lock.
type disposableHead struct{ headLeaves }

func (d disposableHead) tenants() (all []string, err error) {
	g := d.h.groups[groupTenant]
	if g == nil {
		return nil, nil
	}
	g.prefixed("", func(v string) bool {
		all = append(all, v)
		return true
	})
	slices.Sort(all)
	return all, nil
}

func (d disposableHead) arrived(bound uint64, bm *roaring.Bitmap) (*roaring.Bitmap, error) {
	if bound <= d.h.base {
		return roaring.New(), nil
	}
	return roaring.And(bm, interval(0, d.h.below(bound-d.h.base))), nil
}

func (d disposableHead) read(bm *roaring.Bitmap, visit func(time int64, id []byte) error) error {
	locals := bm.ToArray()
	slices.SortFunc(locals, func(a, b uint32) int { return segment.Compare(&d.h.docs[a], &d.h.docs[b]) })
	for _, l := range locals {
		if err := visit(d.h.docs[l].Time, []byte(d.h.docs[l].ID)); err != nil {
			return err
		}
	}
	return nil
}

// disposableSegment is a segment of the state.
type disposableSegment struct {
	segmentLeaves
	sealed *sealed
}

func (d disposableSegment) tenants() (all []string, err error) {
	err = d.s.Prefix(groupTenant, func(term string, _ segment.Posting) bool {
		all = append(all, term[len(groupTenant):])
		return true
	})
	return all, err
}

func (d disposableSegment) arrived(bound uint64, bm *roaring.Bitmap) (*roaring.Bitmap, error) {
	switch base := d.s.Base(); {
	case bound <= base:
		return roaring.New(), nil
	case bound >= base+d.sealed.width:
		return bm, nil
	default:
		return d.s.Arrived(0, uint32(bound-base), bm)
	}
}

func (d disposableSegment) read(bm *roaring.Bitmap, visit func(time int64, id []byte) error) error {
	r := d.s.NewReader()
	for it := bm.Iterator(); it.HasNext(); {
		local := it.Next()
		t, _, err := r.Place(local)
		if err != nil {
			return err
		}
		id, err := r.Text(local, 0)
		if err != nil {
			return err
		}
		if err := visit(t, []byte(id)); err != nil {
			return err
		}
	}
	return nil
}

// rewrittenName is the file of what is left of a segment. It is not a segment's: after a loss of power the
// documents may be there again.
func rewrittenName(first uint64) string { return fmt.Sprintf("%016x.rewritten", first) }

// dispose computes, in the background, what is left of the segment that the state wants disposed of, until the
// machine stops. Load starts it.
func (m *Machine) dispose(ctx context.Context) {
	defer m.workers.Done()
	for {
		p, s := m.nextDisposal()
		if p == nil {
			return
		}
		d, err := m.rewrite(p, s)
		_ = s.note(err)
		away := false
		m.mu.Lock()
		switch {
		case errors.Is(err, errStopping):
		case isAway(err):
			away, m.delayed = true, err
			err = m.discardRewritten(d)
		case s.replaced.Load() && m.pending == p || errors.Is(err, segment.ErrCorrupt): // it is, or will be, mended
			err = m.discardRewritten(d)
		case m.pending != p: // it was cancelled
			err = m.discardRewritten(d)
		case err == nil:
			m.disposal, m.delayed = d, nil
		}
		if err != nil && !errors.Is(err, errStopping) {
			m.failed = err
		}
		m.changed.Broadcast()
		m.mu.Unlock()
		// A file that was read and cannot be closed changes no result.
		_ = s.release()
		if away {
			pause(ctx, awayPause) // until its object can be read again
		}
	}
}

// nextDisposal waits for a segment to be disposed of, which is held; it is nil when the machine stops.
func (m *Machine) nextDisposal() (*pendingDisposal, *sealed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.stopping {
		if p := m.pending; p != nil && m.disposal == nil && m.failed == nil {
			if s := m.storedAt(p.first); s != nil && m.isMended(p.first) {
				s.hold()
				return p, s
			}
		}
		m.changed.Wait()
	}
	return nil, nil
}

// isMended is false while a segment waits to be mended; the caller holds mu.
func (m *Machine) isMended(first uint64) bool {
	u := m.doubted(first)
	return u == nil || u.whole != nil
}

// storedAt is the segment of the state that begins there; the caller holds mu.
func (m *Machine) storedAt(first uint64) *sealed {
	i, found := slices.BinarySearchFunc(m.segments, first, func(s segmentSource, first uint64) int {
		switch {
		case s.Base() < first:
			return -1
		case s.Base() > first:
			return 1
		}
		return 0
	})
	if !found || !m.segments[i].stored {
		return nil
	}
	return m.segments[i].sealed
}

// rewrite finds what is expired in a segment, and writes a file of the rest.
func (m *Machine) rewrite(p *pendingDisposal, s *sealed) (*disposal, error) {
	rest := m.unhurried()
	steps := 0
	step := func() error {
		if steps++; steps%rebuildChunk != 0 {
			return nil
		}
		if m.isStopping() {
			return errStopping
		}
		rest()
		return nil
	}
	d, err := p.policy.expired(disposableSegment{segmentLeaves{s.Segment}, s}, step)
	if err != nil {
		return nil, fmt.Errorf("index: dispose of documents from %d on: %w", p.first, err)
	}
	d.first, d.end = s.Base(), s.Base()+s.width
	if n := d.documents.GetCardinality(); n == 0 || n == uint64(s.Len()) {
		return d, nil
	}
	keep := func(_ int, local uint32) bool { return !d.documents.Contains(local) }
	err = m.folder().Write(rewrittenName(p.first), func(w io.Writer) error {
		return segment.Merge(w, s.Version(), s.Base(), []*segment.Segment{s.Segment}, keep, step)
	})
	if err != nil {
		return nil, fmt.Errorf("index: dispose of documents from %d on: %w", p.first, err)
	}
	d.file, err = m.openFile(rewrittenName(p.first), s.Base(), int(s.width))
	return d, err
}

// discardRewritten removes what is left of a segment and not wanted.
func (m *Machine) discardRewritten(d *disposal) error {
	if d == nil || d.file == nil {
		return nil
	}
	return errors.Join(d.file.release(), m.folder().Remove(d.file.name))
}

// awaitDisposal waits until this node has computed the pending disposal.
func (m *Machine) awaitDisposal() (*disposal, error) {
	m.hurry.Add(1)
	defer m.hurry.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.disposal == nil && m.failed == nil && m.pending != nil && !m.interrupted {
		m.changed.Wait()
	}
	if m.disposal == nil && m.failed == nil && m.interrupted {
		return nil, raftfsm.ErrInterrupted
	}
	return m.disposal, m.failed
}
