package index

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// retainPause is how often a shard's leader looks for documents that have expired: often enough beside the
// least slack, a minute.
const retainPause = 30 * time.Second

// Retainer is what the leader of a shard disposes of documents with.
type Retainer struct {
	Region, Shard string
	// Level is the region's.
	Level func() int
	// Policy is the rules in force, linearizably.
	Policy func(ctx context.Context) (RetentionPolicy, error)
	// Stopped tells that what is stored is to stay as it is.
	Stopped func() bool
	// Peers are the other replicas.
	Peers Peers
	// Key signs the records; nil disposes of nothing.
	Key ed25519.PrivateKey
	// Propose has the log execute a command, and returns its result.
	Propose func(ctx context.Context, command []byte) ([]byte, error)
	Log     *slog.Logger

	// looked are the segments, by digest, in which nothing had expired by some policy, whose bytes it is.
	looked map[uint64]string
	warned bool
}

// Retain disposes of expired documents, while this node leads the shard and until ctx ends.
func (m *Machine) Retain(ctx context.Context, r *Retainer) {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	for ctx.Err() == nil {
		if err := m.retainAll(ctx, r, time.Now); err != nil && ctx.Err() == nil {
			r.Log.Warn("retention: will be tried again", "shard", r.Shard, "err", err)
		}
		pause(ctx, retainPause)
	}
}

// Disposed counts documents that retention has disposed of in this shard since the process started.
func (m *Machine) Disposed() uint64 { return m.gone.Load() }

