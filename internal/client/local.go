package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"
)

// NewLocal makes a client of a process on this machine that speaks without encryption, such as a sidecar:
// at HOST:PORT of the loopback interface, or at the path of a Unix socket. It does not connect yet.
func NewLocal(address string) (*Client, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	network, host := "unix", "localhost"
	if !filepath.IsAbs(address) {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !at.Addr().IsLoopback() {
			return nil, fmt.Errorf("%w: address %q; write HOST:PORT of the loopback interface such as 127.0.0.1:7480, or the absolute path of a socket", ErrOptions, address)
		}
		network, host = "tcp", address
	}
	c := &Client{endpoints: []*url.URL{{Scheme: "http", Host: host}}}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	c.transport.Protocols.SetUnencryptedHTTP2(true)
	return c, nil
}
