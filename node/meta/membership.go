package meta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// ErrStale means that somebody else changed the table since it was read; read it again.
var ErrStale = errors.New("meta: the members or the placement changed meanwhile")

// Membership is who the region's members are and where its groups belong, as of one moment.
// What it holds is shared: readers do not change it.
type Membership struct {
	// Nodes are the members by id.
	Nodes map[string]Node
	// Removed are the ids of former members.
	Removed map[string]bool
	// NodesVersion grows with every change of the members; 0 while there is none.
	NodesVersion uint32
	// Groups are the placements by the group's name.
	Groups           map[string]Placement
	PlacementVersion uint32
}

// Complete says whether both tables have been written: until then the region runs as it was
// started.
func (m Membership) Complete() bool { return len(m.Nodes) > 0 && len(m.Groups) > 0 }

// Sorted returns the members ordered by id.
func (m Membership) Sorted() []Node {
	return slices.SortedFunc(maps.Values(m.Nodes), func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
}

// setNode and setPlacement take one record over.
func (m *Membership) setNode(r record) error {
	m.NodesVersion = max(m.NodesVersion, r.tableVersion)
	if r.deleted {
		delete(m.Nodes, r.key)
		m.Removed[r.key] = true
		return nil
	}
	n, err := decodeNode(r)
	if err == nil {
		m.Nodes[r.key] = n
	}
	return err
}

func (m *Membership) setPlacement(r record) error {
	m.PlacementVersion = max(m.PlacementVersion, r.tableVersion)
	if r.deleted {
		delete(m.Groups, r.key)
		return nil
	}
	p, err := decodePlacement(r.key, r.value)
	if err == nil {
		m.Groups[r.key] = p
	}
	return err
}

func newMembership() Membership {
	return Membership{Nodes: map[string]Node{}, Removed: map[string]bool{}, Groups: map[string]Placement{}}
}

// clone copies what set changes.
func (m Membership) clone() Membership {
	m.Nodes, m.Removed, m.Groups = maps.Clone(m.Nodes), maps.Clone(m.Removed), maps.Clone(m.Groups)
	return m
}

// Membership is what this node's replica knows.
func (s *Service) Membership() Membership { return s.machine.views.members() }

// MembershipChanged returns a channel that is closed when members or placement change. Take
// it before Membership, so that no change is missed.
func (s *Service) MembershipChanged() <-chan struct{} { return s.machine.views.membersChanged() }

// ReadMembership asks the group: what it returns is no older than the call.
func (s *Service) ReadMembership(ctx context.Context) (Membership, error) {
	m := newMembership()
	// The placement first: it then names no member that the list of members does not know yet.
	placement, err := s.read(ctx, tablePlacement, 0)
	if err != nil {
		return Membership{}, fmt.Errorf("meta: read placement: %w", err)
	}
	nodes, err := s.read(ctx, tableNodes, 0)
	if err != nil {
		return Membership{}, fmt.Errorf("meta: read members: %w", err)
	}
	for _, r := range nodes.records {
		err = errors.Join(err, m.setNode(r))
	}
	for _, r := range placement.records {
		err = errors.Join(err, m.setPlacement(r))
	}
	m.NodesVersion, m.PlacementVersion = nodes.counters.version, placement.counters.version
	return m, err
}

// PutNodes writes members, if the table is still at a version; ErrStale if it is not.
func (s *Service) PutNodes(ctx context.Context, version uint32, nodes ...Node) error {
	steps := make([]step, len(nodes))
	for i, n := range nodes {
		steps[i] = step{kind: kindPut, key: n.ID, owner: anyOwner, value: encodeNode(n)}
	}
	return s.changeMembers(ctx, tableNodes, version, steps)
}

// RemoveNode ends a membership for good: the id cannot become a member again. It is no error
// if that was done before.
func (s *Service) RemoveNode(ctx context.Context, version uint32, id string) error {
	// The seal keeps the id's tombstone from being forgotten, and marks a record that a
	// late or repeated command would make anew.
	res, err := s.change(ctx, change{
		table: tableNodes, actor: anyOwner, expect: uint64(version) + 1, steps: []step{{kind: kindSeal, key: id}},
	}, raftfsm.RequestID{})
	if err == nil && res.outcome == outcomeDone {
		return s.changeMembers(ctx, tableNodes, res.version, []step{{kind: kindDelete, key: id}})
	}
	return membersError(res, err)
}

// PutPlacement writes placements, if the table is still at a version; ErrStale if it is not.
func (s *Service) PutPlacement(ctx context.Context, version uint32, placements ...Placement) error {
	steps := make([]step, len(placements))
	for i, p := range placements {
		steps[i] = step{kind: kindPut, key: p.Group, owner: anyOwner, value: encodePlacement(p)}
	}
	return s.changeMembers(ctx, tablePlacement, version, steps)
}

func (s *Service) changeMembers(ctx context.Context, t table, version uint32, steps []step) error {
	res, err := s.change(ctx, change{table: t, actor: anyOwner, expect: uint64(version) + 1, steps: steps}, raftfsm.RequestID{})
	return membersError(res, err)
}

func membersError(res changeResult, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("meta: change members: %w", err)
	case res.outcome == outcomeDone, res.outcome == outcomeUnknown:
		return nil // unknown: the record to remove has gone already
	case res.outcome == outcomeStale:
		return ErrStale
	}
	return unexpected(res)
}
