package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// A shard without a leader would cost every search shardGrace. So one that did not answer a search is
// asked for nothing in the background, and while that finds no leader either, searches that need not be
// complete do not wait for the shard but say at once that it is missing. The asking goes on, and ends with the first answer.
const (
	// missingAfter is how long the first of these questions waits; later ones wait missingEach, which
	// bounds how long one that went to a leader that hangs keeps the shard missing.
	missingAfter = shardGrace
	missingEach  = time.Second
	// missingIdle is how many of them are asked without a search in between.
	missingIdle = 10
)

// errMissing is the state of a shard that is known to have no leader.
var errMissing = fmt.Errorf("no leader when it was last asked: %w", raftfsm.ErrNoLeader)

// missing remembers which shards have no leader.
type missing struct {
	mu     sync.Mutex
	shards []missingShard
}

type missingShard struct {
	asking bool // in the background
	lost   bool // and without an answer so far
	wanted bool // by a search, since the last question
}

// lost tells which shards are missing; nil when none or all are, since nothing is won then by not asking.
func (m *missing) lost() []bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []bool
	n := 0
	for i := range m.shards {
		if s := &m.shards[i]; s.lost {
			if out == nil {
				out = make([]bool, len(m.shards))
			}
			s.wanted, out[i] = true, true
			n++
		}
	}
	if n == len(m.shards) {
		return nil
	}
	return out
}

// suspect looks into a shard that did not answer.
func (s *Service) suspect(n int) {
	s.missing.mu.Lock()
	defer s.missing.mu.Unlock()
	if m := &s.missing.shards[n]; !m.asking {
		m.asking = true
		go s.findAgain(n)
	}
}

// findAgain asks a shard for nothing until it answers, or nobody cares, or the node stops.
func (s *Service) findAgain(n int) {
	m, idle := &s.missing.shards[n], 0
	for patience := missingAfter; ; patience = missingEach {
		err := s.askNothing(n, patience)
		s.missing.mu.Lock()
		if m.wanted {
			m.wanted, idle = false, 0
		} else {
			idle++
		}
		if m.lost = leaderless(err) && idle < missingIdle; !m.lost {
			m.asking = false
			s.missing.mu.Unlock()
			return
		}
		s.missing.mu.Unlock()
	}
}

func (s *Service) askNothing(n int, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var none uint64
	nothing := shardQuery{limit: 1, bound: &none}
	_, err := s.groups.Query(ctx, s.shards[n].Group, nothing.encode(), raftfsm.Linearizable)
	if leaderless(err) {
		<-ctx.Done()
	}
	return err
}

// leaderless tells whether an error means that a shard has no leader, or none that answers.
func leaderless(err error) bool {
	if errors.Is(err, raftfsm.ErrShutdown) {
		return false
	}
	return errors.Is(err, raftfsm.ErrNoLeader) || errors.Is(err, raftfsm.ErrLost) || errors.Is(err, context.DeadlineExceeded)
}
