package devregion

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"time"
)

// StartSpare starts one more node, with an empty data folder, and returns when it answers. It is
// no member: `maestro cluster add` makes it one, at its Cluster address. It is kept as the others
// are, also over a new start of the region, but nothing here waits for it or talks to it. Not for
// use by several goroutines, or beside Signal, Hold and Stop.
func (r *Region) StartSpare(ctx context.Context) (NodeState, error) {
	ports, err := choosePorts(0, 1)
	if err != nil {
		return NodeState{}, err
	}
	id, err := r.freeID()
	if err != nil {
		return NodeState{}, err
	}
	node := r.nodeState(id, address(ports[0]), address(ports[1]), address(ports[2]))
	node.Spare = true
	if err := r.change(func(s *RegionState) { s.Nodes = append(s.Nodes, node) }); err != nil {
		return NodeState{}, err
	}
	for _, step := range []func() error{r.makeCertificates, r.writeConfigs} {
		if err := step(); err != nil {
			return NodeState{}, err
		}
	}
	r.run(node.ID)
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	return node, awaitOK(ctx, client, node.ID, node.Admin+"/healthz")
}

// Retire stops a node in order and for good, because the region has replaced it by successor, a
// spare. From now on successor counts as the others do, and what the region's clients are told is
// where it is. The folder of the one that has gone stays. For the goroutine that calls StartSpare.
func (r *Region) Retire(node, successor string) error {
	p, err := r.process(node)
	if err != nil {
		return err
	}
	if _, err := r.process(successor); err != nil {
		return err
	}
	p.stop()
	<-p.ended
	r.nodes = slices.DeleteFunc(r.nodes, func(other *process) bool { return other == p })
	if err := r.change(func(s *RegionState) {
		s.Nodes = slices.DeleteFunc(s.Nodes, func(n NodeState) bool { return n.ID == node })
		for i := range s.Nodes {
			s.Nodes[i].Spare = s.Nodes[i].Spare && s.Nodes[i].ID != successor
		}
	}); err != nil {
		return err
	}
	return errors.Join(r.writeConfigs(), r.saveContext())
}

// freeID is the name of the next node: none that has a folder, also not of one that has gone.
func (r *Region) freeID() (string, error) {
	for number := 1; ; number++ {
		_, err := os.Stat(r.nodeDir(nodeID(number)))
		if errors.Is(err, fs.ErrNotExist) {
			return nodeID(number), nil
		}
		if err != nil {
			return "", fmt.Errorf("devregion: %w", err)
		}
	}
}
