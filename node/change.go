package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// changeTries bounds how often a change of members is decided anew because others got in between.
const changeTries = 5

// memberChange is a change of members that somebody asked for. It is decided on what the
// members are now: the records to write, none when nothing is left to do.
type memberChange interface {
	decide(ctx context.Context, n *Node, m meta.Membership) ([]meta.Node, api.MemberChange, error)
}

// changeMembers decides and writes a change, again if the members changed meanwhile. What
// follows from it, the leader of meta does.
func (n *Node) changeMembers(ctx context.Context, c memberChange) (api.MemberChange, error) {
	run, err := n.services.get()
	if err != nil {
		return api.MemberChange{}, err
	}
	if err := n.levelOf(raftfsm.LevelMembers); err != nil {
		return api.MemberChange{}, err
	}
	for range changeTries {
		m, err := run.meta.ReadMembership(ctx)
		if err != nil {
			return api.MemberChange{}, err
		}
		if !m.Complete() {
			return api.MemberChange{}, fmt.Errorf("%w: the region's members are being written down", api.ErrMembersChanged)
		}
		write, result, err := c.decide(ctx, n, m)
		if err != nil || len(write) == 0 {
			return result, err
		}
		if err := run.meta.PutNodes(ctx, m.NodesVersion, write...); err == nil {
			n.log.Info("members change", "id", result.ID, "new", result.NewID)
			return result, nil
		} else if !errors.Is(err, meta.ErrStale) {
			return api.MemberChange{}, err
		}
	}
	return api.MemberChange{}, api.ErrMembersChanged
}

// levelOf refuses what a member that speaks less than the level would not understand.
func (n *Node) levelOf(level int) error {
	if n.host.Level() >= level {
		return nil
	}
	heard := map[string]bool{n.boot.self(): true}
	for _, p := range n.host.Peers() {
		heard[p.ID] = p.Level >= level
	}
	var old []string
	for _, m := range n.boot.current().Members {
		if !heard[m.ID] {
			old = append(old, m.Name)
		}
	}
	return fmt.Errorf("%w: %s", api.ErrLevel, strings.Join(old, ", "))
}

// addition makes the node called name, whose cluster port is at address, a member.
type addition struct{ name, address string }

func (a addition) decide(ctx context.Context, n *Node, m meta.Membership) ([]meta.Node, api.MemberChange, error) {
	h, err := a.ask(ctx, n)
	if err != nil {
		return nil, api.MemberChange{}, err
	}
	result := api.MemberChange{ID: h.ID}
	if known, ok := m.Nodes[h.ID]; ok && known.State == meta.NodeActive {
		moved := known
		moved.Cluster, moved.API = a.address, h.API
		if moved == known {
			return nil, result, nil
		}
		if err := unfit(a.name, addressProblems(moved, m, "")); err != nil {
			return nil, result, err
		}
		result.Started = true
		return []meta.Node{moved}, result, nil
	}
	if other, ok := findNode(m, a.name); ok && other.State == meta.NodeActive {
		return nil, result, fmt.Errorf("%w: %s is the member %s, and the node at %s is %s", api.ErrNodeNameTaken, a.name, other.ID, a.address, h.ID)
	}
	node := a.node(h)
	if err := unfit(a.name, append(n.fitProblems(h, m, n.host.Level()), addressProblems(node, m, "")...)); err != nil {
		return nil, result, err
	}
	if count := activeNodes(m); count >= meta.MembersMax {
		return nil, result, fmt.Errorf("%w: %d, since each of them holds a replica of meta and a link to every other", api.ErrTooManyNodes, count)
	}
	result.Started = true
	return []meta.Node{node}, result, nil
}

func (a addition) node(h *hello) meta.Node {
	return meta.Node{ID: h.ID, Name: a.name, Cluster: a.address, API: h.API, State: meta.NodeActive}
}

// ask gets the hello of the node, whose certificate must carry the name.
func (a addition) ask(ctx context.Context, n *Node) (*hello, error) {
	if a.name == n.cfg.Name && a.address == n.cfg.Self().Cluster {
		h := n.boot.hello()
		return &h, nil
	}
	h, err := n.boot.ask(ctx, Seed{Name: a.name, Cluster: a.address}, "hello")
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be asked: %w; start it there with an empty data folder and the certificate of %s", api.ErrNodeUnfit, err, a.name)
	}
	return h, nil
}

