package devregion

import (
	"context"
	"net/http"
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
	node := r.nodeState(len(r.State().Regions[0].Nodes), address(ports[0]), address(ports[1]), address(ports[2]))
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
