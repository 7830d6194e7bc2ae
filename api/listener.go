package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// NewServer is an HTTP server for the API port with bounds on everything a connection can
// ask for. Its listener must be served with TLS; a client that speaks plain HTTP to it gets
// status 400 with a text that says so. tlsConfig holds the node's certificate; to admit the
// administrator's certificate it has the cluster's CA in ClientCAs and ClientAuth
// tls.VerifyClientCertIfGiven.
func NewServer(handler http.Handler, tlsConfig *tls.Config, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:   handler,
		TLSConfig: tlsConfig,
		// Longer than any header or body that fits the limits takes on a slow line. Streams
		// set their own for each message.
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxConcurrentStreams,
			// A client that vanished without a word holds its streams until a ping fails.
			SendPingTimeout:  30 * time.Second,
			PingTimeout:      15 * time.Second,
			WriteByteTimeout: 30 * time.Second,
		},
	}
}

type drainKey struct{}

// drainOf is done once the server that carries ctx drains.
func drainOf(ctx context.Context) context.Context {
	if drain, ok := ctx.Value(drainKey{}).(context.Context); ok {
		return drain
	}
	return context.Background()
}

// Serve answers requests on ln until ctx is done. Then it takes no more of them, lets those
// under way end, and returns nil; what has not ended after ten seconds is cut off.
func Serve(ctx context.Context, ln net.Listener, tlsConfig *tls.Config, handler http.Handler, logger *slog.Logger) error {
	srv := NewServer(handler, tlsConfig, logger)
	// Requests outlive ctx: only streams, which have no end of their own, watch the drain.
	base := context.WithValue(context.WithoutCancel(ctx), drainKey{}, ctx)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(base, drainTimeout)
		defer cancel()
		err := srv.Shutdown(limit)
		if errors.Is(err, context.DeadlineExceeded) {
			logger.Warn("api requests were cut off", "after", drainTimeout)
			err = srv.Close()
		}
		drained <- err
	})
	err := srv.ServeTLS(netutil.LimitListener(ln, maxConnections), "", "")
	if stop() { // ctx is not done: the listener failed
		return errors.Join(fmt.Errorf("api: serve %s: %w", ln.Addr(), err), srv.Close())
	}
	if err := <-drained; err != nil {
		return fmt.Errorf("api: drain: %w", err)
	}
	return nil
}