// retainAll disposes of all that has expired by now.
func (m *Machine) retainAll(ctx context.Context, r *Retainer, wall func() time.Time) error {
	for ctx.Err() == nil {
		p, err := r.Policy(ctx)
		if err != nil {
			return err
		}
		more, err := m.retain(ctx, r, &p, wall)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// retain takes one step; more says that there may be another one.
func (m *Machine) retain(ctx context.Context, r *Retainer, p *RetentionPolicy, wall func() time.Time) (more bool, err error) {
	m.mu.RLock()
	pending, ready := m.pending, m.layout >= layoutRetention && r.Level() >= raftfsm.LevelRetention
	m.mu.RUnlock()
	may := p.disposes() && r.Key != nil && !r.Stopped()
	if p.disposes() && r.Key == nil && !r.warned {
		r.warned = true
		r.Log.Warn("retention: this node disposes of nothing, since disposition_key is not set in its configuration", "shard", r.Shard)
	}
	if !ready {
		return false, nil
	}
	if pending != nil {
		return m.finishPending(ctx, r, p, pending, may, wall)
	}
	if !may && m.isMarked() {
		return false, nil
	}
	// The entry tells the time, and marks what has arrived by it: also of documents that no rule is for yet.
	if _, err := r.Propose(ctx, retentionHeader(retentionMark)); err != nil {
		return false, err
	}
	if !may {
		return false, nil
	}
	bound := p.bind(m.now.Load())
	if more, err = m.retainHead(ctx, r, &bound, wall); err != nil || more {
		return more, err
	}
	first, found, err := m.expiredSegment(ctx, r, &bound)
	if err != nil || !found {
		return false, err
	}
	// It is refused while there is something to merge, and then it is another segment: the next round will find it.
	return r.done(ctx, encodeBegin(&pendingDisposal{first: first, policy: bound}))
}

func (r *Retainer) by(wall func() time.Time) recordedBy {
	return recordedBy{region: r.Region, shard: r.Shard, at: wall().UnixNano(), key: r.Key.Public().(ed25519.PublicKey)}
}

func (r *Retainer) prove(d *disposal, version uint64, wall func() time.Time) (*proof, error) {
	p := &proof{by: r.by(wall)}
	payloads, err := d.payloads(p.by, version)
	if err != nil {
		return nil, err
	}
	p.sum = sumOf(payloads)
	for _, payload := range payloads {
		p.signatures = append(p.signatures, disposition.Sign(r.Key, payload))
	}
	return p, nil
}

// retainHead disposes of documents that are not sealed yet.
func (m *Machine) retainHead(ctx context.Context, r *Retainer, bound *boundPolicy, wall func() time.Time) (bool, error) {
	d, err := m.lookAtHead(bound)
	if err != nil || d == nil || len(d.lines) == 0 {
		return false, err
	}
	now, err := r.Policy(ctx) // the mark before has taken a while
	if err != nil || now.Version != bound.version || r.Stopped() {
		return false, err
	}
	proof, err := r.prove(d, bound.version, wall)
	if err != nil {
		return false, err
	}
	if err := r.agreed(ctx, askHead(d, bound, proof), false); err != nil {
		return false, err
	}
	ok, err := r.done(ctx, encodeHead(d, bound, proof)) // refused when it is another one now, or is being sealed
	if ok {
		r.told(d)
	}
	return ok, err
}

func (m *Machine) lookAtHead(bound *boundPolicy) (*disposal, error) {
	m.life.RLock()
	defer m.life.RUnlock()
	m.mu.RLock()
	ready := !m.stopping && m.active != nil && m.active.base == m.moved
	m.mu.RUnlock()
	if !ready {
		return nil, nil
	}
	return m.expiredInHead(bound, m.store)
}

func (r *Retainer) told(d *disposal) {
	r.Log.Info("retention: documents were disposed of", "shard", r.Shard, "documents", d.documents.GetCardinality(), "from", d.first, "end", d.end)
}

// expiredSegment is the first segment of the state in which something has expired.
func (m *Machine) expiredSegment(ctx context.Context, r *Retainer, bound *boundPolicy) (first uint64, found bool, err error) {
	m.life.RLock()
	defer m.life.RUnlock()
	most, err := bound.number(m.store)
	if err != nil {
		return 0, false, err
	}
	m.mu.RLock()
	all := slices.DeleteFunc(slices.Clone(m.segments), func(s segmentSource) bool { return !s.stored })
	for _, s := range all {
		s.hold()
	}
	m.mu.RUnlock()
	defer func() { _ = releaseAll(all) }() // what was read and cannot be closed changes nothing
	name := string(bound.append(nil))
	looked := r.looked
	var away error
	r.looked = map[uint64]string{}
	for _, s := range all {
		if err := ctx.Err(); err != nil {
			return 0, false, err
		}
		if s.Base() >= most {
			break
		}
		if looked[s.Digest()] == name {
			r.looked[s.Digest()] = name
			continue
		}
		any, err := bound.anyExpired(disposableSegment{segmentLeaves{s.Segment}, s.sealed})
		if s.replaced.Load() {
			continue // the next round sees what it became
		}
		if isAway(err) {
			away = errors.Join(away, s.note(err))
			continue
		}
		if err != nil {
			return 0, false, s.note(err)
		}
		if any {
			maps.Copy(r.looked, looked)
			return s.Base(), true, nil
		}
		r.looked[s.Digest()] = name
	}
	return 0, false, away
}

// finishPending ends what was begun, by this leader or one before: unless the rules have changed since, or
// nothing may be disposed of any longer. It is false when the log has refused that, as beside a move.
func (m *Machine) finishPending(ctx context.Context, r *Retainer, p *RetentionPolicy, pending *pendingDisposal, may bool, wall func() time.Time) (bool, error) {
	if !may || pending.policy.version != p.Version {
		return r.done(ctx, encodeCancel(pending.first))
	}
	d, err := m.awaitComputed(ctx, pending)
	if err != nil || d == nil {
		return false, err
	}
	now, err := r.Policy(ctx) // writing what is left has taken a while
	if err != nil {
		return false, err
	}
	if len(d.lines) == 0 || now.Version != pending.policy.version || r.Stopped() {
		return r.done(ctx, encodeCancel(pending.first))
	}
	proof, err := r.prove(d, pending.policy.version, wall)
	if err != nil {
		return false, err
	}
	// A replica that cannot read a cold segment could not apply the end.
	if err := r.agreed(ctx, askPending(pending, proof), m.isCold(pending.first)); err != nil {
		return false, m.doubtDisposal(d, err)
	}
	var last []byte
	if d.file != nil {
		parts, err := m.movesOfRewritten(d)
		if err != nil {
			return false, err
		}
		last = parts[len(parts)-1]
		for _, c := range parts[:len(parts)-1] {
			if ok, err := r.done(ctx, c); err != nil || !ok {
				return false, err
			}
		}
	}
	ok, err := r.done(ctx, encodeFinish(pending, proof, last))
	if ok {
		r.told(d)
	}
	return ok, err
}

// done proposes a command and tells whether it had its effect.
func (r *Retainer) done(ctx context.Context, command []byte) (bool, error) {
	got, err := r.Propose(ctx, command)
	return err == nil && bytes.Equal(got, resultDone), err
}

// awaitComputed waits until this node has computed the pending disposal; nil when it is pending no more.
func (m *Machine) awaitComputed(ctx context.Context, pending *pendingDisposal) (*disposal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.disposal == nil && m.pending == pending && m.failed == nil && !m.stopping {
		if err := cmp.Or(ctx.Err(), m.delayed); err != nil {
			return nil, err
		}
		m.changed.Wait()
	}
	if m.pending != pending {
		return nil, m.failed
	}
	return m.disposal, m.failed
}

// movesOfRewritten are the commands that move what is left of a segment.
func (m *Machine) movesOfRewritten(d *disposal) ([][]byte, error) {
	m.life.RLock()
	defer m.life.RUnlock()
	v, err := m.store.Get(segmentKey(d.first))
	if err != nil {
		return nil, err
	}
	row, err := decodeSegmentRow(v)
	if err != nil {
		return nil, err
	}
	c := moveCommand{
		first: d.first, docs: row.docs, format: d.file.Version(), digest: d.file.Digest(), generation: row.next(),
		parts: uint32(1 + d.file.file.Size()/movePartBytes),
	}
	return c.all(), nil
}
