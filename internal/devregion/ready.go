package devregion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const readyPoll = 25 * time.Millisecond

// WaitReady returns when every node says that it can serve, spare ones left out.
func (r *Region) WaitReady(ctx context.Context) error {
	httpClient := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	defer httpClient.CloseIdleConnections()
	for _, n := range r.State().Regions[0].Nodes {
		if n.Spare {
			continue
		}
		if err := awaitOK(ctx, httpClient, n.ID, n.Admin+"/readyz"); err != nil {
			return err
		}
	}
	return nil
}

// awaitOK returns when the node answers with 200.
func awaitOK(ctx context.Context, c *http.Client, node, url string) error {
	for {
		err := askReady(ctx, c, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w", ErrStart, node, err)
		case <-time.After(readyPoll):
		}
	}
}

// waitAdmitted returns when every node knows the administrator's token, which is committed
// before every node has applied it.
func (r *Region) waitAdmitted(ctx context.Context) error {
	region := r.Context()
	token, err := region.ReadToken()
	if err != nil {
		return err
	}
	for _, endpoint := range region.Endpoints {
		c, err := client.New(client.Options{Endpoints: []string{endpoint}, CAFile: region.CA, Token: token})
		if err != nil {
			return err
		}
		err = awaitAdmission(ctx, c)
		c.Close()
		if err != nil {
			return fmt.Errorf("%w: the admin token in %s is not good for %s: %w", ErrStart, r.TokenFile(), endpoint, err)
		}
	}
	return nil
}

func awaitAdmission(ctx context.Context, c *client.Client) error {
	for {
		_, err := c.Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
		var e *client.Error
		if !errors.As(err, &e) || e.Reason != "token_unknown" {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(readyPoll):
		}
	}
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
