package index

import (
	"errors"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A batch of which one shard may have stored its part is unknown, whichever shard failed
// first.
func TestWorstFailureOfABatch(t *testing.T) {
	no := &raftfsm.Error{Op: "propose", Group: "index-0", Err: raftfsm.ErrNoLeader}
	lost := &raftfsm.Error{Op: "propose", Group: "index-1", Outcome: raftfsm.OutcomeUnknown, Err: raftfsm.ErrLost}
	if err := worst([]error{nil, no, lost}); !errors.Is(err, raftfsm.ErrLost) {
		t.Errorf("worst of definite and unknown: %v", err)
	}
	if err := worst([]error{nil, no, nil}); !errors.Is(err, raftfsm.ErrNoLeader) {
		t.Errorf("worst of one definite failure: %v", err)
	}
	if err := worst([]error{nil, nil}); err != nil {
		t.Errorf("worst of none: %v", err)
	}
}
