package index

import (
	"context"
	"time"
)

// leadPause is how long the leader waits before it looks again which layout all members know, or
// proposes again what failed.
const leadPause = time.Second

// Lead proposes, while this node leads the shard and until ctx ends, what the log has to say for all
// replicas: the newest layout that all members know, which known tells, and the move of each segment that is built here.
func (m *Machine) Lead(ctx context.Context, known func() byte, propose func(ctx context.Context, command []byte) error) {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	for ctx.Err() == nil {
		layout := known()
		commands := m.decide(ctx, layout)
		var err error
		for _, c := range commands {
			if err = propose(ctx, c); err != nil {
				break
			}
		}
		// Nothing is decided again at once when it had no effect: another leader may have come before.
		if len(commands) == 0 || err != nil || m.decided(layout, commands[0]) {
			pause(ctx, leadPause)
		}
	}
}

// layoutHere is the layout that a leader proposes of those that all members know. Of a cold segment the nodes keep what
// says whether an id is taken, which is most of the segment when ids stand with other random texts; so a node that has
// a store of objects does not begin with that.
func (m *Machine) layoutHere(known byte) byte {
	if m.objects != nil {
		return min(known, layoutRandomTexts-1)
	}
	return known
}

// Differing is how many segments went into the state with other bytes than the leader's.
func (m *Machine) Differing() uint64 { return m.differing.Load() }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// decide waits for something to propose. It is nil when there is nothing and the layout may not be changed to
// the newest yet, or when ctx has ended.
func (m *Machine) decide(ctx context.Context, known byte) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ctx.Err() == nil {
		if c := m.nextCommands(known); c != nil || known < layoutNewest {
			return c
		}
		m.changed.Wait()
	}
	return nil
}

// decided tells whether a command would be proposed again.
func (m *Machine) decided(known byte, command []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.nextCommands(known)
	return c != nil && string(c[0]) == string(command)
}

// nextCommands is what the state is to become next, as far as this node is ready for it. The caller
// holds mu.
func (m *Machine) nextCommands(known byte) [][]byte {
	if m.stopping || m.active == nil {
		return nil
	}
	if newest := m.layoutHere(known); m.layout < newest {
		return [][]byte{encodeLayout(newest)}
	}
	if m.layout < layoutSegments {
		return nil
	}
	for _, s := range m.segments {
		if !s.stored && s.Base() == m.moved && int(s.width) == m.headDocuments && m.damaged != s.sealed && s.Version() == formatOf(m.layout) {
			return movesOf(s.sealed)
		}
	}
	if m.merged != nil {
		return movesOf(m.merged)
	}
	return nil
}

// movesOf are the commands that move a segment.
func movesOf(s *sealed) [][]byte {
	c := moveCommand{
		first: s.Base(), docs: uint32(s.width), format: s.Version(), digest: s.Digest(),
		parts: uint32(1 + s.file.Size()/movePartBytes),
	}
	return c.all()
}

// all are the commands of all parts.
func (c moveCommand) all() (all [][]byte) {
	for c.part = 0; c.part < c.parts; c.part++ {
		all = append(all, c.encode())
	}
	return all
}
