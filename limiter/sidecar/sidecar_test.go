package sidecar

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What other machines could reach is refused.
func TestListenOnlyOnLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:80", "[::]:0", "example.com:80"} {
		if _, err := Listen(address); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v", address, err)
		}
	}
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
}

// A socket that a process left behind is replaced, and one that is served is not.
func TestListenSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.sock")
	first, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenSocket(path); err == nil {
		t.Error("took the socket of another process")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = first.Close()
	second, err := ListenSocket(path)
	if err != nil {
		t.Fatalf("a socket that was left: %v", err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	served := make(chan error, 1)
	go func() { served <- http.Serve(second, http.NotFoundHandler()) }()
	resp, err := c.Get("http://sidecar/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	_ = second.Close()
	<-served
}
