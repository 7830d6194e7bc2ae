package devregion

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
)

const loopback = "127.0.0.1"

// layOut decides names, ports and folders, or takes over those of an earlier start, and
// makes sure that the ports are free.
func (r *Region) layOut() error {
	earlier, found, err := readExisting(r.opts.Dir)
	if err != nil {
		return err
	}
	if found {
		err = r.takeOver(earlier)
	} else {
		err = r.layOutNew()
	}
	if err != nil {
		return err
	}
	for _, n := range r.state.Regions[0].Nodes {
		for _, address := range []string{hostPort(n.API), n.Cluster, hostPort(n.Admin)} {
			ln, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%w: %s of %s: %w; stop what uses it, or start elsewhere with --dir and --port-base 0", ErrPort, address, n.ID, err)
			}
			_ = ln.Close()
		}
	}
	return r.writeState()
}

func (r *Region) takeOver(earlier State) error {
	region := earlier.Regions[0]
	if region.Name != r.opts.Name {
		return fmt.Errorf("%w: %s holds the region %q, not %q; choose another --dir", ErrStart, r.opts.Dir, region.Name, r.opts.Name)
	}
	first := "https://" + address(r.opts.PortBase)
	if r.opts.PortBase != 0 && region.Nodes[0].API != first {
		return fmt.Errorf("%w: the region in %s keeps its ports, from %s; leave --port-base out, or choose another --dir", ErrStart, r.opts.Dir, region.Nodes[0].API)
	}
	r.state = r.newState(earlier.Created)
	r.state.Regions[0].ClusterID = region.ClusterID
	seeds := 0
	for _, n := range region.Nodes {
		node := r.nodeState(n.ID, hostPort(n.API), n.Cluster, hostPort(n.Admin))
		if node.Spare = n.Spare; !n.Spare {
			seeds++
		}
		r.state.Regions[0].Nodes = append(r.state.Regions[0].Nodes, node)
	}
	if r.opts.Nodes != 0 && r.opts.Nodes != seeds {
		return fmt.Errorf("%w: the region in %s was started with %d nodes; leave --nodes out, or choose another --dir", ErrStart, r.opts.Dir, seeds)
	}
	return nil
}

func (r *Region) layOutNew() error {
	r.state = r.newState(time.Now().UTC().Truncate(time.Second))
	nodes := r.opts.Nodes
	if nodes == 0 {
		nodes = defaultNodes
	}
	if nodes != 1 && nodes != 3 && nodes != 5 {
		return fmt.Errorf("%w: --nodes %d; a region starts with 1, 3 or 5", ErrStart, nodes)
	}
	ports, err := choosePorts(r.opts.PortBase, nodes)
	if err != nil {
		return err
	}
	for i := range nodes {
		r.state.Regions[0].Nodes = append(r.state.Regions[0].Nodes,
			r.nodeState(nodeID(i+1), address(ports[3*i]), address(ports[3*i+1]), address(ports[3*i+2])))
	}
	return nil
}

func (r *Region) newState(created time.Time) State {
	return State{
		CA: certs.CAPath(r.certsDir()), TokenFile: r.TokenFile(), ConfigDir: r.opts.Dir, Created: created,
		Regions: []RegionState{{Name: r.opts.Name}},
	}
}

func nodeID(number int) string { return "node-" + strconv.Itoa(number) }

func (r *Region) nodeState(id, api, cluster, admin string) NodeState {
	return NodeState{
		ID: id, API: "https://" + api, Cluster: cluster, Admin: "http://" + admin,
		Data: filepath.Join(r.nodeDir(id), "data"), Log: filepath.Join(r.nodeDir(id), "log"),
	}
}

