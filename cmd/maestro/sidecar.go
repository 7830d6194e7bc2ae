package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/limiter/client"
	"github.com/maestro-conductor/maestro/limiter/sidecar"
)

func (a *app) sidecarCommand() *cobra.Command {
	var listen, socket, onFailure, tenant string
	cmd := &cobra.Command{
		Use:   "sidecar [--listen 127.0.0.1:PORT] [--socket PATH]",
		Short: "Serve checks on this machine from tokens that the region lends",
		Long: `Serve Check, CheckBatch and CheckStream to the processes of this machine, without encryption and under the identity of
the sidecar's token. Most checks are decided here, from tokens that the region has lent; no more passes
than the limits admit. While the region cannot be reached, what is lent is spent to its deadline, and then
--on-failure decides. /healthz, /readyz and /metrics are on the same addresses. It ends with SIGTERM, and
gives back what it holds.`,
		Example: `  maestro sidecar                                       # on 127.0.0.1:7480, to the context's region
  maestro sidecar --socket /run/maestro/limits.sock --listen "" --on-failure open
  maestro sidecar --endpoint https://node-1:7400 --endpoint https://node-2:7400 --ca ca.pem --token-file token
  curl -d '{"key":"export","cost":1}' -H 'Content-Type: application/json' \
    http://127.0.0.1:7480/mc.limiter.v1.Limiter/Check`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:7480", "loopback address; empty for none")
	f.StringVar(&socket, "socket", "", "path of a Unix socket")
	f.StringVar(&tenant, "tenant", "", "tenant of checks that name none (default: the context's, else the token's)")
	f.Var(&choice{&onFailure, []string{string(client.FailDeny), string(client.FailOpen)}}, "on-failure", "what becomes of checks that the region cannot decide: deny or open")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, err := a.context()
		if err != nil {
			return err
		}
		token, err := c.ReadToken()
		if err != nil {
			return err
		}
		if tenant == "" {
			tenant = c.Tenant
		}
		listeners, err := sidecarListeners(listen, socket)
		if err != nil {
			return err
		}
		l, err := client.NewLimiter(client.LimiterOptions{
			Options: client.Options{Endpoints: c.Endpoints, CAFile: c.CA, Token: token}, OnFailure: client.OnFailure(onFailure),
		})
		if err != nil {
			return errors.Join(err, closeAll(listeners))
		}
		for _, ln := range listeners {
			fmt.Fprintln(a.stderr, "serving checks on", ln.Addr())
		}
		return sidecar.Serve(ctx, l, tenant, listeners...)
	})
	return cmd
}

// sidecarListeners opens what the flags name.
func sidecarListeners(listen, socket string) (all []net.Listener, err error) {
	if listen == "" && socket == "" {
		return nil, usageError{errors.New("nothing to serve on; give --listen or --socket")}
	}
	if listen != "" {
		ln, err := sidecar.Listen(listen)
		if errors.Is(err, sidecar.ErrNotLoopback) {
			return nil, usageError{err}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, ln)
	}
	if socket != "" {
		ln, err := sidecar.ListenSocket(socket)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		all = append(all, ln)
	}
	return all, nil
}

func closeAll(listeners []net.Listener) (err error) {
	for _, ln := range listeners {
		err = errors.Join(err, ln.Close())
	}
	return err
}
