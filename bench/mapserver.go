package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	limiterclient "github.com/maestro-conductor/maestro/limiter/client"
)

// mapPath is the procedure of the yardstick.
const mapPath = "/bench.Map/Check"

// mapHandler counts checks in a map under a mutex and allows them all.
func mapHandler() http.Handler {
	var mu sync.Mutex
	counts := map[string]uint64{}
	return connect.NewBidiStreamHandler(mapPath, func(_ context.Context, stream *connect.BidiStream[limiterv1.CheckBatchRequest, limiterv1.CheckBatchResponse]) error {
		for {
			m, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			all := make([]limiterv1.CheckResult, len(m.GetChecks()))
			res := &limiterv1.CheckBatchResponse{Results: make([]*limiterv1.CheckResult, len(all))}
			mu.Lock()
			for i, c := range m.GetChecks() {
				counts[c.GetTenant()+"/"+c.GetKey()] += uint64(c.GetCost())
				all[i].Decision = &limiterv1.CheckResponse{Allow: true}
				res.Results[i] = &all[i]
			}
			mu.Unlock()
			if err := stream.Send(res); err != nil {
				return err
			}
		}
	}, connect.WithCompressMinBytes(64<<20))
}

// mapClient asks a mapHandler, one message after the other on each of a few streams.
type mapClient struct {
	client *client.Client
	free   chan *mapStream
}

type mapStream = connect.BidiStreamForClient[limiterv1.CheckBatchRequest, limiterv1.CheckBatchResponse]

func (b *bench) dialMap(ctx context.Context, endpoint string) (*mapClient, error) {
	clients, err := b.noopClients(1, endpoint)
	if err != nil {
		return nil, err
	}
	c := &mapClient{client: clients[0], free: make(chan *mapStream, streamWorkers)}
	caller := connect.NewClient[limiterv1.CheckBatchRequest, limiterv1.CheckBatchResponse](c.client.HTTP(), endpoint+mapPath)
	for range streamWorkers {
		c.free <- caller.CallBidiStream(ctx)
	}
	return c, nil
}

func (c *mapClient) decide(_ context.Context, _ int, batch []limiterclient.Request) ([]limiterclient.Answer, error) {
	s := <-c.free
	defer func() { c.free <- s }()
	if err := s.Send(batchMessage(batch)); err != nil {
		return nil, err
	}
	m, err := s.Receive()
	if err != nil {
		return nil, err
	}
	return batchAnswers(m), nil
}

func (c *mapClient) close() {
	for range streamWorkers {
		s := <-c.free
		_ = s.CloseRequest()
		_ = s.CloseResponse()
	}
}
