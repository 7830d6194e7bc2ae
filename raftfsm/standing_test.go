package raftfsm

import (
	"errors"
	"reflect"
	"testing"
)

// A leader is proven by a majority of its own voters, of exactly those replicas, that know no later term.
func TestProvenLeader(t *testing.T) {
	const id = GroupID(1)
	leads := func(replica string, term, index uint64, voters ...string) standing {
		return standing{replica: replica, term: term, leads: true, index: index, voters: voters}
	}
	follows := func(replica string, term uint64) standing { return standing{replica: replica, term: term} }
	for name, c := range map[string]struct {
		said map[string]standing
		want uint64 // the leader's index; 0 is that none is proven
	}{
		"a leader and a voter":                {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": follows("c.1", 3)}, 7},
		"a voter of an earlier term":          {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": follows("c.1", 2)}, 7},
		"a leader alone":                      {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1")}, 0},
		"a leader that is the only voter":     {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1")}, 7},
		"a voter of a later term":             {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": follows("c.1", 4)}, 0},
		"no leader":                           {map[string]standing{"b.1": follows("b.1", 3), "c.1": follows("c.1", 3), "d.1": follows("d.1", 3)}, 0},
		"a replica that was made anew":        {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": follows("c.1.1", 3)}, 0},
		"a replica that is not there":         {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": {}}, 0},
		"a replica that does not vote":        {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "e.1": follows("e.1", 3)}, 0},
		"a deposed leader beside the new one": {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": leads("c.1", 4, 9, "b.1", "c.1", "d.1"), "d.1": follows("d.1", 4)}, 9},
		"the same before the third has heard": {map[string]standing{"b.1": leads("b.1", 3, 7, "b.1", "c.1", "d.1"), "c.1": leads("c.1", 4, 9, "b.1", "c.1", "d.1")}, 9},
		"a leader that leaves itself":         {map[string]standing{"b.1": leads("b.1", 3, 7, "c.1", "d.1"), "c.1": follows("c.1", 3)}, 0},
	} {
		r := &Reading{host: &Host{self: Member{ID: "a.1"}, seats: map[GroupID]*seat{}}, said: map[string]standings{}}
		for member, s := range c.said {
			r.said[member] = standings{id: s}
		}
		if got, ok := r.proven(&seat{conf: Group{ID: id}}); ok != (c.want > 0) || got.index != c.want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
}

// What members say of their replicas arrives as it was said, and nothing else does.
func TestStandingsOnTheWire(t *testing.T) {
	want := standings{
		1: {replica: "node-1.a", term: 1 << 40, leads: true, index: 1<<50 + 1, voters: []string{"node-1.a", "node-2.b.3"}},
		2: {replica: "node-1.a.2", term: 7},
		3: {},
	}
	groups := []GroupID{1, 2, 3}
	var b []byte
	for _, id := range groups {
		b = want[id].append(b)
	}
	if got, err := decodeStandings(b, groups); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := decodeStandings(b[:n], groups); !errors.Is(err, errMalformedStandings) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := decodeStandings(append(b, 0), groups); err == nil {
		t.Error("more than was asked for")
	}
	if _, err := (&Host{}).encodeStandings([]byte{1, 2, 3}); err == nil {
		t.Error("a question with part of a group")
	}
}
