package node

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// identity is the file node.json: who this data folder belongs to. The incarnation is drawn
// when the folder is created, so that a node whose data is gone is another Raft server.
type identity struct {
	Name        string `json:"name"`
	Incarnation string `json:"incarnation"`
	// Started is set once the groups have run: from then on, missing logs are lost logs.
	Started bool `json:"started"`
	// Removed is set once the node has learnt that it is no member any more. It never will be
	// again under this incarnation.
	Removed bool `json:"removed,omitempty"`
}

func (i identity) id() string { return i.Name + "." + i.Incarnation }

// record is the file cluster.json: the region as this node last knew it. What it is called,
// its groups and services are fixed when it is started; members and placement follow meta.
type record struct {
	Version   int            `json:"version"`
	ClusterID string         `json:"clusterId"` // 32 hex digits
	Region    string         `json:"region"`
	Members   []recordMember `json:"members"`
	// Limiter and Index are the numbers of groups.
	Limiter int `json:"limiterGroups"`
	Index   int `json:"indexGroups"`
	// Services are what every node runs, sorted.
	Services []string `json:"services"`

	// Placement is where each group's voters belong. A record of version 1 has none: every
	// member then votes in every group.
	Placement []recordGroup `json:"placement,omitempty"`
	// NodesVersion and PlacementVersion are those of the tables in meta that members and
	// placement come from; 0 while they are as the region was started.
	NodesVersion     uint32 `json:"nodesVersion,omitempty"`
	PlacementVersion uint32 `json:"placementVersion,omitempty"`
	// Level is a protocol level that every member is known to speak; 0 says nothing.
	Level int `json:"level,omitempty"`
}

type recordMember struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	API     string `json:"api"`
}

type recordGroup struct {
	Name string `json:"name"`
	// Voters are replica ids, the preferred leader first.
	Voters []string `json:"voters"`
}

const (
	// recordFirst is what builds of the first level read and write, recordVersion this one's.
	recordFirst   = 1
	recordVersion = 2
	identityFile  = "node.json"
	recordFile    = "cluster.json"
)

// openIdentity reads the data folder's identity or creates folder and identity.
func openIdentity(dir, name string) (identity, error) {
	var id identity
	ok, err := readJSON(filepath.Join(dir, identityFile), &id)
	if err != nil {
		return identity{}, err
	}
	if ok {
		if id.Name != name {
			return identity{}, fmt.Errorf("node: the data folder %s belongs to node %q, the configuration says %q; use the right folder, or an empty one", dir, id.Name, name)
		}
		return id, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return identity{}, fmt.Errorf("node: data folder: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return identity{}, fmt.Errorf("node: data folder: %w", err)
	}
	for _, e := range left {
		if e.Name() == "state" || e.Name() == "raft" || e.Name() == recordFile {
			return identity{}, fmt.Errorf("node: the data folder %s holds %s but no %s: it is damaged; restore it, or empty it to join as a new node", dir, e.Name(), identityFile)
		}
	}
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		return identity{}, fmt.Errorf("node: incarnation: %w", err)
	}
	id = identity{Name: name, Incarnation: hex.EncodeToString(b)}
	return id, writeJSON(filepath.Join(dir, identityFile), id)
}

// member finds this folder's entry in the record.
func (r *record) member(id string) *recordMember {
	for i := range r.Members {
		if r.Members[i].ID == id {
			return &r.Members[i]
		}
	}
	return nil
}

func (r *record) has(name string) bool {
	for _, m := range r.Members {
		if m.Name == name {
			return true
		}
	}
	return false
}

func (r *record) cluster() (raftfsm.ClusterID, error) {
	b, err := hex.DecodeString(r.ClusterID)
	if err != nil || len(b) != len(raftfsm.ClusterID{}) {
		return raftfsm.ClusterID{}, fmt.Errorf("node: %s: clusterId %q is not 32 hex digits", recordFile, r.ClusterID)
	}
	return raftfsm.ClusterID(b), nil
}

// check compares the record with the configuration: what was fixed at the start of the
// region cannot be configured away.
func (r *record) check(c Config, self string) error {
	m := r.member(self)
	switch {
	case r.Version != recordFirst && r.Version != recordVersion:
		return fmt.Errorf("node: %s has version %d, this build knows %d", recordFile, r.Version, recordVersion)
	case m == nil:
		return fmt.Errorf("node: %s does not list this node %s; the data folder is not of this cluster", recordFile, self)
	case r.Region != c.Region:
		return fmt.Errorf("node: the data is of region %q, the configuration says %q", r.Region, c.Region)
	case r.Limiter != c.Groups.Limiter || r.Index != c.Groups.Index:
		return fmt.Errorf("node: the region was started with %d limiter and %d index groups, the configuration says %d and %d; "+
			"the numbers are fixed for the region's life", r.Limiter, r.Index, c.Groups.Limiter, c.Groups.Index)
	}
	if run := slices.Sorted(slices.Values(c.Services)); !slices.Equal(r.Services, run) {
		return fmt.Errorf("node: the region was started with the services %v, the configuration says %v; every node runs the same", r.Services, run)
	}
	if r.NodesVersion > 0 {
		return nil // nodes come, go and move; the seeds only have to lead to some of them
	}
	for _, s := range c.Seeds {
		for _, m := range r.Members {
			if m.Name == s.Name && (m.Cluster != s.Cluster || m.API != s.API) {
				return fmt.Errorf("node: seed %s is at %s (API %s) in the configuration, but the region was started with %s (API %s)",
					s.Name, s.Cluster, s.API, m.Cluster, m.API)
			}
		}
	}
	return nil
}

// with is the record brought to what meta says.
func (r *record) with(m meta.Membership) *record {
	next := *r
	next.Version, next.NodesVersion, next.PlacementVersion = recordVersion, m.NodesVersion, m.PlacementVersion
	next.Members, next.Placement = nil, nil
	for _, n := range m.Sorted() {
		next.Members = append(next.Members, recordMember{ID: n.ID, Name: n.Name, Cluster: n.Cluster, API: n.API})
	}
	for _, p := range byGroup(m.Groups, groupNames(r)) {
		next.Placement = append(next.Placement, recordGroup{Name: p.Group, Voters: p.Voters})
	}
	return &next
}

// membership is what the record says of members and placement; the tables of meta begin with it.
func (r *record) membership() meta.Membership {
	m := meta.Membership{Nodes: map[string]meta.Node{}, Groups: map[string]meta.Placement{}}
	for _, n := range r.Members {
		m.Nodes[n.ID] = meta.Node{ID: n.ID, Name: n.Name, Cluster: n.Cluster, API: n.API, State: meta.NodeActive}
	}
	for _, g := range r.Placement {
		m.Groups[g.Name] = meta.Placement{Group: g.Name, Voters: g.Voters}
	}
	if len(m.Groups) == 0 {
		for _, p := range spread(slices.Collect(maps.Keys(m.Nodes)), groupNames(r)) {
			m.Groups[p.Group] = p
		}
	}
	return m
}

func readJSON(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("node: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return false, fmt.Errorf("node: %s is damaged or newer than this build: %w", path, err)
	}
	return true, nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return raftfsm.WriteFile(path, append(b, '\n'))
}
