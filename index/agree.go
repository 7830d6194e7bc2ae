package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Before a leader has the log dispose of anything, most replicas must find the same to dispose of: a leader whose own
// state is damaged would have all others stop, or dispose of what has not expired.

// Verdicts of a replica about what a leader would dispose of.
const (
	verdictUnknown = 0 // it has not come that far, or has not computed it
	verdictSame    = 1
	verdictOther   = 2
)

// agreePause is how long replicas that cannot tell yet are left to compute, agreeTries how often; then comes the
// next round of retention.
const (
	agreePause = 100 * time.Millisecond
	agreeTries = 100
)

// errDisagree means that most replicas would dispose of something else, or cannot tell yet.
var errDisagree = errors.New("index: most replicas do not agree with this one about what has expired")

// verdict compares what a leader would dispose of with what this replica would.
func (m *Machine) verdict(kind byte, r *wire.Reader) ([]byte, error) {
	var id, base, gaps uint64
	var policy boundPolicy
	if kind == peerPending {
		id = binary.BigEndian.Uint64(r.Fixed(8))
	} else {
		base, gaps, policy = r.Uvarint(1<<62), r.Uvarint(segment.DocumentsMax), readBoundPolicy(r)
	}
	p := readProof(r)
	if r.Done() != nil {
		return nil, errPeer
	}
	var d *disposal
	var err error
	version := policy.version
	if kind == peerPending {
		m.mu.RLock()
		if m.pending != nil && m.pending.id() == id {
			d, version = m.disposal, m.pending.policy.version
		}
		m.mu.RUnlock()
	} else if d, err = m.lookAtHead(&policy); err == nil && d != nil && (d.first != base || uint64(d.gaps) != gaps) {
		d = nil
	}
	if err != nil || d == nil {
		return []byte{verdictUnknown}, err
	}
	payloads, err := d.payloads(p.by, version)
	if err != nil {
		return nil, err
	}
	if sumOf(payloads) != p.sum {
		return []byte{verdictOther}, nil
	}
	return []byte{verdictSame}, nil
}

func askPending(pending *pendingDisposal, p *proof) []byte {
	return p.append(binary.BigEndian.AppendUint64([]byte{wirePeer, peerPending}, pending.id()))
}

func askHead(seen *disposal, policy *boundPolicy, p *proof) []byte {
	b := binary.AppendUvarint(binary.AppendUvarint([]byte{wirePeer, peerHead}, seen.first), uint64(seen.gaps))
	return p.append(policy.append(b))
}

// agreed is an error unless most replicas, or all, would dispose of the same; this one is one of them. In a region with builds that
// cannot be asked it is not asked.
func (r *Retainer) agreed(ctx context.Context, query []byte, all bool) error {
	if r.Level() < raftfsm.LevelMending {
		return nil
	}
	for tries := 1; ; tries++ {
		others := r.Peers.Others()
		same, other := 1, 0
		for _, member := range others {
			b, err := r.Peers.Ask(ctx, member, query)
			switch {
			case err != nil || len(b) != 1:
			case b[0] == verdictSame:
				same++
			case b[0] == verdictOther:
				other++
			}
		}
		if same == len(others)+1 || !all && 2*same > len(others)+1 {
			return nil
		}
		if 2*other > len(others)+1 || tries == agreeTries || ctx.Err() != nil {
			return fmt.Errorf("%w: %d of %d do, %d would dispose of others", errDisagree, same, len(others)+1, other)
		}
		pause(ctx, agreePause) // some have not computed it yet
	}
}

// doubtDisposal looks, when most replicas would dispose of others than this leader, whether its segment is damaged.
func (m *Machine) doubtDisposal(d *disposal, err error) error {
	m.mu.RLock()
	s := m.storedAt(d.first)
	if s != nil {
		s.hold()
	}
	m.mu.RUnlock()
	if s == nil {
		return err
	}
	if damage := s.note(s.Verify()); damage != nil {
		err = errors.Join(err, damage, m.dropRewritten(d))
	}
	return errors.Join(err, s.release())
}

// recheck looks, when the leader has disposed of others than this replica would, whether this one's segment is damaged: then
// it is mended, and what goes is computed again. It is false when no damage is found.
func (a *applier) recheck(d *disposal) (bool, error) {
	a.m.mu.RLock()
	s := a.m.storedAt(d.first)
	if s == nil || d.first == d.end {
		a.m.mu.RUnlock()
		return false, nil
	}
	s.hold()
	a.m.mu.RUnlock()
	defer func() { _ = s.release() }() // what was read and cannot be closed changes nothing
	if s.note(s.Verify()) == nil {
		return false, nil
	}
	if err := a.m.awaitRepair(); err != nil {
		return false, err
	}
	return true, a.m.dropRewritten(d)
}