// choosePorts returns the API, cluster and admin port of each node.
func choosePorts(base, nodeCount int) ([]int, error) {
	var ports []int
	if base != 0 {
		if base < 1 || base+10*nodeCount > 65535 {
			return nil, fmt.Errorf("%w: --port-base %d; it must be 1 to %d, or 0 for free ports", ErrPort, base, 65535-10*nodeCount)
		}
		for i := range nodeCount {
			ports = append(ports, base+10*i, base+10*i+1, base+10*i+2)
		}
		return ports, nil
	}
	// From below the range that systems take outgoing ports from: one of those could be in use
	// when a node starts again.
	var err error
	for range 100 * nodeCount {
		port := 10_000 + rand.IntN(20_000)
		var ln net.Listener
		if ln, err = net.Listen("tcp", address(port)); err != nil {
			continue
		}
		defer ln.Close() // only once all are chosen, so that they differ
		if ports = append(ports, port); len(ports) == 3*nodeCount {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("%w: no free port: %w", ErrPort, err)
}

// makeCertificates creates what is missing.
func (r *Region) makeCertificates() error {
	dir := r.certsDir()
	if err := certs.CreateCA(dir); err != nil && !errors.Is(err, certs.ErrExists) {
		return err
	}
	if !certs.AdminPaths(dir).Exists() {
		if err := certs.IssueAdmin(dir); err != nil {
			return err
		}
	}
	if err := disposition.Create(dir); err != nil && !errors.Is(err, disposition.ErrExists) {
		return err
	}
	for _, n := range r.State().Regions[0].Nodes {
		if certs.NodePaths(dir, n.ID).Exists() {
			continue
		}
		if err := certs.IssueNode(dir, n.ID, []string{loopback, "::1", "localhost"}); err != nil {
			return err
		}
	}
	return nil
}

// nodeFile is node.yaml; package node reads it and documents its keys.
type nodeFile struct {
	Name    string            `yaml:"name"`
	Region  string            `yaml:"region"`
	DataDir string            `yaml:"data_dir"`
	API     map[string]string `yaml:"api"`
	Cluster map[string]string `yaml:"cluster"`
	Admin   map[string]string `yaml:"admin"`
	Seeds   []seedEntry       `yaml:"seeds"`
	TLS     map[string]string `yaml:"tls"`
	Disk    map[string]uint64 `yaml:"disk,omitempty"`
	Envoy   string            `yaml:"envoy_mapping,omitempty"`
	Key     string            `yaml:"disposition_key,omitempty"`
}

type seedEntry struct {
	Name    string `yaml:"name"`
	Cluster string `yaml:"cluster"`
	API     string `yaml:"api"`
}

// writeConfigs writes every node's node.yaml anew, so that a moved folder still works.
func (r *Region) writeConfigs() error {
	region := r.State().Regions[0]
	var seeds []seedEntry
	for _, n := range region.Nodes {
		if !n.Spare {
			seeds = append(seeds, seedEntry{n.ID, n.Cluster, hostPort(n.API)})
		}
	}
	for _, n := range region.Nodes {
		p := certs.NodePaths(r.certsDir(), n.ID)
		file := nodeFile{
			Name: n.ID, Region: region.Name, DataDir: n.Data, Seeds: seeds,
			API:     map[string]string{"listen": hostPort(n.API), "advertise": hostPort(n.API)},
			Cluster: map[string]string{"listen": n.Cluster, "advertise": n.Cluster},
			Admin:   map[string]string{"listen": hostPort(n.Admin)},
			TLS:     map[string]string{"ca": certs.CAPath(r.certsDir()), "cert": p.Cert, "key": p.Key},
			Envoy:   r.opts.EnvoyMapping,
		}
		if !r.opts.Earlier {
			// A developer's disk is often nearly full, and holds three nodes.
			file.Key = filepath.Join(r.certsDir(), disposition.KeyName)
			file.Disk = map[string]uint64{"ballast_bytes": 0, "low_bytes": 128 << 20}
		}
		data, err := yaml.Marshal(file)
		if err != nil {
			return fmt.Errorf("devregion: %w", err)
		}
		if err := os.MkdirAll(r.nodeDir(n.ID), 0o700); err != nil {
			return fmt.Errorf("devregion: %w", err)
		}
		if err := client.WriteFile(filepath.Join(r.nodeDir(n.ID), "node.yaml"), data); err != nil {
			return fmt.Errorf("devregion: %w", err)
		}
	}
	return nil
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

func hostPort(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}
