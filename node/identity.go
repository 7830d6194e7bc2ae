package node

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// identity is the file node.json: who this data folder belongs to. The incarnation is drawn
// when the folder is created, so that a node whose data is gone is another Raft server.
type identity struct {
	Name        string `json:"name"`
	Incarnation string `json:"incarnation"`
	// Started is set once the groups have run: from then on, missing logs are lost logs.
	Started bool `json:"started"`
}

func (i identity) id() string { return i.Name + "." + i.Incarnation }

// record is the file cluster.json: what the region's nodes agreed on when it was started.
// It never changes.
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
}

type recordMember struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	API     string `json:"api"`
}

const (
	recordVersion = 1
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

func (r *record) raftMembers() []raftfsm.Member {
	out := make([]raftfsm.Member, len(r.Members))
	for i, m := range r.Members {
		out[i] = raftfsm.Member{ID: m.ID, Name: m.Name, Address: m.Cluster}
	}
	return out
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
	case r.Version != recordVersion:
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
