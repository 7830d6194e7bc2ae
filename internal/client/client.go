// Package client talks to a region: Connect clients over HTTP/2 and TLS that know several
// endpoints, stay with the one that answers, and move on when it does not.
//
// A call that certainly did nothing is tried again on the next endpoint until the context
// ends. A call whose outcome is unknown is tried again only when doing it twice is the same
// as doing it once: reads, ingest, and writes that carry a request id. Every failed call
// returns an *Error.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

const (
	// dialTimeout bounds one attempt to connect, TLS included: a region's nodes answer in
	// milliseconds, or another one should be asked.
	dialTimeout = time.Second
	// pingAfter and pingTimeout notice a node that holds the connection but has stopped.
	pingAfter   = time.Second
	pingTimeout = time.Second
	// Between rounds over all endpoints the client waits a random time in this range.
	backoffMin = 50 * time.Millisecond
	backoffMax = 250 * time.Millisecond
)

// ErrOptions marks options that no client can be made from.
var ErrOptions = errors.New("client: options")

// Options say where a region is and who calls.
type Options struct {
	// Endpoints are the nodes' API addresses, https://HOST:PORT, at least one.
	Endpoints []string
	// CAFile is the PEM file of the authority that signed the nodes' certificates; empty
	// trusts what the system trusts.
	CAFile string
	// Token is the API token; empty calls without one.
	Token string
	// CertFile and KeyFile are a client certificate, such as the administrator's; both or
	// neither.
	CertFile, KeyFile string
}

// Client holds the connections to one region. It is safe for concurrent use.
type Client struct {
	endpoints []*url.URL
	token     string
	transport *http.Transport
	// current is the index of the endpoint that answered last.
	current atomic.Int64
}

// New makes a client; it does not connect yet.
func New(o Options) (*Client, error) {
	c := &Client{token: o.Token}
	if len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("%w: no endpoint; give at least one, such as https://127.0.0.1:7400", ErrOptions)
	}
	for _, e := range o.Endpoints {
		u, err := parseEndpoint(e)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, u)
	}
	if strings.ContainsAny(o.Token, "\r\n\x00") {
		return nil, fmt.Errorf("%w: the token holds a line break; it is one word", ErrOptions)
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	c.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	return c, nil
}

// Limiter calls mc.limiter.v1.Limiter.
func (c *Client) Limiter() limiterv1connect.LimiterClient {
	return limiterv1connect.NewLimiterClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Provenance calls mc.provenance.v1.Provenance.
func (c *Client) Provenance() provenancev1connect.ProvenanceClient {
	return provenancev1connect.NewProvenanceClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Packages calls mc.packages.v1.Packages.
func (c *Client) Packages() packagesv1connect.PackagesClient {
	return packagesv1connect.NewPackagesClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Cluster calls mc.cluster.v1.Cluster.
func (c *Client) Cluster() clusterv1connect.ClusterClient {
	return clusterv1connect.NewClusterClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Tokens calls mc.cluster.v1.Tokens.
func (c *Client) Tokens() clusterv1connect.TokensClient {
	return clusterv1connect.NewTokensClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Backups calls mc.cluster.v1.Backups.
func (c *Client) Backups() clusterv1connect.BackupsClient {
	return clusterv1connect.NewBackupsClient(c.httpClient(), c.base(), connect.WithInterceptors(c))
}

// Close ends idle connections. Calls under way go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Endpoint is the endpoint that the next call goes to first.
func (c *Client) Endpoint() string { return c.endpoints[c.current.Load()].String() }

func (c *Client) base() string { return c.endpoints[0].String() }

// HTTP is a client for calls that the others are no clients for; it goes where the call says.
func (c *Client) HTTP() *http.Client { return c.httpClient() }

func (c *Client) httpClient() *http.Client {
	return &http.Client{
		Transport: roundTripper{c.transport},
		// A node never redirects; following one would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// moveOn makes the endpoint after index the current one, unless another call did already.
func (c *Client) moveOn(index int64) {
	c.current.CompareAndSwap(index, (index+1)%int64(len(c.endpoints)))
}

func parseEndpoint(e string) (*url.URL, error) {
	u, err := url.Parse(e)
	if err != nil {
		return nil, fmt.Errorf("%w: endpoint %q: %w", ErrOptions, e, err)
	}
	if u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%w: endpoint %q; write https://HOST:PORT (nodes speak TLS only)", ErrOptions, e)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.CAFile != "" {
		data, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: CA file: %w", ErrOptions, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%w: CA file %s holds no PEM certificate", ErrOptions, o.CAFile)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, fmt.Errorf("%w: a client certificate needs both its file and its key's file", ErrOptions)
	}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: client certificate: %w", ErrOptions, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

var _ connect.Interceptor = (*Client)(nil)

// WrapUnary adds the token and failover to a call.
func (c *Client) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c.authorize(req.Header())
		return c.callWithFailover(ctx, req, next)
	}
}

// WrapStreamingClient adds the token and sends the stream to the endpoint that its context is
// pinned to, or else to the current one. Streams do not fail over: only the caller knows what has
// been acknowledged.
func (c *Client) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		if _, pinned := ctx.Value(attemptKey{}).(*attempt); !pinned {
			ctx, _ = c.Pin(ctx)
		}
		conn := next(ctx, spec)
		c.authorize(conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler does nothing: this is the client's side.
func (c *Client) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (c *Client) authorize(h http.Header) {
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
}
