package devregion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const readyPoll = 25 * time.Millisecond

// WaitReady returns when every node says that it can serve.
func (r *Region) WaitReady(ctx context.Context) error {
	httpClient := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	defer httpClient.CloseIdleConnections()
	for _, n := range r.State().Regions[0].Nodes {
		for {
			err := askReady(ctx, httpClient, n.Admin+"/readyz")
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %s: %w", ErrStart, n.ID, err)
			case <-time.After(readyPoll):
			}
		}
	}
	return nil
}

func askReady(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

// failWhenNodesDoNotStay ends the context when a node exits again and again.
func (r *Region) failWhenNodesDoNotStay(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	for _, n := range r.nodes {
		go func() {
			select {
			case <-n.broken:
				cancel(n.failure())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(context.Canceled) }
}

// withNodeFailure prefers the reason why a node does not stay to what followed from it.
func (r *Region) withNodeFailure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, ErrStart) {
		return cause
	}
	return err
}
