package meta

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func member(id string) Node {
	return Node{ID: id, Name: NameOf(id), Cluster: NameOf(id) + ":7401", API: NameOf(id) + ":7400", State: NodeActive}
}

// What one node writes, every replica has at hand, also after a restart.
func TestMembershipIsInEveryReplica(t *testing.T) {
	r := newRegion(t, regionRules)
	s, ctx := r.service(), t.Context()
	if m := s.Membership(); m.Complete() || m.NodesVersion != 0 || m.PlacementVersion != 0 {
		t.Fatalf("before anything was written: %+v", m)
	}
	changed := s.MembershipChanged()
	a, b := member("a.1"), member("b.1")
	check(t, s.PutNodes(ctx, 0, a, b))
	check(t, s.PutPlacement(ctx, 0, Placement{Group: "meta", Voters: []string{"a.1"}}, Placement{Group: "index-0", Voters: []string{"b.1.7", "a.1"}, Generation: 7}))
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the change")
	}
	b.State, b.Successor = NodeLeaving, "a.1"
	check(t, s.PutNodes(ctx, 1, b))
	want := Membership{
		Nodes: map[string]Node{"a.1": a, "b.1": b}, Removed: map[string]bool{}, NodesVersion: 2,
		Groups: map[string]Placement{
			"meta": {Group: "meta", Voters: []string{"a.1"}}, "index-0": {Group: "index-0", Voters: []string{"b.1.7", "a.1"}, Generation: 7},
		},
		PlacementVersion: 1,
	}
	compare := func(what string, got Membership) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\nwant %+v", what, got, want)
		}
	}
	compare("view", s.Membership())
	asked, err := s.ReadMembership(ctx)
	check(t, err)
	compare("group", asked)
	r.meta.Restart()
	s = r.service()
	compare("view after a restart", s.Membership())
	check(t, s.RemoveNode(ctx, 2, "b.1"))
	check(t, s.RemoveNode(ctx, s.Membership().NodesVersion, "b.1")) // again is no error
	got := s.Membership()
	if len(got.Nodes) != 1 || !got.Removed["b.1"] || got.NodesVersion != 4 {
		t.Errorf("after the removal: %+v", got)
	}
	if want.Nodes["b.1"].ID != "b.1" {
		t.Error("a membership that was handed out has changed")
	}
}

// Of two who decided on the same state, one must decide again.
func TestStaleChangesOfMembersAreRefused(t *testing.T) {
	r := newRegion(t, regionRules)
	s, ctx := r.service(), t.Context()
	check(t, s.PutNodes(ctx, 0, member("a.1")))
	wantError(t, "a second founding", s.PutNodes(ctx, 0, member("b.1")), ErrStale)
	wantError(t, "a removal on an old list", s.RemoveNode(ctx, 0, "a.1"), ErrStale)
	check(t, s.PutPlacement(ctx, 0, Placement{Group: "meta", Voters: []string{"a.1"}}))
	wantError(t, "a second placement", s.PutPlacement(ctx, 0, Placement{Group: "meta", Voters: []string{"b.1"}}), ErrStale)
	if m := s.Membership(); len(m.Nodes) != 1 || m.Groups["meta"].Voters[0] != "a.1" {
		t.Errorf("refused changes left %+v", m)
	}
}

// An id that was removed stays removed: whoever writes it again makes a member that leaves.
func TestRemovedIDsNeverComeBack(t *testing.T) {
	r := newRegion(t, regionRules)
	s, ctx := r.service(), t.Context()
	check(t, s.PutNodes(ctx, 0, member("a.1"), member("b.1")))
	check(t, s.RemoveNode(ctx, 1, "b.1"))
	check(t, s.PutNodes(ctx, s.Membership().NodesVersion, member("b.1")))
	if n := s.Membership().Nodes["b.1"]; n.State != NodeLeaving {
		t.Errorf("the id that was removed is %v", n.State)
	}
	r.meta.Restart()
	if n := r.service().Membership().Nodes["b.1"]; n.State != NodeLeaving {
		t.Errorf("after a restart it is %v", n.State)
	}
}

func TestMalformedMembersAreRefused(t *testing.T) {
	r := newRegion(t, regionRules)
	s := r.service()
	spoilt := func(f func(*Node)) error {
		n := member("a.1")
		f(&n)
		return s.PutNodes(t.Context(), 0, n)
	}
	for what, err := range map[string]error{
		"another name than the id's": spoilt(func(n *Node) { n.Name = "b" }),
		"a name with a dot":          spoilt(func(n *Node) { n.ID, n.Name = "a.b.1", "a" }),
		"no incarnation":             spoilt(func(n *Node) { n.ID = "a" }),
		"no port":                    spoilt(func(n *Node) { n.Cluster = "a" }),
		"no state":                   spoilt(func(n *Node) { n.State = 0 }),
		"no voters":                  s.PutPlacement(t.Context(), 0, Placement{Group: "meta"}),
		"two voters on one member":   s.PutPlacement(t.Context(), 0, Placement{Group: "meta", Voters: []string{"a.1", "a.1.2"}}),
	} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An older build stops at these commands instead of skipping them.
func TestCommandsOfMembersNeedTheSecondCodec(t *testing.T) {
	for _, tab := range []table{tableNodes, tablePlacement} {
		b := encodeChange(change{table: tab, actor: anyOwner, steps: []step{{kind: kindDelete, key: "k"}}})
		if b[0] != codecMembers || encodeFeedQuery(tab, position{})[0] != codecMembers {
			t.Errorf("table %d is written in version %d", tab, b[0])
		}
		b[0] = codecFirst
		if _, err := decodeChange(b); !errors.Is(err, errCodec) || errors.Is(err, errNewer) {
			t.Errorf("table %d in the first version: %v", tab, err)
		}
	}
	old := encodeChange(change{table: tableTokens, actor: anyOwner, steps: []step{{kind: kindDelete, key: "k"}}})
	if old[0] != codecFirst {
		t.Errorf("tokens are written in version %d: builds of before would stop", old[0])
	}
}

func TestIDs(t *testing.T) {
	for id, want := range map[string][2]string{"node-1.0a": {"node-1.0a", "node-1"}, "node-1.0a.12": {"node-1.0a", "node-1"}} {
		if MemberOf(id) != want[0] || NameOf(id) != want[1] {
			t.Errorf("%s is of member %s, name %s", id, MemberOf(id), NameOf(id))
		}
	}
	if s := NodeActive.String() + " " + NodeLeaving.String(); !strings.Contains(s, "active leaving") {
		t.Error(s)
	}
}