// fitProblems lists everything about a new node that keeps it from being a member of a region of
// this level.
func (n *Node) fitProblems(h *hello, m meta.Membership, level int) []string {
	var p problemList
	rec := n.boot.current()
	if h.Level < level {
		p.add("its build %s speaks level %d of the protocol, the region speaks %d; upgrade it", h.Version, max(raftfsm.LevelFirst, h.Level), level)
	}
	switch {
	case h.Removed || m.Removed[h.ID]:
		p.add("it was a member and has been removed; empty its data folder")
	case h.Record != nil && h.Record.ClusterID != rec.ClusterID:
		p.add("it is part of cluster %s; empty its data folder", h.Record.ClusterID)
	case m.Nodes[h.ID].State == meta.NodeLeaving:
		p.add("it is leaving the region; once it has been removed, empty its data folder")
	case h.Record != nil || h.Started:
		p.add("its data folder is not empty; empty it")
	}
	if h.Plan.Region != rec.Region {
		p.add("it is configured for the region %q, this is %q", h.Plan.Region, rec.Region)
	}
	if h.Plan.Limiter != rec.Limiter || h.Plan.Index != rec.Index {
		p.add("it is configured with %d limiter and %d index groups, the region has %d and %d", h.Plan.Limiter, h.Plan.Index, rec.Limiter, rec.Index)
	}
	if !slices.Equal(h.Plan.Run, rec.Services) {
		p.add("it is configured with the services %v, the region runs %v", h.Plan.Run, rec.Services)
	}
	return p
}

// addressProblems lists what is wrong with the addresses of a node; except is a member whose
// addresses it may take over.
func addressProblems(node meta.Node, m meta.Membership, except string) []string {
	var p problemList
	if _, _, err := net.SplitHostPort(node.API); err != nil {
		p.add("it does not say where its API is; set api.advertise")
	}
	for _, other := range m.Sorted() {
		if other.ID == node.ID || other.ID == except {
			continue
		}
		for _, a := range []string{other.Cluster, other.API} {
			if a == node.Cluster || a == node.API {
				p.add("%s is an address of the member %s", a, other.ID)
			}
		}
	}
	return p
}

func unfit(name string, problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", api.ErrNodeUnfit, name, strings.Join(problems, "; "))
}

// removal makes a member leave.
type removal struct{ name string }

func (r removal) decide(_ context.Context, _ *Node, m meta.Membership) ([]meta.Node, api.MemberChange, error) {
	node, ok := findNode(m, r.name)
	if !ok {
		return nil, removedBefore(r.name, m), unknownUnlessRemoved(r.name, m)
	}
	result := api.MemberChange{ID: node.ID}
	if node.State == meta.NodeLeaving {
		return nil, result, nil
	}
	if err := enoughWithout(m, node); err != nil {
		return nil, result, err
	}
	node.State = meta.NodeLeaving
	result.Started = true
	return []meta.Node{node}, result, nil
}

// replacement makes a member leave its replicas to another one, which is added if need be.
type replacement struct {
	old string
	addition
}

func (r replacement) decide(ctx context.Context, n *Node, m meta.Membership) ([]meta.Node, api.MemberChange, error) {
	old, ok := findNode(m, r.old)
	if done, result := r.doneBefore(m, old, ok); done {
		return nil, result, nil
	}
	if !ok {
		return nil, api.MemberChange{}, fmt.Errorf("%w: %s", api.ErrNodeUnknown, r.old)
	}
	result := api.MemberChange{ID: old.ID}
	heir, member := findNode(m, r.name)
	member = member && heir.ID != old.ID && heir.State == meta.NodeActive
	if r.address == "" && r.name == r.old {
		r.address = old.Cluster
	} else if r.address == "" && member {
		r.address = heir.Cluster
	}
	if r.address == "" {
		return nil, result, fmt.Errorf("%w: %s is no member yet; name the address of its cluster port", api.ErrNodeUnfit, r.name)
	}
	h, err := r.ask(ctx, n)
	if err != nil {
		return nil, result, err
	}
	var write []meta.Node
	if member && h.ID == heir.ID {
		if err := enoughWithout(m, old); err != nil {
			return nil, result, err
		}
	} else {
		problems := n.fitProblems(h, m, n.host.Level())
		if before := removedBefore(r.old, m); h.ID == old.ID && before.Removed {
			before.NewID, before.Removed = h.ID, false
			return nil, before, nil // it has replaced its former self
		}
		if h.ID == old.ID {
			problems = []string{fmt.Sprintf("it is the member %s itself, with its data; empty its data folder, or name another node", old.ID)}
		} else if member {
			problems = append(problems, fmt.Sprintf("its name belongs to the member %s", heir.ID))
		}
		heir = r.node(h)
		if err := unfit(r.name, append(problems, addressProblems(heir, m, old.ID)...)); err != nil {
			return nil, result, err
		}
		write = append(write, heir)
	}
	old.State, old.Successor = meta.NodeLeaving, heir.ID
	result.NewID, result.Started = heir.ID, true
	return append(write, old), result, nil
}

