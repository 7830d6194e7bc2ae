package devregion

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/maestro-conductor/maestro/internal/client"
)

// State is the content of DIR/dev.json: what runs where. Scripts read it; fields are only
// added. It is replaced as a whole at every change.
type State struct {
	CA        string        `json:"ca"`
	TokenFile string        `json:"token_file"`
	Regions   []RegionState `json:"regions"`
	// ConfigDir is what --config-dir of the CLI takes to talk to the region.
	ConfigDir string `json:"config_dir"`
	// Created is when the folder was laid out; the sample content is dated by it.
	Created time.Time `json:"created"`
}

// RegionState is one region.
type RegionState struct {
	Name string `json:"name"`
	// ClusterID is empty until the region was initialised.
	ClusterID string      `json:"cluster_id"`
	Nodes     []NodeState `json:"nodes"`
}

// NodeState is one node.
type NodeState struct {
	ID string `json:"id"`
	// PID is the running process; 0 while there is none.
	PID int `json:"pid"`
	// API and Admin are base URLs; Cluster is HOST:PORT.
	API     string `json:"api"`
	Admin   string `json:"admin"`
	Cluster string `json:"cluster"`
	// Spare nodes were started after the region, to be added to it.
	Spare bool `json:"spare,omitempty"`
	// Data is the node's data folder, Log the file of its log.
	Data string `json:"data"`
	Log  string `json:"log"`
}

// StatePath is the state's file in a region's folder.
func StatePath(dir string) string { return filepath.Join(dir, "dev.json") }

// ReadState reads the state of the region in dir.
func ReadState(dir string) (State, error) {
	var s State
	data, err := os.ReadFile(StatePath(dir))
	if err != nil {
		return s, fmt.Errorf("devregion: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("devregion: %s: %w", StatePath(dir), err)
	}
	return s, nil
}

// State returns what runs where at this moment.
func (r *Region) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Regions = append([]RegionState(nil), s.Regions...)
	for i := range s.Regions {
		s.Regions[i].Nodes = append([]NodeState(nil), s.Regions[i].Nodes...)
	}
	return s
}

func (r *Region) setPID(node string, pid int) error {
	return r.change(func(s *RegionState) {
		for i := range s.Nodes {
			if s.Nodes[i].ID == node {
				s.Nodes[i].PID = pid
			}
		}
	})
}

func (r *Region) setClusterID(id string) error {
	return r.change(func(s *RegionState) { s.ClusterID = id })
}

func (r *Region) change(f func(*RegionState)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.state.Regions[0])
	return r.writeState()
}

// writeState stores the state; the caller holds mu or is alone.
func (r *Region) writeState() error {
	data, err := json.MarshalIndent(r.state, "", "  ")
	if err != nil {
		return fmt.Errorf("devregion: %w", err)
	}
	if err := client.WriteFile(StatePath(r.opts.Dir), append(data, '\n')); err != nil {
		return fmt.Errorf("devregion: %w", err)
	}
	return nil
}

// lockFolder takes the folder for this process; the lock ends with the process.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devregion: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: a region runs in %s already; stop it, or choose another --dir", ErrInUse, dir)
		}
		return nil, fmt.Errorf("devregion: lock %s: %w", dir, err)
	}
	return f, nil
}

// readExisting returns the state of an earlier start, and false when there was none.
func readExisting(dir string) (State, bool, error) {
	s, err := ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, false, nil
	}
	if err == nil && (len(s.Regions) != 1 || len(s.Regions[0].Nodes) == 0) {
		err = fmt.Errorf("devregion: %s does not describe one region; choose another --dir", StatePath(dir))
	}
	return s, true, err
}