// doneBefore recognises a replacement that is under way or done: a member of the old name leaves
// to one of the new name, or has left.
func (r replacement) doneBefore(m meta.Membership, old meta.Node, found bool) (bool, api.MemberChange) {
	for _, node := range m.Sorted() {
		if node.Name == r.old && node.State == meta.NodeLeaving && meta.NameOf(node.Successor) == r.name {
			return true, api.MemberChange{ID: node.ID, NewID: node.Successor}
		}
	}
	heir, ok := findNode(m, r.name)
	if found || !ok || heir.ID == old.ID {
		return false, api.MemberChange{}
	}
	before := removedBefore(r.old, m)
	before.NewID = heir.ID
	return before.Removed, before
}

// removedBefore tells of a former member of that name.
func removedBefore(name string, m meta.Membership) api.MemberChange {
	for _, id := range slices.Sorted(maps.Keys(m.Removed)) {
		if meta.NameOf(id) == name {
			return api.MemberChange{ID: id, Removed: true}
		}
	}
	return api.MemberChange{}
}

func unknownUnlessRemoved(name string, m meta.Membership) error {
	if removedBefore(name, m).Removed {
		return nil
	}
	return fmt.Errorf("%w: %s", api.ErrNodeUnknown, name)
}

// enoughWithout refuses to let a member go when fewer than a group needs would stay.
func enoughWithout(m meta.Membership, node meta.Node) error {
	if node.State == meta.NodeLeaving {
		return nil
	}
	if left := activeNodes(m) - 1; left < replicasWanted {
		return fmt.Errorf("%w: without %s there would be %d, and %d are needed", api.ErrTooFewNodes, node.Name, left, replicasWanted)
	}
	return nil
}

func activeNodes(m meta.Membership) int {
	count := 0
	for _, n := range m.Sorted() {
		if n.State == meta.NodeActive {
			count++
		}
	}
	return count
}

// findNode finds a member by name: the active one, or one that leaves.
func findNode(m meta.Membership, name string) (meta.Node, bool) {
	var found meta.Node
	for _, n := range m.Sorted() {
		if n.Name == name && (found.ID == "" || n.State == meta.NodeActive) {
			found = n
		}
	}
	return found, found.ID != ""
}

// transfer prefers a member as the leader of a group, and hands the leadership to it.
func (n *Node) transfer(ctx context.Context, group, name string) error {
	run, err := n.services.get()
	if err != nil {
		return err
	}
	if err := n.levelOf(raftfsm.LevelMembers); err != nil {
		return err
	}
	m, err := run.meta.ReadMembership(ctx)
	if err != nil {
		return err
	}
	p, ok := m.Groups[group]
	if !ok {
		return fmt.Errorf("%w: %s", api.ErrGroupName, group)
	}
	node, ok := findNode(m, name)
	if !ok {
		return fmt.Errorf("%w: %s", api.ErrNodeUnknown, name)
	}
	i := indexOfMember(p.Voters, node.ID)
	if i < 0 {
		return fmt.Errorf("%w: %s has its votes on %s", api.ErrNotVoter, group, strings.Join(namesOf(p.Voters), ", "))
	}
	if i > 0 {
		p.Voters = slices.Clone(p.Voters)
		p.Voters[0], p.Voters[i] = p.Voters[i], p.Voters[0]
		if err := run.meta.PutPlacement(ctx, m.PlacementVersion, p); errors.Is(err, meta.ErrStale) {
			return api.ErrMembersChanged
		} else if err != nil {
			return err
		}
	}
	return n.host.Transfer(ctx, groupIDs(n.boot.current())[group], node.ID)
}

func namesOf(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = meta.NameOf(id)
	}
	return out
}
